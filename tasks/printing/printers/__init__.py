# SPDX-License-Identifier: Apache-2.0
"""Printer drivers: one module for each kind of printer, all with the protocol of `driver.py`."""
