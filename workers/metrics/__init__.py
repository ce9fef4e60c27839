# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics: read from the database, the broker and the workers' heartbeats at each scrape."""
