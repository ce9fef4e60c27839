# SPDX-License-Identifier: Apache-2.0
"""Flower with two additional pages: Prints and Returns, and the actions of operators on print jobs."""
