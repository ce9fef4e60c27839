# SPDX-License-Identifier: Apache-2.0
"""The Celery application after an invalid setting."""

import pytest

from schemas.configuration import ConfigurationError
from schemas.topology import PRINT_SLIP
from tasks.printing import task
from workers.app import Application, celery_settings


def test_a_corrected_setting_makes_the_application_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first use failed with an invalid setting, the next one finds all tasks and the whole configuration."""
    application = Application("a test", set_as_current=False)
    application.add_defaults(celery_settings)
    monkeypatch.setenv("BOOKDROP_LOG_LEVEL", "loud")
    with pytest.raises(ConfigurationError):
        _ = application.tasks

    monkeypatch.delenv("BOOKDROP_LOG_LEVEL")

    assert application.tasks[PRINT_SLIP].name == task.print_slip.name
    assert application.conf.task_acks_late is True
