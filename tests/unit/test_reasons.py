# SPDX-License-Identifier: Apache-2.0
"""Reason codes: each has a meaning, and every use in the product is a member of an enumeration."""

import ast
from pathlib import Path

import pytest

from schemas.events import StationEvent
from schemas.reasons import DeadLetterReason, RejectionReason, ReplyReason
from tasks.events.validation import validate
from tasks.metrics import definitions
from tasks.quarantine.rejection import MESSAGES, Received
from tasks.requests.model import Refused

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("reasons", [ReplyReason, RejectionReason, DeadLetterReason])
def test_every_reason_has_a_meaning(reasons):
    """Each code has a sentence for the reference page."""
    assert all(reason.meaning.endswith(".") and len(reason.meaning) < 120 for reason in reasons)


def test_every_rejection_has_a_message():
    """Each reason of a rejected message has a text for the station."""
    assert set(MESSAGES) == set(RejectionReason)


def test_rejection_labels_of_the_metric_are_the_reasons():
    """The label values of the quarantine metric are the rejection reasons, and `other`."""
    assert definitions.QUARANTINED.values == (*RejectionReason, "other")


def test_no_refusal_is_built_from_a_plain_string():
    """The first argument of `Refused` is never a string literal: a new reason is added to the enumeration."""
    found = [
        (path.name, isinstance(node.args[0], ast.Constant))
        for path in ROOT.glob("tasks/**/*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == Refused.__name__ and node.args
    ]

    assert len(found) > 20
    assert not [name for name, is_literal in found if is_literal]


def test_message_without_a_type_is_rejected():
    """A message that is not an event is rejected with its reason, and no station is looked up."""
    messages = [Received([], None), Received({}, None)]

    verified, rejected = validate(messages, dict[str, type[StationEvent]](), lambda _codes: pytest.fail("looked up"))

    assert verified == []
    assert [each.reason for each in rejected] == [RejectionReason.BAD_SCHEMA, RejectionReason.UNKNOWN_VERSION]
