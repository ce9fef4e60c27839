# SPDX-License-Identifier: Apache-2.0
"""The journal of a desk: kept before it is sent, whatever happens to the disk."""

import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stations.journal.events import Entry, Journal, JournalStats, NewEvent
from stations.journal.file import JournalError, JournalLimits

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
CODE = "main-desk-1"
REFUSAL = '{"outcome": "refused", "reason": "unknown_barcode"}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "desk.journal"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with_it = Journal(path, CODE)
    yield with_it
    with_it.close()


def take(journal: Journal, name: str, now: datetime = NOW) -> Entry:
    event = NewEvent(name, "returns.process_scan", f"barcode of {name}", '{{"n": {}}}'.format)
    return journal.append(event, now, now + timedelta(seconds=3))


def a_minute(attempts: int) -> timedelta:
    return timedelta(minutes=attempts)


def test_only_the_owner_may_read_it(journal: Journal, path: Path) -> None:
    """The file and its folder are closed to other users."""
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_due_is_claimed_once_and_comes_again_later(journal: Journal, path: Path) -> None:
    """Of two processes only one gets an event that is due; it is due again after its wait."""
    take(journal, "first")
    other = Journal(path, CODE)

    early = journal.claim_due(NOW + timedelta(seconds=2), a_minute)
    claimed = journal.claim_due(NOW + timedelta(seconds=3), a_minute)
    nothing = other.claim_due(NOW + timedelta(seconds=3), a_minute)
    again = other.claim_due(NOW + timedelta(seconds=3, minutes=2), a_minute)
    other.close()

    assert (early, nothing) == ([], [])
    assert [entry.payload for entry in claimed] == [entry.payload for entry in again] == ['{"n": 1}']
    assert (claimed[0].attempts, again[0].attempts) == (2, 3)


def test_what_could_not_be_sent_is_due_sooner(journal: Journal) -> None:
    """An event held because the broker is away is due when it is said, not after its whole wait."""
    take(journal, "first")
    journal.claim_due(NOW + timedelta(seconds=3), a_minute)

    journal.hold(["first"], NOW + timedelta(seconds=5))

    assert [entry.event_id for entry in journal.claim_due(NOW + timedelta(seconds=5), a_minute)] == ["first"]


def test_an_answer_is_news_once(journal: Journal) -> None:
    """The first answer closes the event; the same one again, or one to a stranger's event, is no news."""
    take(journal, "first")

    news = [journal.store_replies({event_id: "{}"}, NOW) for event_id in ("first", "first", "a stranger's")]

    [entry] = journal.recent()
    assert news == [[entry], [], []]
    assert journal.unanswered() == journal.claim_due(NOW + timedelta(days=1), a_minute) == []
    assert (entry.reply, entry.answered_at) == ("{}", NOW)


def test_the_slips_last_word_is_kept(journal: Journal) -> None:
    """Each new word of a slip replaces the one before; the same word is no news."""
    take(journal, "first")

    news = [
        journal.store_slip_notice("first", *word) for word in (("sent", "Sent"), ("sent", "Sent"), ("done", "Printed"))
    ]

    assert [entry and entry.slip_message for entry in news] == ["Sent", None, "Printed"]
    [entry] = journal.recent()
    assert (entry.slip_state, entry.slip_message) == ("done", "Printed")


def test_pruning_forgets_the_answered_only(journal: Journal) -> None:
    """The oldest answered events go; what is not answered stays, and numbers are not used again."""
    for name in ("pending", "old", "new"):
        take(journal, name)
    journal.store_replies({"old": "{}", "new": "{}"}, NOW)

    gone = journal.prune(keep=1)

    assert gone == 1
    assert [entry.event_id for entry in journal.recent()] == ["pending", "new"]
    journal.prune(keep=0)
    assert take(journal, "next").sequence == 4


def test_a_failed_build_leaves_nothing(journal: Journal) -> None:
    """When an event cannot be made, nothing is kept and the journal goes on."""

    def fail(sequence: int) -> str:
        raise ValueError(sequence)

    with pytest.raises(ValueError, match="1"):
        journal.append(NewEvent("first", "t", "s", fail), NOW, NOW)

    assert take(journal, "first").sequence == 1


def test_a_damaged_file(path: Path) -> None:
    """A file that is no database is left as it is, and the words say what to do."""
    path.parent.mkdir()
    path.write_bytes(b"no database " * 1000)

    with pytest.raises(JournalError, match=r"Nothing was taken and nothing was sent; .*Move the damaged file aside"):
        Journal(path, CODE)

    assert path.read_bytes().startswith(b"no database")


def test_a_file_damaged_inside(path: Path) -> None:
    """Damage past the header is found when the journal is opened, not at the hundredth scan."""
    journal = Journal(path, CODE)
    for number in range(200):
        take(journal, f"event {number}")
    journal.close()
    content = bytearray(path.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    path.write_bytes(content)

    with pytest.raises(JournalError, match="Nothing was taken"):
        Journal(path, CODE)


def test_a_full_disk(journal: Journal) -> None:
    """When the disk is full the scan is not taken, what was taken stays, and room makes it work again."""
    take(journal, "first")
    pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(JournalError, match=r"Not taken; nothing was sent; .*full.*Free some disk space"):
        journal.append(NewEvent("big", "t", "s", lambda _: "x" * 100_000), NOW, NOW)

    journal._connection.execute("PRAGMA max_page_count = 1000000")
    assert take(journal, "second").sequence == 2


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A place where no file can be is told in words."""
    (tmp_path / "state").write_text("a file, not a folder")

    with pytest.raises(JournalError, match="Nothing was taken and nothing was sent"):
        Journal(tmp_path / "state" / "desk.journal", CODE)


def test_another_stations_journal(journal: Journal, path: Path) -> None:
    """A journal belongs to one station: its numbers and its answers are that one's."""
    with pytest.raises(JournalError, match="belongs to station main-desk-1, and this is main-desk-2"):
        Journal(path, "main-desk-2")


def test_a_newer_journal(path: Path) -> None:
    """A journal of a newer version is not touched."""
    Journal(path, CODE).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(JournalError, match="newer"):
        Journal(path, CODE)


# Room, told before the scan is taken


def test_a_limit_of_scans_without_an_answer(path: Path) -> None:
    """Beyond the limit a scan is refused before it is taken; what waits stays, and an answer makes room."""
    journal = Journal(path, CODE, JournalLimits(max_unanswered=2))
    take(journal, "first")
    take(journal, "second")

    with pytest.raises(JournalError, match=r"Not taken; nothing was sent: 2 scans wait .*journal_max_unanswered"):
        take(journal, "third")

    assert [entry.event_id for entry in journal.unanswered()] == ["first", "second"]
    journal.store_replies({"first": "{}"}, NOW)
    assert take(journal, "third").sequence == 3
    journal.close()


def test_a_disk_that_is_nearly_full(path: Path) -> None:
    """With less free space than is left alone a scan is refused before it is taken, though the file could still grow."""
    journal = Journal(path, CODE, JournalLimits(min_free_bytes=10**21))

    with pytest.raises(JournalError, match=r"Not taken; nothing was sent: the disk .* must stay free"):
        take(journal, "first")

    assert journal.unanswered() == []
    journal.close()


def test_an_obstacle_is_known_before_anybody_scans(journal: Journal, path: Path) -> None:
    """Whether the next scan would be taken is told without one: no room, or a file that cannot be written."""
    full = Journal(path, CODE, JournalLimits(min_free_bytes=10**21))
    held = sqlite3.connect(path, isolation_level=None)

    assert journal.write_blocker() is None
    assert "must stay free" in (full.write_blocker() or "")
    journal._connection.execute("PRAGMA query_only = ON")
    held.execute("DROP TABLE station")
    assert "cannot be used" in (journal.write_blocker() or "")
    held.close()
    full.close()


# What was held


def test_after_an_outage_all_go_in_their_order(journal: Journal) -> None:
    """However they were tried before, all that has no answer is due at once, the oldest first."""
    for name in ("first", "second", "third"):
        take(journal, name)
    journal.claim_due(NOW + timedelta(seconds=3), a_minute, limit=1)
    journal.hold(["third"], NOW)
    journal.store_replies({"second": "{}"}, NOW)

    journal.mark_all_due(NOW, NOW)

    assert [entry.event_id for entry in journal.claim_due(NOW, a_minute)] == ["first", "third"]
    assert [entry.held for entry in journal.recent()] == [True, False, True]


def test_held_scans_that_are_refused_are_exceptions(journal: Journal) -> None:
    """A refusal that came when nobody stood there is on the list until it is ticked off; one at once is not."""
    for name in ("at once", "held", "late", "returned"):
        take(journal, name)
    journal.hold(["held", "returned"], NOW)
    for name in ("at once", "held"):
        journal.store_replies({name: REFUSAL}, NOW)
    journal.store_replies({"late": REFUSAL}, NOW + timedelta(minutes=2))
    journal.store_replies({"returned": '{"outcome": "returned"}'}, NOW + timedelta(minutes=2))

    assert [entry.event_id for entry in journal.exceptions()] == ["held", "late"]
    assert journal.acknowledge_exceptions(["held", "at once"], NOW) == 1
    assert [entry.event_id for entry in journal.exceptions()] == ["late"]
    assert journal.stats() == JournalStats(0, None, 1)


def test_an_exception_is_not_pruned(journal: Journal) -> None:
    """However many answers come after it, a refusal that nobody has seen to stays; seen to, it goes with the others."""
    take(journal, "refused")
    journal.hold(["refused"], NOW)
    journal.store_replies({"refused": REFUSAL}, NOW)

    journal.prune(keep=0)
    assert [entry.event_id for entry in journal.exceptions()] == ["refused"]
    journal.acknowledge_exceptions(["refused"], NOW)
    journal.prune(keep=0)
    assert journal.recent() == []


def test_what_was_set_apart_may_be_answered_after_all(journal: Journal) -> None:
    """A refusal that is not final gives way to another answer, and is no news twice; a final one stands."""
    take(journal, "first")

    news = [
        journal.store_replies({"first": REFUSAL}, NOW, provisional={"first"}),
        journal.store_replies({"first": REFUSAL}, NOW, provisional={"first"}),
        journal.store_replies({"first": '{"outcome": "returned"}'}, NOW),
        journal.store_replies({"first": REFUSAL}, NOW),
    ]

    assert [bool(each) for each in news] == [True, False, True, False]
    assert journal.recent()[0].reply == '{"outcome": "returned"}'


def test_only_those_that_are_wanted(journal: Journal) -> None:
    """The list can be of the unanswered, of the refused, or of both."""
    for name in ("pending", "refused", "returned"):
        take(journal, name)
    journal.store_replies({"refused": REFUSAL}, NOW)
    journal.store_replies({"returned": '{"outcome": "returned"}'}, NOW)

    def names(**kinds: bool) -> list[str]:
        return [entry.event_id for entry in journal.recent(**kinds)]

    assert names() == ["pending", "refused", "returned"]
    assert names(unanswered=True) == ["pending"]
    assert names(refused=True) == ["refused"]
    assert names(unanswered=True, refused=True) == ["pending", "refused"]


def test_a_journal_of_an_earlier_program(path: Path) -> None:
    """A file without the newer columns is used as it is, and an earlier program could still use it."""
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
    assert take(journal, "new").sequence == 2
    journal.close()

    assert old.execute("PRAGMA user_version").fetchone() == (1,)
    old.execute("INSERT INTO events (event_id, task, subject, payload, made_at) VALUES ('x', 't', 's', '{}', 'now')")
    old.close()


def test_what_is_held_is_what_is_due_and_was_not_claimed(journal: Journal) -> None:
    """An event on its way is not held; one that could not be sent is, with its age, until it is claimed or answered."""
    take(journal, "first", NOW - timedelta(minutes=9))
    take(journal, "second")
    take(journal, "on its way")
    later = NOW + timedelta(seconds=2)

    journal.hold(["first", "second"], NOW)
    held = journal.count_due(later)
    claimed = journal.claim_due(later, a_minute, 1)
    after = journal.count_due(later)
    journal.store_replies({"second": "{}"}, later)

    assert held == (2, NOW - timedelta(minutes=9))
    assert [entry.event_id for entry in claimed] == ["first"]
    assert after == (1, NOW)
    assert journal.count_due(later) == (0, None)
