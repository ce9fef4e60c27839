# SPDX-License-Identifier: Apache-2.0
"""A reference for imports: what the rows of a file leave stored, row by row, in plain Python without a database."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

ORDER = (
    "shipped_physically", "canceled_by_partner", "received", "loaned", "overdue", "returned_by_patron",
    "returned_to_partner", "completed",
)  # fmt: skip
"""The statuses that the model uses, from the first phase to the last."""
CLOSED = {"canceled_by_partner", "returned_to_partner", "completed"}

Row = dict[str, Any]


@dataclass
class Past:
    """The effect of events on a request."""

    status: str | None = None
    undone: str | None = None
    entered_address: bool = False


@dataclass
class Reference:
    """The rows of the tables, as an import and the events leave them."""

    partners: dict[str, Row] = field(default_factory=dict)
    requests: dict[str, Row] = field(default_factory=dict)
    items: dict[tuple[str, int], Row] = field(default_factory=dict)
    loans: dict[tuple[str, int, datetime], Row] = field(default_factory=dict)
    past: dict[str, Past] = field(default_factory=dict)
    removed: set[tuple[str, int, str]] = field(default_factory=set)
    reopened: dict[tuple[str, int, datetime], datetime] = field(default_factory=dict)
    added: set[tuple[str, int]] = field(default_factory=set)
    """Items that the present import added."""

    def apply(self, kind: str, row: Row) -> str:
        """Apply one row; return its outcome."""
        return str(getattr(self, f"_{kind}")(row))

    def _partners(self, row: Row) -> str:
        stored = self.partners.get(row["code"])
        if stored is None:
            if "name" not in row:
                return "refused"
            self.partners[row["code"]] = {"name": None, "delivery_code": None, "address": []} | _without(row, "code")
            return "added"
        return _change(stored, _without(row, "code"))

    def _requests(self, row: Row) -> str:
        name = row["external_id"]
        values = _without(row, "external_id", "created_at")
        stored = self.requests.get(name)
        if stored is None:
            if "status" not in row or "title" not in row:
                return "refused"
            new: Row = {"author": None, "patron": None, "address": None} | values
            if new["status"] in CLOSED:
                new["patron"] = None
            self.requests[name] = new | {"created_at": row["created_at"], "returned_at": None}
            return "added"
        before, status = stored["status"], row.get("status")
        if (
            status is not None
            and before in CLOSED
            and (status not in CLOSED or (before == "completed" and status != before))
        ):
            return "unchanged"
        past = self.past.get(name, Past())
        if status is not None and status != before:
            earlier = past.status is not None and ORDER.index(status) < ORDER.index(past.status)
            if earlier or status == past.undone:
                del values["status"]
        if past.entered_address:
            values.pop("address", None)
        if values.get("status", before) in CLOSED:
            values.pop("patron", None)
            if not any(key[0] == name and (loan["fee"] or loan["claim"]) for key, loan in self.loans.items()):
                values["patron"] = None
        return _change(stored, values)

    def _items(self, row: Row) -> str:
        name, barcodes, position = row["request"], set(row.get("barcode", ())), row.get("position")
        if name not in self.requests:
            return "refused"
        mine = {key: item for key, item in self.items.items() if key[0] == name}
        key = self._item_key(name, barcodes, position, mine)
        closed_here = self.requests[name]["status"] in CLOSED and self.past.get(name, Past()).status in CLOSED
        if key is None:
            return "unchanged" if closed_here else "refused"
        gone = {code for code in barcodes if (*key, code) in self.removed}
        if key not in mine:
            if closed_here:
                return "unchanged"
            if not barcodes:
                return "refused"
            number = 1 + max((item["id"] for item in self.items.values()), default=0)
            self.items[key] = {
                "description": row.get("description"), "barcodes": barcodes, "returned": None, "id": number
            }  # fmt: skip
            self.added.add(key)
            return "added"
        values: Row = {"barcodes": mine[key]["barcodes"] | (barcodes - gone)}
        if "description" in row:
            values["description"] = row["description"]
        return "unchanged" if closed_here else _change(mine[key], values)

    def _item_key(
        self, name: str, barcodes: set[str], position: int | None, mine: dict[tuple[str, int], Row]
    ) -> tuple[str, int] | None:
        having = {key for key, item in mine.items() if item["barcodes"] & barcodes}
        if position is not None:
            key = (name, position)
            if having - {key}:
                return None
            fits = key not in mine or not barcodes or key in having
            return key if fits or any((*key, code) in self.removed for code in barcodes) else None
        having = having or {key for key in mine if any((*key, code) in self.removed for code in barcodes)}
        if having:
            return having.pop() if len(having) == 1 else None
        if not mine:
            return (name, 1)
        if not barcodes:
            return next(iter(mine)) if len(mine) == 1 else None
        return (name, max(place for _, place in mine) + 1) if mine.keys() <= self.added else None

    def _loans(self, row: Row) -> str:  # noqa: PLR0911 - one return for each rule, in order
        having = [key for key, item in self.items.items() if row["barcode"] in item["barcodes"]]
        named = sorted(having, key=lambda key: self.items[key]["id"])
        at, end = row["loaned_at"], row.get("discharged_at")
        if not named:
            return "refused"
        stored = [key for key in named if (*key, at) in self.loans]
        if stored:
            return self._change_loan(next((key for key in stored if self._is_open(key)), stored[-1]), row)
        if end is not None:
            return self._add_loan(self._past_item(named, at), row)
        still_open = [key for key in named if self._is_open(key)]
        if len({name for name, _ in still_open}) > 1:
            return "refused"
        if not still_open:
            return "unchanged"
        key = still_open[0]
        mine = [loan for (*item, _), loan in self.loans.items() if tuple(item) == key]
        if any(loan["discharged_at"] is None for loan in mine):
            return "refused"
        if any(loan["discharged_at"] > at for loan in mine):
            return "unchanged"
        return self._add_loan(key, row)

    def _is_open(self, key: tuple[str, int]) -> bool:
        return self.requests[key[0]]["status"] not in CLOSED and not self.items[key]["returned"]

    def _past_item(self, named: list[tuple[str, int]], at: datetime) -> tuple[str, int]:
        """The item of the request that was open at the time. In the model each request has a time of creation."""

        def ended(key: tuple[str, int]) -> Any:
            request, item = self.requests[key[0]], self.items[key]
            return item["returned"] or (request["returned_at"] if request["status"] in CLOSED else None)

        not_over = [key for key in named if ended(key) is None or at <= ended(key)]
        fitting = [key for key in not_over if self.requests[key[0]]["created_at"] <= at]
        if fitting:
            return max(fitting, key=lambda key: (self.requests[key[0]]["created_at"], self.items[key]["id"]))
        returned = [key for key in not_over if ended(key) is not None]
        if returned:
            return min(returned, key=lambda key: (ended(key), self.items[key]["id"]))
        still_open = [key for key in named if self._is_open(key)]
        if len({name for name, _ in still_open}) == 1:
            return still_open[0]
        return (still_open or named)[-1]

    def _add_loan(self, key: tuple[str, int], row: Row) -> str:
        loan = {"due_at": None, "discharged_at": None, "fee": False, "claim": False, "patron": None}
        loan |= _without(row, "barcode", "loaned_at")
        if loan["discharged_at"] is not None and not (loan["fee"] or loan["claim"]):
            loan["patron"] = None
        self.loans[*key, row["loaned_at"]] = loan
        return "added"

    def _change_loan(self, key: tuple[str, int], row: Row) -> str:
        loan = self.loans[*key, row["loaned_at"]]
        values = _without(row, "barcode", "loaned_at", "patron")
        was_discharged = loan["discharged_at"] is not None
        if was_discharged and "discharged_at" in values and values.pop("discharged_at") is None:
            return "unchanged"
        if was_discharged and values.get("claim") and not loan["claim"]:
            del values["claim"]
        undone_at = self.reopened.get((*key, row["loaned_at"]))
        if undone_at is not None and (values.get("discharged_at") or undone_at) < undone_at:
            del values["discharged_at"]
        after = loan | values
        if after["discharged_at"] is not None and not (after["fee"] or after["claim"]):
            if row.keys() & {"discharged_at", "fee", "claim", "patron"}:
                values["patron"] = None
        elif "patron" in row:
            severed = was_discharged or self.requests[key[0]]["status"] in CLOSED
            if loan["patron"] is not None or not severed:
                values["patron"] = row["patron"]
        return _change(loan, values)


def _without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def _change(stored: Row, values: Row) -> str:
    changes = {name: value for name, value in values.items() if stored[name] != value}
    stored.update(changes)
    return "changed" if changes else "unchanged"
