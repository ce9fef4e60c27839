# SPDX-License-Identifier: Apache-2.0
"""The terminal: read scanned lines, and show messages above the line being typed.

A scanner is a keyboard that ends each barcode with CR, LF, CR LF or Tab.
"""

import codecs
import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TextIO

from stations.messages import ScreenMessage

LINE_ENDS: Final = "\r\n\t"
PROMPT: Final = "> "
MAX_LINE_LENGTH: Final = 10_000
"""Characters of a line beyond this number are discarded; no barcode is nearly as long."""
BELL_INTERVAL_SECONDS: Final = 0.2
"""Interval between two bells; a terminal plays bells without an interval as one sound."""

_COLOURS: Final = {"green": "32", "yellow": "33", "red": "31", "magenta": "35"}
_INTERRUPT, _END, _BACKSPACES, _KILL = "\x03", "\x04", "\x7f\b", "\x15"


@dataclass
class Keys:
    """Splits characters into lines. CR LF is one line end; with `edits`, editing keys edit."""

    edits: bool
    typed: str = ""
    at_end: bool = False
    """Ctrl-D was typed on an empty line."""
    _last: str = ""

    def feed(self, chars: str) -> Iterator[str]:
        """Yield each line that `chars` complete. Raises `KeyboardInterrupt` for Ctrl-C when `edits` is true."""
        for char in chars:
            is_crlf_end, self._last = char == "\n" and self._last == "\r", char
            if is_crlf_end:
                continue
            if char in LINE_ENDS:
                line, self.typed = self.typed, ""
                yield line
            elif not (self.edits and self._edit(char)) and len(self.typed) < MAX_LINE_LENGTH:
                self.typed += char
            if self.at_end:
                return

    def _edit(self, char: str) -> bool:
        """Apply an editing key; return False for any other character."""
        if char == _INTERRUPT:
            raise KeyboardInterrupt
        if char == _END:
            self.at_end = not self.typed
        elif char in _BACKSPACES:
            self.typed = self.typed[:-1]
        elif char == _KILL:
            self.typed = ""
        else:
            return False
        return True


def read_lines(stream: TextIO) -> Iterator[str]:
    """Yield the lines of a pipe, empty lines included."""
    keys, decoder = Keys(edits=False), _decoder()
    while chunk := os.read(stream.fileno(), 65536):
        yield from keys.feed(decoder.decode(chunk))
    if keys.typed:
        yield keys.typed


class Screen:
    """Writes messages to a stream. On a terminal the line being typed stays below them. Thread-safe."""

    def __init__(self, output: TextIO, *, interactive: bool, sounds: bool) -> None:
        self._output = output
        self._interactive = interactive
        self._styled = output.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._sounds = sounds and output.isatty()
        self._typed = ""
        self._banner = ""
        self._lock = threading.Lock()
        self._bell_lock = threading.Lock()

    def show(self, shown: ScreenMessage) -> None:
        """Print a message above the prompt: the headline in bold and colour where the output supports it, and its tone."""
        first, *rest = ["".join(char if char.isprintable() else "?" for char in line) for line in shown.lines]
        if self._styled and shown.colour:
            first = f"\x1b[1;{_COLOURS[shown.colour]}m{first}\x1b[0m"
        with self._lock:
            self._clear()
            self._output.write("\n".join([first, *(f"  {line}" for line in rest)]) + "\n")
            self._draw_prompt()
        if self._sounds and shown.tone:
            threading.Thread(target=self._ring, args=(shown.tone,), daemon=True).start()

    def set_banner(self, text: str) -> None:
        """Show `text` before each prompt from now on; an empty text removes it."""
        with self._lock:
            self._clear()
            self._banner = text
            self._draw_prompt()

    def show_input(self, typed: str) -> None:
        """Show the line being typed."""
        with self._lock:
            self._clear()
            self._typed = typed
            self._draw_prompt()

    def hide_prompt(self) -> None:
        """Remove the prompt."""
        with self._lock:
            self._clear()
            self._interactive = False
            self._output.flush()

    def _ring(self, times: int) -> None:
        with self._bell_lock:  # one tone after the other, so that each can be counted
            for _ in range(times):
                with self._lock:
                    # Not through the buffer: a bell that still rings at exit must not hold the buffer's lock.
                    os.write(self._output.fileno(), b"\a")
                time.sleep(BELL_INTERVAL_SECONDS)
            time.sleep(BELL_INTERVAL_SECONDS)

    def _clear(self) -> None:
        if self._interactive:
            self._output.write("\r\x1b[2K")

    def _draw_prompt(self) -> None:
        if self._interactive:
            self._output.write(f"{self._banner}{PROMPT}{self._typed}")
        self._output.flush()


def read_typed_lines(stream: TextIO, screen: Screen) -> Iterator[str]:
    """Yield the lines typed or scanned at a terminal until Ctrl-D on an empty line. Raises `KeyboardInterrupt`.

    The program echoes and edits lines itself, so that a Tab ends a line and a reply does not break the line being
    typed.
    """
    keys, decoder = Keys(edits=True), _decoder()
    with _raw_mode(stream):
        screen.show_input("")
        while not keys.at_end and (chunk := _read(stream)):
            for line in keys.feed(decoder.decode(chunk)):
                screen.show_input("")
                yield line
            screen.show_input(keys.typed if keys.typed.isprintable() else "")


def _read(stream: TextIO) -> bytes:
    try:
        # Wait in short intervals: a signal that comes just before an unlimited read would be handled at the next key.
        while not select.select([stream], [], [], 0.5)[0]:
            pass
        return os.read(stream.fileno(), 4096)
    except OSError:  # the terminal's window was closed
        return b""


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


@contextmanager
def _raw_mode(stream: TextIO) -> Iterator[None]:
    import termios  # noqa: PLC0415 - not on every system

    number = stream.fileno()
    before = termios.tcgetattr(number)
    mode = termios.tcgetattr(number)
    mode[0] &= ~(termios.ICRNL | termios.INLCR)
    mode[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(number, termios.TCSADRAIN, mode)
    try:
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
