# SPDX-License-Identifier: Apache-2.0
"""How a task that takes too long is ended."""

from workers.app import celery_settings


def test_nothing_is_raised_amid_a_transaction():
    """There is a hard limit, whose end of the process lets go of every lock, and no soft one, which may keep them."""
    settings = celery_settings()

    assert settings["task_time_limit"] < settings["broker_transport_options"]["visibility_timeout"]
    assert "task_soft_time_limit" not in settings
