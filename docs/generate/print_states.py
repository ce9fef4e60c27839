# SPDX-License-Identifier: Apache-2.0
"""The page and picture of a slip's way, made from the rules themselves. `python -m docs.generate.print_states` writes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from schemas.print_jobs import IN_HAND, TRANSITIONS, WAITING
from schemas.print_jobs import PrintState as State
from tasks.printing import state_machine as rules

PAGE: Final = Path("docs/reference/print-jobs.md")

_MEANING: Final = {
    State.REQUESTED: ("wanted by a Return or a reprint", "comes out by itself"),
    State.CLAIMED: ("a worker has it, for as long as its lease", "comes out by itself"),
    State.RENDERED: ("drawn", "comes out by itself"),
    State.SENDING: ("the first byte leaves", "wait a minute"),
    State.ACCEPTED: ("the printer has it, and is asked what became of it", "comes out by itself; look for paper"),
    State.DONE: ("sent; a printer that can tell says that it printed", "lay it in the book, scan both at packing"),
    State.CONFIRMED: ("its code was scanned together with its item", "nothing"),
    State.HELD: ("its printer is away or on hold", "see to the printer; the slip comes by itself"),
    State.FAILED_SAFE: ("a try failed, and no byte had left", "comes by itself, later each time"),
    State.UNKNOWN: ("it may be on paper, or not", "look at the printer: `printed` or `reprint`"),
    State.EXPIRED: ("it waited too long, and is not sent any more", "`reprint` if the book is still here"),
    State.CANCELLED: ("given up by a person, or replaced by a copy", "throw it away if it turns up"),
}

_HEAD: Final = """# Print jobs: the way of a slip

Every slip is a row with one of these states. No slip is sent again by itself once a byte of it may have left; then a
person decides. `make docs` generates this page from `schemas/print_jobs.py` and `tasks/printing/state_machine.py`.
"""


def page() -> str:
    """The page, as Markdown with a Mermaid picture."""
    return "\n".join([_HEAD, *_picture(), "", *_table(), "", *_numbers(), ""])


def _picture() -> Iterator[str]:
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield "    direction LR"
    yield "    [*] --> requested"
    for state, following in TRANSITIONS.items():
        for after in sorted(following, key=list(State).index):
            if after is not state:
                yield f"    {state.value} --> {after.value}"
    yield "```"


def _table() -> Iterator[str]:
    yield "| state | what it means | what a person does | tried again by itself |"
    yield "| --- | --- | --- | --- |"
    for state, (meaning, what) in _MEANING.items():
        again = "yes" if state in WAITING | IN_HAND else "no"
        yield f"| `{state.value}` | {meaning} | {what} | {again} |"


def _numbers() -> Iterator[str]:
    first, longest = rules.retry_delay(1, 0.0), rules.retry_delay(99, 0.0)
    yield f"- After a failure a printer's whole line waits {first.seconds} seconds, then twice as long each time, up to"
    yield f"  {longest.seconds // 60} minutes; up to half of each wait is left to chance."
    yield f"- After {rules.TRIES_BEFORE_HELD} failures in a row the printer counts as away: its slips are `held`, and its fallback takes them."
    yield "- One slip of a printer is in hand at a time, the oldest first."
    yield "- A slip expires after `BOOKDROP_SLIP_EXPIRY_HOURS` (24)."
    yield f"- A printer that knows its jobs is asked for up to {rules.FOLLOWED_FOR.total_seconds() / 3600:.0f} hours what became of a slip."


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
