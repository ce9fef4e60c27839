# SPDX-License-Identifier: Apache-2.0
"""Webhooks: signed messages about requests to the library's own systems, sent until they are acknowledged."""
