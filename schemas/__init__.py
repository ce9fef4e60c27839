# SPDX-License-Identifier: Apache-2.0
"""What is said and stored: message types, names on the wire, tables."""
