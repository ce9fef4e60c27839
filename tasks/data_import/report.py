# SPDX-License-Identifier: Apache-2.0
"""The report of an import: rows by kind and outcome, notes, and the refused rows with their reasons."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tasks.data_import.outcome import Note, Outcome, RowResult
from tasks.data_import.validation import InvalidRow, ValidRow

UNKNOWN_KIND: Final = "unknown"
"""Key of the report for rows that do not show their kind."""


@dataclass
class RowCounts:
    """Counts of rows by outcome."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: int = 0

    @property
    def read(self) -> int:
        """Number of rows."""
        return self.added + self.changed + self.unchanged + self.refused


@dataclass
class ImportReport:
    """Outcome of an import: counts of rows by kind in the order of import, and the refused rows with their reasons."""

    by_kind: dict[str, RowCounts] = field(default_factory=dict)
    refused: list[InvalidRow] = field(default_factory=list)
    notes: Counter[tuple[str, Note]] = field(default_factory=Counter)
    """Number of rows by kind and note. A row with a note is counted by its outcome too."""
    shortened: list[ValidRow] = field(default_factory=list)
    """Rows with a text that was too long and was shortened. A row may be refused as well."""
    committed: bool = True
    """False when nothing was stored: a dry run, or a refused row under `strict`."""

    @property
    def total(self) -> RowCounts:
        """Counts of all kinds."""
        kinds = self.by_kind.values()
        return RowCounts(
            sum(counts.added for counts in kinds),
            sum(counts.changed for counts in kinds),
            sum(counts.unchanged for counts in kinds),
            sum(counts.refused for counts in kinds),
        )

    def count(self, kind: str, rows: Iterable[ValidRow], results: Iterable[RowResult]) -> None:
        """Count the rows of a kind by their results."""
        counts = self.by_kind.setdefault(kind, RowCounts())
        for row, result in zip(rows, results, strict=True):
            if result.outcome is Outcome.REFUSED:
                self.refuse(InvalidRow(row.line, result.reason, kind))
                continue
            setattr(counts, result.outcome.value, getattr(counts, result.outcome.value) + 1)
            self.notes.update((kind, note) for note in result.notes)

    def refuse(self, row: InvalidRow) -> None:
        """Count a refused row and keep its reason."""
        self.by_kind.setdefault(row.kind or UNKNOWN_KIND, RowCounts()).refused += 1
        self.refused.append(row)
