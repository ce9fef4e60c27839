# SPDX-License-Identifier: Apache-2.0
"""Characters of a scanner or keyboard become lines; messages are shown around the typed line."""

import io
import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stations.messages import ScreenMessage
from stations.terminal import MAX_LINE_LENGTH, Keys, Screen, read_lines

BARCODES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=8), max_size=6
)


def feed(keys: Keys, *chunks: str) -> list[str]:
    return [line for chunk in chunks for line in keys.feed(chunk)]


@given(barcodes=BARCODES, end=st.sampled_from(["\r", "\n", "\r\n", "\t"]), cuts=st.sets(st.integers(0, 60), max_size=8))
def test_any_line_end_in_any_chunks_gives_the_same_lines(barcodes: list[str], end: str, cuts: set[int]) -> None:
    """CR, LF, CR LF and Tab each end one line; none is lost, merged or doubled at the borders of chunks."""
    text = "".join(barcode + end for barcode in barcodes)
    borders = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]

    lines = feed(Keys(edits=False), *(text[a:b] for a, b in pairwise(borders)))

    assert lines == barcodes


@given(barcodes=BARCODES)
def test_last_line_of_a_pipe_needs_no_line_end(barcodes: list[str]) -> None:
    """All lines of a pipe are read."""
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
def test_editing_keys_change_the_line(typed: str, line: str) -> None:
    """Backspace and Ctrl-U edit; Ctrl-D inside a line has no effect."""
    assert feed(Keys(edits=True), typed) == [line]


def test_control_d_on_an_empty_line_ends_the_input() -> None:
    """Characters after it are not read."""
    keys = Keys(edits=True)

    assert feed(keys, "A1\r\x04A2\r") == ["A1"]
    assert keys.at_end


def test_control_c_interrupts_after_the_lines_before_it() -> None:
    """Complete lines before Ctrl-C are returned first."""
    lines = Keys(edits=True).feed("A1\r\x03")

    assert next(lines) == "A1"
    with pytest.raises(KeyboardInterrupt):
        next(lines)


def test_endless_line_is_bounded_in_memory() -> None:
    """Characters beyond the longest line are dropped."""
    keys = Keys(edits=True)

    feed(keys, "x" * (MAX_LINE_LENGTH + 1000))

    assert len(keys.typed) == MAX_LINE_LENGTH


def test_message_is_shown_above_the_typed_line() -> None:
    """The typed line is shown again as it was."""
    output = io.StringIO()
    screen = Screen(output, interactive=True, sounds=True)
    screen.show_input("3100")
    output.truncate(0)
    output.seek(0)

    screen.show(ScreenMessage(("RETURNED  A1", "to \x1b[31mRiverside"), "green", 1))

    assert output.getvalue() == "\r\x1b[2KRETURNED  A1\n  to ?[31mRiverside\n> 3100"


def test_output_to_a_file_has_no_colour_and_no_bell() -> None:
    """Without a terminal only the text is written."""
    output = io.StringIO()

    Screen(output, interactive=False, sounds=True).show(ScreenMessage(("REFUSED  A1",), "red", 3))

    assert output.getvalue() == "REFUSED  A1\n"
