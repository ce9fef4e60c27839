# SPDX-License-Identifier: Apache-2.0
"""Read-only queries over one request: status, items, slips, history. They select no patron column."""

from collections import defaultdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from schemas.models import Branch, Item, ItemBarcode, Loan, Partner, PrintJob, Request, RequestEvent


def story(connection: Connection, external_id: str) -> dict[str, Any] | None:
    """One request with its items, slips and history, ready for JSON; `None` when there is no such request."""
    row = connection.execute(select_requests().where(Request.external_id == external_id)).one_or_none()
    if row is None:
        return None
    return {
        **summary(row),
        "return_address": row.return_address,
        "damage_note": row.damage_note,
        "items": _items(connection, row.id),
        "slips": _slips(connection, row.id),
        "history": _history(connection, row.id),
    }


def select_requests() -> Select[*tuple[Any, ...]]:
    """Requests with partner and branch: the columns of `summary` and of `story`."""
    return (
        select(
            Request.id,
            Request.external_id,
            Request.status,
            Request.title,
            Request.author,
            Request.isbn,
            Request.return_address,
            Request.damage_note,
            Request.created_at,
            Request.returned_at,
            Request.returned_by,
            Partner.code.label("partner"),
            Partner.name.label("partner_name"),
            Partner.delivery_code,
            Branch.code.label("branch"),
        )
        .join(Partner, Partner.id == Request.partner_id)
        .join(Branch, Branch.id == Request.branch_id)
    )


def summary(row: Any) -> dict[str, Any]:
    """A row of `select_requests`, ready for JSON."""
    return {
        "request": row.external_id,
        "status": row.status.value,
        "status_label": row.status.label,
        "title": row.title,
        "author": row.author,
        "isbn": row.isbn,
        "partner": row.partner,
        "partner_name": row.partner_name,
        "delivery_code": row.delivery_code,
        "branch": row.branch,
        "created_at": _iso(row.created_at),
        "returned_at": _iso(row.returned_at),
        "returned_by": row.returned_by,
    }


def _items(connection: Connection, request_id: int) -> list[dict[str, Any]]:
    barcodes: dict[int, list[dict[str, Any]]] = defaultdict(list)
    loans: dict[int, list[dict[str, Any]]] = defaultdict(list)
    of_request = select(Item.id).where(Item.request_id == request_id)
    for code in connection.execute(
        select(ItemBarcode.item_id, ItemBarcode.barcode, ItemBarcode.temporary)
        .where(ItemBarcode.item_id.in_(of_request))
        .order_by(ItemBarcode.id)
    ):
        barcodes[code.item_id].append({"barcode": code.barcode, "temporary": code.temporary})
    for loan in connection.execute(
        select(Loan.item_id, Loan.loaned_at, Loan.due_at, Loan.discharged_at, Loan.claimed_returned, Loan.fee_open)
        .where(Loan.item_id.in_(of_request))
        .order_by(Loan.loaned_at)
    ):
        loans[loan.item_id].append(
            {
                "loaned_at": _iso(loan.loaned_at),
                "due_at": _iso(loan.due_at),
                "discharged_at": _iso(loan.discharged_at),
                "claimed_returned": loan.claimed_returned,
                "fee_open": loan.fee_open,
            }
        )
    items = connection.execute(
        select(Item.id, Item.position, Item.description, Item.returned_at, Item.returned_by)
        .where(Item.request_id == request_id)
        .order_by(Item.position)
    )
    return [
        {
            "position": item.position,
            "description": item.description,
            "barcodes": barcodes[item.id],
            "loans": loans[item.id],
            "returned_at": _iso(item.returned_at),
            "returned_by": item.returned_by,
        }
        for item in items
    ]


def _slips(connection: Connection, request_id: int) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(PrintJob.id, PrintJob.event_id, PrintJob.state, PrintJob.state_since, PrintJob.copy_number)
        .where(PrintJob.request_id == request_id)
        .order_by(PrintJob.created_at)
    )
    return [
        {
            "slip": str(row.id),
            "event": str(row.event_id),
            "state": row.state.value,
            "since": _iso(row.state_since),
            "copy": row.copy_number,
        }
        for row in rows
    ]


def _history(connection: Connection, request_id: int) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(
            RequestEvent.at,
            RequestEvent.recorded_at,
            RequestEvent.kind,
            RequestEvent.status_before,
            RequestEvent.status_after,
            RequestEvent.branch,
            RequestEvent.station,
            RequestEvent.event_id,
            RequestEvent.note,
            RequestEvent.details,
        )
        .where(RequestEvent.request_id == request_id)
        .order_by(RequestEvent.id)
    )
    return [
        {
            "at": _iso(row.at),
            "recorded_at": _iso(row.recorded_at),
            "what": row.kind,
            "status_before": row.status_before.value if row.status_before else None,
            "status_after": row.status_after.value if row.status_after else None,
            "branch": row.branch,
            "station": row.station,
            "event": str(row.event_id) if row.event_id else None,
            "note": row.note,
            "details": row.details,
        }
        for row in rows
    ]


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
