# SPDX-License-Identifier: Apache-2.0
"""An import after events of this system: an older export does not undo them, and the report states it."""

import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from sqlalchemy import select, update

from schemas.circulation_events import (
    ItemLoaned,
    ItemsReceived,
    LoanDischarged,
    ReceivedItem,
    RequestCompleted,
    UndoRequested,
)
from schemas.models import Item, Loan, Request
from schemas.request_status import RequestStatus
from tasks.circulation.handler import CIRCULATION_HANDLER
from tasks.data_import.precedence import PHASES
from tasks.returns.handler import RETURN_HANDLER
from tasks.returns.undo_handler import UNDO_HANDLER
from tests.import_files import as_csv, as_json
from tests.library import event_id
from workers.cli import main

LOANED_AT = "2026-11-01T10:00:00+00:00"


@pytest.fixture(params=[as_csv, as_json], ids=["csv", "json"])
def load(request, engine, database_url, monkeypatch, tmp_path):
    """Import rows of a kind with the command; return exit code and report."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)

    def load(kind, *rows):
        path = tmp_path / "rows"
        path.write_text(request.param(rows), encoding="utf-8")
        result = CliRunner().invoke(main, ["import", str(path), "--kind", kind, "--json"])
        assert result.exit_code in {0, 1}, result.output
        found = json.loads(result.stdout)
        counts = found["by_kind"].values()
        assert found["read"] == sum(sum(of_kind.values()) for of_kind in counts) == len(rows)
        return result.exit_code, found

    return load


@pytest.fixture
def send(handle, library):
    """Send an event; it must be done."""

    def send(handler, payload, **options):
        [reply] = handle(handler, payload, **options)
        assert str(getattr(reply.outcome, "value", reply.outcome)) in {"done", "returned"}, reply
        return payload

    return send


def notes(found):
    return {note["note"]: note["rows"] for note in found["notes"]}


def request_row(external_id, status, **more):
    return {"external_id": external_id, "partner": "XX-RUL", "branch": "main", "status": status, "title": "T", **more}


def stored(engine, model, **where):
    with engine.connect() as connection:
        [row] = connection.execute(select(model.__table__).filter_by(**where)).mappings()
        return dict(row)


def sent(load, external_id="X-1", **more):
    load("requests", request_row(external_id, "Shipped physically", **more))
    return external_id


def received(load, send, library, barcode="0042", address=()):
    external_id = sent(load)
    items = (ReceivedItem(barcode=barcode),)
    send(CIRCULATION_HANDLER, library.event(ItemsReceived, request=external_id, items=items, return_address=address))
    return external_id


def lent(load, send, library, engine):
    load("patrons", {"number": "P1", "name": "N"})
    external_id = received(load, send, library)
    load("requests", {"external_id": external_id, "patron": "P1"})
    send(CIRCULATION_HANDLER, library.event(ItemLoaned, barcode="0042"))
    return external_id


def test_request_lent_here_stays_lent(load, send, library, engine):
    """An older "Shipped physically" does not undo a receipt and a loan; other columns of the row apply."""
    external_id = lent(load, send, library, engine)

    code, found = load("requests", request_row(external_id, "Shipped physically"))
    again_code, again = load("requests", request_row(external_id, "Shipped physically", title="Other"))

    assert (code, again_code) == (0, 0)
    assert (found["unchanged"], again["changed"]) == (1, 1)
    assert notes(found) == notes(again) == {"older": 1}
    row = stored(engine, Request, external_id=external_id)
    assert (row["status"], row["title"]) == (RequestStatus.LOANED, "Other")


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("status", list(RequestStatus))
def test_every_status_after_a_loan_here(load, send, library, engine, status):
    """A status of an earlier phase than the loan is ignored, every other applies."""
    external_id = lent(load, send, library, engine)

    _, found = load("requests", request_row(external_id, status.value))

    is_earlier = PHASES[status] < PHASES[RequestStatus.LOANED]
    assert stored(engine, Request)["status"] is (RequestStatus.LOANED if is_earlier else status)
    assert bool(notes(found)) == is_earlier


def test_later_import_does_not_reopen_the_way_back(load, send, library, engine):
    """After an import set a later status, a status before the event is still older."""
    external_id = lent(load, send, library, engine)
    load("requests", {"external_id": external_id, "status": "Overdue request"})

    load("requests", {"external_id": external_id, "status": "Loaned to patron"})
    renewed = stored(engine, Request)["status"]
    _, found = load("requests", {"external_id": external_id, "status": "Shipped physically"})

    assert (renewed, stored(engine, Request)["status"]) == (RequestStatus.LOANED, RequestStatus.LOANED)
    assert notes(found) == {"older": 1}


def test_status_of_imports_alone_changes_in_both_directions(load, library, engine):
    """Without an event, the file's status applies."""
    external_id = sent(load)
    load("requests", request_row(external_id, "Loaned to patron"))

    _, found = load("requests", request_row(external_id, "Shipped physically"))

    assert (found["changed"], notes(found)) == (1, {})
    assert stored(engine, Request)["status"] is RequestStatus.SHIPPED_PHYSICALLY


def returned(load, send, library, engine):
    external_id = lent(load, send, library, engine)
    loan = stored(engine, Loan)
    scan = send(RETURN_HANDLER, library.scan("0042"))
    return external_id, loan, event_id(scan)


def test_night_after_a_return_is_not_a_failure(load, send, library, engine):
    """Rows of a request returned here, with its item and loan, are unchanged; nothing of them applies."""
    external_id, loan, _ = returned(load, send, library, engine)
    before = stored(engine, Request), stored(engine, Item), stored(engine, Loan)

    results = [
        load("requests", request_row(external_id, "Loaned to patron", title="Other", patron="P1")),
        load("items", {"request": external_id, "barcode": "0042", "description": "vol. 1"}),
        load("items", {"request": external_id, "barcode": "0099", "description": ""}),
        load("loans", {"barcode": "0042", "patron": "P1", "loaned_at": loan["loaned_at"].isoformat(), "discharged_at": ""}),
        load("loans", {"barcode": "0042", "patron": "P1", "loaned_at": LOANED_AT, "discharged_at": ""}),
    ]  # fmt: skip

    assert [code for code, _ in results] == [0] * 5
    assert [found["unchanged"] for _, found in results] == [1] * 5
    assert [list(notes(found)) for _, found in results] == [
        ["already_returned"], ["already_returned"], ["already_returned"], ["discharged"], ["already_returned"]
    ]  # fmt: skip
    assert (stored(engine, Request), stored(engine, Item), stored(engine, Loan)) == before


def test_unknown_patron_of_a_closed_request_is_no_failure(load, send, library, engine):
    """A row of a request that was returned here is not refused for its patron, who may be deleted."""
    external_id, loan, _ = returned(load, send, library, engine)

    codes = [
        load("requests", request_row(external_id, "Loaned to patron", patron="GONE"))[0],
        load("requests", request_row(external_id, "Returned item to partner", patron="GONE"))[0],
        load("loans", {"barcode": "0042", "patron": "GONE", "loaned_at": loan["loaned_at"].isoformat(), "discharged_at": ""})[0],
    ]  # fmt: skip

    assert codes == [0, 0, 0]
    assert stored(engine, Request)["patron_id"] is None


def test_text_report_has_one_line_for_closed_requests(load, send, library, engine, tmp_path):
    """The text report counts the rows of closed requests in one line."""
    external_id, _, _ = returned(load, send, library, engine)
    path = tmp_path / "night.csv"
    path.write_text(as_csv([request_row(external_id, "Loaned to patron")] * 3))

    result = CliRunner().invoke(main, ["import", str(path)])

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "requests: 0 added, 0 changed, 3 unchanged, 0 refused",
        "  3 rows: already returned here",
        "3 rows: 0 added, 0 changed, 3 unchanged, 0 refused.",
    ]


@pytest.mark.parametrize("status", ["Canceled by patron", "Expired", "Rejected by partner"])
@pytest.mark.databases("sqlite")
def test_request_closed_by_an_import_stays_closed(load, library, status):
    """A request that ended without a Return is not reopened either."""
    external_id = sent(load)
    load("requests", request_row(external_id, status))

    code, found = load("requests", request_row(external_id, "Loaned to patron"))

    assert (code, found["unchanged"], notes(found)) == (0, 1, {"closed": 1})


def test_completed_request_stays_completed(load, send, library, engine):
    """After the lender's confirmation "Returned item to partner" is older; before it "Request completed" applies."""
    external_id, _, _ = returned(load, send, library, engine)
    load("requests", request_row(external_id, "Request completed"))

    code, found = load("requests", request_row(external_id, "Returned item to partner"))

    assert (code, notes(found)) == (0, {"already_returned": 1})
    assert stored(engine, Request)["status"] is RequestStatus.COMPLETED


def test_completed_event_is_not_undone(load, send, library, engine):
    """A completion here is the last word on the request."""
    external_id, _, _ = returned(load, send, library, engine)
    send(CIRCULATION_HANDLER, library.event(RequestCompleted, request=external_id))

    _, found = load("requests", request_row(external_id, "Canceled by staff"))

    assert notes(found) == {"already_returned": 1}
    assert stored(engine, Request)["status"] is RequestStatus.COMPLETED


def test_discharge_keeps_the_time_of_the_scan(load, send, library, engine):
    """A file with another time of the discharge, or with none, changes neither the loan nor its patron."""
    _, loan, _ = returned(load, send, library, engine)
    before = stored(engine, Loan)
    row = {"barcode": "0042", "patron": "P1", "loaned_at": loan["loaned_at"].isoformat()}

    code, found = load("loans", row | {"discharged_at": "2026-11-20T00:00:00Z", "fee_open": "yes"})

    after = stored(engine, Loan)
    assert (code, notes(found)) == (0, {"discharge_kept": 1})
    assert (after["discharged_at"], after["patron_id"]) == (before["discharged_at"], None)


def test_discharge_without_return_is_not_reopened(load, send, library, engine):
    """An item that the patron gave back stays "Returned by patron"; its loan stays discharged."""
    external_id = lent(load, send, library, engine)
    loan = stored(engine, Loan)
    send(CIRCULATION_HANDLER, library.event(LoanDischarged, barcode="0042"))

    _, requests = load("requests", request_row(external_id, "Loaned to patron"))
    _, same = load("loans", {"barcode": "0042", "loaned_at": loan["loaned_at"].isoformat(), "discharged_at": ""})
    _, other = load("loans", {"barcode": "0042", "loaned_at": LOANED_AT, "discharged_at": ""})

    assert (notes(requests), notes(same), notes(other)) == ({"older": 1}, {"discharged": 1}, {"discharged": 1})
    assert stored(engine, Request)["status"] is RequestStatus.RETURNED_BY_PATRON
    assert stored(engine, Loan)["discharged_at"] is not None


def test_undone_return_is_not_performed_again(load, send, library, engine):
    """After an undo, neither the status nor the discharge that it reversed comes back with the next file."""
    external_id, loan, event = returned(load, send, library, engine)
    discharged_at = stored(engine, Loan)["discharged_at"]
    send(UNDO_HANDLER, library.event(UndoRequested, undoes=event))

    _, requests = load("requests", request_row(external_id, "Returned item to partner"))
    _, loans = load(
        "loans",
        {"barcode": "0042", "loaned_at": loan["loaned_at"].isoformat(), "discharged_at": discharged_at.isoformat()},
    )

    assert (notes(requests), notes(loans)) == ({"older": 1}, {"older": 1})
    assert stored(engine, Request)["status"] is RequestStatus.LOANED
    assert stored(engine, Loan)["discharged_at"] is None


@pytest.mark.parametrize("value", ["", "Elsewhere|1 Road"])
def test_address_entered_at_receipt_stays(load, send, library, engine, value):
    """Staff's return address beats the file's, also an empty cell of a named column."""
    external_id = received(load, send, library, address=("Riverside Annex", "9 River Road"))

    code, found = load("requests", request_row(external_id, "Physically received by library", return_address=value))

    assert (code, notes(found)) == (0, {"return_address_kept": 1})
    assert stored(engine, Request)["return_address"] == ["Riverside Annex", "9 River Road"]


def test_address_of_an_import_changes_with_the_next_file(load, send, library, engine):
    """An address that was not entered here is the file's to change, also after a receipt."""
    external_id = sent(load, return_address="Depot|1 Road")
    send(CIRCULATION_HANDLER, library.event(ItemsReceived, request=external_id, items=(ReceivedItem(barcode="0042"),)))

    _, found = load("requests", {"external_id": external_id, "return_address": "Depot|2 Road"})

    assert (found["changed"], notes(found)) == (1, {})
    assert stored(engine, Request)["return_address"] == ["Depot", "2 Road"]


@pytest.mark.parametrize("column", ["fee_open", "claimed_returned"])
def test_open_claim_keeps_the_patron(load, engine, library, column):
    """A discharge or the end of a request keeps the patron link while a fee or a claim is open, and then severs it."""
    load("patrons", {"number": "P1", "name": "N"})
    load("requests", request_row("X-1", "Loaned to patron", patron="P1"))
    load("items", {"request": "X-1", "barcode": "0042"})
    row = {"barcode": "0042", "patron": "P1", "loaned_at": LOANED_AT}
    load("loans", row | {column: "yes"})

    load("loans", row | {"discharged_at": "2026-11-20T00:00:00Z"})
    load("requests", request_row("X-1", "Returned item to partner", patron="P1"))
    kept = stored(engine, Loan)["patron_id"], stored(engine, Request)["patron_id"]
    load("loans", {"barcode": "0042", "loaned_at": LOANED_AT, column: "no"})
    load("requests", request_row("X-1", "Returned item to partner", patron="P1"))

    assert None not in kept
    assert (stored(engine, Loan)["patron_id"], stored(engine, Request)["patron_id"]) == (None, None)


def two_requests_with_one_barcode(load, library, *, first_is_open):
    """A closed and an open request, whose items have the same barcode; the closed one is the item added last or first."""
    for external_id, is_open in (("X-1", first_is_open), ("X-2", not first_is_open)):
        status = "Physically received by library" if is_open else "Returned item to partner"
        load("requests", request_row(external_id, status))
        load("items", {"request": external_id, "barcode": "0042"})
    return "X-1" if first_is_open else "X-2"


@pytest.mark.parametrize("first_is_open", [True, False])
def test_open_loan_is_of_the_open_request(load, library, engine, first_is_open):
    """A loan is hung on the item of the open request, in any order of the items; the same file again changes nothing."""
    open_request = two_requests_with_one_barcode(load, library, first_is_open=first_is_open)

    _, first = load("loans", {"barcode": "0042", "loaned_at": LOANED_AT})
    _, second = load("loans", {"barcode": "0042", "loaned_at": LOANED_AT})

    assert (first["added"], second["unchanged"], notes(second)) == (1, 1, {})
    request = stored(engine, Request, external_id=open_request)
    assert stored(engine, Loan)["item_id"] == stored(engine, Item, request_id=request["id"])["id"]


def test_loan_of_two_open_requests_is_refused(load, library, engine):
    """A barcode on items of two open requests does not identify one; the requests are named."""
    for external_id in ("X-1", "X-2"):
        load("requests", request_row(external_id, "Physically received by library"))
        load("items", {"request": external_id, "barcode": "0042"})

    code, found = load("loans", {"barcode": "0042", "loaned_at": LOANED_AT})

    assert code == 1
    assert "X-1, X-2" in found["refused"][0]["reason"]


def test_past_loan_is_of_the_request_of_its_time(load, library, engine, send):
    """A discharged loan is hung on the item whose request was open at its time."""
    for external_id, created_at in (("X-1", "2026-01-01T00:00:00Z"), ("X-2", "2026-06-01T00:00:00Z")):
        load("requests", request_row(external_id, "Loaned to patron", created_at=created_at))
        load("items", {"request": external_id, "barcode": "0042"})
    with engine.begin() as connection:
        connection.execute(
            update(Request)
            .where(Request.external_id == "X-1")
            .values(status=RequestStatus.COMPLETED, returned_at=datetime(2026, 3, 1, tzinfo=UTC))
        )

    load("loans", {"barcode": "0042", "loaned_at": "2026-02-01T00:00:00Z", "discharged_at": "2026-02-20T00:00:00Z"})
    load("loans", {"barcode": "0042", "loaned_at": "2026-07-01T00:00:00Z", "discharged_at": "2026-07-20T00:00:00Z"})

    def request_of(loaned_at):
        loan = stored(engine, Loan, loaned_at=loaned_at)
        return stored(engine, Request, id=stored(engine, Item, id=loan["item_id"])["request_id"])["external_id"]

    assert request_of(datetime(2026, 2, 1, tzinfo=UTC)) == "X-1"
    assert request_of(datetime(2026, 7, 1, tzinfo=UTC)) == "X-2"


def test_stored_loan_is_found_by_its_start(load, library, engine):
    """A row of a loan that is stored on a closed request's item changes that loan, not one of the open request."""
    load("requests", request_row("X-1", "Loaned to patron"))
    load("items", {"request": "X-1", "barcode": "0042"})
    load("loans", {"barcode": "0042", "loaned_at": LOANED_AT})
    load("requests", request_row("X-1", "Returned item to partner"), request_row("X-2", "Loaned to patron"))
    load("items", {"request": "X-2", "barcode": "0042"})

    _, found = load("loans", {"barcode": "0042", "loaned_at": LOANED_AT, "discharged_at": "2026-11-20T00:00:00Z"})

    assert found["changed"] == 1
    assert stored(engine, Loan)["discharged_at"] == datetime(2026, 11, 20, tzinfo=UTC)


def test_returned_item_of_an_open_request_takes_no_loan(load, send, library, engine):
    """Of two items one is back: an open loan of it is older than its Return."""
    _, barcodes = library.request(RequestStatus.LOANED, items=2)
    send(RETURN_HANDLER, library.scan(barcodes[0]))

    code, found = load("loans", {"barcode": barcodes[0], "loaned_at": LOANED_AT})

    assert (code, notes(found)) == (0, {"already_returned": 1})
