# SPDX-License-Identifier: Apache-2.0
"""Transport options for kombu: one delivery limit for both brokers."""

from schemas.topology import RETURNS_QUEUE, queue_arguments
from workers.broker_options import atomic_options


def test_delivery_limit_is_the_same_on_both_brokers():
    """A message that kills its workers becomes a dead letter after as many losses on Redis as on RabbitMQ."""
    assert atomic_options()["delivery_limit"] == queue_arguments(RETURNS_QUEUE)["x-delivery-limit"] == 20
