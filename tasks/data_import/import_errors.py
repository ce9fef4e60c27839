# SPDX-License-Identifier: Apache-2.0
"""Errors of an import: of a whole file or mapping, and of one record. Pure."""

from dataclasses import dataclass


class ImportFileError(Exception):
    """A file or a mapping that cannot be imported. The text states the cause, and the next step."""

    def __init__(self, cause: str, next_step: str) -> None:
        super().__init__(printable(f"{cause} Nothing was imported. {next_step}"))


@dataclass(frozen=True)
class Damage:
    """The reason why a line has no record."""

    reason: str
    may_hide_rows: bool = False
    """True if a quote may be open, so that later quotes may be read the wrong way round."""


def printable(text: str) -> str:
    """The text with escapes for surrogates, which JSON may contain and no output encodes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
