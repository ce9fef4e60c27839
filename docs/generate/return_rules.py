# SPDX-License-Identifier: Apache-2.0
"""The reference page of the Return's rules, with its diagram, generated from the transition table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from docs.generate.markdown import table
from schemas.request_status import RequestStatus
from tasks.returns.transition import TABLE, Action, Row

PAGE: Final = Path("docs/reference/what-return-does.md")

_ACTIONS: Final = {
    Action.RETURN: "returns",
    Action.REPEAT: "already returned",
    Action.REFUSE: "refused",
    Action.REFUSE_UNLESS_OVERRIDDEN: "refused unless a supervisor overrides",
    Action.DISCHARGE_ONLY: "refused; a loan that is still open is discharged as of the scan, and the status stays",
}
_HEAD: Final = """# What Return does, from each status

A Return, by a scan or from the request, reads the request's status and does what this table states. Workers use the same
table (`tasks/returns/transition.py`), from which this page is generated (`make docs`).
"""


def page() -> str:
    """The page, as Markdown with a Mermaid diagram."""
    return "\n".join([_HEAD, *_diagram(), "", *_table(), ""])


def _diagram() -> Iterator[str]:
    returned = RequestStatus.RETURNED_TO_PARTNER
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield "    direction LR"
    for status in RequestStatus:
        yield f'    state "{status.label}" as {status.value}'
    for status, row in TABLE.items():
        match row.action:
            case Action.RETURN:
                urgent = ", urgent" if row.urgent else ""
                yield f"    {status.value} --> {returned.value}: {row.reason.replace('_', ' ')}{urgent}"
            case Action.REFUSE_UNLESS_OVERRIDDEN:
                yield f"    {status.value} --> {returned.value}: override"
            case Action.REPEAT:
                yield f"    {status.value} --> {status.value}: already returned"
            case Action.REFUSE | Action.DISCHARGE_ONLY:
                yield f"    {status.value} --> {status.value}: refused"
    yield f"    {returned.value} --> {RequestStatus.COMPLETED.value}: the lender confirms"
    yield "```"


def _table() -> Iterator[str]:
    return table(
        ("status", "Return", "reason code", "next step for staff"),
        ((status.label, _effect(row), f"`{row.reason}`", row.next_step or "") for status, row in TABLE.items()),
    )


def _effect(row: Row) -> str:
    effect = _ACTIONS[row.action]
    if row.urgent:
        effect += ", marked urgent"
    if row.in_hand:
        effect += "; the reply names the lender"
    return effect
