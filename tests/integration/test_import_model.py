# SPDX-License-Identifier: Apache-2.0
"""Any sequence of files, `add`s and events: what is stored equals the reference, and the report adds up."""

import csv
import io
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import event, insert, select
from sqlalchemy.orm import sessionmaker

from schemas.circulation_events import (
    ItemLoaned,
    ItemsReceived,
    LoanDischarged,
    ReceivedItem,
    RequestCompleted,
    UndoRequested,
)
from schemas.database import READ_ONLY, open_engine
from schemas.models import Item, ItemBarcode, Loan, Partner, Patron, Request
from tasks.circulation.handler import CIRCULATION_HANDLER
from tasks.data_import import importer
from tasks.data_import.importer import import_rows
from tasks.data_import.mapping import ColumnMapping
from tasks.data_import.readers import read
from tasks.data_import.validation import parse_row
from tasks.events.processing import process_in
from tasks.operator import Operator
from tasks.quarantine.rejection import Received
from tasks.requests.item_barcodes import Editor, RefusedBarcodeError, add_barcode, correct_barcode, remove_barcode
from tasks.returns.handler import RETURN_HANDLER
from tasks.returns.undo_handler import UNDO_HANDLER
from tasks.unit_of_work import UnitOfWork
from tests.import_reference import CLOSED, ORDER, Past, Reference, Row
from tests.library import Library, reply_to
from tests.requirements import is_thorough
from tests.task_context import POLICY

BEGAN = datetime.now(UTC).replace(microsecond=0)
CREATED = {"X-1": BEGAN - timedelta(days=300), "X-2": BEGAN - timedelta(days=100)}
LOANED = (BEGAN - timedelta(days=200), BEGAN - timedelta(days=50))
DISCHARGED = (BEGAN - timedelta(days=190), BEGAN - timedelta(days=40), BEGAN + timedelta(days=1))
CODES = ("A", "B", "C")
REQUESTS = st.sampled_from(sorted(CREATED))
PATRONS = st.sampled_from(["P1", "P2", None])
OPEN_STATUSES = [status for status in ORDER if status not in CLOSED]


def rows_of(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(required, optional=optional)


PARTNER_ROWS = rows_of(
    {"code": st.sampled_from(["L-1", "L-2"])},
    {"name": st.sampled_from(["Lender", "Library"]), "delivery_code": st.sampled_from(["RUL", None]),
     "address": st.sampled_from([[], ["1 Road"]])},
)  # fmt: skip
REQUEST_ROWS = rows_of(
    {"external_id": REQUESTS},
    {"status": st.sampled_from(OPEN_STATUSES) | st.sampled_from(ORDER), "title": st.sampled_from(["T", "U"]),
     "author": st.sampled_from(["W", None]), "patron": PATRONS,
     "address": st.sampled_from([None, ["Depot", "1 Road"]])},
).map(lambda row: row | {"created_at": CREATED[row["external_id"]]})  # fmt: skip
ITEM_ROWS = rows_of(
    {"request": REQUESTS},
    {"barcode": st.lists(st.sampled_from(CODES), min_size=1, max_size=2, unique=True),
     "position": st.sampled_from([None, 1, 2]), "description": st.sampled_from(["vol.", None])},
)  # fmt: skip


def loan_rows(starts: list[datetime]) -> st.SearchStrategy[Row]:
    return rows_of(
        {"barcode": st.sampled_from(CODES), "loaned_at": st.sampled_from(starts)},
        {"patron": PATRONS, "due_at": st.sampled_from([None, BEGAN + timedelta(days=400)]),
         "discharged_at": st.none() | st.sampled_from(DISCHARGED), "fee": st.booleans(), "claim": st.booleans()},
    )  # fmt: skip


FOLDED = {"address": "return_address", "fee": "fee_open", "claim": "claimed_returned"}
"""Columns that the reference calls by a shorter name."""


def columns(kind: str, row: Row) -> Row:
    """The row in the columns of an import, each value as text or `None`."""
    found: Row = {}
    for name, value in row.items():
        column = FOLDED.get(name, name) if kind != "partners" else name
        match value:
            case list():
                found[column] = "|".join(value)
            case datetime():
                found[column] = value.isoformat()
            case bool():
                found[column] = "yes" if value else "no"
            case int():
                found[column] = str(value)
            case _:
                found[column] = value
    if kind == "requests" and {"status", "title"} <= row.keys():
        found |= {"partner": "XX-RUL", "branch": "main"}
    return found


class ImportMachine(RuleBasedStateMachine):
    """A database, and the reference for it."""

    template: Any
    folder: Any
    count = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).count += 1
        path = self.folder / f"{self.count}.db"
        shutil.copy(self.template, path)
        self.path, self.file = path, self.folder / "rows"
        self.engine = open_engine(f"sqlite:///{path}")
        event.listen(self.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
        self.sessions = sessionmaker(self.engine, expire_on_commit=False)
        self.library = Library(self.engine, self.folder / "spool").open(("main-desk-1",))
        self.now = BEGAN
        with self.engine.begin() as connection:
            connection.execute(insert(Patron), [{"number": number, "name": "N"} for number in ("P1", "P2")])
        self.reference = Reference()

    def teardown(self) -> None:
        self.engine.dispose()
        self.path.unlink()

    @initialize(
        statuses=st.tuples(
            st.sampled_from(["shipped_physically", "shipped_physically", "received", "loaned", "completed"]),
            st.sampled_from(["received", "loaned", "completed", "completed"]),
        ),
        codes=st.tuples(*[st.sampled_from(["", "A", "A", "A", "AB", "B"])] * 2),
        starts=st.sampled_from([(), LOANED[1:]]),
        events=st.lists(st.sampled_from(["receive", "receive", "lend", "scan", "undo"]), max_size=3),
        later=st.tuples(*[st.sampled_from(ORDER)] * 2),
    )
    def begin(self, statuses, codes, starts, events, later):
        """Two requests, most with items, some with the same barcode, a loan, events about them, and a file after these."""
        names = list(CREATED)
        self.import_rows("requests", [
            {"external_id": name, "created_at": CREATED[name], "status": status, "title": "T", "patron": "P1"}
            for name, status in zip(names, statuses, strict=True)
        ])  # fmt: skip
        items = [
            {"request": name, "barcode": [code]} for name, of_name in zip(names, codes, strict=True) for code in of_name
        ]
        self.import_rows("items", items)
        self.import_rows("loans", [{"barcode": "A", "loaned_at": at, "patron": "P1"} for at in starts])
        self.import_rows("partners", [{"code": "L-1", "name": "Lender", "delivery_code": "RUL", "address": ["1 Road"]}])
        steps = {
            "receive": lambda: self.send_parcel(names[0], "C", ("Annex", "2 Road")),
            "lend": lambda: self.event(CIRCULATION_HANDLER, lambda: self.library.event(ItemLoaned, barcode="A")),
            "scan": lambda: self.event(RETURN_HANDLER, lambda: self.library.scan("A")),
            "undo": lambda: self.undo(names[0]),
        }
        for step in events:
            steps[step]()
        self.import_status_of_each(later)

    # Imports

    @rule(rows=st.lists(PARTNER_ROWS, min_size=1, max_size=3), data=st.data())
    def import_partners(self, rows, data):
        self.import_file("partners", rows, data)

    @rule(rows=st.lists(REQUEST_ROWS, min_size=1, max_size=3), data=st.data())
    def import_requests(self, rows, data):
        self.import_file("requests", rows, data)

    @rule(statuses=st.tuples(*[st.sampled_from(ORDER)] * 2))
    def import_statuses(self, statuses):
        self.import_status_of_each(statuses)

    def import_status_of_each(self, statuses):
        """Import a file of both requests that names their status and nothing else."""
        rows = zip(CREATED, statuses, strict=True)
        self.import_rows(
            "requests", [{"external_id": name, "created_at": CREATED[name], "status": status} for name, status in rows]
        )

    @rule(rows=st.lists(ITEM_ROWS, min_size=1, max_size=4), data=st.data())
    def import_items(self, rows, data):
        self.import_file("items", rows, data)

    @rule(data=st.data())
    def import_loans(self, data):
        starts = [*LOANED, *sorted({at for *_, at in self.reference.loans})]
        rows = data.draw(st.lists(loan_rows(starts), min_size=1, max_size=3), label="loans")
        self.import_file("loans", rows, data)

    @rule(row=PARTNER_ROWS.map(lambda row: ("partners", row)) | REQUEST_ROWS.map(lambda row: ("requests", row)))
    def add(self, row):
        """As `bookdrop add` does."""
        kind, values = row
        record = {name: value or "" for name, value in columns(kind, values).items()}
        self.store(kind, [values], [parse_row(kind, ColumnMapping(), 1, record)])

    def import_file(self, kind, rows, data):
        if data.draw(st.booleans(), label="as CSV"):
            # Each row of a CSV file has all columns; the header leaves out those that the first row does not name.
            header = list(rows[0])
            empty: Row = {"fee": False, "claim": False, "address": [] if kind == "partners" else None}
            rows = [{name: row.get(name, empty.get(name)) for name in header} for row in rows]
            rows = [row for row in rows if row.get("status", "") is not None and row.get("barcode", "") is not None]
            rows = [row for row in rows if row.get("title", "") is not None and row.get("name", "") is not None]
            text = io.StringIO()
            writer = csv.DictWriter(text, list(columns(kind, rows[0])))
            writer.writeheader()
            writer.writerows(columns(kind, row) for row in rows)
            self.file.write_text(text.getvalue())
        else:
            self.file.write_text("".join(json.dumps(columns(kind, row)) + "\n" for row in rows))
        with patch.object(importer, "BATCH_SIZE", data.draw(st.sampled_from([1, 2, 1000]), label="batch")):
            self.store(kind, rows, read(self.file, kind, ColumnMapping()))

    def import_rows(self, kind, rows):
        """Import rows as JSON Lines, in one batch."""
        if rows:
            self.file.write_text("".join(json.dumps(columns(kind, row)) + "\n" for row in rows))
            self.store(kind, rows, read(self.file, kind, ColumnMapping()))

    def store(self, kind, rows, parsed):
        self.tick()
        report = import_rows(parsed, self.sessions, self.now)
        self.reference.added.clear()
        outcomes = [self.reference.apply(kind, row) for row in rows]
        total = report.total
        assert total.read == len(rows)
        assert {
            "added": total.added, "changed": total.changed, "unchanged": total.unchanged, "refused": total.refused,
        } == {name: outcomes.count(name) for name in ("added", "changed", "unchanged", "refused")}, report  # fmt: skip

    # Events, and operators' changes of barcodes

    def send(self, handler, payload):
        with UnitOfWork(self.sessions, self.now) as uow:
            process_in(uow, [Received(payload, reply_to(payload))], handler, POLICY)

    def tick(self):
        self.now += timedelta(minutes=1)
        self.library.now = self.now

    def event(self, handler, make, *, undoes=False, addressed=None):
        """Send an event, and take its effect over into the reference: events have their own tests."""
        self.tick()
        before = self.stored()
        self.send(handler, make())
        after = self.stored()
        for name, request in after.requests.items():
            past = self.reference.past.get(name, Past())
            was = before.requests[name]["status"]
            if request["status"] != was:
                past = replace(past, status=request["status"], undone=was if undoes else None)
            if (name == addressed and request != before.requests[name] | {"status": request["status"]}) or (
                name == addressed and len(after.items) > len(before.items)
            ):
                past = replace(past, entered_address=True)
            self.reference.past[name] = past
        for key, loan in after.loans.items():
            if key in before.loans and loan["discharged_at"] is None and before.loans[key]["discharged_at"] is not None:
                self.reference.reopened[key] = self.now
        self.adopt(after)

    def adopt(self, stored):
        ours = self.reference
        ours.requests, ours.items, ours.loans = stored.requests, stored.items, stored.loans

    @rule(request=REQUESTS, code=st.sampled_from(CODES), address=st.sampled_from([(), ("Annex", "2 Road")]))
    @precondition(lambda self: self.reference.requests)
    def receive(self, request, code, address):
        self.send_parcel(request, code, address)

    def send_parcel(self, request, code, address):
        items = (ReceivedItem(barcode=code),)
        self.event(
            CIRCULATION_HANDLER,
            lambda: self.library.event(ItemsReceived, request=request, items=items, return_address=address),
            addressed=request if address else None,
        )

    @rule(code=st.sampled_from(CODES))
    @precondition(lambda self: self.reference.items)
    def lend(self, code):
        self.event(CIRCULATION_HANDLER, lambda: self.library.event(ItemLoaned, barcode=code))

    @rule(code=st.sampled_from(CODES))
    @precondition(lambda self: self.reference.loans)
    def discharge(self, code):
        self.event(CIRCULATION_HANDLER, lambda: self.library.event(LoanDischarged, barcode=code))

    @rule(data=st.data())
    @precondition(lambda self: self.reference.items)
    def scan(self, data):
        there = sorted({code for item in self.reference.items.values() for code in item["barcodes"]})
        code = data.draw(st.sampled_from(there), label="barcode")
        self.event(RETURN_HANDLER, lambda: self.library.scan(code))

    @rule(request=REQUESTS)
    @precondition(lambda self: self.reference.items)
    def undo(self, request):
        self.event(UNDO_HANDLER, lambda: self.library.event(UndoRequested, request=request, reason="R"), undoes=True)

    @rule(request=REQUESTS)
    @precondition(lambda self: self.reference.items)
    def complete(self, request):
        self.event(CIRCULATION_HANDLER, lambda: self.library.event(RequestCompleted, request=request))

    @rule(
        request=REQUESTS,
        code=st.sampled_from(CODES),
        new=st.sampled_from(CODES),
        action=st.sampled_from(["add", "remove", "correct"]),
        position=st.sampled_from([None, 1, 2]),
    )
    @precondition(lambda self: self.reference.items)
    def change_barcode(self, request, code, new, action, position):
        self.tick()
        editor = Editor(Operator("kim", "R"), self.now)
        before = self.stored()
        with self.sessions() as session:
            try:
                match action:
                    case "add":
                        add_barcode(session, request, code, editor, position=position, temporary=False)
                    case "remove":
                        remove_barcode(session, request, code, editor, position=position)
                    case _:
                        correct_barcode(session, request, code, new, editor, position=position)
            except RefusedBarcodeError:
                return
            session.commit()
        after = self.stored()
        for key, item in after.items.items():
            self.reference.removed |= {(*key, gone) for gone in before.items[key]["barcodes"] - item["barcodes"]}
            self.reference.removed -= {(*key, there) for there in item["barcodes"]}
        self.adopt(after)

    # What is stored

    @invariant()
    def stored_equals_reference(self):
        stored = self.stored()
        assert stored.partners == self.reference.partners
        assert stored.requests == self.reference.requests
        assert without_ids(stored.items) == without_ids(self.reference.items)
        assert stored.loans == self.reference.loans

    def stored(self) -> Reference:
        found = Reference()
        with self.engine.connect().execution_options(**READ_ONLY) as connection:
            for partner in connection.execute(select(Partner.__table__).where(Partner.code != "XX-RUL")):
                found.partners[partner.code] = {
                    "name": partner.name, "delivery_code": partner.delivery_code, "address": partner.address
                }  # fmt: skip
            for row in connection.execute(
                select(Request.__table__, Patron.number.label("patron")).outerjoin(
                    Patron, Patron.id == Request.patron_id
                )
            ):
                found.requests[row.external_id] = {
                    "status": row.status.value, "title": row.title, "author": row.author, "patron": row.patron,
                    "address": row.return_address, "created_at": row.created_at, "returned_at": row.returned_at,
                }  # fmt: skip
            keys = {}
            for row in connection.execute(
                select(Item.__table__, Request.external_id)
                .join(Request, Request.id == Item.request_id)
                .order_by(Item.id)
            ):
                keys[row.id] = (row.external_id, row.position)
                found.items[keys[row.id]] = {
                    "description": row.description, "barcodes": set(), "returned": row.returned_at, "id": row.id
                }  # fmt: skip
            for row in connection.execute(select(ItemBarcode.__table__)):
                found.items[keys[row.item_id]]["barcodes"].add(row.barcode)
            for row in connection.execute(
                select(Loan.__table__, Patron.number.label("patron")).outerjoin(Patron, Patron.id == Loan.patron_id)
            ):
                found.loans[*keys[row.item_id], row.loaned_at] = {
                    "due_at": row.due_at, "discharged_at": row.discharged_at, "fee": row.fee_open,
                    "claim": row.claimed_returned, "patron": row.patron,
                }  # fmt: skip
        return found


def without_ids(items: dict[tuple[str, int], Row]) -> dict[tuple[str, int], Row]:
    return {key: {name: value for name, value in item.items() if name != "id"} for key, item in items.items()}


def test_imports_and_events_leave_what_the_reference_leaves(sqlite_template, tmp_path, pytestconfig):
    """Files of several kinds, in two formats, with columns left out, in any order, among adds and events."""

    class Machine(ImportMachine):
        template, folder = sqlite_template, tmp_path

    thorough = is_thorough(pytestconfig)
    phases = [phase for phase in Phase if thorough or phase is not Phase.shrink]  # shrinking takes minutes
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=600 if thorough else 80,
            stateful_step_count=10,
            phases=phases,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
