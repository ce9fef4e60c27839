# SPDX-License-Identifier: Apache-2.0
"""Replies and slip notices as a worker signs them, and the validity of a station's two keys."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import sessionmaker

from schemas import signing
from schemas.models import InboxEntry, OutboxEntry, PrintJob, Station
from schemas.print_jobs import PrintState
from schemas.reply_signature import ReplyDefect, reply_defect
from tasks.events.processing import commit_failure, process_in
from tasks.events.validation import MAX_EVENT_BYTES
from tasks.operator import Operator
from tasks.printing.actions import cancel
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tasks.unit_of_work import UnitOfWork
from tests.library import KEY, Library
from tests.task_context import POLICY

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
NEW_KEY = "a-newer-key-of-the-tests"
STATION = "main-desk-1"
Send = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def send(engine: Engine) -> Send:
    """Process events as one batch at a time, by default `NOW`; return the messages to stations as they are published."""
    sessions = sessionmaker(engine, expire_on_commit=False)

    def run(*payloads: dict[str, Any], now: datetime = NOW, reply_to: str = f"reply.{STATION}") -> list[dict[str, Any]]:
        with UnitOfWork(sessions, now) as uow:
            batch = process_in(uow, [Received(payload, reply_to) for payload in payloads], RETURN_HANDLER, POLICY)
        messages = [*batch.resend, *uow.pending_messages]
        assert {message.queue for message in messages if message.task is None} <= {reply_to}
        return [json.loads(message.body) for message in messages if message.task is None]

    return run


def rotate(engine: Engine, until: datetime) -> None:
    """Give the station a new key; the key of the tests is valid `until` then."""
    with engine.begin() as connection:
        connection.execute(
            update(Station)
            .where(Station.code == STATION)
            .values(key=NEW_KEY, previous_key=KEY, previous_key_until=until)
        )


def resigned(payload: dict[str, Any], key: str) -> dict[str, Any]:
    return {**payload, "signature": signing.sign(payload, key.encode())}


def test_reply_is_signed_for_its_station_and_stored(library: Library, send: Send, engine: Engine) -> None:
    """The station accepts the reply with its key, no other station does, and the inbox holds it as it was sent."""
    payload = library.scan(library.request()[1][0])

    [reply] = send(payload)

    assert (reply["outcome"], reply["station"], reply["event_id"]) == ("returned", STATION, payload["event_id"])
    assert reply_defect(reply, STATION, KEY) is None
    assert reply_defect(reply, "main-desk-2", KEY) is ReplyDefect.OTHER_STATION
    with engine.connect() as connection:
        assert json.loads(connection.execute(select(InboxEntry.reply)).scalar_one()) == reply


def test_resent_event_gets_the_same_signed_reply(library: Library, send: Send) -> None:
    """The reply to a resent event has the same bytes, the signature included."""
    payload = library.scan(library.request()[1][0])

    assert send(payload) == send(payload)


def test_both_keys_sign_during_the_overlap(library: Library, send: Send, engine: Engine) -> None:
    """Until its end, events with the old and the new key are performed; either station accepts the replies."""
    rotate(engine, NOW + timedelta(microseconds=1))
    old, new = (library.scan(library.request()[1][0], key=key) for key in (KEY, NEW_KEY))

    replies = send(old, new)

    assert [reply["outcome"] for reply in replies] == ["returned", "returned"]
    assert [reply_defect(reply, STATION, key) for reply in replies for key in (KEY, NEW_KEY)] == [None] * 4
    first = [{**reply, "second_signature": None} for reply in replies]
    assert [reply_defect(reply, STATION, key) for reply, key in zip(first, (KEY, NEW_KEY), strict=True)] == [None, None]


@pytest.mark.parametrize("until", [NOW, NOW - timedelta(days=1)], ids=["at its end", "after it"])
def test_old_key_is_refused_after_the_overlap(library: Library, send: Send, engine: Engine, until: datetime) -> None:
    """An event with the old key gets an unsigned refusal; signed again with the new key, the same event is performed."""
    rotate(engine, until)
    payload = library.scan(library.request()[1][0])

    [refused] = send(payload)
    [reply] = send(resigned(payload, NEW_KEY))

    assert (refused["outcome"], refused["reason"]) == ("refused", "bad_signature")
    assert reply_defect(refused, STATION, NEW_KEY) is ReplyDefect.UNSIGNED_REFUSAL
    assert reply["outcome"] == "returned"
    assert (reply_defect(reply, STATION, NEW_KEY), "second_signature" in reply) == (None, False)


def test_event_performed_with_the_old_key_gets_its_reply_with_the_new_one(
    library: Library, send: Send, engine: Engine
) -> None:
    """A station that missed the reply and changed its key gets the stored reply, signed with the new key."""
    payload = library.scan(library.request()[1][0])
    [first] = send(payload)
    rotate(engine, NOW - timedelta(days=1))

    [again] = send(resigned(payload, NEW_KEY))

    assert reply_defect(again, STATION, NEW_KEY) is None
    assert {**again, "signature": None} == {**first, "signature": None}


def test_disabled_station_is_refused_with_either_key(library: Library, send: Send, engine: Engine) -> None:
    """The events of a disabled station are refused during an overlap as well; the refusal is signed for the sender."""
    rotate(engine, NOW + timedelta(hours=1))
    with engine.begin() as connection:
        connection.execute(update(Station).values(active=False))

    replies = send(*(library.scan(library.request()[1][0], key=key) for key in (KEY, NEW_KEY)))

    assert [reply["reason"] for reply in replies] == ["unknown_station"] * 2
    assert [reply_defect(reply, STATION, key) for reply, key in zip(replies, (KEY, NEW_KEY), strict=True)] == [None] * 2


def test_refusal_is_signed_only_for_the_signer(library: Library, send: Send) -> None:
    """Messages that the station signed get a signed refusal; a changed or unsigned one, with any event id, does not."""
    honest = library.scan(library.request()[1][0])
    oversized = resigned({**honest, "padding": "x" * MAX_EVENT_BYTES}, KEY)
    newer = resigned({**honest, "type": "bookdrop.barcode-scanned.v9"}, KEY)
    malformed = resigned({**honest, "scanned_at": "yesterday"}, KEY)
    forged = [{**each, "barcode": "another"} for each in (honest, oversized, newer, malformed)]
    unsigned = {"event_id": honest["event_id"], "station": STATION}

    signed = send(oversized, newer, malformed)
    others = send(*forged, unsigned)

    assert [reply["reason"] for reply in signed] == ["oversize", "unknown_version", "bad_schema"]
    assert [reply_defect(reply, STATION, KEY) for reply in signed] == [None] * 3
    assert [reply["outcome"] for reply in others] == ["refused"] * 5
    assert [reply_defect(reply, STATION, KEY) for reply in others] == [ReplyDefect.UNSIGNED_REFUSAL] * 5


def test_refusal_of_another_payload_is_signed(library: Library, send: Send) -> None:
    """Another event with a performed event's id is refused with a signature: its station signed it."""
    payload = library.scan(library.request()[1][0])
    send(payload)

    [refused] = send(library.scan("another", event_id=payload["event_id"]))

    assert (refused["reason"], reply_defect(refused, STATION, KEY)) == ("other_payload", None)


@pytest.mark.parametrize(
    ("fields", "reply_to"),
    [
        ({"station": "main-desk-2"}, f"reply.{STATION}"),
        ({"station": "nobody-desk-9"}, "reply.nobody-desk-9"),
        ({"station": None}, f"reply.{STATION}"),
        ({"station": ["main-desk-1"]}, f"reply.{STATION}"),
        ({"station": "main-desk-1\n"}, f"reply.{STATION}"),
        ({"station": "x\x00"}, "reply.x"),
    ],
)
def test_refusal_goes_to_no_other_queue(library: Library, send: Send, fields: dict[str, Any], reply_to: str) -> None:
    """A rejected message has no reply sent to a queue of another station, or to one of no registered station."""
    payload = {**library.scan("31000000017"), **fields}

    assert send(payload, reply_to=reply_to) == []


def test_failed_event_is_refused_with_its_signature(library: Library, context: Any) -> None:
    """The refusal of an event on which the worker fails is signed if its station signed the event."""
    honest = library.scan("31000000017")
    sent = [Received(each, f"reply.{STATION}") for each in (honest, {**honest, "barcode": "another"})]

    messages = [commit_failure(each, RuntimeError(), context).messages[0] for each in sent]

    defects = [reply_defect(json.loads(message.body), STATION, KEY) for message in messages]
    assert defects == [None, ReplyDefect.UNSIGNED_REFUSAL]


def test_slip_notice_is_signed_with_the_valid_keys(library: Library, send: Send, engine: Engine, context: Any) -> None:
    """A notice has no event in its transaction: it is signed with each valid key, and with the present one alone later."""
    for _ in range(2):
        send(library.scan(library.request()[1][0]))
    with engine.connect() as connection:
        slips = list(connection.execute(select(PrintJob.id)).scalars())

    notices = []
    for slip, overlap in zip(slips, (1, -1), strict=True):
        rotate(engine, context.now() + timedelta(hours=overlap))
        cancel(slip, Operator("a test", "because"), context)
        with engine.connect() as connection:
            assert (
                connection.execute(select(PrintJob.state).where(PrintJob.id == slip)).scalar_one()
                is PrintState.CANCELLED
            )
        notices.append(_last_notice(engine))

    assert {notice["type"] for notice in notices} == {"bookdrop.slip-notice.v1"}
    assert [reply_defect(notices[0], STATION, key) for key in (NEW_KEY, KEY)] == [None, None]
    assert [reply_defect(notices[1], STATION, key) for key in (NEW_KEY, KEY)] == [None, ReplyDefect.BAD_SIGNATURE]


def _last_notice(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        bodies = connection.execute(select(OutboxEntry.body).order_by(OutboxEntry.id)).scalars()
        notice: dict[str, Any] = [
            each for body in bodies if "slip-notice" in (each := json.loads(body)).get("type", "")
        ][-1]
    return notice
