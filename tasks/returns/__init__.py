# SPDX-License-Identifier: Apache-2.0
"""The Return: from barcode-scanned events to one transaction and its replies."""
