# SPDX-License-Identifier: Apache-2.0
"""The station's check of what its reply queue carries, and the count of what it ignores."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import signing
from schemas.reply_signature import ReplyKeys, sign_reply
from stations import messages
from stations.journal.events import Journal, NewEvent
from stations.journal.monitor import JournalMonitor, MessagesRejected
from stations.journal.rejected_messages import RejectedMessages, add_rejected, rejected_messages
from stations.journal.signing_key import adopt_key, check_value
from stations.reply_check import ReplyCheck

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
KEY, NEW_KEY = "a-key-of-the-tests", "a-newer-key-of-the-tests"
CODE = "main-desk-1"
REPLY = json.dumps(
    {
        "type": "bookdrop.return-reply.v1",
        "event_id": "01975d2e-7c00-7000-8000-000000000001",
        "outcome": "returned",
        "reason": "loaned",
        "message": "The item's destination is Größe",
    }
)
SIGNED = sign_reply(REPLY, ReplyKeys(CODE, KEY))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "desk.journal", CODE)
    yield opened
    opened.close()


def check(journal: Journal, *, requires_signatures: bool = True) -> ReplyCheck:
    return ReplyCheck(journal, CODE, KEY, requires_signatures=requires_signatures, now=lambda: NOW)


def test_signed_reply_is_read_and_stored_as_parsed(journal: Journal) -> None:
    """The stored text has each name once: whatever parses it later reads what was verified."""
    forged_first = SIGNED.replace("{", '{"outcome":"refused",', 1)

    received = check(journal).read(forged_first)

    assert received is not None
    assert received.message.model_dump(mode="json")["outcome"] == "returned"
    assert json.loads(received.body, object_pairs_hook=list) == list(json.loads(forged_first).items())
    assert received.body.count('"outcome"') == 1


def test_station_without_the_setting_reads_unsigned_replies(journal: Journal) -> None:
    """Without the setting replies of earlier workers are read as they come, and nothing is counted."""
    lenient = check(journal, requires_signatures=False)

    received = [lenient.read(body) for body in (REPLY, SIGNED, "no reply")]
    lenient.count(at_once=True)

    assert [each and each.body for each in received] == [REPLY, SIGNED, None]
    assert rejected_messages(journal) == RejectedMessages()


@given(body=st.text() | st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).map(json.dumps))  # fmt: skip
def test_no_text_without_a_signature_is_read(body: str) -> None:
    """Any text is ignored without an error."""
    assert ReplyCheck(None, CODE, KEY, requires_signatures=True, now=lambda: NOW).read(body) is None  # type: ignore[arg-type]


def test_ignored_messages_are_counted_once_a_second(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is counted at once, those of the next second together, and the rest at the end."""
    clock = [0.0]
    monkeypatch.setattr("stations.reply_check.time.monotonic", lambda: clock[0])
    strict = check(journal)
    counts = []

    for seconds in (0.0, 0.1, 0.2, 1.5):
        clock[0] = seconds
        strict.read(REPLY)
        strict.count()
        counts.append(rejected_messages(journal).count)
    strict.read("no JSON")
    strict.count(at_once=True)

    assert counts == [1, 1, 1, 4]
    assert rejected_messages(journal) == RejectedMessages(5, NOW, "unreadable")


def test_monitor_reports_ignored_messages_once_an_hour(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of earlier days are not reported; of many one notice is, without their content."""
    clock = [0.0]
    monkeypatch.setattr("stations.journal.monitor.time.monotonic", lambda: clock[0])
    add_rejected(journal, 3, "unsigned", NOW)
    watched = JournalMonitor(journal, timedelta(hours=4), lambda: NOW)
    notices = [watched.poll()]

    for seconds in (10.0, 20.0, 4000.0):
        clock[0] = seconds
        add_rejected(journal, 1, "bad_signature", NOW)
        notices.append(watched.poll())

    assert notices == [
        [],
        [MessagesRejected(RejectedMessages(4, NOW, "bad_signature"))],
        [],
        [MessagesRejected(RejectedMessages(6, NOW, "bad_signature"))],
    ]
    assert "6 without a valid signature" in messages.format_notice(notices[-1][0]).lines[0]


@pytest.mark.parametrize(
    ("defect", "word"), [("unsigned_refusal", "the key of this station"), ("unsigned", "reply queue")]
)
def test_warning_names_the_next_step(defect: str, word: str) -> None:
    """A refusal without signature points to the station's key, and all else to another sender."""
    assert word in messages.messages_rejected(RejectedMessages(1, NOW, defect)).lines[-1]


def append(journal: Journal, name: str, key: str) -> None:
    def encode(sequence: int) -> str:
        event = {"event_id": name, "sequence": sequence, "title": "Größe"}
        return json.dumps({**event, "signature": signing.sign(event, key.encode())}, ensure_ascii=False)

    journal.append(NewEvent(name, "returns.process_scan", name, encode), NOW, NOW)


def test_unanswered_events_are_signed_again_with_another_key(journal: Journal) -> None:
    """With another key each unanswered event gets its signature; nothing else of it changes, and no answered event does."""
    adopt_key(journal, KEY)
    for name in ("first", "second", "third"):
        append(journal, name, KEY)
    journal.store_replies({"first": "{}"}, NOW)
    before = {entry.event_id: entry.payload for entry in journal.recent()}

    signed = adopt_key(journal, NEW_KEY), adopt_key(journal, NEW_KEY)

    after = {entry.event_id: entry.payload for entry in journal.recent()}
    assert signed == (2, 0)
    assert after["first"] == before["first"]
    for name in ("second", "third"):
        old, new = json.loads(before[name]), json.loads(after[name])
        assert signing.verify(new, NEW_KEY.encode())
        assert signing.fingerprint(new) == signing.fingerprint(old)
        assert after[name] == before[name].replace(old["signature"], new["signature"])


def test_events_of_a_process_with_the_former_key_are_signed_again(journal: Journal) -> None:
    """A prompt that is still open with the former key stores an event; the next start signs it again."""
    adopt_key(journal, KEY)
    other = Journal(journal.path, CODE)
    adopt_key(other, NEW_KEY)

    append(journal, "late", KEY)
    signed = adopt_key(other, NEW_KEY)
    other.close()

    assert signed == 1


def test_journal_does_not_contain_the_key(journal: Journal) -> None:
    """The check value is not the key, and differs for another key."""
    adopt_key(journal, KEY)
    append(journal, "first", KEY)
    journal.close()

    assert KEY.encode() not in journal.path.read_bytes()
    assert check_value(KEY) != check_value(NEW_KEY)


def _unchanged(payload: str, _sequence: int) -> str:
    return payload


def test_unreadable_event_is_left_as_it_is(journal: Journal) -> None:
    """A stored event that is not JSON, or not an object, stays for an operator."""
    for name, payload in (("a", "no JSON"), ("b", "[1]")):
        journal.append(NewEvent(name, "t", name, partial(_unchanged, payload)), NOW, NOW)

    assert adopt_key(journal, KEY) == 0
    assert [entry.payload for entry in journal.unanswered()] == ["no JSON", "[1]"]
