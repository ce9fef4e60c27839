# SPDX-License-Identifier: Apache-2.0
"""Texts of devices and senders with NUL, terminal escapes and bidirectional overrides, at each place where they enter.

PostgreSQL refuses NUL: a printer's refusal with one became an error of the worker, and its slip `unknown`. A terminal
obeys escape sequences, and an override shows a line in another order than it is stored.
"""

import json
import logging
import unicodedata
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.events.event import get_exchange
from click.testing import CliRunner
from kombu import Connection, Producer
from sqlalchemy import insert, update
from uuid6 import uuid7

from schemas import signing
from schemas.circulation_events import ItemsReceived, ReceivedItem, ReprintRequested, UndoRequested, read_reply
from schemas.models import (
    Item,
    OutboxEntry,
    PrintAttempt,
    Printer,
    PrintJob,
    QuarantinedMessage,
    Request,
    RequestEvent,
    table,
)
from schemas.print_jobs import PrintState as State
from schemas.replies import SlipNotice
from schemas.request_status import RequestStatus
from stations.messages import format_reply
from tasks.circulation.handler import CIRCULATION_HANDLER
from tasks.operator import Operator
from tasks.ports import DeadLetter, Envelope
from tasks.printing import actions
from tasks.printing.handler import print_job
from tasks.printing.printers.factory import open_printer
from tasks.printing.reconcile import reconcile
from tasks.printing.station_handler import SLIP_HANDLER
from tasks.quarantine.dead_letter import quarantine_row
from tasks.returns.handler import RETURN_HANDLER
from tasks.returns.undo_handler import UNDO_HANDLER
from tests.library import KEY
from tests.polling import wait_until
from tests.printers import ScriptedIppPrinter, ipp_response
from workers.cli import main
from workers.doctor.finding import Finding
from workers.logging import configure
from workers.metrics.heartbeats import MAX_NAME_LENGTH, MAX_WORKERS, HeartbeatReceiver

HOSTILE = "\x00\x1b]0;owned\x07\x1b[2Jno\x9b31m paper \u202egnp.exe\u2066\r\n" + "x" * 20_000
HOSTILE_SHORT = "\x00\x1b[2Jno\x9b31m \u202epaper\r\n"
OPERATION, JOB, PRINTER = 1, 2, 4
INTEGER, ENUM, TEXT, KEYWORD, NAME = 0x21, 0x23, 0x41, 0x44, 0x42
PRINT_JOB, GET_JOB_ATTRIBUTES, GET_JOBS, GET_PRINTER_ATTRIBUTES = 2, 9, 10, 11


def assert_clean(*texts: str | None) -> None:
    """Each text is there, is one printable line, and is bounded."""
    for text in texts:
        assert text
        assert not {char for char in text if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}}, repr(text)
        assert not {char for char in text if "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"}
        assert len(text) <= 2000


def signed(payload: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The payload with hostile fields, signed by its station's key, as no honest station sends it."""
    payload = payload | fields
    return payload | {"signature": signing.sign(payload, KEY.encode())}


@pytest.fixture
def print_on(create_print_job, context, engine):
    """Print a slip on a printer that responds as scripted; give the final state and the job's id."""

    def run(respond):
        job_id = create_print_job()
        with closing(ScriptedIppPrinter(respond)) as printer:
            with engine.begin() as connection:
                connection.execute(update(Printer).values(uri=printer.uri))
            return print_job(job_id, context, lambda: 0.0), job_id

    return run


def notices(rows) -> list[str]:
    """The texts of the enqueued notices, as they were stored."""
    return [json.loads(row.body)["message"] for row in rows(OutboxEntry) if row.task is None]


def test_hostile_refusal_of_a_printer_leaves_the_slip_unsent(print_on, rows):
    """A refusal with NUL and escapes is a refusal: the slip is retried, and its texts are lines for staff."""
    state, _ = print_on(
        lambda _: ipp_response(0x0507, (OPERATION, {"status-message": (TEXT, HOSTILE.encode("utf-8", "replace"))}))
    )

    assert state is State.FAILED_SAFE
    [job], [attempt] = rows(PrintJob), rows(PrintAttempt)
    assert_clean(job.last_error, attempt.error, rows(Printer)[0].trouble, *notices(rows))
    assert "is busy with another job" in job.last_error


@pytest.mark.parametrize("value", [(NAME, HOSTILE_SHORT.encode()), (INTEGER, b"\xff\xff\xff\xff"), (TEXT, b"x" * 9000)])
def test_hostile_job_number_leaves_the_result_unknown(print_on, rows, value):
    """A job number that is none is stored nowhere: it is unknown what the printer does with the slip."""
    state, _ = print_on(lambda _: ipp_response(0, (JOB, {"job-id": value})))

    assert state is State.UNKNOWN
    [job] = rows(PrintJob)
    assert job.spool_id is None
    assert_clean(job.last_error)


def test_hostile_problems_of_a_printer_are_described_in_a_line(create_print_job, context, engine, rows):
    """A printer that holds the slip and reports problems of its own invention: the notice is a bounded line."""
    keyword = (KEYWORD, HOSTILE.encode("utf-8", "replace"))

    def respond(operation):
        match operation:
            case 2:
                return ipp_response(0, (JOB, {"job-id": (INTEGER, b"\0\0\0\x07")}))
            case 9:
                held = (ENUM, b"\0\0\0\x04")
                return ipp_response(0, (JOB, {"job-state": held, "job-state-reasons": keyword}))
            case _:
                return ipp_response(0, (PRINTER, {"printer-state-reasons": keyword}))

    job_id = create_print_job()
    with closing(ScriptedIppPrinter(respond)) as printer:
        with engine.begin() as connection:
            connection.execute(update(Printer).values(uri=printer.uri))
        print_job(job_id, context, lambda: 0.0)

        assert reconcile(job_id, context) is State.ACCEPTED
        assert_clean(open_printer(printer.uri).status().description)

    assert_clean(rows(PrintJob)[0].last_error, *notices(rows))


def test_hostile_unsigned_event_is_quarantined_in_lines(handle, rows, library):
    """Texts of a sender without a key, in every field that the quarantine reads."""
    plain = library.scan("31000000017")
    payloads = [
        plain | {"type": HOSTILE_SHORT},
        plain | {"station": HOSTILE_SHORT},
        plain | {"sequence": HOSTILE_SHORT, HOSTILE_SHORT: 1},
        {"type": plain["type"], "station": HOSTILE},
    ]

    handle(RETURN_HANDLER, *payloads)

    stored = rows(QuarantinedMessage)
    assert len(stored) == len(payloads)
    for row in stored:
        assert_clean(row.detail, row.station)


def test_hostile_dead_letter_is_quarantined_in_lines(engine, rows, context):
    """Queue, task, reason, station, identifier and reply queue of a dead letter are named by its sender."""
    headers = {
        "task": HOSTILE, "id": HOSTILE_SHORT, "x-quarantine-queue": HOSTILE, "x-quarantine-reason": HOSTILE,
        HOSTILE_SHORT: HOSTILE_SHORT,
    }  # fmt: skip
    letter = DeadLetter(
        json.dumps([[{"station": HOSTILE_SHORT}], {}, {}]).encode(), Envelope(headers, reply_to=HOSTILE_SHORT), None
    )

    with engine.begin() as connection:
        row = quarantine_row(letter) | {"received_at": context.now()}
        connection.execute(insert(table(QuarantinedMessage)).values(row))

    [stored] = rows(QuarantinedMessage)
    assert_clean(stored.queue, stored.task, stored.detail, stored.station, stored.event_id, stored.reply_to)


def test_hostile_body_is_shown_as_lines(engine, context, database_url, monkeypatch, tmp_path):
    """`bookdrop quarantine show --body` prints a stored body without its controls."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    letter = DeadLetter(('[["' + HOSTILE_SHORT[1:] + '"]]').encode(), Envelope({}), None)
    with engine.begin() as connection:
        connection.execute(
            insert(table(QuarantinedMessage)).values(quarantine_row(letter) | {"received_at": context.now()})
        )

    shown = CliRunner().invoke(main, ["quarantine", "show", "1", "--body"])

    assert shown.exit_code == 0, shown.output
    for line in shown.stdout.splitlines():
        assert_clean(line)


def test_hostile_texts_of_a_signed_event_are_stored_as_lines(handle, library, rows):
    """A station's own key does not make its texts safe: reasons, names, descriptions, addresses and identifiers."""
    received, _ = library.request(RequestStatus.SHIPPED_PHYSICALLY, items=0, barcodes=[])
    returned, _ = library.request(RequestStatus.RECEIVED)
    lost, _ = library.request(RequestStatus.LOST)
    item = ReceivedItem(barcode="31000000099")
    parcel = library.event(ItemsReceived, request=received, items=(item,))
    override = {"reason": HOSTILE_SHORT, "supervisor": HOSTILE_SHORT}
    replies = [
        *handle(
            CIRCULATION_HANDLER,
            signed(
                parcel,
                items=[parcel["items"][0] | {"description": HOSTILE_SHORT}],
                return_address=[HOSTILE_SHORT, HOSTILE_SHORT],
            ),
            signed(library.event(ItemsReceived, request="none", items=(item,)), request=HOSTILE_SHORT),
        ),
        *handle(RETURN_HANDLER, signed(library.return_requested(lost), override=override, note=HOSTILE[:9000])),
        *handle(RETURN_HANDLER, library.return_requested(returned)),
        *handle(RETURN_HANDLER, signed(library.return_requested(returned), request=HOSTILE_SHORT)),
        *handle(UNDO_HANDLER, signed(library.event(UndoRequested, request=returned), reason=HOSTILE_SHORT)),
        *handle(UNDO_HANDLER, signed(library.event(UndoRequested, request=returned), request=HOSTILE_SHORT)),
        *handle(
            SLIP_HANDLER, signed(library.event(ReprintRequested, reprints=uuid7(), reason="x"), reason="\x00 \x1b")
        ),
    ]

    for reply in replies:
        assert_clean(*format_reply(reply, "31000000099").lines)
    assert_clean(*(row.description for row in rows(Item) if row.description))
    history = json.dumps([row.details for row in rows(RequestEvent)], ensure_ascii=False)
    assert_clean(*(row.note.replace("\n", " ") for row in rows(RequestEvent) if row.note), history)
    assert "supervisor" in history
    assert_clean(*(line for row in rows(Request) for line in row.return_address or ()))


def test_hostile_name_and_reason_of_an_operator_are_stored_as_lines(create_print_job, context, rows):
    """The message that orders a reprint carries both; they are stored, and shown in the history."""
    job_id = create_print_job()
    print_job(job_id, context, lambda: 0.0)

    actions.reprint(job_id, Operator(HOSTILE, HOSTILE), context)

    copy = next(row for row in rows(PrintJob) if row.reprint_of == job_id)
    assert_clean(copy.actor, copy.reason)


def test_hostile_cell_of_a_file_is_stored_as_a_line(library, database_url, monkeypatch, tmp_path, rows):
    """A title with escapes and an override, in a file of requests. A NUL in it is refused with its line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    row = {
        "external_id": "BR-1", "branch": "main", "partner": "XX-RUL", "status": "loaned",
        "title": HOSTILE_SHORT.replace("\0", ""),
    }  # fmt: skip
    lines = [json.dumps(each) for each in (row, {**row, "external_id": "BR-2", "title": HOSTILE_SHORT})]
    (tmp_path / "requests.jsonl").write_text("\n".join(lines), encoding="utf-8")

    done = CliRunner().invoke(main, ["import", "--kind", "requests", "requests.jsonl"])

    assert "line 2: title: Value error, contains a NUL character" in done.output
    assert "1 added, 0 changed, 0 unchanged, 1 refused" in done.output
    assert_clean(*(each.title for each in rows(Request)))


@pytest.mark.databases("sqlite")
def test_hostile_reply_is_shown_as_lines_at_a_station(database_kind):
    """A forged reply or notice in a station's reply queue does not control its terminal."""
    reply = read_reply(
        json.dumps({
            "type": "bookdrop.return-reply.v1", "event_id": str(uuid7()), "outcome": "returned", "reason": "loaned",
            "message": HOSTILE_SHORT, "next_step": HOSTILE_SHORT, "barcode": HOSTILE_SHORT, "title": HOSTILE_SHORT,
            "warnings": [HOSTILE_SHORT], "returned_by": HOSTILE_SHORT,
            "destination": {"name": HOSTILE_SHORT, "code": HOSTILE_SHORT, "delivery_code": HOSTILE_SHORT},
            "choices": [{
                "external_id": HOSTILE_SHORT, "title": HOSTILE_SHORT, "status": "loaned",
                "destination": {"name": HOSTILE_SHORT, "code": "x"},
            }],
        })
    )  # fmt: skip
    notice = SlipNotice.model_validate_json(
        json.dumps({
            "event_id": str(uuid7()), "job_id": str(uuid7()), "state": HOSTILE_SHORT, "message": HOSTILE_SHORT,
            "at": "2026-11-24T12:00:00Z",
        })
    )  # fmt: skip

    assert_clean(*format_reply(reply, "31000000099").lines, notice.message, notice.state)


@pytest.mark.databases("sqlite")
def test_hostile_names_of_workers_are_lines_and_bounded_in_number(database_kind):
    """Anyone who may publish events names workers: the exporter keeps short names, and not more than a limit."""
    receiver = HeartbeatReceiver(None, None, lambda: timedelta(minutes=1).total_seconds())  # type: ignore[arg-type]

    for number in range(MAX_WORKERS + 100):
        receiver.handle({"type": "worker-heartbeat", "hostname": f"{number}{HOSTILE}"})

    names = [each.worker for each in receiver.heartbeats()]
    assert len(names) == MAX_WORKERS
    assert max(map(len, names)) <= MAX_NAME_LENGTH
    assert_clean(*names, Finding("worker", ok=True, message=HOSTILE).message)


@pytest.mark.long
@pytest.mark.brokers("redis", "rabbitmq")
def test_malformed_events_do_not_interrupt_the_heartbeats(broker_url):
    """Events that are no objects, of other types, or too long are dropped; the next heartbeat counts, on one connection."""
    connections = []

    def connect():
        connections.append(Connection(broker_url))
        return connections[-1]

    receiver = HeartbeatReceiver(Celery(broker=broker_url), connect)
    receiver.start()
    wait_until(lambda: receiver.is_connected)
    malformed = [
        "7",
        "[7]",
        '{"type": []}',
        '{"type": "worker-heartbeat", "clock": "x"}',
        "[" * 900,
        '"' + "x" * 70_000 + '"',
        "{",
    ]
    with Connection(broker_url) as connection:
        producer = Producer(connection, get_exchange(connection))

        def heartbeat():
            event = {"type": "worker-heartbeat", "hostname": "returns@x", "timestamp": 1.0, "utcoffset": 0, "clock": 1}
            producer.publish(json.dumps(event), routing_key="worker.heartbeat", content_type="application/json")
            return receiver.heartbeats()

        wait_until(heartbeat)
        for body in malformed * 3:
            producer.publish(
                body, routing_key="worker.heartbeat", content_type="application/json", content_encoding="utf-8"
            )
        event = {"type": "worker-heartbeat", "hostname": "printing@x", "timestamp": 1.0, "utcoffset": 0, "clock": 1}
        producer.publish(json.dumps(event), routing_key="worker.heartbeat", content_type="application/json")
        wait_until(lambda: "printing" in {each.role for each in receiver.heartbeats()})

    assert len(connections) == 1


@pytest.mark.databases("sqlite")
def test_hostile_text_in_a_log_for_a_terminal_is_printable(database_kind, capsys):
    """The console format of the log removes escapes; JSON escapes them."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        for style in ("console", "json"):
            configure("info", style)
            logging.getLogger("kombu").error("refused: %s", HOSTILE_SHORT[1:])
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])

    logged = capsys.readouterr().err
    assert "paper" in logged
    assert not [part for part in ("\x1b[2J", "\x9b", "\u202e") if part in logged]
