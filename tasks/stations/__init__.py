# SPDX-License-Identifier: Apache-2.0
"""Administration of stations and of the keys with which they sign."""
