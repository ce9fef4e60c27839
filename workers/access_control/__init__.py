# SPDX-License-Identifier: Apache-2.0
"""Broker users and their permissions, for Redis and for RabbitMQ."""
