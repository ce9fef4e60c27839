# SPDX-License-Identifier: Apache-2.0
"""Saved searches of Flower's task page, offered in a menu."""

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote

from schemas.topology import PRINT_SLIP, PROCESS_SCAN


@dataclass(frozen=True)
class SavedSearch:
    """A search in Flower's own syntax (Flower's manual, "Tasks filter")."""

    label: str
    """Text of the menu entry."""
    field: Literal["name", "state", "worker"]
    """Field of the first term. Flower's task page reads these three from its address."""
    terms: str
    """The value of that field, and further terms."""

    @property
    def query(self) -> str:
        """The query string of the page's address."""
        return f"{self.field}={quote(self.terms, safe='')}"


SAVED_SEARCHES: Final = (
    SavedSearch("Refused scans", "name", f"{PROCESS_SCAN} result:refused"),
    SavedSearch("Quarantined messages", "name", "returns. result:quarantined"),
    SavedSearch("Slips being sent now", "state", "SLIP-SENDING"),
    SavedSearch("Print attempts that ended held", "name", f"{PRINT_SLIP} result:held"),
    SavedSearch("Print attempts that ended unknown", "name", f"{PRINT_SLIP} result:unknown"),
    SavedSearch("Tasks of printing workers", "worker", "printing"),
    SavedSearch("Failed tasks", "state", "FAILURE"),
    SavedSearch("Housekeeping (otherwise hidden)", "name", "sweep OR name:purge_links"),
)
