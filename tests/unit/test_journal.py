# SPDX-License-Identifier: Apache-2.0
"""A station's journal: events are stored before they are sent, and no fault of the disk loses one."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from schemas.replies import SlipNotice
from stations.journal.events import Entry, Journal, JournalStats, NewEvent
from stations.journal.file import JournalError, JournalLimits

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
CODE = "main-desk-1"
EVENT = "01a22000-0000-7000-8000-000000000001"
REFUSAL = '{"outcome": "refused", "reason": "unknown_barcode"}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "desk.journal"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    opened = Journal(path, CODE)
    yield opened
    opened.close()


def append(journal: Journal, name: str, now: datetime = NOW) -> Entry:
    event = NewEvent(name, "returns.process_scan", f"barcode of {name}", '{{"n": {}}}'.format)
    return journal.append(event, now, now + timedelta(seconds=3))


def after_minutes(attempts: int) -> timedelta:
    return timedelta(minutes=attempts)


def test_journal_is_readable_by_its_owner_only(journal: Journal, path: Path) -> None:
    """The file and its folder are closed to other users."""
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_due_event_is_claimed_by_one_process_until_its_retry(journal: Journal, path: Path) -> None:
    """Of two processes one claims an event that is due; it is due again after its retry interval."""
    append(journal, "first")
    other = Journal(path, CODE)

    early = journal.claim_due(NOW + timedelta(seconds=2), after_minutes)
    claimed = journal.claim_due(NOW + timedelta(seconds=3), after_minutes)
    nothing = other.claim_due(NOW + timedelta(seconds=3), after_minutes)
    again = other.claim_due(NOW + timedelta(seconds=3, minutes=2), after_minutes)
    other.close()

    assert (early, nothing) == ([], [])
    assert [entry.payload for entry in claimed] == [entry.payload for entry in again] == ['{"n": 1}']
    assert (claimed[0].attempts, again[0].attempts) == (2, 3)


def test_held_event_is_due_at_the_stated_time(journal: Journal) -> None:
    """An event that is held because the broker is unavailable does not wait for its whole retry interval."""
    append(journal, "first")
    journal.claim_due(NOW + timedelta(seconds=3), after_minutes)

    journal.hold(["first"], NOW + timedelta(seconds=5))

    assert [entry.event_id for entry in journal.claim_due(NOW + timedelta(seconds=5), after_minutes)] == ["first"]


def test_first_reply_closes_the_event_and_repeats_are_ignored(journal: Journal) -> None:
    """The same reply again, and a reply to an event of another station, are not new."""
    append(journal, "first")

    news = [journal.store_replies({event_id: "{}"}, NOW) for event_id in ("first", "first", "a stranger's")]

    [entry] = journal.recent()
    assert news == [[entry], [], []]
    assert journal.unanswered() == journal.claim_due(NOW + timedelta(days=1), after_minutes) == []
    assert (entry.reply, entry.answered_at) == ("{}", NOW)


def test_latest_slip_notice_replaces_the_previous_one(journal: Journal) -> None:
    """A notice with the same state is not new."""
    append(journal, EVENT)

    news = [
        journal.store_slip_notice(notice(*words), NOW)
        for words in (("sent", "Sent", 0), ("sent", "Sent", 1), ("done", "Printed", 2))
    ]

    assert [entry and entry.slip_message for entry in news] == ["Sent", None, "Printed"]
    [entry] = journal.recent()
    assert (entry.slip_state, entry.slip_message) == ("done", "Printed")


def test_copy_of_an_earlier_slip_notice_changes_nothing(journal: Journal, path: Path) -> None:
    """Each notice counts once, also after a restart, and while the clocks of two workers differ by some seconds."""
    append(journal, EVENT)
    waiting, sent, skewed = notice("held", "Waits", 0), notice("sent", "Sent", 5), notice("done", "Printed", 3)
    for each in (waiting, sent, skewed):
        assert journal.store_slip_notice(each, NOW) is not None
    journal.close()

    with closing(Journal(path, CODE)) as opened:
        copies = [opened.store_slip_notice(each, NOW) for each in (waiting, sent, skewed)]
        [entry] = opened.recent()

    assert copies == [None, None, None]
    assert (entry.slip_state, entry.slip_message) == ("done", "Printed")


def test_slip_notice_older_than_the_newest_one_changes_nothing(journal: Journal) -> None:
    """An old notice that never arrived is out of date; one from the future does not hide those that follow."""
    append(journal, EVENT)
    journal.store_slip_notice(notice("sent", "Sent", 86_400), NOW)

    late = journal.store_slip_notice(notice("held", "Waits", -61), NOW)
    news = journal.store_slip_notice(notice("done", "Printed", 10), NOW + timedelta(seconds=11))

    assert late is None
    assert news is not None
    assert news.slip_message == "Printed"


def notice(state: str, message: str, seconds: float) -> SlipNotice:
    """A notice about the slip of `EVENT`, so many seconds after `NOW`."""
    return SlipNotice(
        event_id=UUID(EVENT), job_id=UUID(int=1), state=state, message=message, at=NOW + timedelta(seconds=seconds)
    )


def test_prune_deletes_the_oldest_answered_events(journal: Journal) -> None:
    """Unanswered events stay, and sequence numbers are not reused."""
    for name in ("pending", "old", "new"):
        append(journal, name)
    journal.store_replies({"old": "{}", "new": "{}"}, NOW)

    gone = journal.prune(keep=1)

    assert gone == 1
    assert [entry.event_id for entry in journal.recent()] == ["pending", "new"]
    journal.prune(keep=0)
    assert append(journal, "next").sequence == 4


def test_failed_encoding_stores_nothing(journal: Journal) -> None:
    """An event that cannot be encoded is not stored, and the next one gets its number."""

    def fail(sequence: int) -> str:
        raise ValueError(sequence)

    with pytest.raises(ValueError, match="1"):
        journal.append(NewEvent("first", "t", "s", fail), NOW, NOW)

    assert append(journal, "first").sequence == 1


def test_file_that_is_not_a_database_is_refused_and_unchanged(path: Path) -> None:
    """The error contains the next step."""
    path.parent.mkdir()
    path.write_bytes(b"no database " * 1000)

    with pytest.raises(JournalError, match=r"Nothing was taken and nothing was sent; .*Move the damaged file aside"):
        Journal(path, CODE)

    assert path.read_bytes().startswith(b"no database")


def test_damage_past_the_header_is_detected_on_opening(path: Path) -> None:
    """The journal does not open; the damage is not found only at a later scan."""
    journal = Journal(path, CODE)
    for number in range(200):
        append(journal, f"event {number}")
    journal.close()
    content = bytearray(path.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    path.write_bytes(content)

    with pytest.raises(JournalError, match="Nothing was taken"):
        Journal(path, CODE)


def test_full_disk_refuses_the_scan_and_keeps_stored_events(journal: Journal) -> None:
    """The error contains the next step, and with free space the next scan is stored."""
    append(journal, "first")
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(JournalError, match=r"Not taken; nothing was sent; .*full.*Free some disk space"):
        journal.append(NewEvent("big", "t", "s", lambda _: "x" * 100_000), NOW, NOW)

    journal._connection.execute("PRAGMA max_page_count = 1000000")
    assert append(journal, "second").sequence == 2


def test_path_below_a_file_is_refused(tmp_path: Path) -> None:
    """The error states that nothing was stored or sent."""
    (tmp_path / "state").write_text("a file, not a folder")

    with pytest.raises(JournalError, match="Nothing was taken and nothing was sent"):
        Journal(tmp_path / "state" / "desk.journal", CODE)


def test_journal_of_another_station_is_refused(journal: Journal, path: Path) -> None:
    """Sequence numbers and replies belong to one station."""
    with pytest.raises(JournalError, match="belongs to station main-desk-1, and this is main-desk-2"):
        Journal(path, "main-desk-2")


def test_journal_of_a_newer_version_is_refused(path: Path) -> None:
    """The file is unchanged."""
    Journal(path, CODE).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(JournalError, match="newer"):
        Journal(path, CODE)


# Limits, checked before a scan is stored


def test_scan_beyond_the_limit_of_unanswered_events_is_refused(path: Path) -> None:
    """Stored events stay, and a reply makes room for one more."""
    journal = Journal(path, CODE, JournalLimits(max_unanswered=2))
    append(journal, "first")
    append(journal, "second")

    with pytest.raises(JournalError, match=r"Not taken; nothing was sent: 2 scans wait .*journal_max_unanswered"):
        append(journal, "third")

    assert [entry.event_id for entry in journal.unanswered()] == ["first", "second"]
    journal.store_replies({"first": "{}"}, NOW)
    assert append(journal, "third").sequence == 3
    journal.close()


def test_scan_below_the_minimum_free_space_is_refused(path: Path) -> None:
    """The scan is refused before it is stored, although the file could still grow."""
    journal = Journal(path, CODE, JournalLimits(min_free_bytes=10**21))

    with pytest.raises(JournalError, match=r"Not taken; nothing was sent: the disk .* must stay free"):
        append(journal, "first")

    assert journal.unanswered() == []
    journal.close()


def test_write_blocker_is_known_without_a_scan(journal: Journal, path: Path) -> None:
    """The cause is a lack of space, or a file that cannot be written."""
    full = Journal(path, CODE, JournalLimits(min_free_bytes=10**21))
    held = sqlite3.connect(path, isolation_level=None)

    assert journal.write_blocker() is None
    assert "must stay free" in (full.write_blocker() or "")
    journal._connection.execute("PRAGMA query_only = ON")
    held.execute("DROP TABLE station")
    assert "cannot be used" in (journal.write_blocker() or "")
    held.close()
    full.close()


# Held events


def test_all_unanswered_events_are_due_in_order_after_an_outage(journal: Journal) -> None:
    """Earlier attempts do not matter: all unanswered events are due at once, the oldest first."""
    for name in ("first", "second", "third"):
        append(journal, name)
    journal.claim_due(NOW + timedelta(seconds=3), after_minutes, limit=1)
    journal.hold(["third"], NOW)
    journal.store_replies({"second": "{}"}, NOW)

    journal.mark_all_due(NOW, NOW)

    assert [entry.event_id for entry in journal.claim_due(NOW, after_minutes)] == ["first", "third"]
    assert [entry.held for entry in journal.recent()] == [True, False, True]


def test_late_refusal_is_an_exception_until_acknowledged(journal: Journal) -> None:
    """A refusal that arrives after staff left is listed; an immediate one is not."""
    for name in ("at once", "held", "late", "returned"):
        append(journal, name)
    journal.hold(["held", "returned"], NOW)
    for name in ("at once", "held"):
        journal.store_replies({name: REFUSAL}, NOW)
    journal.store_replies({"late": REFUSAL}, NOW + timedelta(minutes=2))
    journal.store_replies({"returned": '{"outcome": "returned"}'}, NOW + timedelta(minutes=2))

    assert [entry.event_id for entry in journal.exceptions()] == ["held", "late"]
    assert journal.acknowledge_exceptions(["held", "at once"], NOW) == 1
    assert [entry.event_id for entry in journal.exceptions()] == ["late"]
    assert journal.stats() == JournalStats(0, None, 1)


def test_exception_is_pruned_only_after_its_acknowledgement(journal: Journal) -> None:
    """An unacknowledged refusal stays, however many replies follow."""
    append(journal, "refused")
    journal.hold(["refused"], NOW)
    journal.store_replies({"refused": REFUSAL}, NOW)

    journal.prune(keep=0)
    assert [entry.event_id for entry in journal.exceptions()] == ["refused"]
    journal.acknowledge_exceptions(["refused"], NOW)
    journal.prune(keep=0)
    assert journal.recent() == []


def test_final_reply_replaces_a_provisional_refusal(journal: Journal) -> None:
    """A provisional refusal is new once; after a final reply no other one is stored."""
    append(journal, "first")

    news = [
        journal.store_replies({"first": REFUSAL}, NOW, provisional={"first"}),
        journal.store_replies({"first": REFUSAL}, NOW, provisional={"first"}),
        journal.store_replies({"first": '{"outcome": "returned"}'}, NOW),
        journal.store_replies({"first": REFUSAL}, NOW),
    ]

    assert [bool(each) for each in news] == [True, False, True, False]
    assert journal.recent()[0].reply == '{"outcome": "returned"}'


def test_recent_lists_unanswered_refused_or_both(journal: Journal) -> None:
    """Without a filter all events are listed."""
    for name in ("pending", "refused", "returned"):
        append(journal, name)
    journal.store_replies({"refused": REFUSAL}, NOW)
    journal.store_replies({"returned": '{"outcome": "returned"}'}, NOW)

    def names(**kinds: bool) -> list[str]:
        return [entry.event_id for entry in journal.recent(**kinds)]

    assert names() == ["pending", "refused", "returned"]
    assert names(unanswered=True) == ["pending"]
    assert names(refused=True) == ["refused"]
    assert names(unanswered=True, refused=True) == ["pending", "refused"]


def test_journal_of_an_earlier_version_is_used_unchanged(path: Path) -> None:
    """A file without the newer columns works, and the earlier version can still use it."""
    path.parent.mkdir(parents=True)
    old = sqlite3.connect(path)
    old.executescript(
        "CREATE TABLE station (only_one INTEGER PRIMARY KEY CHECK (only_one = 1), code TEXT NOT NULL);"
        "CREATE TABLE events (sequence INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE,"
        " task TEXT NOT NULL, subject TEXT NOT NULL, payload TEXT NOT NULL, made_at TEXT NOT NULL,"
        " attempts INTEGER NOT NULL DEFAULT 1, next_resend_at TEXT, answered_at TEXT, reply TEXT, slip_state TEXT,"
        " slip_words TEXT);"
        f"INSERT INTO station VALUES (1, '{CODE}');"
        "INSERT INTO events (event_id, task, subject, payload, made_at)"
        " VALUES ('old', 't', 's', '{}', '2026-11-23T08:00:00.000000+00:00');"
        "PRAGMA user_version = 1;"
    )
    old.commit()

    journal = Journal(path, CODE)
    assert (journal.unanswered()[0].event_id, journal.unanswered()[0].held) == ("old", False)
    assert append(journal, "new").sequence == 2
    journal.close()

    assert old.execute("PRAGMA user_version").fetchone() == (1,)
    old.execute("INSERT INTO events (event_id, task, subject, payload, made_at) VALUES ('x', 't', 's', '{}', 'now')")
    old.close()


def test_count_due_excludes_claimed_and_answered_events(journal: Journal) -> None:
    """An event that is being sent is not held; a held one counts with its age until it is claimed or answered."""
    append(journal, "first", NOW - timedelta(minutes=9))
    append(journal, "second")
    append(journal, "on its way")
    later = NOW + timedelta(seconds=2)

    journal.hold(["first", "second"], NOW)
    held = journal.count_due(later)
    claimed = journal.claim_due(later, after_minutes, 1)
    after = journal.count_due(later)
    journal.store_replies({"second": "{}"}, later)

    assert held == (2, NOW - timedelta(minutes=9))
    assert [entry.event_id for entry in claimed] == ["first"]
    assert after == (1, NOW)
    assert journal.count_due(later) == (0, None)
