# SPDX-License-Identifier: Apache-2.0
"""Workers and Flower in different time zones."""

import urllib.request

import pytest

from tests.flower import FlowerProcess, running
from tests.polling import wait_until

pytestmark = [pytest.mark.long, pytest.mark.databases("sqlite")]


@pytest.mark.brokers("redis", "rabbitmq")
@pytest.mark.parametrize(("worker", "flower"), [("Asia/Tokyo", "UTC"), ("UTC", "Asia/Kolkata")])
def test_worker_in_another_time_zone_has_no_clock_drift(deployment, library, worker, flower):
    """Its events have the time at which it sent them, and Flower logs no drift of its clock."""
    process = FlowerProcess(deployment, TZ=flower, FLOWER_UNAUTHENTICATED_API="true")

    def is_shown() -> bool:
        with urllib.request.urlopen(f"{process.url}/metrics", timeout=60) as page:
            return 'flower_worker_online{worker="returns@' in page.read().decode()

    with running(process), deployment.worker("returns", TZ=worker):
        wait_until(is_shown, "Flower has received heartbeats of the worker")

    assert "drift" not in process.log.read_text()
