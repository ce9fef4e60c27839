# SPDX-License-Identifier: Apache-2.0
"""The quarantine: rejected messages and dead letters in one table, and an operator's decisions about them."""
