# SPDX-License-Identifier: Apache-2.0
"""Searches of Flower's page of tasks that are worth keeping: a click each."""

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote

from schemas.topology import PRINT_SLIP, PROCESS_SCAN


@dataclass(frozen=True)
class Search:
    """A search in Flower's own words (its manual: "Tasks filter")."""

    words: str
    """For the menu."""
    field: Literal["name", "state", "worker"]
    """What the first term is about; Flower's page takes these three from its address."""
    terms: str
    """The value of that field, and whatever else is to hold."""

    @property
    def query(self) -> str:
        """The query of the page's address."""
        return f"{self.field}={quote(self.terms, safe='')}"


SEARCHES: Final = (
    Search("Scans that were refused", "name", f"{PROCESS_SCAN} result:refused"),
    Search("Messages set apart", "name", "returns. result:quarantined"),
    Search("Slips being sent now", "state", "SLIP-SENDING"),
    Search("Tries that left a slip held", "name", f"{PRINT_SLIP} result:held"),
    Search("Tries that left a slip in doubt", "name", f"{PRINT_SLIP} result:unknown"),
    Search("Tasks of print workers", "worker", "printing"),
    Search("Tasks that failed", "state", "FAILURE"),
)
