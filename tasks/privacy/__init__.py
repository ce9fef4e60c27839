# SPDX-License-Identifier: Apache-2.0
"""Data minimisation: links to patrons are severed as soon as nothing needs them."""
