# SPDX-License-Identifier: Apache-2.0
"""The lending slip: what stands on it, how it is drawn, and how it reaches a printer."""
