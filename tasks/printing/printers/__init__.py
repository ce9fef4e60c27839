# SPDX-License-Identifier: Apache-2.0
"""Printers, a module per kind: each a URI, each behind one interface."""
