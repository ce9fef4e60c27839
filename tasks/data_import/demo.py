# SPDX-License-Identifier: Apache-2.0
"""Demo data: real libraries and titles, invented patrons and requests, every status and every edge case."""

import csv
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from schemas.models import (
    Branch,
    Item,
    ItemBarcode,
    Loan,
    Model,
    Partner,
    Patron,
    Printer,
    Request,
    RequestEvent,
    Station,
    table,
)
from schemas.request_status import RequestStatus as Status

BRANCHES = {"main": "Main Library", "north": "North Branch", "harbour": "Harbour Branch", "campus": "Campus Library"}
LIBRARY = "Example City Libraries"

ON_LOAN = frozenset(
    {
        Status.LOANED,
        Status.RENEW_REQUESTED,
        Status.RENEWED,
        Status.RENEW_NOT_ACCEPTED,
        Status.MEDIATED_RENEWAL,
        Status.OVERDUE,
        Status.RECALLED,
        Status.LOST,
        Status.DECLARED_LOST,
    }
)
ARRIVED = ON_LOAN | {
    Status.RECEIVED,
    Status.RECEIVED_NOT_FOR_LOAN,
    Status.RETURNED_BY_PATRON,
    Status.DAMAGED,
    Status.RETURNED_TO_PARTNER,
    Status.COMPLETED,
}
RETURNED = frozenset({Status.RETURNED_TO_PARTNER, Status.COMPLETED})

COUNTS = {Status.LOANED: 140, Status.RECEIVED: 30, Status.OVERDUE: 25, Status.RETURNED_TO_PARTNER: 30}
OTHER_COUNT = 8
"""Requests in each status that `COUNTS` does not name."""


@dataclass
class _Rows:
    """Rows to insert, a list for each table; ids count from 1."""

    generator: random.Random
    now: datetime
    patrons: int
    partners: int
    titles: list[dict[str, str]]
    requests: list[dict[str, Any]] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    barcodes: list[dict[str, Any]] = field(default_factory=list)
    loans: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)

    def add_request(self, status: Status, *, items: int = 1, **columns: Any) -> int:
        """Add a request with its items, loans and history; return its id."""
        number = len(self.requests) + 1
        created_at = self.now - timedelta(days=self.generator.randint(25, 90), minutes=self.generator.randint(0, 600))
        returned_at = created_at + timedelta(days=20)
        title = self.titles[number % len(self.titles)]
        patron = self.generator.randint(1, self.patrons)
        row: dict[str, Any] = {
            "id": number,
            "external_id": f"BR-2026-{number:05d}",
            "partner_id": self.generator.randint(1, self.partners),
            "branch_id": self.generator.randint(1, len(BRANCHES)),
            "status": status,
            "title": title["title"],
            "author": title["author"] or None,
            "patron_id": None if status in RETURNED else patron,
            "return_address": None,
            "damage_note": "Cover loose, reported at receipt" if status is Status.DAMAGED else None,
            "created_at": created_at,
            "updated_at": returned_at if status in RETURNED else created_at + timedelta(days=7),
            "returned_at": returned_at if status in RETURNED else None,
            "returned_by": "main-desk-1" if status in RETURNED else None,
            **columns,
        }
        self.requests.append(row)
        self._record(number, "created", None, Status.CREATED, created_at)
        if status in ARRIVED:
            self._record(number, "received", Status.SHIPPED_PHYSICALLY, Status.RECEIVED, created_at + timedelta(days=6))
            for position in range(1, items + 1):
                self._add_arrived_item(row, position, patron)
        if status in ON_LOAN | RETURNED | {Status.RETURNED_BY_PATRON}:
            self._record(number, "loaned", Status.RECEIVED, Status.LOANED, created_at + timedelta(days=7))
        if status in RETURNED:
            self._record(number, "returned", Status.LOANED, Status.RETURNED_TO_PARTNER, returned_at)
        if status is Status.COMPLETED:
            self._record(
                number, "completed", Status.RETURNED_TO_PARTNER, Status.COMPLETED, returned_at + timedelta(days=4)
            )
        return number

    def _add_arrived_item(self, request: dict[str, Any], position: int, patron: int) -> None:
        status: Status = request["status"]
        number = self.add_item(request["id"], position, returned_at=request["returned_at"])
        self.add_barcode(number, f"3{request['id']:06d}{position:02d}{number % 97:02d}")
        if number % 5 == 0:
            self.add_barcode(number, f"ILL-{number:05d}", temporary=True)
        loaned_at = request["created_at"] + timedelta(days=7)
        if status in ON_LOAN or status in RETURNED or status is Status.RETURNED_BY_PATRON:
            is_open = status in ON_LOAN
            is_late = status in {Status.OVERDUE, Status.LOST, Status.DECLARED_LOST}
            self.loans.append(
                {
                    "id": len(self.loans) + 1,
                    "item_id": number,
                    "patron_id": patron if is_open else None,
                    "loaned_at": loaned_at,
                    "due_at": self.now - timedelta(days=3) if is_late else self.now + timedelta(days=14),
                    "discharged_at": None if is_open else request["returned_at"] or loaned_at + timedelta(days=9),
                    "fee_open": False,
                    "claimed_returned": False,
                }
            )

    def add_item(self, request_id: int | None, position: int = 1, returned_at: datetime | None = None) -> int:
        """Add an item; return its id."""
        number = len(self.items) + 1
        self.items.append(
            {
                "id": number,
                "request_id": request_id,
                "position": position,
                "description": f"vol. {position}" if position > 1 else None,
                "returned_at": returned_at,
                "returned_by": "main-desk-1" if returned_at else None,
            }
        )
        return number

    def add_barcode(self, item_id: int, barcode: str, *, temporary: bool = False) -> None:
        """Add a barcode to an item."""
        number = len(self.barcodes) + 1
        self.barcodes.append({"id": number, "item_id": item_id, "barcode": barcode, "temporary": temporary})

    def _record(self, request_id: int, kind: str, before: Status | None, after: Status, at: datetime) -> None:
        self.history.append(
            {
                "id": len(self.history) + 1,
                "request_id": request_id,
                "item_id": None,
                "event_id": None,
                "kind": kind,
                "status_before": before,
                "status_after": after,
                "at": at,
                "recorded_at": at,
                "branch": "main",
                "station": "main-desk-1",
                "note": None,
                "details": {},
            }
        )


def is_empty(session: Session) -> bool:
    """True for a database without any branch, partner, patron or request."""
    return all(
        session.execute(select(model.id).limit(1)).first() is None for model in (Branch, Partner, Patron, Request)
    )


def load_demo(session: Session, *, seed: int, now: datetime, spool_dir: Path, station_keys: Mapping[str, str]) -> None:
    """Fill an empty database; the caller commits. Equal `seed` and `now` give equal rows.

    `station_keys`: code and key of each station to create; the first part of the code is its branch.
    """
    partners = list(_data("partners.csv"))
    titles = list(_data("titles.csv"))
    patrons = 120
    codes = list(BRANCHES)
    rows = _Rows(random.Random(seed), now, patrons, len(partners), titles)  # noqa: S311 - reproducible, not secret
    _fill(rows)
    inserts: list[tuple[type[Model], list[dict[str, Any]]]] = [
        (Branch, [_branch(n, code) for n, code in enumerate(codes, 1)]),
        (Printer, [_printer(n, code, spool_dir) for n, code in enumerate(codes, 1)]),
        (
            Station,
            [
                {"code": code, "branch_id": codes.index(code.split("-")[0]) + 1, "key": key, "active": True}
                for code, key in station_keys.items()
            ],
        ),
        (Partner, [_partner(n, row) for n, row in enumerate(partners, 1)]),
        (Patron, [{"id": n, "number": f"P{n:06d}", "name": f"Test Patron {n:03d}"} for n in range(1, patrons + 1)]),
        (Request, rows.requests),
        (Item, rows.items),
        (ItemBarcode, rows.barcodes),
        (Loan, rows.loans),
        (RequestEvent, rows.history),
    ]
    for model, values in inserts:
        session.execute(insert(table(model)), values)
    if session.get_bind().dialect.name == "postgresql":
        _advance_sequences(session, [model for model, _ in inserts])


def _fill(rows: _Rows) -> None:
    for status in Status:
        for number in range(COUNTS.get(status, OTHER_COUNT)):
            several = status is Status.LOANED and number % 12 == 0
            rows.add_request(status, items=3 if several else 1)
    rows.add_request(
        Status.LOANED,
        return_address=["Staatsbibliothek zu Berlin, Haus Potsdamer Straße", "Potsdamer Straße 33", "10785 Berlin"],
    )
    claimed = rows.add_request(Status.LOANED)
    for loan in rows.loans:
        if rows.items[loan["item_id"] - 1]["request_id"] == claimed:
            loan["claimed_returned"] = True
    for barcode, statuses in {
        "REUSED-0001": (Status.COMPLETED, Status.LOANED),
        "TWICE-0001": (Status.LOANED, Status.RECEIVED),
    }.items():
        for status in statuses:
            request = rows.add_request(status)
            [item] = [item["id"] for item in rows.items if item["request_id"] == request]
            rows.add_barcode(item, barcode)
    for number in range(12):
        rows.add_barcode(rows.add_item(None), f"LOCAL-{number:04d}")


def _data(name: str) -> Iterator[dict[str, str]]:
    text = (files("tasks.data_import") / "demo_data" / name).read_text(encoding="utf-8")
    yield from csv.DictReader(text.splitlines())


def _branch(number: int, code: str) -> dict[str, Any]:
    return {
        "id": number,
        "code": code,
        "name": BRANCHES[code],
        "library": LIBRARY,
        "address": [f"{number} Library Street"],
    }


def _printer(number: int, code: str, spool_dir: Path) -> dict[str, Any]:
    return {
        "id": number,
        "code": f"{code}-slips",
        "branch_id": number,
        "uri": f"spool://{spool_dir}/{code}",
        "media": "label-4x6",
        "is_default": True,
        "on_hold": False,
    }


def _partner(number: int, row: dict[str, str]) -> dict[str, Any]:
    return {
        "id": number,
        "code": row["code"],
        "name": row["name"],
        "address": row["address"].replace('"', "").split("|"),
        "delivery_code": row["delivery_code"] or None,
    }


def _advance_sequences(session: Session, models: list[type[Model]]) -> None:
    """Set PostgreSQL's sequences to continue after the ids that were inserted here."""
    for model in models:
        name = model.__tablename__
        column = table(model).c.id
        session.execute(
            select(func.setval(func.pg_get_serial_sequence(name, "id"), select(func.max(column)).scalar_subquery()))
        )
