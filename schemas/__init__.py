# SPDX-License-Identifier: Apache-2.0
"""Message types, names on the wire, settings, and database tables: what all programs share."""
