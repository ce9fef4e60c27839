# SPDX-License-Identifier: Apache-2.0
"""The checks of `bookdrop doctor` and `bookdrop health ready`."""
