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


def test_an_interrupted_first_use_leaves_no_half_filled_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption while Celery fills the registry, such as a test's timeout, is followed by a complete one."""
    application = Application("a test", set_as_current=False)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(application.Task, "bind", classmethod(interrupt))
        with pytest.raises(KeyboardInterrupt):
            _ = application.tasks

    assert application.tasks[PRINT_SLIP].name == task.print_slip.name


def interrupt(*_: object) -> None:
    """Interrupt as a signal does."""
    raise KeyboardInterrupt
