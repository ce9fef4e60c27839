# SPDX-License-Identifier: Apache-2.0
"""The commands of `bookdrop`, a module per subject."""
