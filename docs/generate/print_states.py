# SPDX-License-Identifier: Apache-2.0
"""The reference page of print jobs, with its diagram, generated from the rules of the state machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from docs.generate.markdown import table
from schemas.print_jobs import IN_HAND, TRANSITIONS, WAITING
from schemas.print_jobs import PrintState as State
from tasks.printing import state_machine as rules

PAGE: Final = Path("docs/reference/print-jobs.md")

_MEANING: Final = {
    State.REQUESTED: ("requested by a Return or by a reprint", "wait: it prints automatically"),
    State.CLAIMED: ("claimed by a worker until its lease ends", "wait: it prints automatically"),
    State.RENDERED: ("rendered by the worker", "wait: it prints automatically"),
    State.SENDING: ("on its way to the printer: the first byte may have left", "wait a minute"),
    State.ACCEPTED: ("accepted by the printer, which the worker polls for the result", "wait; look for the paper"),
    State.DONE: (
        "sent; a printer that reports results has reported that it is printed",
        "put the slip in the item, scan both at packing",
    ),
    State.CONFIRMED: ("the slip's code and its item were scanned together", "nothing"),
    State.HELD: ("the printer is unavailable or on hold", "repair or release the printer; the slip then prints"),
    State.FAILED_SAFE: ("an attempt failed before the first byte left", "wait: it is retried, with growing pauses"),
    State.UNKNOWN: ("it may or may not be on paper", "look at the printer: `printed` or `reprint`"),
    State.EXPIRED: ("it waited too long and is not sent any more", "`reprint` if the item is still here"),
    State.CANCELLED: ("cancelled by an operator, or replaced by a copy", "discard the paper if it turns up"),
}

_HEAD: Final = """# Print jobs: the states of a slip

Every slip is a row with one of these states. Once a byte of a slip may have left, no worker sends it again; an operator
decides. `make docs` generates this page from `schemas/print_jobs.py` and `tasks/printing/state_machine.py`.
"""


def page() -> str:
    """The page, as Markdown with a Mermaid diagram."""
    return "\n".join([_HEAD, *_diagram(), "", *_table(), "", *_limits(), ""])


def _diagram() -> Iterator[str]:
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield "    direction LR"
    yield "    [*] --> requested"
    for state, successors in TRANSITIONS.items():
        for successor in sorted(successors, key=list(State).index):
            if successor is not state:
                yield f"    {state.value} --> {successor.value}"
    yield "```"


def _table() -> Iterator[str]:
    return table(
        ("state", "meaning", "staff or operator", "handled by workers"),
        (
            (f"`{state.value}`", meaning, action, "yes" if state in WAITING | IN_HAND else "no")
            for state, (meaning, action) in _MEANING.items()
        ),
    )


def _limits() -> Iterator[str]:
    first, longest = rules.retry_delay(1, 0.0), rules.retry_delay(99, 0.0)
    hours = rules.RECONCILE_WINDOW.total_seconds() / 3600
    yield f"- After a failure the printer's whole queue pauses for {first.seconds} seconds, then twice as long each time, up to"
    yield f"  {longest.seconds // 60} minutes. Up to half of each pause is random."
    yield f"- After {rules.FAILURES_BEFORE_HELD} failures in a row the printer counts as unavailable: its slips are `held`, and its fallback prints them."
    yield "- Workers send one slip at a time to a printer, the oldest first."
    yield "- A slip expires after `BOOKDROP_SLIP_EXPIRY_HOURS` (24)."
    yield f"- Workers poll a printer that tracks its jobs for up to {hours:.0f} hours for the result of a slip."
