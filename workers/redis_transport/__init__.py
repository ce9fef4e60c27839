# SPDX-License-Identifier: Apache-2.0
"""The atomic Redis transport: a crash between receive and acknowledgement loses no message."""
