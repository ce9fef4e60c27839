# SPDX-License-Identifier: Apache-2.0
"""The page and picture of what Return does, made from the table itself. `python -m docs.generate.return_rules` writes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from schemas.request_status import RequestStatus
from tasks.returns.transition import TABLE, Action, Row

PAGE: Final = Path("docs/reference/what-return-does.md")

_WORDS: Final = {
    Action.RETURN: "returns",
    Action.REPEAT: "already returned",
    Action.REFUSE: "refused",
    Action.REFUSE_UNLESS_OVERRIDDEN: "refused unless a supervisor overrides",
    Action.DISCHARGE_ONLY: "refused; a loan that is still open ends as scanned, and the status stays",
}
_HEAD: Final = """# What Return does, from each status

A Return, by a scan or from the request, looks at the request's status and does what this table says. It is the table
that the program uses (`tasks/returns/transition.py`), and this page is made from it (`make docs`).
"""


def page() -> str:
    """The page, as Markdown with a Mermaid picture."""
    return "\n".join([_HEAD, *_picture(), "", *_table(), ""])


def _picture() -> Iterator[str]:
    home = RequestStatus.RETURNED_TO_PARTNER
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield "    direction LR"
    for status in RequestStatus:
        yield f'    state "{status.label}" as {status.value}'
    for status, row in TABLE.items():
        match row.action:
            case Action.RETURN:
                urgent = ", urgent" if row.urgent else ""
                yield f"    {status.value} --> {home.value}: {row.reason.replace('_', ' ')}{urgent}"
            case Action.REFUSE_UNLESS_OVERRIDDEN:
                yield f"    {status.value} --> {home.value}: override"
            case Action.REPEAT:
                yield f"    {status.value} --> {status.value}: already returned"
            case Action.REFUSE | Action.DISCHARGE_ONLY:
                yield f"    {status.value} --> {status.value}: refused"
    yield f"    {home.value} --> {RequestStatus.COMPLETED.value}: the lender confirms"
    yield "```"


def _table() -> Iterator[str]:
    yield "| status | Return | reason code | what staff do then |"
    yield "| --- | --- | --- | --- |"
    for status, row in TABLE.items():
        yield f"| {status.label} | {_what(row)} | `{row.reason}` | {row.next_step} |".replace("|  |", "| |")


def _what(row: Row) -> str:
    words = _WORDS[row.action]
    if row.urgent:
        words += ", marked urgent"
    if row.in_hand:
        words += "; the reply names the lender"
    return words


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
