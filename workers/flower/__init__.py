# SPDX-License-Identifier: Apache-2.0
"""Flower with bookdrop's own pages beside its Workers and Tasks: Prints and Returns, and what a person decides there."""
