# SPDX-License-Identifier: Apache-2.0
"""Read a file of bounded size as text, in a verified encoding."""

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tasks.data_import.import_errors import ImportFileError

MAX_FILE_MB: Final = 256
"""Size of a file, in MB of 10^6 bytes. An import holds the file in memory, and decodes it line by line."""

ENCODINGS: Final = ("utf-8", "utf-16", "windows-1250", "windows-1252", "iso-8859-1", "iso-8859-2", "iso-8859-15")

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHER_FILES: Final = (
    (b"%PDF", "is a PDF"),
    (b"PK\x03\x04", "is a workbook or another ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "is a workbook"),
    (b"\x1f\x8b", "is compressed"),
)
_CHUNK: Final = 1 << 20
_EXPORT_AGAIN: Final = "Export it as CSV in UTF-8, or as JSON Lines."


@dataclass(frozen=True)
class TextFile:
    """The content of a file, whose bytes are all valid in its encoding."""

    path: Path
    raw: bytes
    encoding: str
    line_count: int

    def lines(self) -> Iterator[str]:
        """The lines with their ends: LF, CR LF or CR. Other separators of Unicode do not end a line."""
        return io.TextIOWrapper(io.BytesIO(self.raw), self.encoding, newline="")

    def text(self) -> str:
        """The whole text."""
        return self.raw.decode(self.encoding)

    def refused(self, line: int, cause: str, next_step: str) -> ImportFileError:
        """The error of a file that cannot be read from `line` on. `cause` follows the file's name."""
        rest = self.line_count - line + 1
        lines = f"the {rest:,} lines from line {line} on were" if rest > 1 else f"line {line} was"
        return ImportFileError(f"{self.path}: {cause}; {lines} not read.", next_step)


def read_text_file(path: Path, encoding: str | None = None) -> TextFile:
    """Read a file. Without `encoding` (of `ENCODINGS`) it is UTF-8, or UTF-16 with a byte order mark.

    Raises `ImportFileError` for a file that cannot be read, is too large, is not text, or is in another encoding.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_MB * 1_000_000 + 1)
    except OSError as error:
        raise ImportFileError(
            f"{path} cannot be read: {error.strerror}.", "Check the path and the file's permissions."
        ) from None
    if len(raw) > MAX_FILE_MB * 1_000_000:
        raise ImportFileError(
            f"{path} has more than {MAX_FILE_MB} MB.", "Split it into several files, each with the header."
        )
    if not raw.strip():
        raise ImportFileError(f"{path} is empty.", _EXPORT_AGAIN)
    for start, form in _OTHER_FILES:
        if raw.startswith(start):
            raise ImportFileError(f"{path} is not a text file: it {form}.", _EXPORT_AGAIN)
    chosen = _choose_encoding(path, raw, encoding)
    checked = _Checker(raw, chosen)
    if checked.bad_line is not None:
        name, line = "UTF-8" if chosen == "utf-8-sig" else chosen, checked.bad_line
        raise ImportFileError(
            f"{path} is not a text in {name}: line {line} has a byte that {name} does not have.",
            "Name its encoding, for example --encoding windows-1252, or export it in UTF-8.",
        )
    found = TextFile(path, raw, chosen, checked.line_count)
    if checked.nul_line is not None:
        zeros = sorted((raw[0:4096:2].count(0), raw[1:4096:2].count(0)))
        if chosen == "utf-8-sig" and zeros[1] * 6 > len(raw[:4096]) and zeros[1] > 4 * zeros[0]:
            raise ImportFileError(f"{path} is not a text in UTF-8; it may be in UTF-16.", "Use --encoding utf-16.")
        raise found.refused(checked.nul_line, f"line {checked.nul_line} contains a NUL character", _EXPORT_AGAIN)
    return found


def _choose_encoding(path: Path, raw: bytes, named: str | None) -> str:
    marked = next((encoding for mark, encoding in _MARKS if raw.startswith(mark)), None)
    if marked == "utf-32":
        raise ImportFileError(f"{path} is a text in UTF-32.", _EXPORT_AGAIN)
    if named is not None and marked is not None and marked != named:
        raise ImportFileError(
            f"{path} begins with the byte order mark of {marked.upper()}, but --encoding names {named}.",
            "Omit --encoding.",
        )
    encoding = named or marked or "utf-8"
    if encoding == "utf-16" and marked is None:
        # Most texts have more characters below U+0100: their zero byte is the second one in little-endian order.
        return "utf-16-be" if raw[0:4096:2].count(0) > raw[1:4096:2].count(0) else "utf-16-le"
    if encoding not in {"utf-8", "utf-16"} and not raw.isascii() and _Checker(raw, "utf-8").bad_line is None:
        raise ImportFileError(f"{path} is a text in UTF-8, but --encoding names {named}.", "Omit --encoding.")
    return "utf-8-sig" if encoding == "utf-8" else encoding


class _Checker:
    """The result of decoding bytes once: number of lines, the first invalid line, the first line with a NUL."""

    def __init__(self, raw: bytes, encoding: str) -> None:
        decoder = codecs.getincrementaldecoder(encoding)()
        self.line_count = 0
        self.bad_line: int | None = None
        self.nul_line: int | None = None
        last = ""
        for start in range(0, len(raw), _CHUNK):
            chunk = raw[start : start + _CHUNK]
            try:
                text = decoder.decode(chunk, start + _CHUNK >= len(raw))
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode(encoding, "replace")
                self.bad_line = self.line_count + _line_ends(before) + 1
                return
            if last.endswith("\r") and text.startswith("\n"):
                self.line_count -= 1
            if self.nul_line is None and "\x00" in text:
                self.nul_line = self.line_count + _line_ends(text[: text.index("\x00")]) + 1
            self.line_count += _line_ends(text)
            last = text or last
        if not last.endswith(("\n", "\r")):
            self.line_count += 1


def _line_ends(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")
