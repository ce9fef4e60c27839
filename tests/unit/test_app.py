# SPDX-License-Identifier: Apache-2.0
"""The Celery application: an invalid setting, and compressed messages."""

import zlib
from typing import Any

import pytest
from kombu import compression
from kombu.message import Message

from schemas.configuration import ConfigurationError
from schemas.topology import PRINT_SLIP
from tasks.printing import task
from workers.app import Application, app, celery_settings


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


@pytest.mark.parametrize("name", compression.encoders())
def test_configured_application_decompresses_nothing(name: str) -> None:
    """The constructor of kombu's message decompresses: with the application configured, the body stays as it came."""
    body: Any = zlib.compress(b"[" + b" " * 1_000_000)
    _ = app.conf.task_acks_late

    message = Message(body=body, headers={"compression": name}, content_type="application/json")

    assert message.errors
    assert message.body == body


def interrupt(*_: object) -> None:
    """Interrupt as a signal does."""
    raise KeyboardInterrupt
