# SPDX-License-Identifier: Apache-2.0
"""A stored reply without its expired content: it stays a valid reply with the same outcome and reason. Pure."""

from dataclasses import dataclass
from typing import Any, Final

from schemas.circulation_events import ActionReply, Reply, read_reply
from schemas.reasons import UNMATCHED_REASONS
from schemas.replies import ReturnReply

_ERASED: Final = "This was processed before; its details are no longer stored."
_NEXT_STEP: Final = "Scan the item again."
_UNSIGNED: Final = {"signature": None, "second_signature": None}
"""A reply is signed again when it is sent. The stored signatures would permit guesses of the erased text: their keys are
in the same database."""


@dataclass(frozen=True)
class Unmatched:
    """A reply without the text that matched nothing, and that text."""

    reply: str
    text: str | None
    """The scanned barcode, or the typed identifier of a request; `None` if the reply contained neither."""


def without_unmatched_text(reply: str) -> Unmatched | None:
    """Erase the scanned or typed text of a refusal that matched nothing; `None` for any other reply, and for no reply."""
    parsed = _parse(reply)
    if parsed is None or parsed.reason not in UNMATCHED_REASONS:
        return None
    # The slip of a wrong item names a known request; otherwise a request's identifier is the typed text itself.
    [reason] = [each for each in UNMATCHED_REASONS if each == parsed.reason]
    typed = parsed.request if parsed.title is None else None
    changes: dict[str, Any] = {"barcode": None, "message": reason.meaning, **_UNSIGNED}
    if typed is not None:
        changes["request"] = None
    return Unmatched(_text(parsed.model_copy(update=changes)), parsed.barcode or typed)


def outcome_only(reply: str) -> str | None:
    """The reply with event id, outcome and reason; `None` for text that is not a reply."""
    parsed = _parse(reply)
    if parsed is None:
        return None
    next_step = None if parsed.next_step is None else _NEXT_STEP
    kind: type[Reply] = type(parsed)
    values = {
        "station": parsed.station,
        "event_id": parsed.event_id,
        "outcome": parsed.outcome,
        "reason": parsed.reason,
    }
    return _text(kind(**values, message=_ERASED, next_step=next_step))


def _parse(reply: str) -> ReturnReply | ActionReply | None:
    try:
        return read_reply(reply)
    except ValueError:
        return None


def _text(reply: Reply) -> str:
    return reply.model_dump_json(exclude_none=True)
