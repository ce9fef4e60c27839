# SPDX-License-Identifier: Apache-2.0
"""A journal that goes to another machine: whole, once, and closed where it was."""

import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stations.journal.events import Journal, NewEvent
from stations.journal.file import JournalError
from stations.journal.transfer import TransferCounts, export_journal, import_journal

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
CODE = "main-desk-1"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Journal]:
    """A journal with one event without an answer and one with."""
    journal = Journal(tmp_path / "here.journal", CODE)
    for name in ("pending", "answered"):
        take(journal, name)
    journal.store_replies({"answered": '{"outcome": "returned"}'}, NOW)
    yield journal
    journal.close()


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Journal]:
    """The journal of another machine, new."""
    journal = Journal(tmp_path / "there.journal", CODE)
    yield journal
    journal.close()


def take(journal: Journal, name: str) -> None:
    journal.append(NewEvent(name, "a task", f"barcode of {name}", '{{"n": {}}}'.format), NOW, NOW)


def ids(journal: Journal) -> list[str]:
    return [entry.event_id for entry in journal.recent()]


def test_it_goes_whole_and_is_due_there(here: Journal, there: Journal, tmp_path: Path) -> None:
    """All events come along, those without an answer with the same bytes and times, and are due at once."""
    assert export_journal(here, tmp_path / "stick", NOW) == TransferCounts(2, 1)
    assert import_journal(there, tmp_path / "stick", NOW) == TransferCounts(2, 1)

    [due] = there.claim_due(NOW, lambda _: timedelta(minutes=1))
    assert (due.event_id, due.payload, due.made_at, due.held) == ("pending", '{"n": 1}', NOW, True)
    take(there, "next")
    assert ids(there) == ["pending", "answered", "next"]
    assert there.recent()[-1].sequence > 2


def test_where_it_was_nothing_is_taken_or_sent(here: Journal, tmp_path: Path) -> None:
    """A desk that is still open there is told so at its next scan; the list can still be seen."""
    export_journal(here, tmp_path / "stick", NOW)

    with pytest.raises(JournalError, match=r"Not taken; nothing was sent: this station's journal was moved to .*stick"):
        take(here, "more")

    assert here.claim_due(NOW + timedelta(days=1), lambda _: timedelta(minutes=1)) == []
    assert "moved" in (here.write_blocker() or "")
    assert ids(here) == ["pending", "answered"]
    with pytest.raises(JournalError, match="already"):
        export_journal(here, tmp_path / "another", NOW)


def test_it_can_be_taken_back(here: Journal, tmp_path: Path) -> None:
    """Imported where it came from, the journal is open again, and has nothing twice."""
    export_journal(here, tmp_path / "stick", NOW)

    assert import_journal(here, tmp_path / "stick", NOW) == TransferCounts(0, 0)

    take(here, "more")
    assert ids(here) == ["pending", "answered", "more"]


def test_a_journal_in_use_takes_what_is_open(here: Journal, there: Journal, tmp_path: Path) -> None:
    """A machine that scanned meanwhile takes over what has no answer, twice if you like, and no number is used twice."""
    take(there, "own")
    export_journal(here, tmp_path / "stick", NOW)

    assert import_journal(there, tmp_path / "stick", NOW) == TransferCounts(1, 1)
    assert import_journal(there, tmp_path / "stick", NOW) == TransferCounts(0, 0)

    assert [entry.event_id for entry in there.unanswered()] == ["own", "pending"]


def test_a_copy_leaves_the_desk_as_it_is(here: Journal, tmp_path: Path) -> None:
    """A copy to look at closes nothing."""
    export_journal(here, tmp_path / "copy", NOW, closes=False)

    take(here, "more")
    assert here.moved_to() is None


def test_a_file_copied_by_hand_does_as_well(here: Journal, tmp_path: Path) -> None:
    """The journal's file alone, copied from a desk that is closed, is a journal on another machine."""
    here.close()
    shutil.copy(here.path, tmp_path / "by-hand.journal")

    journal = Journal(tmp_path / "by-hand.journal", CODE)
    assert ids(journal) == ["pending", "answered"]
    journal.close()


@pytest.mark.parametrize("content", [None, b"no journal at all, but long enough " * 100, b""])
def test_what_is_no_journal_changes_nothing(there: Journal, tmp_path: Path, content: bytes | None) -> None:
    """A file that is missing, is something else, or is empty is told of, and nothing is changed."""
    source = tmp_path / "stick"
    if content is not None:
        source.write_bytes(content)

    with pytest.raises(JournalError, match="Nothing was changed"):
        import_journal(there, source, NOW)

    assert ids(there) == []


def test_another_stations_journal_is_not_taken_in(here: Journal, tmp_path: Path) -> None:
    """Its events are signed by the other one, and the words say what to do."""
    export_journal(here, tmp_path / "stick", NOW)
    other = Journal(tmp_path / "other.journal", "main-desk-2")

    with pytest.raises(JournalError, match="--code main-desk-1"):
        import_journal(other, tmp_path / "stick", NOW)
    other.close()


def test_a_file_that_is_there_is_not_written_over(here: Journal, tmp_path: Path) -> None:
    """What lies there may be another journal: it stays, and so does this one."""
    (tmp_path / "stick").write_text("precious")

    with pytest.raises(JournalError, match="name another one"):
        export_journal(here, tmp_path / "stick", NOW)

    assert (tmp_path / "stick").read_text() == "precious"
    assert here.moved_to() is None


def test_a_stick_that_cannot_be_written(here: Journal, tmp_path: Path) -> None:
    """When the file cannot be made, the desk goes on as before."""
    with pytest.raises(JournalError, match="Nothing was changed"):
        export_journal(here, tmp_path / "no-such-folder" / "stick", NOW)

    take(here, "more")
    assert here.moved_to() is None


def test_a_journal_of_an_earlier_program_is_taken_in(here: Journal, there: Journal, tmp_path: Path) -> None:
    """A file without the newer columns comes along as well."""
    export_journal(here, tmp_path / "stick", NOW)
    old = sqlite3.connect(tmp_path / "stick")
    old.executescript(
        "ALTER TABLE events DROP COLUMN held; ALTER TABLE events DROP COLUMN ticked_at;"
        "ALTER TABLE events DROP COLUMN provisional;"
    )
    old.close()

    assert import_journal(there, tmp_path / "stick", NOW) == TransferCounts(2, 1)
