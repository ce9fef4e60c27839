# SPDX-License-Identifier: Apache-2.0
"""No more of a reader is kept than is needed, and no longer."""
