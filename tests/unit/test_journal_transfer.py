# SPDX-License-Identifier: Apache-2.0
"""Transfer of a journal to another machine: complete, once, and closed at its source."""

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
def source(tmp_path: Path) -> Iterator[Journal]:
    """A journal with one unanswered and one answered event."""
    journal = Journal(tmp_path / "source.journal", CODE)
    for name in ("pending", "answered"):
        append(journal, name)
    journal.store_replies({"answered": '{"outcome": "returned"}'}, NOW)
    yield journal
    journal.close()


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[Journal]:
    """The empty journal of another machine."""
    journal = Journal(tmp_path / "destination.journal", CODE)
    yield journal
    journal.close()


def append(journal: Journal, name: str) -> None:
    journal.append(NewEvent(name, "a task", f"barcode of {name}", '{{"n": {}}}'.format), NOW, NOW)


def ids(journal: Journal) -> list[str]:
    return [entry.event_id for entry in journal.recent()]


def test_transferred_journal_is_complete_and_due(source: Journal, destination: Journal, tmp_path: Path) -> None:
    """All events are transferred; unanswered ones keep bytes and times, and are due at once."""
    assert export_journal(source, tmp_path / "stick", NOW) == TransferCounts(2, 1)
    assert import_journal(destination, tmp_path / "stick", NOW) == TransferCounts(2, 1)

    [due] = destination.claim_due(NOW, lambda _: timedelta(minutes=1))
    assert (due.event_id, due.payload, due.made_at, due.held) == ("pending", '{"n": 1}', NOW, True)
    append(destination, "next")
    assert ids(destination) == ["pending", "answered", "next"]
    assert destination.recent()[-1].sequence > 2


def test_exported_journal_neither_stores_nor_sends(source: Journal, tmp_path: Path) -> None:
    """A station that is still open reports the transfer at its next scan; its list can still be read."""
    export_journal(source, tmp_path / "stick", NOW)

    with pytest.raises(JournalError, match=r"Not taken; nothing was sent: this station's journal was moved to .*stick"):
        append(source, "more")

    assert source.claim_due(NOW + timedelta(days=1), lambda _: timedelta(minutes=1)) == []
    assert "moved" in (source.write_blocker() or "")
    assert ids(source) == ["pending", "answered"]
    with pytest.raises(JournalError, match="already"):
        export_journal(source, tmp_path / "another", NOW)


def test_import_at_the_source_reopens_the_journal(source: Journal, tmp_path: Path) -> None:
    """The journal is open again, and has no event twice."""
    export_journal(source, tmp_path / "stick", NOW)

    assert import_journal(source, tmp_path / "stick", NOW) == TransferCounts(0, 0)

    append(source, "more")
    assert ids(source) == ["pending", "answered", "more"]


def test_import_into_a_journal_in_use_adds_unanswered_events_once(
    source: Journal, destination: Journal, tmp_path: Path
) -> None:
    """A second import adds nothing, and no sequence number is used twice."""
    append(destination, "own")
    export_journal(source, tmp_path / "stick", NOW)

    assert import_journal(destination, tmp_path / "stick", NOW) == TransferCounts(1, 1)
    assert import_journal(destination, tmp_path / "stick", NOW) == TransferCounts(0, 0)

    assert [entry.event_id for entry in destination.unanswered()] == ["own", "pending"]


def test_copy_leaves_the_journal_open(source: Journal, tmp_path: Path) -> None:
    """A copy for reading closes nothing."""
    export_journal(source, tmp_path / "copy", NOW, closes=False)

    append(source, "more")
    assert source.moved_to() is None


def test_file_of_a_closed_station_is_a_journal_elsewhere(source: Journal, tmp_path: Path) -> None:
    """The file alone, copied while the station is closed, is a complete journal."""
    source.close()
    shutil.copy(source.path, tmp_path / "by-hand.journal")

    journal = Journal(tmp_path / "by-hand.journal", CODE)
    assert ids(journal) == ["pending", "answered"]
    journal.close()


@pytest.mark.parametrize("content", [None, b"no journal at all, but long enough " * 100, b""])
def test_import_of_another_file_changes_nothing(destination: Journal, tmp_path: Path, content: bytes | None) -> None:
    """A missing, empty or other file is refused."""
    source = tmp_path / "stick"
    if content is not None:
        source.write_bytes(content)

    with pytest.raises(JournalError, match="Nothing was changed"):
        import_journal(destination, source, NOW)

    assert ids(destination) == []


def test_import_of_another_stations_journal_is_refused(source: Journal, tmp_path: Path) -> None:
    """Its events have the other station's signature; the error contains the next step."""
    export_journal(source, tmp_path / "stick", NOW)
    other = Journal(tmp_path / "other.journal", "main-desk-2")

    with pytest.raises(JournalError, match="--code main-desk-1"):
        import_journal(other, tmp_path / "stick", NOW)
    other.close()


def test_export_never_overwrites_a_file(source: Journal, tmp_path: Path) -> None:
    """The existing file may be another journal: it is unchanged, and this journal stays open."""
    (tmp_path / "stick").write_text("precious")

    with pytest.raises(JournalError, match="name another one"):
        export_journal(source, tmp_path / "stick", NOW)

    assert (tmp_path / "stick").read_text() == "precious"
    assert source.moved_to() is None


def test_failed_export_leaves_the_journal_open(source: Journal, tmp_path: Path) -> None:
    """A file that cannot be created changes nothing."""
    with pytest.raises(JournalError, match="Nothing was changed"):
        export_journal(source, tmp_path / "no-such-folder" / "stick", NOW)

    append(source, "more")
    assert source.moved_to() is None


def test_journal_of_an_earlier_version_is_imported(source: Journal, destination: Journal, tmp_path: Path) -> None:
    """A file without the newer columns is imported completely."""
    export_journal(source, tmp_path / "stick", NOW)
    old = sqlite3.connect(tmp_path / "stick")
    old.executescript(
        "ALTER TABLE events DROP COLUMN held; ALTER TABLE events DROP COLUMN ticked_at;"
        "ALTER TABLE events DROP COLUMN provisional;"
    )
    old.close()

    assert import_journal(destination, tmp_path / "stick", NOW) == TransferCounts(2, 1)
