# SPDX-License-Identifier: Apache-2.0
"""Metrics of the worker processes: their definitions, and the recorder of each process."""
