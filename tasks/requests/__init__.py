# SPDX-License-Identifier: Apache-2.0
"""Looking at requests: lists, and the story of one. Reads only; never a patron."""
