# SPDX-License-Identifier: Apache-2.0
"""The commands of `bookdrop-station`, a module for each kind. What is heavy to load is loaded when a command runs."""
