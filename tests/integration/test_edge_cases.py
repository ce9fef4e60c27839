# SPDX-License-Identifier: Apache-2.0
"""Every edge case of the Return by its number, with real workers on a real broker and both databases.

`python -m docs.generate.outcomes` generates docs/reference/outcomes.md from the names and docstrings here.
"""

import json
import shutil
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pypdfium2
import pytest
from sqlalchemy import insert, select, text, update

from schemas.circulation_events import RequestCompleted, UndoRequested
from schemas.database import open_engine
from schemas.events import Override
from schemas.models import (
    Item,
    ItemBarcode,
    Loan,
    OutboxEntry,
    Partner,
    Patron,
    PrintJob,
    Request,
    RequestEvent,
)
from schemas.print_jobs import PrintState
from schemas.request_status import RequestStatus
from schemas.slip_codes import slip_code
from schemas.topology import COMPLETE_REQUEST, PROCESS_UNDO
from stations.client import StationClient
from tests.databases import postgres_copy
from tests.library import LENDER, Library
from tests.polling import wait_until
from tests.processes import Deployment, kill_group
from tests.raw_station import RawStation
from tests.valkey import valkey_server

pytestmark = pytest.mark.long

DESTINATION = f"The item's destination is {LENDER}"


class Pipeline:
    """Workers of every role behind one station, and the rows that they write."""

    def __init__(self, library, raw_station):
        self.library = library
        self.raw_station = raw_station
        self.engine = library.engine

    def scan(self, barcode, **fields):
        """Scan a barcode; return the reply."""
        [reply] = self.raw_station.replies_to(self.raw_station.send(self.library.scan(barcode, **fields)))
        return reply

    def return_requested(self, request, **fields):
        """Return from the request; give the reply."""
        [reply] = self.raw_station.replies_to(self.raw_station.send(self.library.return_requested(request, **fields)))
        return reply

    def send_event(self, kind, task, **fields):
        """Send a circulation event; return the reply."""
        event_id = self.raw_station.send(self.library.event(kind, **fields), task=task)
        self.raw_station.wait_until(
            lambda: any(message.get("event_id") == event_id for message in self.raw_station.received)
        )
        return next(message for message in self.raw_station.received if message.get("event_id") == event_id)

    def request(self, external_id):
        """The row of the request."""
        with self.engine.connect() as connection:
            return connection.execute(select(Request.__table__).where(Request.external_id == external_id)).one()

    def rows(self, model, external_id):
        """The rows of a model that belong to a request."""
        of_request = select(Request.id).where(Request.external_id == external_id).scalar_subquery()
        if model is Loan:
            where = Loan.item_id.in_(select(Item.id).where(Item.request_id == of_request))
        else:
            where = model.request_id == of_request
        with self.engine.connect() as connection:
            return connection.execute(select(model.__table__).where(where).order_by(model.id)).all()

    def history(self, external_id):
        """The kinds of the request's history entries."""
        return [line.kind for line in self.rows(RequestEvent, external_id)]

    def slip_of(self, reply):
        """The text of the slip that a reply names, once it is in the spool."""
        [path] = wait_until(
            lambda: list(self.library.spool.rglob(f"*-{slip_code(UUID(reply['slip']))}.pdf")),
            "the slip is in the spool",
        )
        pdf = pypdfium2.PdfDocument(path)
        try:
            return " ".join(pdf[0].get_textpage().get_text_range().split())
        finally:
            pdf.close()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def module_database_url(request, tmp_path_factory):
    """URL of a migrated database for all cases of this module."""
    if request.param == "postgres":
        with postgres_copy(request.getfixturevalue("postgres_template")) as url:
            yield url
    else:
        path = tmp_path_factory.mktemp("cases") / "bookdrop.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"


@pytest.fixture(scope="module")
def pipeline(module_database_url, tmp_path_factory):
    """Workers of every role, and one station."""
    folder = tmp_path_factory.mktemp("pipeline")
    engine = open_engine(module_database_url)
    library = Library(engine, folder / "spool").open()
    with valkey_server() as server:
        deployment = Deployment(server.url, module_database_url, folder)
        with (
            closing(RawStation(server.url)) as raw_station,
            deployment.worker("returns", BOOKDROP_PATRON_CARD_PATTERN=r"CARD\d+"),
            deployment.worker("printing", "--branch", "main", "--branch", "north"),
            deployment.worker("housekeeping"),
        ):
            yield Pipeline(library, raw_station)
    engine.dispose()


def test_case_01_loaned_item_scanned(pipeline):
    """Returned; the loan is discharged; one slip; the destination is shown."""
    external_id, [barcode] = pipeline.library.request()

    reply = pipeline.scan(barcode)

    assert (reply["outcome"], reply["message"], reply["discharged"]) == ("returned", DESTINATION, True)
    assert pipeline.request(external_id).status is RequestStatus.RETURNED_TO_PARTNER
    assert [loan.discharged_at for loan in pipeline.rows(Loan, external_id)] == [pipeline.library.now]
    assert pipeline.slip_of(reply).startswith("RUL RETURN TO Riverside University")
    assert len(pipeline.rows(PrintJob, external_id)) == 1


def test_case_02_item_never_loaned_returned_from_the_request(pipeline):
    """Returned with a message; no loan is changed, and by default no slip is printed."""
    external_id, _ = pipeline.library.request(RequestStatus.RECEIVED)

    reply = pipeline.return_requested(external_id)

    assert (reply["outcome"], reply["discharged"]) == ("returned", False)
    assert DESTINATION in reply["message"]
    assert pipeline.request(external_id).status is RequestStatus.RETURNED_TO_PARTNER
    assert pipeline.rows(PrintJob, external_id) == []


def test_case_03_item_never_loaned_scanned(pipeline):
    """Returned by a scan; no loan is changed, and a slip is printed."""
    external_id, [barcode] = pipeline.library.request(RequestStatus.RECEIVED_NOT_FOR_LOAN)

    reply = pipeline.scan(barcode)

    assert (reply["outcome"], reply["reason"], reply["discharged"]) == ("returned", "never_loaned", False)
    assert pipeline.rows(Loan, external_id) == []
    assert pipeline.slip_of(reply)


def test_case_04_scan_without_a_slip(pipeline):
    """No print job; the message is still shown."""
    external_id, [barcode] = pipeline.library.request()

    reply = pipeline.scan(barcode, print_slip=False)

    assert reply["message"] == DESTINATION
    assert "slip" not in reply
    assert pipeline.rows(PrintJob, external_id) == []


def test_case_05_form_cancelled(pipeline, tmp_path):
    """Cancel in the form sends no event and writes nothing."""
    external_id, _ = pipeline.library.request()
    before = pipeline.request(external_id)

    deployment = Deployment("redis://127.0.0.1:1/0", "", tmp_path)
    done = deployment.station("return", external_id, "--form", stdin="a note\ny\nn\n")

    assert done.returncode == 0, done.stderr
    assert "Automatically print slip [y/N]" in done.stdout
    assert "Cancelled. Nothing was changed." in done.stdout
    assert not deployment.journal().exists()
    assert pipeline.request(external_id) == before
    assert pipeline.history(external_id) == []


def test_case_06_returned_item_scanned_again(pipeline):
    """Already returned, with the same destination; no second slip, message to the lender or history entry."""
    external_id, [barcode] = pipeline.library.request()
    first = pipeline.scan(barcode)

    again = pipeline.scan(barcode, station="main-desk-2")

    assert (again["outcome"], again["message"]) == ("already_returned", f"Already returned. {DESTINATION}")
    assert (again["returned_by"], again["slip"]) == ("main-desk-1", first["slip"])
    assert pipeline.history(external_id) == ["returned"]
    assert len(pipeline.rows(PrintJob, external_id)) == 1


def test_case_07_event_delivered_twice(pipeline):
    """The stored reply is sent again, byte for byte; nothing else changes."""
    external_id, [barcode] = pipeline.library.request()
    payload = pipeline.library.scan(barcode)

    event_id = pipeline.raw_station.send(payload)
    pipeline.raw_station.replies_to(event_id)
    pipeline.raw_station.send(payload)

    def raw():
        replies = [
            body for body in pipeline.raw_station.bodies if event_id.encode() in body and b"return-reply" in body
        ]
        return replies if len(replies) == 2 else None

    pipeline.raw_station.wait_until(raw)
    assert raw()[0] == raw()[1]
    assert pipeline.history(external_id) == ["returned"]
    assert len(pipeline.rows(PrintJob, external_id)) == 1


def test_case_08_two_stations_scan_one_barcode_at_once(pipeline):
    """One transition; the other station receives "already returned"."""
    requests = [pipeline.library.request() for _ in range(10)]

    sent = [
        pipeline.raw_station.send(pipeline.library.scan(barcode, station=station))
        for _, [barcode] in requests
        for station in ("main-desk-1", "main-desk-2")
    ]
    replies = pipeline.raw_station.replies_to(*sent)

    pairs = [{one["outcome"], other["outcome"]} for one, other in zip(replies[::2], replies[1::2], strict=True)]
    assert pairs == [{"returned", "already_returned"}] * 10
    for external_id, _ in requests:
        assert pipeline.history(external_id) == ["returned"]
        assert len(pipeline.rows(PrintJob, external_id)) == 1


def test_case_09_unknown_barcode(pipeline):
    """Refused with the next step; never a retry, never a dead letter."""
    reply = pipeline.scan("NO-SUCH-ITEM")

    assert (reply["outcome"], reply["reason"]) == ("refused", "unknown_barcode")
    assert "NO-SUCH-ITEM" in reply["message"]
    assert reply["next_step"]
    with pipeline.engine.connect() as connection:
        assert connection.execute(select(OutboxEntry.id).where(OutboxEntry.queue == "dead-letter")).all() == []


def test_case_10_local_item_scanned(pipeline):
    """Refused, not an interlibrary loan: use the normal check-in; the item is unchanged."""
    with pipeline.engine.begin() as connection:
        item_id = connection.execute(insert(Item).values(position=1).returning(Item.id)).scalar_one()
        connection.execute(insert(ItemBarcode).values(item_id=item_id, barcode="OUR-OWN-10", temporary=False))

    reply = pipeline.scan("OUR-OWN-10")

    assert (reply["outcome"], reply["reason"]) == ("refused", "not_interlibrary_loan")
    assert "use the normal check-in" in reply["message"]
    with pipeline.engine.connect() as connection:
        assert connection.execute(select(Item.returned_at).where(Item.id == item_id)).scalar_one() is None


def test_case_11_reused_barcode(pipeline):
    """The only open request with the barcode is returned; without an open one the newest closed one is already returned."""
    earlier = pipeline.library.now - timedelta(days=400)
    pipeline.library.request(RequestStatus.RETURNED_TO_PARTNER, barcodes=[["STRAP-11"]], returned_at=earlier)
    open_one, _ = pipeline.library.request(barcodes=[["STRAP-11"]])

    first = pipeline.scan("STRAP-11")
    second = pipeline.scan("STRAP-11")

    assert (first["outcome"], first["request"]) == ("returned", open_one)
    assert (second["outcome"], second["request"]) == ("already_returned", open_one)


def test_case_12_two_open_requests_with_one_barcode(pipeline):
    """Refused, with both requests listed; staff select one by Return from the request."""
    ids = [pipeline.library.request(barcodes=[["STRAP-12"]])[0] for _ in range(2)]

    reply = pipeline.scan("STRAP-12")
    picked = pipeline.return_requested(ids[1])

    assert (reply["outcome"], reply["reason"]) == ("refused", "several_requests")
    assert [choice["external_id"] for choice in reply["choices"]] == ids
    assert picked["outcome"] == "returned"
    assert pipeline.request(ids[0]).status is RequestStatus.LOANED


def test_case_13_lenders_barcode_after_the_strap_is_removed(pipeline):
    """The alias resolves to the item, which is returned."""
    external_id, _ = pipeline.library.request(barcodes=[["STRAP-13", "LENDERS-13"]])

    reply = pipeline.scan("LENDERS-13")

    assert (reply["outcome"], reply["request"]) == ("returned", external_id)


def test_case_14_external_identifier_scanned(pipeline):
    """Refused, with the hint to scan the item or to return from the request."""
    external_id, _ = pipeline.library.request()

    reply = pipeline.scan(external_id)

    assert (reply["outcome"], reply["reason"]) == ("refused", "external_id_scanned")
    assert "Return on the request" in reply["next_step"]
    assert pipeline.history(external_id) == []


def test_case_15_patron_card_scanned(pipeline):
    """Refused, not an item barcode; no patron is looked up, and the reply does not contain the number."""
    with pipeline.engine.begin() as connection:
        connection.execute(insert(Patron).values(number="CARD0815", name="Test Patron with a card"))

    reply = pipeline.scan("CARD0815")

    assert (reply["outcome"], reply["reason"]) == ("refused", "patron_card")
    assert "Not an item barcode" in reply["message"]
    assert "CARD0815" not in json.dumps(reply)
    assert "Test Patron" not in json.dumps(reply)


@pytest.mark.parametrize("scanned", ["  {}\r\n", "{}\t", " {}\r"])
def test_case_16_white_space_around_a_barcode(pipeline, scanned):
    """Spaces, Enter and Tab are stripped; leading zeros, slash, dollar, percent and case are kept."""
    barcode = f"00/aB${len(scanned)}%x"
    external_id, _ = pipeline.library.request(barcodes=[[barcode]])

    reply = pipeline.scan(scanned.format(barcode))

    assert (reply["outcome"], reply["request"], reply["barcode"]) == ("returned", external_id, barcode)


@pytest.mark.parametrize(("line", "reason"), [("x" * 65, "too_long"), ("31\x0042", "control_characters")])
def test_case_16_line_that_is_not_a_barcode(pipeline, line, reason):
    """Refused over 64 characters, or with control characters inside."""
    reply = pipeline.scan(line)

    assert (reply["outcome"], reply["reason"]) == ("refused", reason)
    assert reply["next_step"]


def test_case_17_first_of_three_items_scanned(pipeline):
    """That item is checked in and its loan discharged; the request waits for the last item: "1 of 3"."""
    external_id, [one, two, three] = pipeline.library.request(items=3)

    first, second, last = pipeline.scan(one), pipeline.scan(two), pipeline.scan(three)

    assert [reply["items"] for reply in (first, second, last)] == [{"here": n, "of": 3} for n in (1, 2, 3)]
    assert [reply["status_after"] for reply in (first, second, last)] == ["loaned", "loaned", "returned_to_partner"]
    assert first["discharged"]
    assert pipeline.history(external_id) == ["item_checked_in", "item_checked_in", "returned"]


def test_case_17_partial_return_forced_from_the_request(pipeline):
    """With one of three items here a Return is refused until staff force it; a late item is still checked in."""
    external_id, [one, two, _] = pipeline.library.request(items=3)
    pipeline.scan(one)

    refused = pipeline.return_requested(external_id)
    forced = pipeline.return_requested(external_id, force_partial=True)
    late = pipeline.scan(two)

    assert (refused["outcome"], refused["reason"]) == ("refused", "items_missing")
    assert (forced["outcome"], forced["status_after"]) == ("returned", "returned_to_partner")
    assert (late["outcome"], late["reason"], late["discharged"]) == ("returned", "late_item", True)


def test_case_18_overdue_item_scanned(pipeline):
    """Returned; discharged at the time of the scan, to which fines are counted, not at the worker's time."""
    external_id, [barcode] = pipeline.library.request(RequestStatus.OVERDUE)
    scanned = pipeline.library.now - timedelta(hours=30)

    reply = pipeline.scan(barcode, scanned_at=scanned)

    assert (reply["outcome"], reply["reason"]) == ("returned", "overdue")
    assert pipeline.rows(Loan, external_id)[0].discharged_at == scanned


def test_case_18_recalled_item_scanned(pipeline):
    """Returned, and marked urgent in the reply and on the slip."""
    _, [barcode] = pipeline.library.request(RequestStatus.RECALLED)

    reply = pipeline.scan(barcode)

    assert (reply["outcome"], reply["urgent"]) == ("returned", True)
    assert "URGENT" in pipeline.slip_of(reply)


@pytest.mark.parametrize("status", [RequestStatus.LOST, RequestStatus.DECLARED_LOST])
def test_case_18_lost_item_scanned(pipeline, status):
    """Refused, with the lender named; with a supervisor's override returned, and the fee flagged for review."""
    external_id, [barcode] = pipeline.library.request(status, on_loan=True)

    refused = pipeline.scan(barcode)
    returned = pipeline.return_requested(
        external_id, override=Override(reason="behind the shelf", supervisor="A. Chief")
    )

    assert (refused["outcome"], refused["reason"]) == ("refused", "lost")
    assert refused["destination"]["name"] == LENDER
    assert (returned["outcome"], returned["reason"]) == ("returned", "lost_overridden")
    [loan] = pipeline.rows(Loan, external_id)
    assert loan.fee_open
    assert loan.patron_id is not None


@pytest.mark.parametrize("resolution", ["found_by_library", "returned_by_patron"])
def test_case_18_item_claimed_returned_scanned(pipeline, resolution):
    """Refused until staff resolve the claim; then returned, with the resolution in the history."""
    external_id, [barcode] = pipeline.library.request(loan={"claimed_returned": True})

    refused = pipeline.scan(barcode)
    returned = pipeline.return_requested(external_id, resolution=resolution)

    assert (refused["outcome"], refused["reason"]) == ("refused", "claimed_returned")
    assert returned["outcome"] == "returned"
    assert pipeline.rows(RequestEvent, external_id)[0].details["resolution"] == resolution


def test_case_19_item_scanned_at_another_branch(pipeline):
    """Returned; the branch is recorded, and the slip is printed there."""
    external_id, [barcode] = pipeline.library.request()

    reply = pipeline.scan(barcode, station="north-desk-1")

    assert reply["outcome"] == "returned"
    assert pipeline.rows(RequestEvent, external_id)[0].branch == "north"
    assert "North Library" in pipeline.slip_of(reply)


def test_case_20_loan_of_another_patron(pipeline):
    """Refused, for review; the loan is not discharged."""
    external_id, [barcode] = pipeline.library.request()
    loan_id = pipeline.rows(Loan, external_id)[0].id
    with pipeline.engine.begin() as connection:
        other = connection.execute(
            insert(Patron).values(number="P-OTHER-20", name="Test Patron, another").returning(Patron.id)
        ).scalar_one()
        connection.execute(update(Loan).where(Loan.id == loan_id).values(patron_id=other))

    reply = pipeline.scan(barcode)

    assert (reply["outcome"], reply["reason"]) == ("refused", "loan_of_another_patron")
    assert "review" in reply["next_step"]
    assert pipeline.rows(Loan, external_id)[0].discharged_at is None


def test_case_21_partner_without_a_delivery_code(pipeline):
    """Returned; the slip shows name and address, and staff are warned."""
    with pipeline.engine.begin() as connection:
        partner_id = connection.execute(
            insert(Partner)
            .values(code="XX-NODE", name="Village Library", address=["3 Green Lane", "Smallton"])
            .returning(Partner.id)
        ).scalar_one()
    _, [barcode] = pipeline.library.request(partner_id=partner_id)

    reply = pipeline.scan(barcode)

    assert reply["message"] == "The item's destination is Village Library"
    assert any("no delivery code" in warning for warning in reply["warnings"])
    slip = pipeline.slip_of(reply)
    assert "Village Library 3 Green Lane Smallton" in slip
    assert "NO DELIVERY CODE" in slip


def test_case_22_return_address_given_with_the_item(pipeline):
    """It replaces the partner's default address on the slip, and is shown in a warning."""
    address = ["Riverside Annex", "Gate 4", "Riverside"]
    _, [barcode] = pipeline.library.request(return_address=address)

    reply = pipeline.scan(barcode)

    assert any("return address" in warning for warning in reply["warnings"])
    slip = pipeline.slip_of(reply)
    assert "Riverside Annex Gate 4 Riverside" in slip
    assert "9 River Road" not in slip


def test_case_23_printer_unavailable(pipeline):
    """Returned at once; the print job waits, is retried, and one slip is printed."""
    external_id, [barcode] = pipeline.library.request()
    folder = pipeline.library.spool / "north"
    aside = pipeline.library.spool / "north-aside"
    if folder.exists():
        folder.rename(aside)
    folder.write_text("no folder")
    try:
        reply = pipeline.scan(barcode, station="north-desk-1")
        wait_until(
            lambda: [job.state for job in pipeline.rows(PrintJob, external_id)] == [PrintState.FAILED_SAFE],
            "the print job has failed",
        )
    finally:
        folder.unlink()
        if aside.exists():
            aside.rename(folder)

    assert reply["outcome"] == "returned"
    assert pipeline.slip_of(reply)
    assert len(pipeline.rows(PrintJob, external_id)) == 1


def test_case_24_worker_killed(deployment, raw_station, library, engine):
    """Before the commit: the redelivered event is processed once. After the commit: the stored reply is sent."""
    external_id, [barcode] = library.request()
    payload = library.scan(barcode)
    doomed = deployment.start_worker("returns")
    raw_station.replies_to(raw_station.send(library.scan("warm-up")))

    with engine.connect() as holder:  # the worker waits for this lock inside its transaction when it is killed
        if engine.dialect.name == "postgresql":
            holder.execute(text("SELECT id FROM requests FOR UPDATE"))
        else:
            holder.execute(text("UPDATE requests SET updated_at = updated_at"))
        event_id = raw_station.send(payload)
        time.sleep(1)
        kill_group(doomed)
        holder.rollback()
    again = deployment.start_worker("returns")
    raw_station.send(payload)
    [first] = raw_station.replies_to(event_id)
    kill_group(again)
    with deployment.worker("returns"):
        before = len(raw_station.replies())
        raw_station.send(payload)
        raw_station.wait_until(lambda: len(raw_station.replies()) > before)

    assert first["outcome"] == "returned"
    assert all(reply == first for reply in raw_station.replies() if reply["event_id"] == event_id)
    with engine.connect() as connection:
        assert connection.execute(select(RequestEvent.kind)).all() == [("returned",)]
        assert connection.execute(select(Request.status).where(Request.external_id == external_id)).scalar_one() == (
            RequestStatus.RETURNED_TO_PARTNER
        )


def test_case_25_reply_late_or_lost(deployment, library, engine):
    """The station shows "pending" and resends the same event id; it never creates a new one."""
    _, [barcode] = library.request()
    with StationClient(deployment.station_settings(retry_interval_seconds=0.5)) as client:
        event_id = client.scan(barcode)
        unanswered = client.wait(event_id, 2)
        with deployment.worker("returns"):
            reply = client.wait(event_id, 90)
            [entry] = client.journal.recent()

    assert unanswered is None
    assert reply is not None
    assert (reply.event_id, reply.outcome.value) == (event_id, "returned")
    assert entry.attempts > 1
    with engine.connect() as connection:
        assert connection.execute(select(RequestEvent.event_id)).all() == [(event_id,)]


def test_case_26_backdated_scan(pipeline):
    """The discharge takes that time; in the future or before the loan began it is refused."""
    external_id, [barcode] = pipeline.library.request()
    now = pipeline.library.now

    future = pipeline.scan(barcode, returned_at=datetime.now(UTC) + timedelta(hours=1))
    before = pipeline.scan(barcode, returned_at=now - timedelta(days=15))
    done = pipeline.scan(barcode, returned_at=now - timedelta(days=2))

    assert (future["reason"], before["reason"]) == ("backdate_in_future", "backdate_before_loan")
    assert done["outcome"] == "returned"
    assert pipeline.rows(Loan, external_id)[0].discharged_at == now - timedelta(days=2)
    assert pipeline.history(external_id) == ["returned"]


def test_case_27_note_with_markup_and_ten_thousand_characters(pipeline):
    """Truncated, without control characters, stored as plain text."""
    external_id, _ = pipeline.library.request()
    markup = "<script>alert('1')</script>\x1b[2J\x07 & "

    reply = pipeline.return_requested(external_id, note=markup + "x" * (10_000 - len(markup)))

    [line] = pipeline.rows(RequestEvent, external_id)
    assert reply["outcome"] == "returned"
    assert line.note.startswith("<script>alert('1')</script>[2J & xxx")
    assert len(line.note) == 2000
    assert line.note.endswith("[cut]")


def test_case_28_undo_within_the_window(pipeline):
    """Status, loan and patron link are restored, the slip is void, and the undo is in the history."""
    external_id, [barcode] = pipeline.library.request()
    patron_id = pipeline.request(external_id).patron_id
    returned = pipeline.scan(barcode)

    undone = pipeline.send_event(UndoRequested, PROCESS_UNDO, undoes=returned["event_id"])

    assert (undone["outcome"], undone["status_after"]) == ("done", "loaned")
    [loan] = pipeline.rows(Loan, external_id)
    assert (loan.discharged_at, loan.patron_id) == (None, patron_id)
    assert pipeline.request(external_id).patron_id == patron_id
    assert pipeline.rows(PrintJob, external_id)[0].voided_at is not None
    assert pipeline.history(external_id) == ["returned", "undone"]


def test_case_28_undo_after_the_window(pipeline):
    """Status only, with a reason; the loan stays discharged."""
    external_id, [barcode] = pipeline.library.request()
    returned = pipeline.scan(barcode)
    line_id = pipeline.rows(RequestEvent, external_id)[0].id
    earlier = datetime.now(UTC) - timedelta(minutes=11)
    with pipeline.engine.begin() as connection:
        connection.execute(update(RequestEvent).where(RequestEvent.id == line_id).values(recorded_at=earlier))

    refused = pipeline.send_event(UndoRequested, PROCESS_UNDO, undoes=returned["event_id"])
    undone = pipeline.send_event(UndoRequested, PROCESS_UNDO, request=external_id, reason="wrong book")

    assert (refused["outcome"], refused["reason"]) == ("refused", "reason_needed")
    assert (undone["outcome"], undone["status_after"]) == ("done", "loaned")
    assert pipeline.rows(Loan, external_id)[0].discharged_at is not None


def test_case_28_undo_after_the_partner_confirmed(pipeline):
    """Refused, whatever the reason is."""
    external_id, [barcode] = pipeline.library.request()
    returned = pipeline.scan(barcode)
    pipeline.send_event(RequestCompleted, COMPLETE_REQUEST, request=external_id)

    refused = pipeline.send_event(UndoRequested, PROCESS_UNDO, undoes=returned["event_id"], reason="please")

    assert (refused["outcome"], refused["reason"]) == ("refused", "completed")
    assert pipeline.request(external_id).status is RequestStatus.COMPLETED


def test_case_29_partner_confirms_before_the_scan(pipeline):
    """The status "Request completed" is never reverted; the late scan discharges the open loan at its own time."""
    external_id, [barcode] = pipeline.library.request()
    scanned = pipeline.library.now - timedelta(hours=5)

    completed = pipeline.send_event(RequestCompleted, COMPLETE_REQUEST, request=external_id)
    late = pipeline.scan(barcode, scanned_at=scanned)
    again = pipeline.scan(barcode)

    assert completed["status_after"] == "completed"
    assert (late["outcome"], late["status_after"], late["discharged"]) == ("returned", "completed", True)
    assert (again["outcome"], again["destination"]["name"]) == ("refused", LENDER)
    assert pipeline.request(external_id).status is RequestStatus.COMPLETED
    assert pipeline.rows(Loan, external_id)[0].discharged_at == scanned
