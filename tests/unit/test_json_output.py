# SPDX-License-Identifier: Apache-2.0
"""JSON output of commands: the same content, and nothing that a terminal obeys."""

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from workers.commands.json_output import to_json


def test_controls_and_overrides_are_escapes():
    """ESC, DEL, a control of C1, an override of direction, a line separator, a lone surrogate and a tag of plane 14."""
    text = "\x1b\x7f\x9b\u202e\u2028\ud800\U000e0041"

    assert to_json([text], indent=None) == (r'["\u001b\u007f\u009b\u202e\u2028\ud800\udb40\udc41"]')


def test_letters_stay_readable():
    """Letters of every script, and the joiners and marks that they need."""
    assert to_json({"title": "Müller \u06a9\u200c\u0627 Российская"}, indent=None) == (
        '{"title": "Müller \u06a9\u200c\u0627 Российская"}'
    )


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())))
def test_output_is_the_same_content(content):
    """Whatever the text, a program reads the content, and the output has controls for its lines only."""
    output = to_json(content)

    assert json.loads(output) == content
    assert "Cc" not in {unicodedata.category(char) for char in output.replace("\n", "")}
