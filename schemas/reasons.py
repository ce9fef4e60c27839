# SPDX-License-Identifier: Apache-2.0
"""Reason codes: of replies, of rejected messages, and of dead letters. Each code is defined here, once.

Values are part of the contract: stations and scripts compare them. Within v1 codes are added, never changed.
Metric labels, help texts and the reference page are generated from these enumerations.
"""

from enum import StrEnum
from typing import Self


class _Reason(StrEnum):
    """A code with its meaning."""

    meaning: str
    """One sentence for the reference page."""

    def __new__(cls, value: str, meaning: str) -> Self:
        """Create the member `value` with its meaning."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class ReplyReason(_Reason):
    """Reason code of a reply: why an event had its outcome."""

    # Return: the item goes home.
    LOANED = "loaned", "The item was on loan; the loan is discharged. For a loan event: the loan began."
    NEVER_LOANED = "never_loaned", "The item was received and never loaned; there was no loan to discharge."
    RENEWAL_CLOSED = "renewal_closed", "A renewal was pending; the Return closes it."
    OVERDUE = "overdue", "The item was overdue; the loan is discharged at the time of the scan or the backdate."
    RECALLED = "recalled", "The partner recalled the item; it is urgent."
    DISCHARGED_BEFORE = "discharged_before", "The loan was discharged before, without a Return."
    DAMAGED = "damaged", "The item is reported as damaged; the damage note is on the slip."
    LOST_OVERRIDDEN = "lost_overridden", "The item was reported lost; a supervisor's override returned it."
    ITEM_CHECKED_IN = "item_checked_in", "One of several items was checked in; the request waits for the others."
    LATE_ITEM = "late_item", "An item of a partial Return was scanned after the others."
    COMPLETED_BEFORE = "completed_before", "The partner had confirmed the request; the open loan was discharged."
    ALREADY_RETURNED = "already_returned", "The item was returned before; nothing changed."

    # Return: refused because of the request's status.
    NOT_SENT = "not_sent", "The request was not sent, or the slip was not printed; nothing has come yet."
    NOT_SUPPLIED = "not_supplied", "The partner has not supplied the item."
    NOT_RECEIVED = "not_received", "The item was shipped and not received; receive it first."
    LOST = "lost", "The item is reported or declared lost; a supervisor may override."
    COMPLETED = "completed", "The partner has confirmed that the item is back."
    CANCELED = "canceled", "The request was canceled."
    EXPIRED = "expired", "The request expired."
    REJECTED = "rejected", "The partner rejected the request."
    CLOSED = "closed", "The request is closed."

    # Return and circulation: refused because of the loan, the items or the date.
    LOAN_OF_ANOTHER_PATRON = "loan_of_another_patron", "The loan on the item belongs to another patron."
    CLAIMED_RETURNED = "claimed_returned", "The patron claims to have returned the item; a resolution is required."
    ITEMS_MISSING = "items_missing", "Some items of the request are not here, and a partial Return was not forced."
    NOTHING_CHECKED_IN = "nothing_checked_in", "A partial Return was forced, and no item is checked in."
    BACKDATE_IN_FUTURE = "backdate_in_future", "The backdate is in the future."
    BACKDATE_BEFORE_LOAN = "backdate_before_loan", "The backdate is before the loan began."

    # What was scanned is not one item of one request.
    EMPTY = "empty", "Nothing was scanned."
    TOO_LONG = "too_long", "The scanned text is longer than a barcode can be."
    CONTROL_CHARACTERS = "control_characters", "The scanned text contains control characters."
    SPREADSHEET_DAMAGE = "spreadsheet_damage", "The text is a number or formula of a spreadsheet; digits may be lost."
    WRONG_CHECK_DIGIT = "wrong_check_digit", "The check digit of the scanned barcode is wrong."
    UNKNOWN_BARCODE = "unknown_barcode", "No item has the barcode."
    UNKNOWN_REQUEST = "unknown_request", "No request has the external identifier."
    SEVERAL_REQUESTS = "several_requests", "Several open requests have the barcode; staff pick one."
    NOT_INTERLIBRARY_LOAN = "not_interlibrary_loan", "The item belongs to the library itself."
    EXTERNAL_ID_SCANNED = "external_id_scanned", "The external identifier of a request was scanned."
    PATRON_CARD = "patron_card", "A patron card was scanned; it was not looked up."
    SLIP_CODE = "slip_code", "The code of a slip was scanned."

    # Circulation.
    RECEIVED = "received", "The items were received."
    BARCODE_IN_USE = "barcode_in_use", "A barcode is on an item of another open request."
    NOT_FOR_LOAN = "not_for_loan", "The item may be used in the library only, or is damaged."
    NO_READER = "no_reader", "The request no longer names a patron."
    DISCHARGED = "discharged", "The loan was discharged without a Return."
    NOT_ON_LOAN = "not_on_loan", "The item is not on loan."
    COMPLETED_EARLY = "completed_early", "The partner confirmed before this system processed its own Return."
    ALREADY_DONE = "already_done", "The action was done before; nothing changed."

    # Undo.
    UNDONE = "undone", "The Return was undone: status, loan and patron link are restored."
    UNDONE_STATUS_ONLY = "undone_status_only", "The Return was undone after the window: the status alone is restored."
    ALREADY_UNDONE = "already_undone", "The Return was undone before."
    NOTHING_TO_UNDO = "nothing_to_undo", "There is no Return to undo."
    REASON_NEEDED = "reason_needed", "The undo window is over, and no reason was given."
    CHANGED_SINCE = "changed_since", "The request changed after the Return."
    UNDO_OFF = "undo_off", "The library has turned undo off."
    OTHER_BRANCH = "other_branch", "The library permits undo and overrides at stations of the branch alone."

    # Slips.
    CONFIRMED = "confirmed", "The slip is in its item."
    ALREADY_CONFIRMED = "already_confirmed", "The slip and its item were scanned together before."
    UNKNOWN_SLIP = "unknown_slip", "No slip has the code."
    SEVERAL_SLIPS = "several_slips", "Several slips have the short form; staff scan the code itself."
    NO_BARCODE = "no_barcode", "The text scanned with the slip is not a barcode."
    WRONG_ITEM = "wrong_item", "The slip belongs to another item."
    VOID_SLIP = "void_slip", "The Return of the slip was undone."
    SECOND_SLIP = "second_slip", "Another slip of the item was confirmed before."
    CANCELLED_SLIP = "cancelled_slip", "The slip was cancelled."
    NO_SLIP = "no_slip", "The Return has no slip."
    REPRINTING = "reprinting", "A copy of the slip will be printed."


class RejectionReason(_Reason):
    """Reason code of a message that is rejected before it is handled. The reply carries the same code."""

    BAD_SCHEMA = "bad_schema", "The message does not have the form of its type."
    OVERSIZE = "oversize", "The message is larger than any event can be."
    UNKNOWN_VERSION = "unknown_version", "The message has a type that this version does not accept."
    UNKNOWN_STATION = "unknown_station", "No active station has the code that the event names."
    BAD_SIGNATURE = "bad_signature", "The signature does not match the station's key."
    OTHER_PAYLOAD = "other_payload", "Another event with the same event id was processed before."
    FAILED = "failed", "Processing the event raised an error repeatedly."


class DeadLetterReason(_Reason):
    """Reason code of a message that the broker, or a worker before any task, gave up on."""

    MALFORMED = "malformed", "The message is not a task message."
    UNKNOWN_TASK = "unknown_task", "The message names a task that no worker has."
    LOST_TOO_OFTEN = "lost_too_often", "Every worker that received the message ended or lost its connection."
    REJECTED = "rejected", "A worker rejected the message."
    UNROUTABLE = "unroutable", "No queue took the message."
    HANDOVER_FAILED = "handover_failed", "A worker could not hand the message over to one of its processes."
    NOT_RESTORED = "not_restored", "A worker could not return the unacknowledged message to its queue."


PROVISIONAL_REASONS = frozenset(RejectionReason)
"""Reasons of refusals that are not final: the message is quarantined, and may be processed after all."""

UNMATCHED_REASONS = frozenset(
    {
        ReplyReason.EMPTY,
        ReplyReason.TOO_LONG,
        ReplyReason.CONTROL_CHARACTERS,
        ReplyReason.UNKNOWN_BARCODE,
        ReplyReason.UNKNOWN_REQUEST,
        ReplyReason.UNKNOWN_SLIP,
        ReplyReason.SEVERAL_SLIPS,
        ReplyReason.NO_BARCODE,
        ReplyReason.WRONG_ITEM,
        ReplyReason.PATRON_CARD,
        ReplyReason.NOTHING_TO_UNDO,
    }
)
"""Reasons of refusals whose scanned or typed text matched nothing stored: it may be a patron's number."""
