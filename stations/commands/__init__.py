# SPDX-License-Identifier: Apache-2.0
"""The commands of `bookdrop-station`, one module for each kind. Slow imports run only when their command runs."""
