# SPDX-License-Identifier: Apache-2.0
"""Erasure of content whose retention is over, on both databases: what is erased, what remains, and what still works."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import insert, select, update
from uuid6 import uuid7

from schemas.circulation_events import SlipSeen
from schemas.events import Override
from schemas.models import InboxEntry, MetricCell, PrintJob, Request, RequestEvent, RetentionProgress, table
from schemas.reasons import ReplyReason
from schemas.replies import Outcome, ReturnReply
from schemas.request_status import RequestStatus
from tasks.metrics.definitions import ERASED
from tasks.operator import Identification, Operator
from tasks.printing.actions import reprint
from tasks.printing.station_handler import SLIP_HANDLER
from tasks.privacy import retention
from tasks.privacy.digest import barcode_digest
from tasks.privacy.policy import ContentKind, RetentionPolicy
from tasks.privacy.retention import BATCH_SIZE, erase_expired
from tasks.returns.handler import RETURN_HANDLER
from tests.polling import wait_until
from workers.cli import main
from workers.metrics.database import Sample, read

KEY = "a secret of the tests, long enough."
CARD = "CARD4711007"
DAY = timedelta(days=1)


@pytest.fixture
def context(context):
    """The context, with a key for hashes."""
    return replace(context, retention=RetentionPolicy(key=KEY))


@pytest.fixture
def erase_at(context, library):
    """Erase what has expired `later` than the library's time; return the counts."""

    def run(later):
        return erase_expired(replace(context, now=lambda: library.now + later))

    return run


def test_unknown_barcode_becomes_a_keyed_hash_after_a_day(library, handle, rows, erase_at):
    """The stored reply keeps outcome and reason; equal barcodes have equal hashes, and neither text nor old hash remains."""
    for barcode in (CARD, CARD, "CARD4711008"):
        handle(RETURN_HANDLER, library.scan(barcode), now=library.now)

    early = erase_at(DAY - timedelta(minutes=1))
    kept = rows(InboxEntry)
    late = erase_at(DAY)
    erased = rows(InboxEntry)

    assert early[ContentKind.UNKNOWN_BARCODES] == 0
    assert all("CARD47110" in row.reply for row in kept)
    assert late[ContentKind.UNKNOWN_BARCODES] == 3
    for row in erased:
        assert "4711" not in repr(row)
        assert row.fingerprint == ""
        reply = json.loads(row.reply)
        assert (reply["outcome"], reply["reason"]) == ("refused", "unknown_barcode")
        assert reply["message"] == ReplyReason.UNKNOWN_BARCODE.meaning
        assert not {"barcode", "signature", "second_signature"} & set(reply)
    digests = sorted(row.barcode_digest for row in erased)
    assert digests == sorted([barcode_digest(CARD, KEY)] * 2 + [barcode_digest("CARD4711008", KEY)])


def test_resent_event_gets_the_erased_reply_and_no_second_effect(library, handle, rows, erase_at):
    """An event that its station resends after the erasure is a duplicate by its event id, not a conflict."""
    event = library.scan(CARD)
    [first] = handle(RETURN_HANDLER, event, now=library.now)
    erase_at(DAY)
    library.request(barcodes=[[CARD]])  # the barcode is known by now: performing it again would return the item

    [again] = handle(RETURN_HANDLER, event)

    assert (again.event_id, again.outcome, again.reason) == (first.event_id, first.outcome, first.reason)
    assert len(rows(InboxEntry)) == 1
    assert rows(RequestEvent) == []


def test_without_a_key_no_hash_is_stored(library, handle, rows, context):
    """A hash without a key would permit guesses, so the barcode is erased without one."""
    handle(RETURN_HANDLER, library.scan(CARD), now=library.now)

    erase_expired(replace(context, retention=RetentionPolicy(), now=lambda: library.now + DAY))

    [row] = rows(InboxEntry)
    assert CARD not in row.reply
    assert row.barcode_digest is None


def test_every_text_that_matched_nothing_is_erased(library, handle, rows, erase_at, create_print_job):
    """A typed number in place of a request's identifier, and a card scanned with a slip, are erased like a barcode."""
    slip = create_print_job()
    handle(RETURN_HANDLER, library.return_requested(CARD), now=library.now)
    handle(SLIP_HANDLER, library.event(SlipSeen, slip=slip, barcode=CARD), now=library.now)
    [before] = [row for row in rows(InboxEntry) if "wrong_item" in row.reply]
    assert CARD in before.reply

    erase_at(DAY + timedelta(minutes=1))

    texts = [row.reply for row in rows(InboxEntry)]
    assert not [text for text in texts if CARD in text]
    [wrong] = [json.loads(text) for text in texts if "wrong_item" in text]
    assert wrong["request"] == "BR-00001"  # the slip's own request is known, and stays
    digests = {row.barcode_digest for row in rows(InboxEntry)}
    assert digests == {None, barcode_digest(CARD, KEY)}


def test_replies_keep_outcome_and_reason_after_their_retention(library, handle, rows, erase_at):
    """A reply of a year ago is reduced; the resent event gets the reduced reply, and nothing is performed again."""
    _, [barcode] = library.request()
    event = library.scan(barcode)
    [first] = handle(RETURN_HANDLER, event, now=library.now)

    kept = erase_at(timedelta(days=364))
    erased = erase_at(timedelta(days=365))
    [again] = handle(RETURN_HANDLER, event)

    assert kept[ContentKind.REPLIES] == 0
    assert erased[ContentKind.REPLIES] == 1
    [row] = rows(InboxEntry)
    assert set(json.loads(row.reply)) == {"type", "event_id", "outcome", "reason", "message", "discharged", "urgent", "station",
                                          "warnings", "choices"}  # fmt: skip
    assert (again.outcome, again.reason, again.title) == (first.outcome, first.reason, None)
    assert len(rows(RequestEvent)) == 1


def test_typed_texts_of_history_and_slips_are_erased_and_a_reprint_still_works(
    library, handle, rows, erase_at, context, engine
):
    """Notes, names and damage notes are erased after their retention; a slip can still be printed again, without them."""
    external_id, _ = library.request(RequestStatus.LOST, damage_note="torn by Zyphora")
    override = Override(reason="Zyphora found it", supervisor="A. Chief")
    handle(RETURN_HANDLER, library.return_requested(external_id, note="for Zyphora", override=override, print_slip=True),
           now=library.now)  # fmt: skip
    with engine.begin() as connection:
        [job] = connection.execute(
            update(PrintJob).values(state="done", reason="for Zyphora", actor="Zyphora").returning(PrintJob.id)
        ).scalars()
        connection.execute(update(Request).values(updated_at=library.now))

    erased = erase_at(timedelta(days=366))
    copy = reprint(job, Operator("an operator", "the slip is lost"), context)

    assert {kind: count for kind, count in erased.items() if count} == {
        ContentKind.REPLIES: 1, ContentKind.HISTORY_NOTES: 1, ContentKind.SLIP_NOTES: 1, ContentKind.DAMAGE_NOTES: 1,
    }  # fmt: skip
    for model in (PrintJob, Request, RequestEvent):
        assert "Zyphora" not in repr(rows(model))
    line = rows(RequestEvent)[0]
    assert "Chief" not in repr(line)
    assert set(line.details["override"]) >= {"reason", "supervisor"}
    assert line.details["items"] == [1]
    [printed] = [row for row in rows(PrintJob) if row.id == copy.slip]
    assert printed.content["title"] == "The book number 1"


def test_names_of_persons_are_erased_and_shown_as_such(
    library, handle, rows, erase_at, context, database_url, monkeypatch, tmp_path
):
    """The account that typed a name is a name as well; the commands state that it is no longer stored."""
    external_id, _ = library.request(RequestStatus.LOST)
    override = Override(reason="found", supervisor="A. Chief")
    handle(RETURN_HANDLER, library.return_requested(external_id, override=override, print_slip=True), now=library.now)
    [job] = [row.id for row in rows(PrintJob)]
    with context.sessions.begin() as session:
        session.execute(update(PrintJob).values(state="done"))
    reprint(job, Operator("Zyphora", "lost", Identification.TYPED, "zyphora-account"), context)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)

    before = CliRunner().invoke(main, ["requests", "show", external_id]).stdout
    erase_at(timedelta(days=366))
    after = CliRunner().invoke(main, ["requests", "show", external_id]).stdout

    assert "by Zyphora (name typed, account zyphora-account)" in before
    assert "override by A. Chief (name typed): found" in before
    assert "yphora" not in repr(rows(RequestEvent)) + after
    assert after.count("by a person whose name is no longer stored") == 2
    assert "None" not in after


def test_open_request_keeps_its_damage_note(library, rows, erase_at, engine):
    """The note of an item that is still here is on the next slip, however old the request is."""
    library.request(RequestStatus.DAMAGED, damage_note="page 3 is torn")
    with engine.begin() as connection:
        connection.execute(update(Request).values(updated_at=library.now))

    erase_at(timedelta(days=1000))

    assert rows(Request)[0].damage_note == "page 3 is torn"


def unknown_barcode(event_id):
    """The stored reply to a scan of the card."""
    return ReturnReply(
        event_id=event_id, outcome=Outcome.REFUSED, reason=ReplyReason.UNKNOWN_BARCODE,
        message=f"Unknown barcode: {CARD}", next_step="Scan again.", barcode=CARD,
    ).model_dump_json(exclude_none=True)  # fmt: skip


def test_erasure_in_batches_continues_where_it_ended(library, rows, erase_at, engine, monkeypatch):
    """One run handles at most its batches; the next ones handle the rest, and rows with equal times stay together."""
    monkeypatch.setattr(retention, "MAX_BATCHES", 1)
    ids = [uuid7() for _ in range(BATCH_SIZE + 20)]
    with engine.begin() as connection:
        connection.execute(
            insert(table(InboxEntry)),
            [
                {"event_id": each, "fingerprint": "f", "station": "main-desk-1", "outcome": "refused",
                 "answered_at": library.now + timedelta(seconds=min(number, BATCH_SIZE - 10)),
                 "reply": unknown_barcode(each)}
                for number, each in enumerate(ids)
            ],
        )  # fmt: skip

    counts = [erase_at(DAY + timedelta(hours=1))[ContentKind.UNKNOWN_BARCODES] for _ in range(3)]

    assert counts == [BATCH_SIZE + 20, 0, 0]  # the last thirty have one time
    assert not [row for row in rows(InboxEntry) if CARD in row.reply]


def test_erasure_reads_no_erased_row_again(library, handle, erase_at, engine):
    """The position is stored, so that a later run begins behind the erased rows."""
    handle(RETURN_HANDLER, library.scan(CARD), now=library.now)
    erase_at(DAY)

    again = erase_at(DAY + timedelta(minutes=1))

    with engine.connect() as connection:
        position = connection.execute(
            select(RetentionProgress.position).where(RetentionProgress.kind == ContentKind.UNKNOWN_BARCODES)
        ).scalar_one()
    assert again[ContentKind.UNKNOWN_BARCODES] == 0
    assert position == int((library.now + timedelta(minutes=1)).timestamp() * 1_000_000)


def test_age_of_the_erasure_is_measured_and_the_doctor_names_it(library, erase_at, engine, deployment):
    """While housekeeping does not erase, the metric grows and the doctor reports the kinds; a run corrects both."""
    with engine.begin() as connection:
        connection.execute(update(RetentionProgress).values(complete_at=library.now - timedelta(hours=7)))

    late = retention_of(deployment)
    age = age_of_erasure(engine, library.now)
    with deployment.worker("housekeeping", BOOKDROP_SWEEP_INTERVAL_SECONDS="0.5"):
        wait_until(lambda: retention_of(deployment)["ok"], "housekeeping erases")

    assert not late["ok"]
    assert all(kind.value in late["message"] for kind in ContentKind)
    assert "housekeeping" in late["advice"]
    assert set(age.values()) == {7 * 3600.0}


def retention_of(deployment):
    """The doctor's finding about retention."""
    [found] = [
        each for each in json.loads(deployment.bookdrop("doctor", "--json").stdout) if each["part"] == "retention"
    ]
    return found


def age_of_erasure(engine, now):
    """The metric of each kind."""
    samples = [each for each in read(engine, now) if isinstance(each, Sample)]
    return {each.labels[0]: each.value for each in samples if each.name == "bookdrop_retention_age_seconds"}


def test_housekeeping_erases_and_counts(library, handle, rows, deployment, engine):
    """The worker erases without a command, with the key and the retention of its settings, and counts the rows."""
    handle(RETURN_HANDLER, library.scan(CARD), now=library.now - timedelta(hours=2))
    settings = {
        "BOOKDROP_SWEEP_INTERVAL_SECONDS": "0.5", "BOOKDROP_UNKNOWN_BARCODE_RETENTION_HOURS": "1",
        "BOOKDROP_PRIVACY_KEY": KEY,
    }  # fmt: skip

    with deployment.worker("housekeeping", **settings):
        wait_until(lambda: rows(InboxEntry)[0].barcode_digest == barcode_digest(CARD, KEY), "the barcode is erased")

    with engine.connect() as connection:
        counted = connection.execute(
            select(MetricCell.number).where(MetricCell.metric == ERASED.name, MetricCell.label == "unknown_barcodes")
        ).scalar_one()
    assert counted == 1
    assert CARD not in rows(InboxEntry)[0].reply
