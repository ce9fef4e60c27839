# SPDX-License-Identifier: Apache-2.0
"""Data in: files of partners, patrons, requests, items and loans; and demo data."""
