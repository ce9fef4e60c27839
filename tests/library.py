# SPDX-License-Identifier: Apache-2.0
"""A small library for tests: branches, stations, a partner, requests, and signed events about them."""

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, func, insert, select
from uuid6 import uuid7

from schemas import signing
from schemas.circulation_events import CirculationEvent
from schemas.database import READ_ONLY
from schemas.events import BarcodeScanned, ReturnRequested, StationEvent
from schemas.models import (
    Branch,
    Item,
    ItemBarcode,
    Loan,
    Partner,
    Patron,
    Printer,
    PrintJob,
    Request,
    Station,
)
from schemas.print_jobs import PrintState
from schemas.request_status import RequestStatus
from tests.polling import TIMEOUT, wait_until

KEY = "a-key-of-the-tests"
LENDER = "Riverside University Library"


@dataclass
class Library:
    """The rows of a test, inserted through the engine, and signed events about them."""

    engine: Engine
    spool: Path
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    _count: itertools.count = field(default_factory=lambda: itertools.count(1))

    def open(self, stations: tuple[str, ...] = ("main-desk-1", "main-desk-2", "north-desk-1")) -> "Library":
        """Create branches, each with a spool printer, stations and one partner."""
        self.spool.mkdir(parents=True, exist_ok=True)
        with self.engine.begin() as connection:
            for branch in sorted({station.split("-")[0] for station in stations}):
                branch_id = connection.execute(
                    insert(Branch)
                    .values(
                        code=branch,
                        name=f"{branch.title()} Library",
                        library="Our Public Library",
                        address=["1 Home Street"],
                    )
                    .returning(Branch.id)
                ).scalar_one()
                connection.execute(
                    insert(Printer).values(
                        code=f"{branch}-slips",
                        branch_id=branch_id,
                        uri=f"spool://{self.spool}/{branch}",
                        media="label-4x6",
                        is_default=True,
                        on_hold=False,
                    )
                )
                for station in stations:
                    if station.startswith(f"{branch}-"):
                        connection.execute(
                            insert(Station).values(code=station, branch_id=branch_id, key=KEY, active=True)
                        )
            connection.execute(
                insert(Partner).values(
                    code="XX-RUL", name=LENDER, address=["9 River Road", "Riverside"], delivery_code="RUL"
                )
            )
        return self

    def request(
        self,
        status: RequestStatus = RequestStatus.LOANED,
        *,
        external_id: str | None = None,
        items: int = 1,
        barcodes: list[list[str]] | None = None,
        on_loan: bool | None = None,
        **columns: Any,
    ) -> tuple[str, list[str]]:
        """Create a request; return its external id and one barcode of each item."""
        number = next(self._count)
        external_id = external_id or f"BR-{number:05d}"
        barcodes = barcodes or [[f"3100{number:05d}{n}"] for n in range(items)]
        if on_loan is None:
            on_loan = status in {
                RequestStatus.LOANED,
                RequestStatus.OVERDUE,
                RequestStatus.RECALLED,
                RequestStatus.LOST,
            }
        loan = columns.pop("loan", {})
        with self.engine.begin() as connection:
            patron_id = connection.execute(
                insert(Patron).values(number=f"P{number:06d}", name=f"Test Patron {number}").returning(Patron.id)
            ).scalar_one()
            request_id = connection.execute(
                insert(Request)
                .values(
                    {
                        "external_id": external_id,
                        "partner_id": connection.execute(select(Partner.id).order_by(Partner.id).limit(1)).scalar_one(),
                        "branch_id": connection.execute(select(Branch.id).order_by(Branch.id).limit(1)).scalar_one(),
                        "status": status,
                        "title": f"The book number {number}",
                        "author": "An Author",
                        "patron_id": patron_id,
                        "created_at": self.now - timedelta(days=30),
                        "updated_at": self.now - timedelta(days=20),
                        **columns,
                    }
                )
                .returning(Request.id)
            ).scalar_one()
            for position, item_barcodes in enumerate(barcodes, 1):
                item_id = connection.execute(
                    insert(Item).values(request_id=request_id, position=position).returning(Item.id)
                ).scalar_one()
                for barcode in item_barcodes:
                    connection.execute(insert(ItemBarcode).values(item_id=item_id, barcode=barcode, temporary=False))
                if on_loan:
                    connection.execute(
                        insert(Loan).values(
                            {
                                "item_id": item_id,
                                "patron_id": patron_id,
                                "loaned_at": self.now - timedelta(days=14),
                                "due_at": self.now + timedelta(days=14),
                                "fee_open": False,
                                "claimed_returned": False,
                                **loan,
                            }
                        )
                    )
        return external_id, [item_barcodes[0] for item_barcodes in barcodes]

    def loaned_items(self, number: int) -> list[str]:
        """Create `number` loaned requests of one item each, in few statements; return their barcodes."""
        ids = range(1, number + 1)
        with self.engine.begin() as connection:
            connection.execute(
                insert(Patron), [{"id": n, "number": f"P{n:06d}", "name": f"Test Patron {n}"} for n in ids]
            )
            connection.execute(
                insert(Request),
                [
                    {
                        "id": n,
                        "external_id": f"BR-{n:05d}",
                        "partner_id": 1,
                        "branch_id": 1,
                        "status": RequestStatus.LOANED,
                        "title": f"The book number {n}",
                        "patron_id": n,
                        "created_at": self.now - timedelta(days=30),
                        "updated_at": self.now - timedelta(days=20),
                    }
                    for n in ids
                ],
            )
            connection.execute(insert(Item), [{"id": n, "request_id": n, "position": 1} for n in ids])
            barcodes: list[dict[str, Any]] = [
                {"item_id": n, "barcode": f"3100{n:06d}", "temporary": False} for n in ids
            ]
            connection.execute(insert(ItemBarcode), barcodes)
            loaned_at = self.now - timedelta(days=14)
            connection.execute(insert(Loan), [{"item_id": n, "patron_id": n, "loaned_at": loaned_at} for n in ids])
        return [row["barcode"] for row in barcodes]

    def wait_for_slips(self, number: int, timeout: float = TIMEOUT) -> list[str]:
        """Wait until `number` slips are in the spool and as many print jobs are done; return the names of the files."""

        def slips() -> list[str]:
            return [path.name for path in self.spool.rglob("*.pdf")]

        def are_done() -> bool:
            with self.engine.connect().execution_options(**READ_ONLY) as connection:
                done: int = connection.execute(
                    select(func.count()).select_from(PrintJob).where(PrintJob.state == PrintState.DONE)
                ).scalar_one()
            return min(len(slips()), done) >= number

        wait_until(are_done, lambda: f"{number} slips are done; {len(slips())} are in the spool", timeout=timeout)
        return slips()

    def scan(self, barcode: str, *, station: str = "main-desk-1", **fields: Any) -> dict[str, Any]:
        """A signed `BarcodeScanned`, as JSON."""
        key = fields.pop("key", KEY)
        return signed(
            BarcodeScanned(
                **{
                    "event_id": uuid7(),
                    "station": station,
                    "barcode": barcode,
                    "scanned_at": self.now,
                    "sequence": next(self._count),
                    "signature": "0" * 64,
                    **fields,
                }
            ),
            key,
        )

    def return_requested(self, request: str, *, station: str = "main-desk-1", **fields: Any) -> dict[str, Any]:
        """A signed `ReturnRequested`, as JSON."""
        return signed(
            ReturnRequested(
                **{
                    "event_id": uuid7(),
                    "station": station,
                    "request": request,
                    "requested_at": self.now,
                    "sequence": next(self._count),
                    "signature": "0" * 64,
                    **fields,
                }
            ),
            KEY,
        )

    def event(self, kind: type[CirculationEvent], *, station: str = "main-desk-1", **fields: Any) -> dict[str, Any]:
        """A signed circulation event, as JSON; at the library's time unless `at` is given."""
        defaults = {"event_id": uuid7(), "sequence": next(self._count), "signature": "0" * 64, "at": self.now}
        return signed(kind(**{**defaults, "station": station, **fields}), KEY)


def signed(event: StationEvent, key: str) -> dict[str, Any]:
    """The event as JSON with its signature."""
    payload = event.model_dump(mode="json", exclude_none=True)
    return {**payload, "signature": signing.sign(payload, key.encode())}


def event_id(payload: dict[str, Any]) -> UUID:
    """The id of an event that `Library` signed."""
    return UUID(payload["event_id"])


def reply_to(payload: object) -> str:
    """The reply queue of the payload's station: a worker replies to no other queue."""
    station = payload.get("station") if isinstance(payload, dict) else None
    return f"reply.{station or 'main-desk-1'}"
