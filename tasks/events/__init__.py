# SPDX-License-Identifier: Apache-2.0
"""The path that every event takes through a worker: validate, deduplicate, handle, store, publish."""
