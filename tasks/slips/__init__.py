# SPDX-License-Identifier: Apache-2.0
"""The lending slip on paper: layout, PDF and ZPL. Pure."""
