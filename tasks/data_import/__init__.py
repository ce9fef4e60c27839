# SPDX-License-Identifier: Apache-2.0
"""Import of files with partners, patrons, requests, items and loans; and demo data."""
