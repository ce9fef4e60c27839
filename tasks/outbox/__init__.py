# SPDX-License-Identifier: Apache-2.0
"""The outbox: what a commit promised, published until it is out."""
