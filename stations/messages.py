# SPDX-License-Identifier: Apache-2.0
"""The texts on a station's screen: format replies, slips and errors as lines with a colour and a tone. Pure.

The text carries the whole meaning; colour and tone only repeat it.
"""

from dataclasses import dataclass
from typing import Final, assert_never

from schemas.barcodes import BarcodeRefusedError
from schemas.circulation_events import ActionOutcome, ActionReply, Reply, read_reply
from schemas.replies import Outcome, ReturnReply
from schemas.reply_signature import ReplyDefect
from stations.journal.events import Entry, JournalStats
from stations.journal.monitor import JournalNotice, MessagesRejected, RepliesOverdue, WritesBlocked, WritesResumed
from stations.journal.rejected_messages import RejectedMessages
from stations.journal.replay import Progress


@dataclass(frozen=True)
class ScreenMessage:
    """Lines for the screen, with a colour and a tone."""

    lines: tuple[str, ...]
    """The first line is the headline."""
    colour: str = ""
    """`green`, `yellow`, `red`, `magenta` or none."""
    tone: int = 0
    """Number of rings of the bell; each outcome has its own number."""


_RETURN_STYLES: Final = {
    Outcome.RETURNED: ("RETURNED", "green", 1),
    Outcome.ALREADY_RETURNED: ("ALREADY RETURNED", "yellow", 2),
    Outcome.REFUSED: ("REFUSED", "red", 3),
}
_ACTION_STYLES: Final = {
    ActionOutcome.DONE: ("green", 1),
    ActionOutcome.ALREADY_DONE: ("yellow", 2),
    ActionOutcome.REFUSED: ("red", 3),
}
_REFUSED_TONE: Final = _RETURN_STYLES[Outcome.REFUSED][2]
_PENDING_TONE: Final = 4
_NOT_TAKEN_TONE: Final = 5
_MAX_EXCEPTIONS_SHOWN: Final = 10
_REPRINT_STATES: Final = frozenset({"unknown", "expired"})
"""States of a slip that bookdrop does not print without a decision; the screen offers staff a reprint."""
_TROUBLE_STATES: Final = frozenset({"held", "failed_safe", "unknown", "expired"})


def format_reply(reply: Reply, subject: str) -> ScreenMessage:
    """A reply: the outcome with its barcode or request, the message unchanged, then the next step for staff."""
    return _format_action(reply, subject) if isinstance(reply, ActionReply) else _format_return(reply, subject)


def _format_action(reply: ActionReply, subject: str) -> ScreenMessage:
    colour, tone = _ACTION_STYLES[reply.outcome]
    headline = reply.outcome.value.replace("_", " ").upper()
    lines = [f"{headline}  {reply.barcode or reply.request or subject}", reply.message]
    if reply.outcome is ActionOutcome.DONE and reply.status_after is not None:
        lines.append(f"Status: {reply.status_after.label}")
    lines += [f"Note: {warning}" for warning in reply.warnings]
    if reply.next_step:
        lines.append(f"-> {reply.next_step}")
    return ScreenMessage(tuple(lines), colour, tone)


def _format_return(reply: ReturnReply, subject: str) -> ScreenMessage:
    headline, colour, tone = _RETURN_STYLES[reply.outcome]
    if reply.urgent:
        headline += "  URGENT"
    lines = [f"{headline}  {reply.barcode or reply.request or subject}", reply.message]
    if reply.destination is not None and reply.outcome is not Outcome.REFUSED:
        code = reply.destination.delivery_code
        lines.append(f"Delivery code {code}" if code else "No delivery code: send it by name and address")
    if reply.items is not None:
        lines.append(f"{reply.items.here} of {reply.items.of} items of this request are here")
    if reply.outcome is Outcome.ALREADY_RETURNED and reply.returned_at is not None:
        by = f" at {reply.returned_by}" if reply.returned_by else ""
        lines.append(f"Returned {reply.returned_at.astimezone():%Y-%m-%d %H:%M}{by}")
    lines += [f"Note: {warning}" for warning in reply.warnings]
    lines += [
        f":return {choice.external_id}   {choice.title}, to {choice.destination.name}" for choice in reply.choices
    ]
    if reply.next_step:
        lines.append(f"-> {reply.next_step}")
    return ScreenMessage(tuple(lines), colour, tone)


def format_slip(entry: Entry) -> ScreenMessage:
    """The state of a slip, with colour and tone only when staff must act."""
    needs_action = entry.slip_state in _TROUBLE_STATES
    lines = [f"{entry.slip_message}  ({entry.subject})"]
    if entry.slip_state in _REPRINT_STATES:
        lines.append(f"-> If there is none: bookdrop-station reprint {entry.event_id} --reason ...")
    return ScreenMessage(tuple(lines), "yellow" if needs_action else "", int(needs_action))


def pending(subject: str, *, is_connected: bool = True) -> ScreenMessage:
    """A scan without a reply, with the broker reachable or not."""
    text = (
        "No reply yet. The scan is kept at this station and sent again until the reply comes. Continue scanning."
        if is_connected
        else "Held, slip follows: the network is away. The scan is kept at this station and sent later. Continue scanning."
    )
    return ScreenMessage((f"PENDING  {subject}", text), "magenta", _PENDING_TONE)


def refused_locally(subject: str, text: str) -> ScreenMessage:
    """A refusal by the station itself: nothing was sent."""
    return ScreenMessage((f"REFUSED  {subject}".rstrip(), text), "red", _REFUSED_TONE)


def refused_line(line: str, error: ValueError) -> ScreenMessage:
    """A scanned line that is not an item's barcode. A patron card's number is not shown."""
    if isinstance(error, BarcodeRefusedError):
        if error.reason == "empty":
            return ScreenMessage(("Nothing was scanned. Scan the item's barcode, or type :help.",))
        return refused_locally(printable(line), str(error))
    return refused_locally("", str(error))


def duplicate_scan(subject: str) -> ScreenMessage:
    """The same barcode again within two seconds: one scan."""
    return ScreenMessage((f"SAME SCAN  {subject}", "Scanned twice within two seconds: taken once."), "", 1)


def slip_scanned() -> ScreenMessage:
    """A slip's code was scanned; the item is expected next."""
    return ScreenMessage(
        (
            "SLIP  Now scan the item that it lies in.",
            "A barcode in the next minute is checked against the slip; :cancel ends that.",
        )
    )


def not_taken(text: str) -> ScreenMessage:
    """The journal could not store a scan."""
    return ScreenMessage(("NOT TAKEN", text), "red", _NOT_TAKEN_TONE)


def format_notice(notice: JournalNotice) -> ScreenMessage:
    """A change in the journal's condition, shown before the next scan."""
    match notice:
        case WritesBlocked(reason):
            return ScreenMessage(("NOTHING CAN BE TAKEN", reason), "red", _NOT_TAKEN_TONE)
        case WritesResumed():
            return ScreenMessage(("Scans are taken again.",))
        case RepliesOverdue(stats):
            return replies_overdue(stats)
        case MessagesRejected(rejected):
            return messages_rejected(rejected)
        case _:
            assert_never(notice)


def replies_overdue(stats: JournalStats) -> ScreenMessage:
    """A warning that scans wait for longer than the limit."""
    since = f"{stats.oldest.astimezone():%Y-%m-%d %H:%M}" if stats.oldest else "-"
    return ScreenMessage(
        (
            f"NO REPLY SINCE {since}",
            f"{stats.unanswered} scans wait at this station. They are safe, and are sent automatically.",
            "-> Inform the person who runs the stations. Do not wipe this machine; its journal can be moved.",
        ),
        "yellow",
        _PENDING_TONE,
    )


def messages_rejected(rejected: RejectedMessages) -> ScreenMessage:
    """A warning that the station ignored messages. It shows nothing of their content."""
    if rejected.last_defect == ReplyDefect.UNSIGNED_REFUSAL:
        cause = "The last one is a refusal, as the server sends it to a station with a wrong code or key."
        step = "-> Have the person who runs the stations check the code and the key of this station."
    else:
        cause = f"The last one: {(rejected.last_defect or '-').replace('_', ' ')}."
        step = "-> Inform the person who runs the stations: another program may write to this station's reply queue."
    return ScreenMessage(
        (
            f"MESSAGES IGNORED  {rejected.count} without a valid signature for this station",
            f"{cause} Scans stay here and are sent again until a signed reply arrives.",
            step,
        ),
        "yellow",
        _PENDING_TONE,
    )


def format_progress(progress: Progress) -> ScreenMessage:
    """The number of held scans that have a reply; at the end also the refused ones."""
    if not progress.is_complete:
        return ScreenMessage((f"HELD SCANS  {progress.replied} of {progress.total} done",))
    lines = [f"HELD SCANS  all {progress.total} done"]
    if not progress.exceptions:
        return ScreenMessage(tuple(lines), "green", 1)
    lines += [f"Refused: {len(progress.exceptions)}"]
    lines += [format_entry(entry) for entry in progress.exceptions[:_MAX_EXCEPTIONS_SHOWN]]
    if (more := len(progress.exceptions) - _MAX_EXCEPTIONS_SHOWN) > 0:
        lines.append(f"... and {more} more: :exceptions")
    lines.append("-> Find these items and see to them, then type :exceptions done")
    return ScreenMessage(tuple(lines), "red", _REFUSED_TONE)


def format_entry(entry: Entry) -> str:
    """A stored event as one line of a list."""
    result = "pending"
    if entry.reply is not None:
        reply = read_reply(entry.reply)
        result = f"{reply.outcome.value.replace('_', ' ')}: {reply.message}"
    slip = f"  [{entry.slip_message}]" if entry.slip_message else ""
    return f"{entry.made_at.astimezone():%m-%d %H:%M:%S}  {entry.subject}  {result}{slip}"


def printable(line: str, max_length: int = 64) -> str:
    """A scanned line for the screen: control characters become question marks, a long line is cut."""
    cut = line.strip(" \t\r\n")[: max_length + 1]
    shown = "".join(char if char.isprintable() else "?" for char in cut)
    return shown if len(shown) <= max_length else shown[: max_length - 3] + "..."


NOTHING_RETURNED: Final = "Nothing was returned at this station. Nothing was sent."
HELP: Final = (
    "Scan or type a barcode, then Enter. The next scan can follow at once; each reply names its barcode.",
    ":return REQUEST               Return from the request",
    ":undo                         undo the last Return of this station;   :undo REQUEST [reason]",
    "a slip's own code, then its item: packing; checks that they belong together",
    ":reprint [reason]             print the slip of the last Return again, marked COPY 2",
    ":recent                       the last scans",
    ":pending                      scans without a reply",
    ":exceptions                   held scans that were refused later;   :exceptions done   acknowledge them",
    ":backdate 2026-11-22 18:00    drop-box mode: the items came back then;   :backdate off",
    ":help   this                  :quit   leave (Ctrl-D does too)",
)
