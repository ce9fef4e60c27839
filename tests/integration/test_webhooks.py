# SPDX-License-Identifier: Apache-2.0
"""Webhooks on both databases: from the Return to a real HTTP server, which verifies each message."""

import json
import os
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import jsonschema
import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy import event as sqlalchemy_event

from schemas.circulation_events import LoanDischarged, RequestCompleted, UndoRequested
from schemas.events import Override
from schemas.models import Patron, RequestEvent, WebhookChange, WebhookDelivery, WebhookEndpoint, table
from schemas.request_status import RequestStatus
from schemas.webhook_messages import WebhookEvent
from tasks.circulation.handler import CIRCULATION_HANDLER
from tasks.operator import Identification, Operator
from tasks.requests.history import HistoryKind, HistoryLine, record
from tasks.returns.handler import RETURN_HANDLER
from tasks.returns.undo_handler import UNDO_HANDLER
from tasks.webhooks import administration
from tasks.webhooks.delivery import deliver, due_endpoints
from tasks.webhooks.maintenance import maintain
from tasks.webhooks.policy import WebhookPolicy
from tasks.webhooks.queueing import queue_deliveries
from tests.polling import wait_until
from tests.webhook_receiver import (
    dripping,
    endless_headers,
    huge_body,
    not_http,
    running,
    silent,
    status,
)
from workers.webhooks import WebhookSender

SECRET = "whsec_" + "c2VjcmV0LW9mLXRoZS10ZXN0cy1zZWNyZXQh"
OTHER_SECRET = "whsec_" + "YW5vdGhlci1zZWNyZXQtb2YtdGhlLXRlc3Rz"
BY = Operator("ann", identified_by=Identification.ACCOUNT)
SENDER = uuid4()


@pytest.fixture
def context(context):
    """A context with a short timeout."""
    return replace(context, webhooks=WebhookPolicy(timeout=timedelta(seconds=1)))


@pytest.fixture
def receiver(context):
    """A receiver with the clock of the tests. It acknowledges, and refuses what it cannot verify."""
    with running() as receiver:
        receiver.secret = SECRET
        receiver.clock = lambda: context.now().timestamp()
        yield receiver


@pytest.fixture
def add(context, library):
    """Register an endpoint; return its number."""

    def add(url, *types, secret=SECRET, plain_http=True):
        with context.unit_of_work() as uow:
            return administration.add_endpoint(uow, BY, url=url, types=types, plain_http=plain_http, secret=secret)

    return add


@pytest.fixture
def send(context):
    """Queue and deliver what is due; return how many messages were acknowledged."""

    def send():
        queue_deliveries(context)
        return sum(deliver(context, number, SENDER, chance=lambda: 0.5) for number in due_endpoints(context))

    return send


@pytest.fixture
def later(context):
    """Advance the clock."""

    def later(**duration):
        context.now.now += timedelta(**duration)

    return later


def endpoint(rows, number=None):
    """The row of an endpoint."""
    found = rows(WebhookEndpoint)
    return found[0] if number is None else next(row for row in found if row.id == number)


def test_return_and_undo_arrive_in_order_and_verify(add, send, library, handle, receiver):
    """Two messages with different ids, of which the second names the first; each has the item's barcode and the lender."""
    number = add(receiver.url)
    request, [barcode] = library.request()
    scan = library.scan(barcode)
    handle(RETURN_HANDLER, scan)
    handle(UNDO_HANDLER, library.event(UndoRequested, undoes=scan["event_id"]))

    assert send() == 2

    returned, undone = (each.json for each in receiver.received)
    assert receiver.types == ["request.returned", "return.undone"]
    assert len(set(receiver.ids)) == 2
    assert returned["data"] == {
        "cursor": returned["data"]["cursor"], "event": scan["event_id"], "request": request, "status_before": "loaned",
        "status_after": "returned_to_partner", "at": returned["timestamp"],
        "recorded_at": returned["data"]["recorded_at"], "branch": "main", "station": "main-desk-1", "lender": "XX-RUL",
        "items": [{"position": 1, "barcodes": [barcode]}], "loans_discharged": 1, "undoes": None,
        "loans_reopened": None,
    }  # fmt: skip
    assert undone["data"]["undoes"] == scan["event_id"]
    assert (undone["data"]["status_after"], undone["data"]["loans_reopened"]) == ("loaned", True)
    assert undone["data"]["items"] == returned["data"]["items"]
    assert undone["data"]["cursor"] > returned["data"]["cursor"]
    assert receiver.received[0].headers["content-type"] == "application/json"
    assert number == 1
    for each in receiver.received:
        jsonschema.validate(each.json, WebhookEvent.model_json_schema())


def test_each_kind_of_event_has_its_type(add, send, library, handle, receiver):
    """A discharge without Return, a check-in of one item of two, the Return, and the lender's confirmation."""
    add(receiver.url)
    request, [first, second] = library.request(items=2)
    for handler, payload in (
        (CIRCULATION_HANDLER, library.event(LoanDischarged, barcode=first)),
        (RETURN_HANDLER, library.scan(first)),
        (RETURN_HANDLER, library.scan(second)),
        (CIRCULATION_HANDLER, library.event(RequestCompleted, request=request)),
    ):
        handle(handler, payload)

    send()

    assert receiver.types == ["loan.discharged", "item.checked_in", "request.returned", "request.completed"]
    assert [each.json["data"]["loans_discharged"] for each in receiver.received] == [1, 0, 1, 0]


def test_endpoint_receives_its_types_only(add, send, library, handle, receiver):
    """An endpoint with types gets those; events before it was added are not sent."""

    def return_and_undo():
        scan = library.scan(library.request()[1][0])
        handle(RETURN_HANDLER, scan)
        handle(UNDO_HANDLER, library.event(UndoRequested, undoes=scan["event_id"]))

    return_and_undo()
    add(receiver.url, "return.undone")
    return_and_undo()

    send()

    assert receiver.types == ["return.undone"]


def test_batch_of_returns_is_delivered_once_each(add, send, library, handle, receiver):
    """Fifty scans of one transaction are fifty messages; a second run sends nothing."""
    add(receiver.url)
    barcodes = library.loaned_items(50)
    handle(RETURN_HANDLER, *[library.scan(barcode) for barcode in barcodes])

    assert send() == 50
    assert send() == 0
    assert [each.json["data"]["items"][0]["barcodes"] for each in receiver.received] == [[code] for code in barcodes]


def test_scan_needs_no_statement_for_webhooks(engine, add, library, handle, receiver):
    """The statements of a Return are the same without an endpoint and with one."""
    statements = []
    sqlalchemy_event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))

    def statements_of_a_return():
        _, [barcode] = library.request()
        statements.clear()
        handle(RETURN_HANDLER, library.scan(barcode))
        return list(statements)

    without = statements_of_a_return()
    add(receiver.url)

    assert without
    assert statements_of_a_return() == without
    assert not any("webhook" in statement for statement in without)


@pytest.mark.databases("sqlite")
def test_sender_does_not_write_while_there_is_nothing_to_send(engine, context, library, handle, add, later, send):
    """Without an endpoint, and with one that has everything, no run takes the write lock, which scans need."""
    begins = []

    def count(_connection, _cursor, statement, *_):
        if "IMMEDIATE" in statement:
            begins.append(statement)

    sqlalchemy_event.listen(engine, "before_cursor_execute", count)

    def writes():
        begins.clear()
        queue_deliveries(context)
        assert due_endpoints(context) == []
        return len(begins)

    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode))
    assert writes() == 0
    assert maintain(context) == 0
    assert begins == []
    with running() as receiver:
        add(receiver.url)
        assert writes() == 0, "its position is at the newest line"
        handle(RETURN_HANDLER, library.scan(library.request()[1][0]))
        assert send() == 1
    assert writes() > 0, "another line could still become visible"
    later(minutes=5)
    assert writes() > 0, "the position advances"
    assert writes() == 0


def test_message_names_no_patron(add, send, library, handle, receiver, engine):
    """Neither a patron's name or number, nor a note, a supervisor or a title occurs in any message."""
    add(receiver.url)
    request, _ = library.request()
    lost, _ = library.request(RequestStatus.LOST, damage_note="Zyphora spilt coffee")
    with engine.begin() as connection:
        connection.execute(update(Patron).values(name="Zyphora Unmistakable-Canaria"))
    handle(RETURN_HANDLER, library.return_requested(request, note="Zyphora CANARY4711007 brought it back wet"))
    override = Override(reason="Zyphora found it", supervisor="A. Chief Canaria")
    handle(RETURN_HANDLER, library.return_requested(lost, override=override))
    handle(UNDO_HANDLER, library.event(UndoRequested, request=request))

    send()

    sent = b"".join(each.body + json.dumps([each.path, each.headers]).encode() for each in receiver.received)
    assert len(receiver.received) == 3
    for telltale in (b"Zyphora", b"Canaria", b"CANARY4711007", b"P0000", b"Chief", b"The book number", b"patron"):
        assert telltale not in sent.replace(b"returned_by_patron", b"")


def test_unacknowledged_message_is_sent_again_with_the_same_id_and_body(add, send, later, library, handle, receiver):
    """The time of the attempt and the signature differ; id and body do not."""
    add(receiver.url)
    receiver.respond = status(500)
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode))

    assert send() == 0
    assert send() == 0
    assert len(receiver.received) == 1, "it is not sent again before its delay"
    later(seconds=7)
    receiver.respond = status(202)
    assert send() == 1

    first, second = receiver.received
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


@pytest.mark.parametrize(
    ("respond", "cause"),
    [
        (status(500), "HTTP 500"), (status(302, Location="http://127.0.0.1:1/"), "a redirect, which is not followed"),
        (silent, "did not respond in time"), (dripping, "did not respond in time"),
        (endless_headers, "a response without an end"), (not_http, "not as an HTTP server"),
    ],
)  # fmt: skip
@pytest.mark.databases("sqlite")
def test_failure_is_bounded_and_named(add, send, library, handle, receiver, rows, respond, cause):
    """Whatever the receiver does, the attempt ends within its deadline, and the message stays pending."""
    add(receiver.url)
    receiver.respond = respond
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode))

    assert send() == 0

    [delivery] = rows(WebhookDelivery)
    assert delivery.state == "pending"
    assert cause in delivery.error
    assert cause in endpoint(rows).trouble
    assert endpoint(rows).retry_at is not None
    assert len(receiver.received) == 1, "a redirect is not followed"


@pytest.mark.databases("sqlite")
def test_huge_body_of_an_acknowledgement_is_not_read(add, send, library, handle, receiver, rows):
    """The status acknowledges; the body is cut off."""
    add(receiver.url)
    receiver.respond = huge_body
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode))

    assert send() == 1


@pytest.mark.databases("sqlite")
def test_closed_port_and_unknown_host_are_failures(add, send, library, handle, receiver, rows, later):
    """No server at the port, and a name that does not resolve."""
    add("http://127.0.0.1:9/hook")
    add("https://no-such-host.invalid/hook")
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode))

    assert send() == 0

    refused, unknown = rows(WebhookEndpoint)
    assert "refuses connections" in refused.trouble
    assert "does not resolve" in unknown.trouble


@pytest.mark.databases("sqlite")
def test_forbidden_address_gets_no_byte(add, send, library, handle, receiver, rows, monkeypatch):
    """The rule about addresses is asked with the one that was connected to, before anything is sent.

    No machine has a public address to connect to without encryption, so here the rule refuses every address.
    """
    asked = []
    monkeypatch.setattr(
        "tasks.webhooks.http_sender.permits_address", lambda address, **encryption: asked.append((address, encryption))
    )
    add(receiver.url)
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode))

    assert send() == 0

    assert asked == [("127.0.0.1", {"is_encrypted": False})]
    assert receiver.received == []
    assert "resolves to an address to which no message is sent" in endpoint(rows).trouble


@pytest.mark.databases("sqlite")
def test_untrusted_certificate_is_refused_before_anything_is_sent(
    add, send, later, library, handle, rows, tmp_path, monkeypatch
):
    """A receiver gets a message only with a certificate that is trusted."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    with running(lambda listening: server.wrap_socket(listening, server_side=True)) as receiver:
        number = add(receiver.url, plain_http=False)
        _, [barcode] = library.request()
        handle(RETURN_HANDLER, library.scan(barcode))

        assert send() == 0
        assert "certificate that is not trusted" in endpoint(rows, number).trouble
        assert receiver.received == []

        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        later(seconds=7)
        assert send() == 1


def test_gone_disables_the_endpoint_and_enable_continues(add, send, context, library, handle, receiver, rows):
    """410 stops all messages; after `enable` everything since then arrives, in order."""
    number = add(receiver.url)
    receiver.respond = status(410)
    barcodes = library.loaned_items(3)
    handle(RETURN_HANDLER, library.scan(barcodes[0]))
    send()
    handle(RETURN_HANDLER, *[library.scan(barcode) for barcode in barcodes[1:]])
    assert send() == 0
    assert (endpoint(rows).active, endpoint(rows).disabled_because) == (False, "gone")
    assert len(receiver.received) == 1

    receiver.respond = status(200)
    receiver.received.clear()
    with context.unit_of_work() as uow:
        administration.enable(uow, BY, number, context.webhooks, skip=False)

    assert send() == 3
    assert [each.json["data"]["items"][0]["barcodes"] for each in receiver.received] == [[code] for code in barcodes]


def test_enable_with_skip_sends_only_later_events(add, send, context, library, handle, receiver):
    """Events of the time in which the endpoint was disabled are not sent."""
    number = add(receiver.url)
    first, second, third = library.loaned_items(3)
    receiver.respond = status(500)
    handle(RETURN_HANDLER, library.scan(first))
    send()
    with context.unit_of_work() as uow:
        assert administration.disable(uow, BY, number)
    handle(RETURN_HANDLER, library.scan(second))
    assert send() == 0
    with context.unit_of_work() as uow:
        assert administration.enable(uow, BY, number, context.webhooks, skip=True) == 1
    receiver.received.clear()
    receiver.respond = status(200)
    handle(RETURN_HANDLER, library.scan(third))

    assert send() == 1
    assert receiver.received[0].json["data"]["items"][0]["barcodes"] == [third]


def test_refused_message_delays_its_request_only(add, send, library, handle, receiver, later):
    """A message that gets 400 is tried again later, and before it nothing else of its request; others are sent."""
    add(receiver.url)
    poison, other = library.loaned_items(2)
    scan = library.scan(poison)
    handle(RETURN_HANDLER, scan)
    handle(UNDO_HANDLER, library.event(UndoRequested, undoes=scan["event_id"]))
    handle(RETURN_HANDLER, library.scan(other))

    def refuse_first(handler):
        status(400 if len(receiver.received) == 1 else 200)(handler)

    receiver.respond = refuse_first
    assert send() == 1
    assert receiver.types == ["request.returned", "request.returned"]
    assert receiver.received[1].json["data"]["items"][0]["barcodes"] == [other]
    later(seconds=7)
    assert send() == 2
    assert receiver.types[2:] == ["request.returned", "return.undone"]


def test_failing_endpoint_is_tried_with_one_message_and_then_receives_all(
    add, send, context, library, handle, receiver, later, rows
):
    """An outage costs one attempt for each pause. After it, messages that had failed do not wait for their own delay."""
    add(receiver.url)
    receiver.respond = status(503)
    handle(RETURN_HANDLER, *[library.scan(barcode) for barcode in library.loaned_items(20)])
    for _ in range(9):
        send()
        later(minutes=6)
    assert len(receiver.received) == 9
    assert endpoint(rows).failures == 9
    assert max(row.next_attempt_at for row in rows(WebhookDelivery)) > context.now(), "one waits for its own delay"

    receiver.respond = status(200)
    send()

    assert {row.state for row in rows(WebhookDelivery)} == {"delivered"}
    assert (endpoint(rows).failures, endpoint(rows).trouble) == (0, None)


def test_response_may_ask_for_a_pause(add, send, library, handle, receiver, later):
    """`Retry-After` of a throttled request is respected."""
    add(receiver.url)
    receiver.respond = status(429, Retry_After="1800")
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode))
    send()
    later(minutes=29)
    send()
    assert len(receiver.received) == 1

    receiver.respond = status(200)
    later(minutes=2)
    assert send() == 1


def test_message_fails_after_its_time_and_retry_sends_it(add, send, context, library, handle, receiver, later, rows):
    """A failed message is not sent again until an operator retries it."""
    number = add(receiver.url)
    receiver.respond = status(500)
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode))
    send()
    later(days=8)
    send()
    assert [row.state for row in rows(WebhookDelivery)] == ["failed"]
    receiver.respond = status(200)
    later(days=1)
    assert send() == 0

    with context.unit_of_work() as uow:
        assert administration.retry(uow, BY, context.webhooks, number=number) == 1
    assert send() == 1
    assert len(set(receiver.ids)) == 1
    assert [row.action for row in rows(WebhookChange)] == ["added", "retried"]


def test_rotation_signs_with_both_secrets_until_its_end(add, send, context, library, handle, receiver, later, rows):
    """A receiver with the previous secret accepts during the overlap, and one with the new secret always."""
    number = add(receiver.url)
    barcodes = library.loaned_items(3)
    with context.unit_of_work() as uow:
        administration.rotate_secret(uow, BY, number, OTHER_SECRET, timedelta(hours=1))
    for secret, barcode in ((SECRET, barcodes[0]), (OTHER_SECRET, barcodes[1])):
        receiver.secret = secret
        handle(RETURN_HANDLER, library.scan(barcode))
        assert send() == 1
    with pytest.raises(administration.RefusedEndpointError, match="two signatures"), context.unit_of_work() as uow:
        administration.rotate_secret(uow, BY, number, SECRET, timedelta(hours=1))

    with context.unit_of_work() as uow:
        uow.session.execute(update(WebhookEndpoint).values(previous_secret_until=uow.now))
    handle(RETURN_HANDLER, library.scan(barcodes[2]))
    assert send() == 1
    assert len(receiver.received[-1].headers["webhook-signature"].split()) == 1
    maintain(context)
    assert endpoint(rows).previous_secret is None


def test_two_senders_send_each_message_once(add, context, library, handle, receiver):
    """The lease of one keeps the other away; both queue at the same time without a duplicate."""
    number = add(receiver.url)
    handle(RETURN_HANDLER, *[library.scan(barcode) for barcode in library.loaned_items(30)])
    failures = []

    def send(sender):
        try:
            queue_deliveries(context)
            for _ in range(50):
                deliver(context, number, sender)
        except Exception as error:  # noqa: BLE001 - the test reports it
            failures.append(error)

    threads = [threading.Thread(target=send, args=(uuid4(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(receiver.ids) == len(set(receiver.ids)) == 30


def test_lease_of_a_dead_sender_ends(add, send, context, library, handle, receiver, later):
    """While it lasts nothing is sent; after it the next sender sends."""
    add(receiver.url)
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode))
    with context.unit_of_work() as uow:
        uow.session.execute(
            update(WebhookEndpoint).values(claimed_by=uuid4(), claimed_until=uow.now + context.webhooks.lease)
        )

    assert send() == 0
    later(minutes=2)
    assert send() == 1


def test_line_that_becomes_visible_late_is_delivered(add, send, context, library, handle, receiver, later):
    """A transaction that took a lower number and commits later loses no event, and causes no duplicate."""
    add(receiver.url)
    first, second = library.loaned_items(2)
    handle(RETURN_HANDLER, library.scan(first))
    handle(RETURN_HANDLER, library.scan(second))
    with context.unit_of_work() as uow:  # the first line, as if its transaction were still open
        line = uow.session.execute(select(table(RequestEvent)).order_by(RequestEvent.id).limit(1)).one()
        uow.session.execute(delete(RequestEvent).where(RequestEvent.id == line.id))
    assert send() == 1

    with context.unit_of_work() as uow:
        uow.session.execute(insert(table(RequestEvent)).values(line._asdict()))
    assert send() == 1
    later(minutes=10)
    assert send() == 0
    assert [each.json["data"]["items"][0]["barcodes"] for each in receiver.received] == [[second], [first]]


def test_position_advances_and_old_deliveries_are_deleted(add, send, context, library, handle, receiver, later, rows):
    """A delivery that is deleted is not queued again."""
    add(receiver.url)
    handle(RETURN_HANDLER, *[library.scan(barcode) for barcode in library.loaned_items(3)])
    assert send() == 3
    later(days=31)
    assert maintain(context) == 0, "before the position advances, a deletion would queue the events again"
    send()

    assert maintain(context) == 3
    assert rows(WebhookDelivery) == []
    assert send() == 0
    assert endpoint(rows).position == max(row.id for row in rows(RequestEvent))


def test_backlog_of_an_endpoint_is_bounded(add, send, context, library, handle, receiver, rows, monkeypatch):
    """Beyond the limit events stay in the history, and follow when there is room; none is lost."""
    monkeypatch.setattr("tasks.webhooks.queueing.MAX_PENDING", 5)
    add(receiver.url)
    receiver.respond = status(500)
    barcodes = library.loaned_items(12)
    handle(RETURN_HANDLER, *[library.scan(barcode) for barcode in barcodes])
    send()
    assert len(rows(WebhookDelivery)) == 5

    receiver.respond = status(200)
    receiver.received.clear()
    with context.unit_of_work() as uow:
        administration.retry(uow, BY, context.webhooks, number=1)
    assert [send(), send(), send(), send()] == [5, 5, 2, 0]
    assert [each.json["data"]["items"][0]["barcodes"] for each in receiver.received] == [[code] for code in barcodes]


def test_id_of_a_message_survives_a_restored_database(add, send, context, library, handle, receiver):
    """Queued again from the same history, an event has the same id, so that receivers discard it."""
    number = add(receiver.url)
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode))
    send()
    with context.unit_of_work() as uow:
        uow.session.execute(delete(WebhookDelivery))

    assert send() == 1
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1
    assert number == 1


def test_line_with_unusual_values_is_delivered(add, send, context, library, receiver):
    """A line without station, items or barcodes stops nothing."""
    add(receiver.url)
    library.request()
    with context.unit_of_work() as uow:
        line = HistoryLine(
            1, HistoryKind.UNDONE, uow.now, uow.now, "MAIN branch!", None, event_id=uuid4(),
            details={"undoes": str(uuid4()), "items": [1, 99]},
        )  # fmt: skip
        record(uow.session, line)

    assert send() == 1
    assert [item["position"] for item in receiver.received[0].json["data"]["items"]] == [1, 99]


@pytest.mark.databases("sqlite")
def test_dead_endpoint_delays_no_other_and_stop_is_prompt(add, context, library, handle, receiver):
    """One endpoint that never responds, and one that acknowledges: threads of their own."""
    context = replace(context, webhooks=WebhookPolicy(timeout=timedelta(seconds=3)))
    with running() as dead:
        dead.respond = silent
        add(dead.url)
        add(receiver.url)
        handle(RETURN_HANDLER, *[library.scan(barcode) for barcode in library.loaned_items(10)])
        sender = WebhookSender(context, timedelta(seconds=0.05))

        sender.start()
        wait_until(lambda: dead.received, "the dead endpoint has a message")
        wait_until(lambda: len(receiver.received) == 10, "the other endpoint has all messages")
        sender.stop()

        assert len(dead.received) == 1
        assert not [each for each in threading.enumerate() if each.name.startswith("webhook")]


KILLED = """
    import sys, uuid
    from datetime import UTC, datetime, timedelta
    from sqlalchemy.orm import sessionmaker
    from schemas.database import open_engine
    from tasks.context import Context
    from tasks.webhooks.delivery import deliver
    from tasks.webhooks.policy import WebhookPolicy
    from tasks.webhooks.queueing import queue_deliveries
    from tests.task_context import NullPublisher

    sessions = sessionmaker(open_engine(sys.argv[1]), expire_on_commit=False)
    policy = WebhookPolicy(timeout=timedelta(seconds=20))
    context = Context(sessions, lambda: datetime.now(UTC), NullPublisher(), "killed", webhooks=policy)
    queue_deliveries(context)
    deliver(context, 1, uuid.uuid4())
"""


def test_kill_between_commit_and_acknowledgement_loses_nothing(
    add, send, context, library, handle, receiver, later, database_url
):
    """A sender that is killed while it waits for the response: the next one sends the same message with the same id."""
    add(receiver.url)
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode))
    receiver.respond = silent
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), database_url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        wait_until(lambda: receiver.received, "the message was sent")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    receiver.respond = status(200)
    assert send() == 0, "the lease of the killed process"
    later(minutes=5)

    assert send() == 1
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1
