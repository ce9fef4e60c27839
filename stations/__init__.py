# SPDX-License-Identifier: Apache-2.0
"""Who asks: a desk with a scanner, its journal, and the client that never loses a scan."""
