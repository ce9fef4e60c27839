# SPDX-License-Identifier: Apache-2.0
"""Records of a file of JSON Lines, or of one JSON array."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from tasks.data_import.import_errors import Damage, ImportFileError
from tasks.data_import.text_files import TextFile

MAX_ARRAY_MB: Final = 64
"""Size of a JSON array, in MB of 10^6 bytes. Unlike JSON Lines it is decoded as a whole."""

_SPACE: Final = re.compile(r"[ \t\r\n\ufeff]*")


@dataclass(frozen=True)
class JsonLinesFile:
    """A file with one JSON object on each line."""

    source: TextFile
    kind: str | None
    """Kind of the rows, if the user names it."""

    @cached_property
    def first_columns(self) -> list[str]:
        """The keys of the first object that may be of `kind`."""
        kind = self.kind
        objects = (record for _, record in self.records() if isinstance(record, dict))
        return list(next((record for record in objects if kind is None or record.get("kind", kind) == kind), {}))

    @cached_property
    def columns(self) -> list[str]:
        """The keys of all objects."""
        return list(dict.fromkeys(key for _, record in self.records() if isinstance(record, dict) for key in record))

    def check(self) -> None:
        """Damage of a line ends with it."""

    def records(self) -> Iterator[tuple[int, Any]]:
        """Each line's number with its record or `Damage`. Blank lines are left out."""
        for number, line in enumerate(self.source.lines(), 1):
            if text := line.strip().strip("\ufeff").strip():
                yield number, _parse(text)


@dataclass(frozen=True)
class JsonArrayFile(JsonLinesFile):
    """A file with one JSON array of objects."""

    def check(self) -> None:
        """Parse the whole array. Raises `ImportFileError` for damage: the next object cannot be found after it."""
        for _ in self.records():
            pass

    def records(self) -> Iterator[tuple[int, Any]]:
        """The number of each element's first line, with the element."""
        text = self.source.text()
        line, counted = 1, 0
        at = _skip(text, _skip(text, 0) + 1)
        is_first = True
        while True:
            line, counted = line + _line_ends(text, counted, at), at
            if text[at : at + 1] == "]" and is_first:
                break
            try:
                record, end = _DECODER.raw_decode(text, at)
            except RecursionError:
                raise self._refused(line, "nested too deep") from None
            except ValueError as error:
                raise self._refused(line, getattr(error, "msg", "") or _words(error)) from None
            yield line, record
            is_first = False
            at = _skip(text, end)
            if text[at : at + 1] == "]":
                break
            if text[at : at + 1] != ",":
                raise self._refused(line, "a comma is missing after it")
            at = _skip(text, at + 1)
        if _skip(text, at + 1) != len(text):
            raise self._refused(line, "a text follows the array")

    def _refused(self, line: int, cause: str) -> ImportFileError:
        return self.source.refused(
            line, f"the array is not valid JSON from line {line} on ({cause})", "Correct it, or write JSON Lines."
        )


def open_json(source: TextFile, kind: str | None) -> JsonLinesFile | None:
    """The file as JSON; `None` when it does not begin as JSON does. Raises `ImportFileError` for a large array."""
    start = next((text[0] for line in source.lines() if (text := line.strip().strip("\ufeff").strip())), "")
    if start == "{":
        return JsonLinesFile(source, kind)
    if start != "[":
        return None
    if len(source.raw) > MAX_ARRAY_MB * 1_000_000:
        raise ImportFileError(
            f"{source.path} is a JSON array of more than {MAX_ARRAY_MB} MB.",
            "Write JSON Lines: one object on each line.",
        )
    return JsonArrayFile(source, kind)


def _parse(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return Damage(f"not valid JSON: {error.msg}")
    except RecursionError:
        return Damage("not valid JSON: nested too deep")
    except ValueError as error:
        return Damage(f"not valid JSON: {_words(error)}")


def _words(error: ValueError) -> str:
    return str(error) if isinstance(error, _DoubledKeyError) else "a number has too many digits"


class _DoubledKeyError(ValueError):
    """An object that names a key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of `pairs`. Raises `_DoubledKeyError`."""
    found = dict(pairs)
    if len(found) != len(pairs):
        [(doubled, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise _DoubledKeyError(f"the key {doubled[:40]!r} occurs twice")
    return found


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, strict=False)
"""Not strict: control characters inside a text are white space, as in CSV."""


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _line_ends(text: str, start: int, end: int) -> int:
    return text.count("\n", start, end) + text.count("\r", start, end) - text.count("\r\n", start, end)
