# SPDX-License-Identifier: Apache-2.0
"""Everything on one machine: `bookdrop up`."""
