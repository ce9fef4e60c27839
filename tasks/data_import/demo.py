# SPDX-License-Identifier: Apache-2.0
"""Demo data: real libraries and titles, invented readers and requests, every status and every odd case."""

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
SENT_HOME = frozenset({Status.RETURNED_TO_PARTNER, Status.COMPLETED})

HOW_MANY = {Status.LOANED: 140, Status.RECEIVED: 30, Status.OVERDUE: 25, Status.RETURNED_TO_PARTNER: 30}
OTHERS = 8
"""Requests in each status that `HOW_MANY` does not name."""


@dataclass
class _Rows:
    """The rows in the making, a list per table, with ids counted here."""

    dice: random.Random
    now: datetime
    patrons: int
    partners: int
    titles: list[dict[str, str]]
    requests: list[dict[str, Any]] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    barcodes: list[dict[str, Any]] = field(default_factory=list)
    loans: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)

    def request(self, status: Status, *, items: int = 1, **columns: Any) -> int:
        """Add a request with its items, loans and history; give its id."""
        number = len(self.requests) + 1
        made = self.now - timedelta(days=self.dice.randint(25, 90), minutes=self.dice.randint(0, 600))
        home = made + timedelta(days=20)
        title = self.titles[number % len(self.titles)]
        patron = self.dice.randint(1, self.patrons)
        row: dict[str, Any] = {
            "id": number,
            "external_id": f"BR-2026-{number:05d}",
            "partner_id": self.dice.randint(1, self.partners),
            "branch_id": self.dice.randint(1, len(BRANCHES)),
            "status": status,
            "title": title["title"],
            "author": title["author"] or None,
            "patron_id": None if status in SENT_HOME else patron,
            "return_address": None,
            "damage_note": "Cover loose, reported at receipt" if status is Status.DAMAGED else None,
            "created_at": made,
            "updated_at": home if status in SENT_HOME else made + timedelta(days=7),
            "returned_at": home if status in SENT_HOME else None,
            "returned_by": "main-desk-1" if status in SENT_HOME else None,
            **columns,
        }
        self.requests.append(row)
        self._tell(number, "created", None, Status.CREATED, made)
        if status in ARRIVED:
            self._tell(number, "received", Status.SHIPPED_PHYSICALLY, Status.RECEIVED, made + timedelta(days=6))
            for position in range(1, items + 1):
                self._item(row, position, patron)
        if status in ON_LOAN | SENT_HOME | {Status.RETURNED_BY_PATRON}:
            self._tell(number, "loaned", Status.RECEIVED, Status.LOANED, made + timedelta(days=7))
        if status in SENT_HOME:
            self._tell(number, "returned", Status.LOANED, Status.RETURNED_TO_PARTNER, home)
        if status is Status.COMPLETED:
            self._tell(number, "completed", Status.RETURNED_TO_PARTNER, Status.COMPLETED, home + timedelta(days=4))
        return number

    def _item(self, request: dict[str, Any], position: int, patron: int) -> None:
        status: Status = request["status"]
        number = self.item(request["id"], position, returned_at=request["returned_at"])
        self.barcode(number, f"3{request['id']:06d}{position:02d}{number % 97:02d}")
        if number % 5 == 0:
            self.barcode(number, f"ILL-{number:05d}", temporary=True)
        lent = request["created_at"] + timedelta(days=7)
        if status in ON_LOAN or status in SENT_HOME or status is Status.RETURNED_BY_PATRON:
            is_open = status in ON_LOAN
            late = status in {Status.OVERDUE, Status.LOST, Status.DECLARED_LOST}
            self.loans.append(
                {
                    "id": len(self.loans) + 1,
                    "item_id": number,
                    "patron_id": patron if is_open else None,
                    "loaned_at": lent,
                    "due_at": self.now - timedelta(days=3) if late else self.now + timedelta(days=14),
                    "discharged_at": None if is_open else request["returned_at"] or lent + timedelta(days=9),
                    "fee_open": False,
                    "claimed_returned": False,
                }
            )

    def item(self, request_id: int | None, position: int = 1, returned_at: datetime | None = None) -> int:
        """Add an item; give its id."""
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

    def barcode(self, item_id: int, barcode: str, *, temporary: bool = False) -> None:
        """Put a barcode on an item."""
        number = len(self.barcodes) + 1
        self.barcodes.append({"id": number, "item_id": item_id, "barcode": barcode, "temporary": temporary})

    def _tell(self, request_id: int, kind: str, before: Status | None, after: Status, at: datetime) -> None:
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
    """Tell whether nobody has put anything into this database yet."""
    return all(
        session.execute(select(model.id).limit(1)).first() is None for model in (Branch, Partner, Patron, Request)
    )


def load_demo(session: Session, *, seed: int, now: datetime, spool_dir: Path, station_keys: Mapping[str, str]) -> None:
    """Fill an empty database; the caller commits. The same `seed` and `now` give the same rows.

    `station_keys`: a key for each station to be made; a station's branch is the first part of its code.
    """
    partners = list(_data("partners.csv"))
    titles = list(_data("titles.csv"))
    patrons = 120
    codes = list(BRANCHES)
    rows = _Rows(random.Random(seed), now, patrons, len(partners), titles)  # noqa: S311 - the same demo every time
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
        (Patron, [{"id": n, "number": f"P{n:06d}", "name": f"Test Reader {n:03d}"} for n in range(1, patrons + 1)]),
        (Request, rows.requests),
        (Item, rows.items),
        (ItemBarcode, rows.barcodes),
        (Loan, rows.loans),
        (RequestEvent, rows.history),
    ]
    for model, values in inserts:
        session.execute(insert(table(model)), values)
    if session.get_bind().dialect.name == "postgresql":
        _go_on_counting(session, [model for model, _ in inserts])


def _fill(rows: _Rows) -> None:
    for status in Status:
        for number in range(HOW_MANY.get(status, OTHERS)):
            several = status is Status.LOANED and number % 12 == 0
            rows.request(status, items=3 if several else 1)
    rows.request(
        Status.LOANED,
        return_address=["Staatsbibliothek zu Berlin, Haus Potsdamer Straße", "Potsdamer Straße 33", "10785 Berlin"],
    )
    claimed = rows.request(Status.LOANED)
    for loan in rows.loans:
        if rows.items[loan["item_id"] - 1]["request_id"] == claimed:
            loan["claimed_returned"] = True
    for barcode, statuses in {
        "REUSED-0001": (Status.COMPLETED, Status.LOANED),
        "TWICE-0001": (Status.LOANED, Status.RECEIVED),
    }.items():
        for status in statuses:
            request = rows.request(status)
            [item] = [item["id"] for item in rows.items if item["request_id"] == request]
            rows.barcode(item, barcode)
    for number in range(12):
        rows.barcode(rows.item(None), f"LOCAL-{number:04d}")


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


def _go_on_counting(session: Session, models: list[type[Model]]) -> None:
    """Let PostgreSQL's sequences go on after the ids that were given here."""
    for model in models:
        name = model.__tablename__
        column = table(model).c.id
        session.execute(
            select(func.setval(func.pg_get_serial_sequence(name, "id"), select(func.max(column)).scalar_subquery()))
        )
