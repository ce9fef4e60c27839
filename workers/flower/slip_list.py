# SPDX-License-Identifier: Apache-2.0
"""The lists of slips that an address selects: tabs, filters, and the address of the list to which a form returns. Pure."""

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

from schemas.print_jobs import IN_HAND
from schemas.print_jobs import PrintState as State
from tasks.printing.queries import UNCONFIRMED, SlipFilter

FILTERS: Final[Mapping[str, tuple[str, tuple[State, ...]]]] = {
    "trouble": ("In trouble", (State.FAILED_SAFE, State.HELD, State.UNKNOWN)),
    "failed": ("Failed", (State.FAILED_SAFE,)),
    "held": ("Held", (State.HELD,)),
    "unknown": ("Unknown", (State.UNKNOWN,)),
    "unconfirmed": ("Unconfirmed", UNCONFIRMED),
    "expired": ("Expired", (State.EXPIRED,)),
    "waiting": ("On their way", (State.REQUESTED, *sorted(IN_HAND))),
    "all": ("All", ()),
}
"""Value of `show` in the address to the label of the tab and the states; no states are all of them."""

WITH_BLOCKED: Final = frozenset({"trouble", "held"})
"""Filters that include jobs that wait without an attempt because their printer is on hold or unavailable."""

FIELDS: Final = ("show", "branch", "printer", "q")
"""Parameters of the address that select slips."""

MAX_SHOWN: Final = 200
MAX_SEARCH: Final = 200
"""Characters of a search."""


def slip_filter(show: str, branch: str, printer: str, *, limit: int = MAX_SHOWN) -> SlipFilter:
    """The slips of the tab `show` at a branch and a printer; an empty text does not restrict. Raises `KeyError`."""
    return SlipFilter(
        states=FILTERS[show][1],
        blocked=show in WITH_BLOCKED,
        branch=branch or None,
        printer=printer or None,
        limit=limit,
    )


def shown_tab(argument: Callable[[str, str], str]) -> str:
    """The tab of an address: `show`; without it, all slips for a search, else those in trouble. Raises `KeyError`."""
    show = argument("show", "") or ("all" if argument("q", "").strip() else "trouble")
    FILTERS[show]
    return show


def list_query(query: str) -> str:
    """The filters in a query string. Other parameters are dropped, so an address made of it cannot lead elsewhere."""
    return urlencode([(name, value) for name, value in parse_qsl(query) if name in FIELDS])
