# SPDX-License-Identifier: Apache-2.0
"""The handler of the Return on both databases: one transaction, and its effects."""

import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import event as sa_event
from sqlalchemy import func, select
from sqlalchemy.orm import sessionmaker

from schemas.models import (
    InboxEntry,
    Item,
    Loan,
    OutboxEntry,
    PrintJob,
    QuarantinedMessage,
    Request,
    RequestEvent,
    UndoPatronLink,
)
from schemas.replies import Outcome, ReturnReply
from schemas.request_status import RequestStatus
from tasks.events.processing import process_in
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tasks.unit_of_work import UnitOfWork, retry_on_conflict
from tests.library import LENDER, reply_to
from tests.task_context import POLICY


@pytest.fixture
def handle_scans(engine):
    """Pass payloads to the handler as one batch; return the replies to publish, in order."""
    sessions = sessionmaker(engine, expire_on_commit=False)

    def run(*payloads, policy=POLICY):
        def work():
            with UnitOfWork(sessions, datetime.now(UTC)) as uow:
                received = [Received(payload, reply_to(payload)) for payload in payloads]
                batch = process_in(uow, received, RETURN_HANDLER, policy)
            return [*batch.resend, *uow.pending_messages]

        messages = retry_on_conflict(work)
        return [ReturnReply.model_validate_json(m.body) for m in messages if m.task is None]

    return run


def count(engine, model, *where):
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(model).where(*where)).scalar_one()


def row(engine, *columns, where):
    with engine.connect() as connection:
        return connection.execute(select(*columns).where(where)).one()


def test_scan_of_a_loaned_item_returns_the_request(library, handle_scans, engine):
    """The scan returns the request, discharges the loan, creates one print job, and names the lender."""
    external_id, [barcode] = library.request()
    payload = library.scan(barcode)

    [reply] = handle_scans(payload)

    assert reply.outcome is Outcome.RETURNED
    assert reply.message == f"The item's destination is {LENDER}"
    assert reply.discharged
    assert reply.destination.delivery_code == "RUL"
    status, patron_id = row(engine, Request.status, Request.patron_id, where=Request.external_id == external_id)
    assert status is RequestStatus.RETURNED_TO_PARTNER
    assert patron_id is None
    discharged_at, patron_id = row(engine, Loan.discharged_at, Loan.patron_id, where=Loan.id > 0)
    assert discharged_at == library.now
    assert patron_id is None
    assert count(engine, PrintJob, PrintJob.id == reply.slip) == 1
    assert count(engine, RequestEvent, RequestEvent.kind == "returned") == 1
    assert count(engine, UndoPatronLink) == 2
    assert count(engine, OutboxEntry) == 2


def test_redelivered_event_returns_the_stored_reply(library, handle_scans, engine):
    """A redelivered event gets the same bytes and changes nothing."""
    _, [barcode] = library.request()
    payload = library.scan(barcode)
    [first] = handle_scans(payload)

    [second] = handle_scans(payload)

    assert second == first
    assert count(engine, RequestEvent) == 1
    assert count(engine, PrintJob) == 1
    assert count(engine, InboxEntry) == 1


def test_second_scan_returns_already_returned(library, handle_scans, engine):
    """A later scan of the item changes nothing, and names the destination, the first time, and the slip."""
    _, [barcode] = library.request()
    [first] = handle_scans(library.scan(barcode))

    [second] = handle_scans(library.scan(barcode, station="north-desk-1"))

    assert second.outcome is Outcome.ALREADY_RETURNED
    assert second.destination == first.destination
    assert second.returned_by == "main-desk-1"
    assert second.returned_at == library.now
    assert second.slip == first.slip
    assert count(engine, RequestEvent) == 1
    assert count(engine, PrintJob) == 1


def test_second_scan_in_one_batch_returns_already_returned(library, handle_scans, engine):
    """Within one transaction, too, the second scan finds the item returned by the first."""
    _, [barcode] = library.request()

    replies = handle_scans(library.scan(barcode), library.scan(barcode))

    assert [reply.outcome for reply in replies] == [Outcome.RETURNED, Outcome.ALREADY_RETURNED]
    assert replies[1].slip == replies[0].slip
    assert count(engine, PrintJob) == 1


def test_return_from_the_request_prints_no_slip_by_default(library, handle_scans, engine):
    """A Return of a request never loaned: an informational message, no slip, the note stored as text."""
    external_id, _ = library.request(RequestStatus.RECEIVED)

    [reply] = handle_scans(library.return_requested(external_id, note="left at <b>station</b>\x07"))

    assert reply.outcome is Outcome.RETURNED
    assert reply.message == f"Request {external_id} is returned. The item's destination is {LENDER}"
    assert not reply.discharged
    assert reply.slip is None
    assert count(engine, PrintJob) == 0
    (note,) = row(engine, RequestEvent.note, where=RequestEvent.id > 0)
    assert note == "left at <b>station</b>"


def test_request_is_returned_with_its_last_item(library, handle_scans, engine):
    """The first of two items is checked in and its loan discharged; the last one returns the request."""
    external_id, barcodes = library.request(items=2)

    [first] = handle_scans(library.scan(barcodes[0]))
    status_between, _ = row(engine, Request.status, Request.id, where=Request.external_id == external_id)
    [second] = handle_scans(library.scan(barcodes[1]))

    assert (first.items.here, first.items.of, first.discharged) == (1, 2, True)
    assert status_between is RequestStatus.LOANED
    assert (second.items.here, second.items.of) == (2, 2)
    assert second.status_after is RequestStatus.RETURNED_TO_PARTNER
    assert count(engine, Item, Item.returned_at.is_not(None)) == 2
    assert count(engine, PrintJob) == 2


@pytest.mark.parametrize(
    ("fields", "reason", "replies"),
    [
        ({"key": "another-key"}, "bad_signature", [(Outcome.REFUSED, "bad_signature", None)]),
        ({"station": "nobody-desk-9"}, "unknown_station", []),
    ],
)
def test_invalid_event_is_quarantined_and_refused(library, handle_scans, engine, fields, reason, replies):
    """A rejected event has no effect; it is quarantined, and a registered station gets a refusal without signature."""
    _, [barcode] = library.request()

    refused = handle_scans(library.scan(barcode, **fields))

    assert [(reply.outcome, reply.reason, reply.signature) for reply in refused] == replies
    assert row(engine, QuarantinedMessage.reason, where=QuarantinedMessage.id > 0) == (reason,)
    assert count(engine, RequestEvent) == 0
    assert count(engine, InboxEntry) == 0


def test_event_id_with_another_payload_is_refused(library, handle_scans, engine):
    """An event id that was used for another scan does not get that scan's reply."""
    _, [one] = library.request()
    _, [other] = library.request()
    payload = library.scan(one)
    handle_scans(payload)

    [reply] = handle_scans(library.scan(other, event_id=payload["event_id"]))

    assert reply.reason == "other_payload"
    assert count(engine, RequestEvent) == 1


@pytest.mark.parametrize("payload", [None, 7, [], "text", {}, {"type": "bookdrop.barcode-scanned.v9"}, {"type": 3}])
def test_malformed_message_is_quarantined(library, handle_scans, engine, payload):
    """Any JSON is quarantined, and no error is raised."""
    replies = handle_scans(payload)

    assert replies == []
    assert count(engine, QuarantinedMessage) == 1


def test_refusal_contains_the_reason_and_the_next_step(library, handle_scans, engine):
    """Unknown barcodes, patron cards, identifiers and local items are refused with separate reasons, and change nothing."""
    external_id, _ = library.request()

    replies = handle_scans(
        library.scan("no-such-barcode"),
        library.scan("P000123"),
        library.scan(external_id),
        library.scan("x" * 65),
        library.scan("  \r\n"),
        library.return_requested("BR-no-such"),
    )

    assert [reply.reason for reply in replies] == [
        "unknown_barcode", "patron_card", "external_id_scanned", "too_long", "empty", "unknown_request",
    ]  # fmt: skip
    assert all(reply.next_step for reply in replies)
    assert "P000123" not in json.dumps([reply.model_dump(mode="json") for reply in replies])
    assert count(engine, RequestEvent) == 0


def test_statement_count_does_not_grow_with_the_batch(library, handle_scans, engine):
    """Twenty events take as many statements as two."""
    barcodes = [library.request()[1][0] for _ in range(23)]
    handle_scans(library.scan(barcodes.pop()))  # connects, and sets the connection up
    statements = []
    sa_event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    handle_scans(*[library.scan(barcode) for barcode in barcodes[:2]])
    few = len(statements)
    handle_scans(*[library.scan(barcode) for barcode in barcodes[2:]])

    assert len(statements) - few == few


def test_reply_address_of_another_queue_gets_no_reply(library, engine):
    """A reply address that is not a reply queue gets no message; the Return itself takes place."""
    _, [barcode] = library.request()
    sessions = sessionmaker(engine, expire_on_commit=False)

    with UnitOfWork(sessions, datetime.now(UTC)) as uow:
        process_in(uow, [Received(library.scan(barcode), "returns")], RETURN_HANDLER, POLICY)

    assert [message.queue for message in uow.pending_messages] == ["printing.main"]
    assert count(engine, InboxEntry) == 1
