# SPDX-License-Identifier: Apache-2.0
"""Generators of the reference pages: `make docs` writes each page from the code it documents."""
