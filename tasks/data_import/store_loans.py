# SPDX-License-Identifier: Apache-2.0
"""Store rows of loans. A loan that was discharged here stays discharged."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from schemas.models import Item, ItemBarcode, Loan, Patron, Request, table
from schemas.request_status import CLOSED
from tasks.data_import.due_dates import due_before_loan, with_due_times
from tasks.data_import.loan_matching import Candidate, SeveralOpen, item_of_open_loan, item_of_past_loan
from tasks.data_import.outcome import Note, Outcome, RowResult, refused, unchanged
from tasks.data_import.past_events import reopened_loans
from tasks.data_import.precedence import note_of_closed
from tasks.data_import.row_models import LoanRow, Row
from tasks.data_import.upsert import StoreContext, find_ids, unknown_reference

LOAN_COLUMNS: Final = ("due_at", "discharged_at", "fee_open", "claimed_returned")
"""Columns of a loan that have the same name in its table."""

LoanValues = dict[str, Any]
"""Values of a loan by column; `id` is missing until the loan is stored."""


@dataclass
class _Batch:
    """The stored items and loans of a batch of rows. New loans are added as they are decided."""

    candidates: dict[str, list[Candidate]]
    """By barcode, in order of item id."""
    loans: dict[tuple[int, datetime], LoanValues]
    on_loan: set[int]
    """Items with an open loan."""
    last_discharge: dict[int, datetime]
    """The last discharge of each item."""
    reopened: dict[int, datetime]
    """Loans that an undo opened again, with its time."""
    patrons: dict[str, int]

    def discharge(self, item_id: int, at: datetime) -> None:
        """Note the time of a discharge of the item."""
        self.last_discharge[item_id] = max(at, self.last_discharge.get(item_id, at))


def store_loans(rows: Sequence[Row], session: Session, context: StoreContext) -> list[RowResult]:
    """Upsert loans by item and start. A discharged loan has no link to a patron, unless a fee or a claim is open."""
    loans = with_due_times([cast("LoanRow", row) for row in rows], session)
    batch = _read(loans, session)
    inserts: list[LoanValues] = []
    changed: dict[int, LoanValues] = {}
    results = []
    for row in loans:
        result, loan, changes = _decide(row, batch)
        results.append(result)
        if loan is not None and result.outcome is Outcome.ADDED:
            inserts.append(loan)
        elif loan is not None and "id" in loan and changes:
            changed.setdefault(loan["id"], {}).update(changes)
    _write(session, inserts, changed)
    return results


def _read(rows: Sequence[LoanRow], session: Session) -> _Batch:
    """Lock the requests of a batch in order of id, as events do, then read items and loans."""
    barcodes = {row.barcode for row in rows}
    of_barcodes = (
        select(Item.request_id)
        .join(ItemBarcode, ItemBarcode.item_id == Item.id)
        .where(ItemBarcode.barcode.in_(barcodes))
    )
    requests = {
        request.id: request
        for request in session.execute(
            select(Request.id, Request.external_id, Request.status, Request.created_at, Request.returned_at)
            .where(Request.id.in_(of_barcodes))
            .order_by(Request.id)
            .with_for_update()
        )
    }
    candidates: dict[str, list[Candidate]] = defaultdict(list)
    for item in session.execute(
        select(ItemBarcode.barcode, Item.id, Item.request_id, Item.returned_at)
        .join(Item, Item.id == ItemBarcode.item_id)
        .where(ItemBarcode.barcode.in_(barcodes))
        .order_by(Item.id)
    ):
        request = requests.get(item.request_id)
        if request is None:
            if item.request_id is None:
                candidates[item.barcode].append(Candidate(item.id))
            continue
        returned_at = item.returned_at or (request.returned_at if request.status in CLOSED else None)
        candidates[item.barcode].append(
            Candidate(item.id, request.id, request.external_id, request.status, request.created_at, returned_at)
        )
    items = {candidate.item_id: candidate for same in candidates.values() for candidate in same}
    stored = [dict(loan) for loan in session.execute(select(table(Loan)).where(Loan.item_id.in_(items))).mappings()]
    by_key = {(loan["item_id"], loan["loaned_at"]): loan for loan in stored}
    batch = _Batch(
        candidates=candidates,
        loans=by_key,
        on_loan={loan["item_id"] for loan in stored if loan["discharged_at"] is None},
        last_discharge={},
        reopened=reopened_loans(session, _requests_to_discharge(rows, candidates, by_key)),
        patrons=find_ids(session, Patron.number, (row.patron for row in rows)),
    )
    for loan in stored:
        if loan["discharged_at"] is not None:
            batch.discharge(loan["item_id"], loan["discharged_at"])
    return batch


def _requests_to_discharge(
    rows: Sequence[LoanRow],
    candidates: dict[str, list[Candidate]],
    loans: dict[tuple[int, datetime], LoanValues],
) -> Collection[int]:
    """The requests with an open loan that a row discharges."""
    return {
        candidate.request_id
        for row in rows
        if row.discharged_at is not None
        for candidate in candidates.get(row.barcode, ())
        if candidate.request_id is not None
        and (loan := loans.get((candidate.item_id, row.loaned_at))) is not None
        and loan["discharged_at"] is None
    }


Decision = tuple[RowResult, LoanValues | None, LoanValues]
"""The result of a row, its loan if it is stored, and the columns that change."""


def _decide(row: LoanRow, batch: _Batch) -> Decision:
    if reason := due_before_loan(row):
        return refused(reason), None, {}
    candidates = batch.candidates.get(row.barcode, [])
    if not candidates:
        return refused(f"there is no item with barcode {row.barcode}; import it first"), None, {}
    matching = [candidate for candidate in candidates if (candidate.item_id, row.loaned_at) in batch.loans]
    if matching:
        chosen = next((candidate for candidate in matching if candidate.is_open), matching[-1])
        return _update(row, batch.loans[chosen.item_id, row.loaned_at], chosen, batch)
    if row.discharged_at is not None:
        return _add(row, item_of_past_loan(candidates, row.loaned_at), batch)
    found = item_of_open_loan(candidates)
    contradiction = _contradiction(row, found, batch)
    if contradiction is not None or isinstance(found, SeveralOpen):
        return contradiction or unchanged(), None, {}
    return _add(row, found, batch)


def _contradiction(row: LoanRow, found: Candidate | SeveralOpen, batch: _Batch) -> RowResult | None:
    """The result of a new open loan that contradicts what is stored; otherwise `None`."""
    match found:
        case SeveralOpen(external_ids):
            return refused(
                f"barcode {row.barcode} is on items of several open requests ({', '.join(external_ids)}); take it off one"
                " of them with 'bookdrop items remove-barcode', or return the other item first"
            )
        case Candidate(status=status) if status is not None and not found.is_open:
            return unchanged(note_of_closed(status) if status in CLOSED else Note.ALREADY_RETURNED)
        case Candidate(item_id=item_id) if item_id in batch.on_loan:
            return refused(f"the item with barcode {row.barcode} is on loan already; discharge that loan first")
        case Candidate(item_id=item_id) if row.loaned_at < batch.last_discharge.get(item_id, row.loaned_at):
            # An item has one open loan at a time, so a loan that began before a discharge has ended with it.
            return unchanged(Note.DISCHARGED)
    return None


def _add(row: LoanRow, item: Candidate, batch: _Batch) -> Decision:
    if row.patron and row.patron not in batch.patrons:
        return refused(unknown_reference("patron", row.patron)), None, {}
    keeps_link = row.discharged_at is None or row.fee_open or row.claimed_returned
    loan: LoanValues = {
        "item_id": item.item_id,
        "loaned_at": row.loaned_at,
        "patron_id": batch.patrons[row.patron] if row.patron and keeps_link else None,
        **{name: getattr(row, name) for name in LOAN_COLUMNS},
    }
    batch.loans[item.item_id, row.loaned_at] = loan
    if row.discharged_at is None:
        batch.on_loan.add(item.item_id)
    else:
        batch.discharge(item.item_id, row.discharged_at)
    return RowResult(Outcome.ADDED), loan, {}


def _update(row: LoanRow, loan: LoanValues, item: Candidate, batch: _Batch) -> Decision:
    """Change a stored loan in the columns that the row names, except where the stored loan is newer."""
    named = row.model_fields_set
    values: LoanValues = {name: getattr(row, name) for name in LOAN_COLUMNS if name in named}
    notes: list[Note] = []
    was_discharged = loan["discharged_at"] is not None
    if was_discharged and "discharged_at" in values:
        if values["discharged_at"] is None:
            return unchanged(Note.DISCHARGED), None, {}
        if values.pop("discharged_at") != loan["discharged_at"]:
            notes.append(Note.DISCHARGE_KEPT)
    if was_discharged and values.get("claimed_returned") and not loan["claimed_returned"]:
        # The discharge settled the claim.
        del values["claimed_returned"]
        notes.append(Note.DISCHARGED)
    undone_at = batch.reopened.get(loan.get("id", 0))
    if undone_at is not None and values.get("discharged_at") is not None and values["discharged_at"] < undone_at:
        del values["discharged_at"]
        notes.append(Note.OLDER)
    after = loan | values
    keeps_link = after["discharged_at"] is None or after["fee_open"] or after["claimed_returned"]
    if not keeps_link and named & {"discharged_at", "fee_open", "claimed_returned", "patron"}:
        values["patron_id"] = None
    elif keeps_link and "patron" in named and not (loan["patron_id"] is None and (was_discharged or item.is_closed)):
        # A link that was severed is not set again.
        if row.patron and row.patron not in batch.patrons:
            return refused(unknown_reference("patron", row.patron)), None, {}
        values["patron_id"] = batch.patrons[row.patron] if row.patron else None
    changes = {name: value for name, value in values.items() if loan[name] != value}
    loan.update(changes)
    if changes.get("discharged_at") is not None:
        batch.on_loan.discard(loan["item_id"])
        batch.discharge(loan["item_id"], changes["discharged_at"])
    return RowResult(Outcome.CHANGED if changes else Outcome.UNCHANGED, tuple(notes)), loan, changes


def _write(session: Session, inserts: list[LoanValues], changed: dict[int, LoanValues]) -> None:
    """Write updates first: a loan that ends makes room for the next one of its item."""
    loans = table(Loan)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for loan_id, changes in changed.items():
        parameters = {"b_id": loan_id} | {f"b_{name}": value for name, value in changes.items()}
        groups[tuple(sorted(changes))].append(parameters)
    for names, rows in groups.items():
        values = {name: bindparam(f"b_{name}", type_=loans.c[name].type) for name in names}
        session.connection().execute(update(loans).where(loans.c.id == bindparam("b_id")).values(values), rows)
    if inserts:
        session.execute(insert(loans), inserts)
