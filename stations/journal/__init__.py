# SPDX-License-Identifier: Apache-2.0
"""The station's journal: every scan on its own disk until the reply arrives."""
