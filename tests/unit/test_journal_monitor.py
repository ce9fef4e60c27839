# SPDX-License-Identifier: Apache-2.0
"""The monitor of a station's journal."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from stations import messages
from stations.journal import monitor
from stations.journal.events import Journal, JournalStats, NewEvent
from stations.journal.file import JournalLimits
from stations.journal.monitor import JournalMonitor, RepliesOverdue, WritesBlocked, WritesResumed

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
FOUR_HOURS = timedelta(hours=4)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "desk.journal", "main-desk-1")
    yield opened
    opened.close()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move the monitor's clock ahead."""
    clock = [0.0]
    monkeypatch.setattr(monitor, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def forward(seconds: float) -> None:
        clock[0] += seconds

    return forward


def test_blocked_and_resumed_writes_are_each_reported_once(journal: Journal, later: Callable[[float], None]) -> None:
    """A full disk is one notice, and its end another; nothing is polled again within five seconds."""
    watched = JournalMonitor(journal, FOUR_HOURS, lambda: NOW)

    journal.limits = JournalLimits(min_free_bytes=10**21)
    first, early = watched.poll(), watched.poll()
    later(6)
    again = watched.poll()
    journal.limits = JournalLimits()
    later(6)
    resumed = watched.poll()

    assert (len(first), early, again, resumed) == (1, [], [], [WritesResumed()])
    assert isinstance(first[0], WritesBlocked)
    assert "must stay free" in first[0].reason


def test_overdue_replies_are_reported_once_an_hour(journal: Journal, later: Callable[[float], None]) -> None:
    """An event without a reply for longer than the limit is one notice now and one an hour later."""
    made_at = NOW - timedelta(hours=5)
    journal.append(NewEvent("first", "a task", "A1", str), made_at, made_at)
    watched = JournalMonitor(journal, FOUR_HOURS, lambda: NOW)

    polled = [watched.poll()]
    for seconds in (6, 3600):
        later(seconds)
        polled.append(watched.poll())

    overdue = [RepliesOverdue(JournalStats(1, made_at, 0))]
    assert polled == [overdue, [], overdue]


@pytest.mark.parametrize(
    ("notice", "line"),
    [
        (WritesBlocked("The disk is full."), "NOTHING CAN BE TAKEN"),
        (WritesResumed(), "Scans are taken again."),
        (RepliesOverdue(JournalStats(7, NOW, 0)), f"NO REPLY SINCE {NOW.astimezone():%Y-%m-%d %H:%M}"),
    ],
)
def test_each_notice_has_its_screen_text(notice: monitor.JournalNotice, line: str) -> None:
    """The screen's module formats what the journal reports as a value."""
    assert messages.format_notice(notice).lines[0] == line
