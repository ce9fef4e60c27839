# SPDX-License-Identifier: Apache-2.0
"""Find a patron's number and name in free text, and replace them. Pure."""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

REPLACEMENT: Final = "[erased]"
"""Text in place of a patron's number or name."""
MIN_LENGTH: Final = 4
"""Characters that a number needs to be searched in text: a shorter one is in many texts that name no patron."""


@dataclass(frozen=True)
class PatronText:
    """The texts that name one patron."""

    terms: tuple[str, ...]

    @classmethod
    def of(cls, number: str, name: str | None) -> "PatronText":
        """The number, if it is long enough; the name, if it has at least two words."""
        words = (name or "").split()
        terms = [number] if len(number) >= MIN_LENGTH else []
        if len(words) > 1:
            terms.append(" ".join(words))
        return cls(tuple(terms))

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches each term as whole words in upper and lower case, with any white space between its words."""
        terms = (r"\s+".join(map(re.escape, term.split())) for term in self.terms)
        # The empty alternative of no terms would match everywhere; (?!) matches nowhere.
        return re.compile(rf"(?<!\w)(?:{'|'.join(terms) or '(?!)'})(?!\w)", re.IGNORECASE)

    def named_in(self, content: str) -> bool:
        """True if a message of any form names the patron: as text, behind escapes of JSON, or in base64."""
        return any(map(self.names, _readable_forms(content)))

    @property
    def stored_forms(self) -> tuple[str, ...]:
        """The first word of each term as text columns and JSON columns store it, for a search that may find too much."""
        words = [term.split()[0] for term in self.terms]
        return tuple(dict.fromkeys(form for word in words for form in (word, json.dumps(word)[1:-1])))

    def names(self, text: str | None) -> bool:
        """True if `text` names the patron."""
        return text is not None and self.pattern.search(text) is not None

    def erase(self, value: Any) -> Any:
        """`value` with `REPLACEMENT` in place of each match: a text, or the texts in a JSON value (not its keys)."""
        match value:
            case str():
                return self.pattern.sub(REPLACEMENT, value)
            case dict():
                return {key: self.erase(each) for key, each in value.items()}
            case list():
                return [self.erase(each) for each in value]
            case _:
                return value


_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{8,}={0,2}")


def _readable_forms(content: str) -> Iterator[str]:
    yield content
    yield _unescaped(content)
    for run in _BASE64.findall(content):
        try:
            decoded = base64.b64decode(run + "=" * (-len(run) % 4)).decode(errors="replace")
        except binascii.Error:
            continue
        yield decoded
        yield _unescaped(decoded)


def _unescaped(text: str) -> str:
    """The text with JSON's numeric escapes replaced by their characters."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
