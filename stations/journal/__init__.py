# SPDX-License-Identifier: Apache-2.0
"""The station's journal: every event on the station's own disk until its reply arrives."""
