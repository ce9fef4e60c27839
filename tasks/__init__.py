# SPDX-License-Identifier: Apache-2.0
"""What is done: the Return, the slip, the outbox, data in."""
