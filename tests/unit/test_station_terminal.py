# SPDX-License-Identifier: Apache-2.0
"""Characters become lines, however a scanner ends them and however they are cut up on the way."""

import io
import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stations.messages import ScreenMessage
from stations.terminal import MAX_LINE_LENGTH, Keys, Screen, read_lines

BARCODES = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1), max_size=20)


def feed(keys: Keys, *chunks: str) -> list[str]:
    return [line for chunk in chunks for line in keys.feed(chunk)]


@given(barcodes=BARCODES, end=st.sampled_from(["\r", "\n", "\r\n", "\t"]), cuts=st.sets(st.integers(0, 200)))
def test_every_end_in_any_pieces(barcodes: list[str], end: str, cuts: set[int]) -> None:
    """CR, LF, CR LF and Tab each end one line; none is lost, merged or doubled, wherever the input is cut."""
    text = "".join(barcode + end for barcode in barcodes)
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]

    lines = feed(Keys(edits=False), *(text[a:b] for a, b in pairwise(places)))

    assert lines == barcodes


@given(barcodes=BARCODES)
def test_a_pipe_is_read_to_its_end(barcodes: list[str]) -> None:
    """A last line without an end counts."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as out:
        out.write("\n".join(barcodes).encode())

    with os.fdopen(reading) as stream:
        lines = list(read_lines(stream))

    assert lines == barcodes


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("310x\x7f0\r", "3100"),
        ("310x\b0\r", "3100"),
        ("wrong\x15right\r", "right"),
        ("\x7f31\r", "31"),
        ("31\x04\r", "31"),
    ],
)
def test_editing(typed: str, line: str) -> None:
    """Backspace and Ctrl-U edit; Ctrl-D in the middle of a line does nothing."""
    assert feed(Keys(edits=True), typed) == [line]


def test_control_d_ends() -> None:
    """Ctrl-D on an empty line ends the input; what follows is not read."""
    keys = Keys(edits=True)

    assert feed(keys, "A1\r\x04A2\r") == ["A1"]
    assert keys.at_end


def test_control_c_interrupts() -> None:
    """Ctrl-C interrupts, after the lines before it were given."""
    given_lines = Keys(edits=True).feed("A1\r\x03")

    assert next(given_lines) == "A1"
    with pytest.raises(KeyboardInterrupt):
        next(given_lines)


def test_a_book_on_the_keyboard() -> None:
    """A line that never ends does not fill the memory."""
    keys = Keys(edits=True)

    feed(keys, "x" * (MAX_LINE_LENGTH + 1000))

    assert len(keys.typed) == MAX_LINE_LENGTH


def test_an_answer_does_not_tear_what_is_typed() -> None:
    """An answer goes above the line being typed, which is shown again as it was."""
    output = io.StringIO()
    screen = Screen(output, interactive=True, sounds=True)
    screen.show_input("3100")
    output.truncate(0)
    output.seek(0)

    screen.show(ScreenMessage(("RETURNED  A1", "to \x1b[31mRiverside"), "green", 1))

    assert output.getvalue() == "\r\x1b[2KRETURNED  A1\n  to ?[31mRiverside\n> 3100"


def test_no_colour_and_no_bell_in_a_file() -> None:
    """Where no terminal is, there are words alone."""
    output = io.StringIO()

    Screen(output, interactive=False, sounds=True).show(ScreenMessage(("REFUSED  A1",), "red", 3))

    assert output.getvalue() == "REFUSED  A1\n"
