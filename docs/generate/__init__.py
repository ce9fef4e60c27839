# SPDX-License-Identifier: Apache-2.0
"""Generators of the reference pages, one module for each page. `make docs` runs them all."""
