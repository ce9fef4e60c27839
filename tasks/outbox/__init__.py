# SPDX-License-Identifier: Apache-2.0
"""The outbox: messages of a commit, published until the broker has confirmed them."""
