# SPDX-License-Identifier: Apache-2.0
"""The contract of the envelope: golden headers pass, and each change of a control field is a defect."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import topology
from schemas.task_message import (
    HEADERS,
    MAX_BODY_BYTES,
    MAX_NESTING,
    call_defect,
    envelope_defect,
    kept_headers,
    task_body,
    task_headers,
    tasks_of,
)

EVENT_ID = "01975d2e-7c00-7000-8000-000000000001"
PROPERTIES = {"content_type": "application/json", "content_encoding": "utf-8", "correlation_id": EVENT_ID}
CONTROL = ("eta", "expires", "shadow", "group", "group_index", "timelimit", "stamps", "stamped_headers")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def headers(**changes):
    return {**task_headers(topology.PROCESS_SCAN, EVENT_ID, origin="main-desk-1"), **changes}


def defect(head=None, body=None, queue=topology.RETURNS_QUEUE, **properties):
    return envelope_defect(
        queue, {**PROPERTIES, **properties}, headers() if head is None else head, body or task_body("{}")
    )


@pytest.mark.parametrize("task", sorted(topology.ALL_TASKS))
def test_each_task_belongs_to_one_kind_of_queue(task):
    """Each task is allowed on one of the queues that workers consume, so none is unreachable or doubly reachable."""
    queues = (topology.RETURNS_QUEUE, topology.HOUSEKEEPING_QUEUE, topology.PRINT_ACTIONS_QUEUE, "printing.main")

    assert sum(task in tasks_of(queue) for queue in queues) == 1


def test_own_envelope_has_no_defect():
    """The envelope that bookdrop writes keeps the contract on every queue."""
    assert defect() is None
    call = json.loads(task_body(json.dumps({"event_id": EVENT_ID})))
    assert call_defect(topology.RETURNS_QUEUE, EVENT_ID, call) is None


@given(field=st.sampled_from(CONTROL), value=JSON)
def test_control_field_with_a_value_is_a_defect(field, value):
    """A control field of Celery is null (or empty), or the message is rejected; it is never obeyed."""
    found = defect(headers(**{field: value}))

    harmless = value is None or value in ([None, None], [], {}) or value is False
    assert found == f"header_{field}" or (found is None and harmless)


@given(name=st.sampled_from(sorted(HEADERS)), value=JSON)
def test_any_value_of_a_header_is_a_defect_or_harmless(name, value):
    """Whatever a header holds, the check returns a verdict and raises nothing."""
    found = defect(headers(**{name: value}))

    assert found is None or found.startswith(("header_", "property_"))


@given(extra=st.dictionaries(st.text(max_size=20), JSON, max_size=5))
def test_unknown_headers_are_removed(extra):
    """Headers outside the contract do not reach Celery."""
    assert set(kept_headers({**extra, **headers()})) <= {
        *HEADERS,
        "task",
        "desk",
        "x-delivery-count",
        "x-acquired-count",
        "redelivered",
    }


@given(depth=st.integers(1, 200), mark=st.sampled_from(["[", '{"a":']))
def test_nesting_is_counted_without_a_parser(depth, mark):
    """A body at the limit passes, a deeper one is a defect; brackets inside strings do not count."""
    close = "]" if mark == "[" else "}"
    body = mark * depth + "1" + close * depth

    assert (defect(body=body) == "nested_too_deeply") == (depth > MAX_NESTING)
    assert defect(body=json.dumps([mark * depth])) is None


def test_body_over_the_limit_is_a_defect():
    """A body of exactly the limit passes; one more byte is a defect."""
    assert defect(body=b"[" + b" " * (MAX_BODY_BYTES - 2) + b"]") is None
    assert defect(body=b"[" + b" " * (MAX_BODY_BYTES - 1) + b"]") == "oversize"


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        ([[{}], {}, {"callbacks": [1]}], "embed"),
        ([[{}], {}, {"other": None}], "embed"),
        ([[{}], {"a": 1}, None], "other_arguments"),
        ([[], {}, None], "other_arguments"),
        ([[{"event_id": EVENT_ID[:-1] + "2"}], {}, None], "other_id"),
        ([[{"event_id": EVENT_ID.upper()}], {}, None], None),
        ([[{"event_id": 7}], {}, None], None),
        ({}, "not_a_task"),
        ([[{}], {}], "not_a_task"),
    ],
)
def test_call_that_breaks_the_contract_is_a_defect(payload, found):
    """The embed is empty, an event is the one argument, and its id is the task's id."""
    assert call_defect(topology.RETURNS_QUEUE, EVENT_ID, payload) == found


@pytest.mark.parametrize("queue", ["", "dead-letter", "reply.main-desk-1", "celery"])
def test_no_task_is_allowed_on_other_queues(queue):
    """A message from a queue that no worker consumes names no task that is run."""
    assert defect(queue=queue) == "unknown_task"
