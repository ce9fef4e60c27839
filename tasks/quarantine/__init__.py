# SPDX-License-Identifier: Apache-2.0
"""Messages that could not be believed, read or done: gathered in one list, and decided about."""
