# SPDX-License-Identifier: Apache-2.0
"""What a desk shows: from an answer to words, a colour and a tone. Pure.

Words come first; colour and tone only repeat what the words say.
"""

from dataclasses import dataclass
from typing import Final, assert_never

from schemas.barcodes import BarcodeRefusedError
from schemas.circulation_events import ActionOutcome, ActionReply, Reply, read_reply
from schemas.replies import Outcome, ReturnReply
from stations.journal.events import Entry, JournalStats
from stations.journal.monitor import JournalNotice, RepliesOverdue, WritesBlocked, WritesResumed
from stations.journal.replay import Progress


@dataclass(frozen=True)
class ScreenMessage:
    """Lines for the screen, and the colour and tone that go with them."""

    lines: tuple[str, ...]
    """The first is the large one."""
    colour: str = ""
    """`green`, `yellow`, `red`, `magenta` or none."""
    tone: int = 0
    """How many times the bell rings; each outcome has its own number."""


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
_MAX_EXCEPTIONS_SHOWN: Final = 10
"""How many exceptions are shown at once."""
_PENDING_TONE: Final = 4
_NOT_TAKEN_TONE: Final = 5
_REPRINT_STATES: Final = frozenset({"unknown", "expired"})
"""Nothing comes by itself any more: staff are offered another one."""
_TROUBLE_STATES: Final = frozenset({"held", "failed_safe", "unknown", "expired"})


def format_reply(reply: Reply, subject: str) -> ScreenMessage:
    """The answer: the large word with what it is about, the message as it came, then what staff do."""
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
    """A word of a slip: loud only when staff must do something."""
    needs_action = entry.slip_state in _TROUBLE_STATES
    lines = [f"{entry.slip_message}  ({entry.subject})"]
    if entry.slip_state in _REPRINT_STATES:
        lines.append(f"-> If there is none: bookdrop-station reprint {entry.event_id} --reason ...")
    return ScreenMessage(tuple(lines), "yellow" if needs_action else "", int(needs_action))


def pending(subject: str, *, is_connected: bool = True) -> ScreenMessage:
    """No answer yet, with the broker in reach or away."""
    why = (
        "No answer yet. It is kept at this desk and asked again until the answer comes. Go on scanning."
        if is_connected
        else "Held, slip follows: the network is away. It is kept at this desk and sent later. Go on scanning."
    )
    return ScreenMessage((f"PENDING  {subject}", why), "magenta", _PENDING_TONE)


def refused_locally(subject: str, text: str) -> ScreenMessage:
    """Refused at the desk itself: nothing was sent."""
    return ScreenMessage((f"REFUSED  {subject}".rstrip(), text), "red", _RETURN_STYLES[Outcome.REFUSED][2])


def refused_line(line: str, error: ValueError) -> ScreenMessage:
    """A scanned line that is not an item's barcode. A patron card's number is not shown."""
    if isinstance(error, BarcodeRefusedError):
        if error.reason == "empty":
            return ScreenMessage(("Nothing was scanned. Scan the item's barcode, or type :help.",))
        return refused_locally(printable(line), str(error))
    return refused_locally("", str(error))


def duplicate_scan(subject: str) -> ScreenMessage:
    """The same barcode twice within two seconds."""
    return ScreenMessage((f"SAME SCAN  {subject}", "Scanned twice within two seconds: taken once."), "", 1)


def slip_scanned() -> ScreenMessage:
    """A slip's own code was scanned."""
    return ScreenMessage(
        (
            "SLIP  Now scan the item that it lies in.",
            "A barcode in the next minute is checked against the slip; :cancel ends that.",
        )
    )


def not_taken(text: str) -> ScreenMessage:
    """The journal could not keep it."""
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
        case _:
            assert_never(notice)


def replies_overdue(stats: JournalStats) -> ScreenMessage:
    """Scans wait for longer than they should."""
    since = f"{stats.oldest.astimezone():%Y-%m-%d %H:%M}" if stats.oldest else "-"
    return ScreenMessage(
        (
            f"NO ANSWER SINCE {since}",
            f"{stats.unanswered} scans wait at this desk. They are safe, and go out by themselves.",
            "-> Tell the person who runs the stations. Do not wipe this machine; its journal can be moved.",
        ),
        "yellow",
        _PENDING_TONE,
    )


def format_progress(progress: Progress) -> ScreenMessage:
    """How far held scans are; at the end, which of them were refused."""
    if not progress.is_complete:
        return ScreenMessage((f"HELD SCANS  {progress.answered} of {progress.total} answered",))
    lines = [f"HELD SCANS  all {progress.total} answered"]
    if not progress.exceptions:
        return ScreenMessage(tuple(lines), "green", 1)
    lines += [
        f"Refused: {len(progress.exceptions)}",
        *(format_entry(entry) for entry in progress.exceptions[:_MAX_EXCEPTIONS_SHOWN]),
    ]
    if (more := len(progress.exceptions) - _MAX_EXCEPTIONS_SHOWN) > 0:
        lines.append(f"... and {more} more: :exceptions")
    lines.append("-> Find these items and see to them, then type :exceptions done")
    return ScreenMessage(tuple(lines), "red", _RETURN_STYLES[Outcome.REFUSED][2])


def format_entry(entry: Entry) -> str:
    """A journal line for a list."""
    answer = "pending"
    if entry.reply is not None:
        reply = read_reply(entry.reply)
        answer = f"{reply.outcome.value.replace('_', ' ')}: {reply.message}"
    slip = f"  [{entry.slip_message}]" if entry.slip_message else ""
    return f"{entry.made_at.astimezone():%m-%d %H:%M:%S}  {entry.subject}  {answer}{slip}"


def printable(line: str, max_length: int = 64) -> str:
    """What was scanned, fit to be shown: control characters as question marks, cut when too long."""
    cut = line.strip(" \t\r\n")[: max_length + 1]
    shown = "".join(char if char.isprintable() else "?" for char in cut)
    return shown if len(shown) <= max_length else shown[: max_length - 3] + "..."


NOTHING_RETURNED: Final = "Nothing was returned at this desk. Nothing was sent."
HELP: Final = (
    "Scan or type a barcode, then Enter. The prompt is ready again at once; answers name their barcode.",
    ":return REQUEST               Return from the request",
    ":undo                         take back the last Return of this desk;   :undo REQUEST [reason]",
    "a slip's own code, then its item: packing; says whether they belong together",
    ":reprint [reason]             another slip for the last Return of this desk; COPY 2 stands on it",
    ":recent                       the last scans",
    ":pending                      those without an answer",
    ":exceptions                   held scans that were refused later;   :exceptions done   they were seen to",
    ":backdate 2026-11-22 18:00    drop-box mode: the items came back then;   :backdate off",
    ":help   this                  :quit   leave (Ctrl-D does too)",
)
