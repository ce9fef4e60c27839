# SPDX-License-Identifier: Apache-2.0
"""The messages for lines of history. They are built from `schemas.webhook_messages`, which has no field for a patron."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID, uuid5

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import Session

from schemas.models import Item, ItemBarcode, Partner, Request, RequestEvent
from schemas.webhook_messages import WebhookData, WebhookEvent, WebhookItem, WebhookType
from tasks.requests.history import HistoryKind

TYPES: Final[Mapping[HistoryKind, WebhookType]] = MappingProxyType(
    {
        HistoryKind.RETURNED: WebhookType.RETURNED,
        HistoryKind.ITEM_CHECKED_IN: WebhookType.ITEM_CHECKED_IN,
        HistoryKind.DISCHARGED: WebhookType.DISCHARGED,
        HistoryKind.DISCHARGED_LATE: WebhookType.DISCHARGED_LATE,
        HistoryKind.UNDONE: WebhookType.UNDONE,
        HistoryKind.COMPLETED: WebhookType.COMPLETED,
    }
)
"""The type of the message for each kind of history that has one; the kinds of `bookdrop export returns`."""

_NAMESPACE: Final = UUID("6f9b1f0e-6a53-5d0c-9d5e-2b6e5c1f7a10")


@dataclass(frozen=True)
class QueuedMessage:
    """A message to deliver, and the line of history that it is about."""

    history_id: int
    request_id: int
    message_id: str
    type: WebhookType
    body: str


def lines_of(types: Collection[str]) -> Select[*tuple[Any, ...]]:
    """The lines of history for which an endpoint with `types` (empty: all) receives a message."""
    kinds = [kind for kind, wanted in TYPES.items() if not types or wanted in types]
    return (
        select(
            RequestEvent.id,
            RequestEvent.request_id,
            RequestEvent.item_id,
            RequestEvent.event_id,
            RequestEvent.kind,
            RequestEvent.status_before,
            RequestEvent.status_after,
            RequestEvent.at,
            RequestEvent.recorded_at,
            RequestEvent.branch,
            RequestEvent.station,
            RequestEvent.details,
            Request.external_id,
            Partner.code.label("lender"),
        )
        .join(Request, Request.id == RequestEvent.request_id)
        .join(Partner, Partner.id == Request.partner_id)
        .where(RequestEvent.kind.in_(kinds), RequestEvent.event_id.is_not(None))
    )


def messages_for(session: Session, lines: Sequence[Any]) -> list[QueuedMessage]:
    """The messages for `lines` (rows of `lines_of`), in their order. Runs two statements for all of them."""
    undone = _undone_lines(session, lines)
    wanted = {
        (line.request_id, position) for line in (*lines, *undone.values()) for position in line.details.get("items", ())
    }
    items = _items(session, wanted)
    return [_message(line, undone.get(line.details.get("undoes", "")), items) for line in lines]


def message_id(event_id: UUID, line: Any) -> str:
    """The id of the message: the same after a database was restored and its events are queued again."""
    return f"msg_{uuid5(_NAMESPACE, f'{event_id} {line.kind} {line.request_id}').hex}"


def _message(line: Any, undone: Any, items: Mapping[tuple[int, int], WebhookItem]) -> QueuedMessage:
    subject = line if undone is None else undone
    positions = subject.details.get("items", ())
    kind = TYPES[HistoryKind(line.kind)]
    event = WebhookEvent(
        type=kind,
        timestamp=line.at,
        data=WebhookData(
            cursor=line.id,
            event=line.event_id,
            request=line.external_id,
            status_before=line.status_before,
            status_after=line.status_after,
            at=line.at,
            recorded_at=line.recorded_at,
            branch=line.branch,
            station=line.station,
            lender=line.lender,
            items=tuple(
                items.get((line.request_id, position), WebhookItem(position=position, barcodes=()))
                for position in positions
            ),
            loans_discharged=_loans_discharged(line),
            undoes=undone.event_id if undone is not None else None,
            loans_reopened=line.details.get("in_full") if kind is WebhookType.UNDONE else None,
        ),
    )
    return QueuedMessage(line.id, line.request_id, message_id(line.event_id, line), kind, event.model_dump_json())


def _loans_discharged(line: Any) -> int:
    """Loans of a discharge without Return: one, which its line does not list."""
    return 1 if line.kind == HistoryKind.DISCHARGED else len(line.details.get("loans", ()))


def _undone_lines(session: Session, lines: Sequence[Any]) -> dict[str, Any]:
    """The lines that were undone, by the text of their event id."""
    ids = {UUID(line.details["undoes"]) for line in lines if line.details.get("undoes")}
    if not ids:
        return {}
    rows = session.execute(
        select(RequestEvent.event_id, RequestEvent.request_id, RequestEvent.details).where(
            RequestEvent.event_id.in_(ids), RequestEvent.kind != HistoryKind.UNDONE
        )
    )
    return {str(row.event_id): row for row in rows}


def _items(session: Session, wanted: Collection[tuple[int, int]]) -> dict[tuple[int, int], WebhookItem]:
    """The items with their barcodes, by request id and position."""
    if not wanted:
        return {}
    found: dict[tuple[int, int], list[str]] = defaultdict(list)
    for row in session.execute(
        select(Item.request_id, Item.position, ItemBarcode.barcode)
        .join(ItemBarcode, ItemBarcode.item_id == Item.id)
        .where(tuple_(Item.request_id, Item.position).in_(sorted(wanted)))
        .order_by(ItemBarcode.id)
    ):
        found[row.request_id, row.position].append(row.barcode)
    return {key: WebhookItem(position=key[1], barcodes=tuple(barcodes)) for key, barcodes in found.items()}
