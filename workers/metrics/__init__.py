# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told: read from the database, the broker and the workers' heartbeats when it asks."""
