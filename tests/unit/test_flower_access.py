# SPDX-License-Identifier: Apache-2.0
"""The access table of Flower: complete for the installed Flower, and the events that Flower accepts."""

import json
from typing import Any

import pytest
from flower.urls import handlers as flower_handlers
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection
from kombu.message import Message
from tornado.web import RequestHandler

from schemas.topology import ALL_TASKS, PRINT_SLIP
from workers.app import app
from workers.flower import inspector as inspections
from workers.flower.access import ACCESS, Access, implements, required_access
from workers.flower.application import HANDLERS
from workers.flower.auth import has_bearer_token
from workers.flower.event_filter import MAX_TEXT, accepted_event
from workers.flower.slip_events import MAX_WORKERS, SlipEventReceiver
from workers.runtime.event_receiver import MAX_EVENT_BYTES, TolerantEventReceiver

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
TASK_EVENT = {
    "type": "task-received",
    "hostname": "returns@host-1",
    "timestamp": 1_800_000_000.5,
    "local_received": 1_800_000_000.6,
    "clock": 7,
    "pid": 4711,
    "utcoffset": 0,
    "uuid": "01975d2e-7c00-7000-8000-000000000001",
    "name": PRINT_SLIP,
    "args": "('01975d2e-7c00-7000-8000-000000000001',)",
    "retries": 0,
}


def served_handlers():
    """Each handler that the installed Flower and bookdrop serve."""
    return {each[1] if isinstance(each, tuple) else each.handler_class for each in (*flower_handlers, *HANDLERS)}


def served_methods():
    """Each handler that the installed Flower and bookdrop serve, with each of its methods."""
    return {
        (handler, method)
        for handler in served_handlers()
        for method in RequestHandler.SUPPORTED_METHODS
        if implements(handler, method) and method != "OPTIONS"
    }


def test_access_table_contains_each_method_of_each_handler():
    """A handler or method that a new Flower adds has no entry, and an entry without a handler is obsolete."""
    assert set(ACCESS) == served_handlers()
    assert served_methods() == {(handler, method) for handler, methods in ACCESS.items() for method in methods}


def test_each_handler_of_flower_that_writes_is_refused():
    """A method other than GET and HEAD writes, except for the search of tasks and the page of unknown addresses."""
    writing = {(handler, method) for handler, method in served_methods() if method not in {"GET", "HEAD"}}

    other = {each for each in writing if required_access(*each) is not Access.REFUSED}

    assert {(handler.__name__, required_access(handler, method).value) for handler, method in other} == {
        ("SlipPage", "act"),
        ("BatchPage", "act"),
        ("PrinterPage", "act"),
        ("DecisionPage", "act"),
        ("TasksDataTable", "view"),
        ("NotFoundErrorHandler", "public"),
    }


def test_handler_outside_the_table_is_refused():
    """A handler that the table does not contain is refused, whatever its method."""

    class NewHandler(RequestHandler):
        def get(self):
            """Read."""

        def post(self):
            """Write."""

    methods = RequestHandler.SUPPORTED_METHODS
    assert {required_access(NewHandler, method) for method in methods} == {Access.REFUSED}


@pytest.mark.parametrize(
    ("header", "token", "accepted"),
    [
        ("Bearer right", "right", True),
        ("bearer  right", "right", True),
        ("Bearer wrong", "right", False),
        ("Basic right", "right", False),
        ("Bearer ", "", False),
        ("", "right", False),
        ("Bearer \u00e9", "right", False),
    ],
)
def test_bearer_token_is_compared_exactly(header, token, accepted):
    """The scheme in any case, the token exactly; an empty token matches nothing."""
    assert has_bearer_token({"Authorization": header}, token) is accepted


def test_task_event_of_a_worker_is_accepted_unchanged():
    """An event as Celery sends it keeps each field."""
    assert accepted_event(TASK_EVENT) == TASK_EVENT


@pytest.mark.parametrize(
    "change",
    [
        {"name": "printing.reprint_slip"},
        {"name": ["x"]},
        {"hostname": "x"},
        {"hostname": 'returns@host"} 1\n'},
        {"hostname": "a@" + "b" * 300},
        {"hostname": None},
        {"type": "task-invented"},
        {"type": ["task-received"]},
        {"uuid": "x"},
        {"uuid": None},
        {"timestamp": float("nan")},
        {"timestamp": "now"},
        {"timestamp": 1e300},
    ],
)
def test_event_with_an_invented_name_is_dropped(change):
    """Types, tasks, workers, ids and times outside the list give no event."""
    assert accepted_event({**TASK_EVENT, **change}) is None


@given(extra=st.dictionaries(st.text(max_size=12) | st.sampled_from(sorted(TASK_EVENT)), JSON, max_size=6))
def test_any_event_is_dropped_or_bounded(extra):
    """No field outside the list remains, no text is long, and the name is that of a task."""
    found = accepted_event({**TASK_EVENT, **extra})

    assert found is None or (
        set(found) <= {*TASK_EVENT, "kwargs"}
        and found.get("name", PRINT_SLIP) in ALL_TASKS
        and all(len(value) <= MAX_TEXT for value in found.values() if isinstance(value, str))
    )


def test_long_text_is_cut_and_attributes_are_removed():
    """Arguments keep their beginning; a field that would replace an attribute of Celery's task is removed."""
    found = accepted_event({**TASK_EVENT, "args": "x" * 100_000, "as_dict": "x", "state": "SUCCESS", "children": []})

    assert found == {**TASK_EVENT, "args": "x" * MAX_TEXT}


def test_number_of_workers_is_limited():
    """One name above the limit replaces the name with the oldest event, also in the metrics."""
    receiver = SlipEventReceiver(None, None, max_tasks_in_memory=10, max_workers_in_memory=1000)
    for number in range(MAX_WORKERS + 5):
        receiver._process({**TASK_EVENT, "hostname": f"returns@limit-{number}"})
        receiver._process({**TASK_EVENT, "hostname": "returns@limit-0"})

    names = {labels[0] for labels in receiver.state.metrics.events._metrics if "limit-" in labels[0]}
    assert len(names) == len(receiver.state.counter) == MAX_WORKERS
    assert {"returns@limit-0", f"returns@limit-{MAX_WORKERS + 4}"} <= names
    assert "returns@limit-1" not in names


@pytest.mark.parametrize(
    "message",
    [
        {"body": b"not json"},
        {"body": b"7"},
        {"body": b"{}"},
        {"body": b'[{"type": "task-received"}, 7]'},
        {"body": b'{"type": "task-received", "clock": "x"}'},
        {"body": b'{"type": "task-received", "timestamp": "x", "utcoffset": []}'},
        {"body": b"cos\nsystem\n(S'true'\ntR.", "content_type": "application/x-python-serialize"},
        {"body": json.dumps({**TASK_EVENT, "args": "x" * MAX_EVENT_BYTES}).encode()},
    ],
    ids=lambda message: message["body"][:30].decode(),
)
def test_message_that_is_not_an_event_does_not_end_the_receiver(message):
    """A malformed message, one of another type and one that is too long are dropped; the next event is processed."""
    processed: list[dict[str, Any]] = []
    receiver = TolerantEventReceiver(Connection("memory://"), handlers={"*": processed.append}, app=app)
    options: dict[str, Any] = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "accept": ["application/json"],
    }

    receiver.on_message(Message(**{**options, **message}))
    before = [event for event in processed if event.get("uuid")]
    receiver.on_message(Message(**{**options, "body": json.dumps(TASK_EVENT).encode()}))

    assert before == []
    assert processed[-1]["uuid"] == TASK_EVENT["uuid"]


def test_replies_to_inspection_are_bounded_in_number_and_size():
    """Flower keeps the replies of workers: not under any name, not beyond a number of names, not of any size."""
    inspector = inspections.BoundedInspector(None, None, 1.0)

    for name in ("x", "<b>@x", "returns@" + "h" * 300, 7, None):
        inspector._on_update(name, "stats", {})
    for number in range(inspections.MAX_WORKERS + 100):
        inspector._on_update(f"returns@host-{number}", "stats", {"pid": number})
    nested: Any = []
    for _ in range(900):
        nested = [nested]
    replies: list[Any] = [
        "x",
        None,
        {"a": "x" * inspections.MAX_CHARACTERS},
        {"a" * inspections.MAX_CHARACTERS: 1},
        [[]] * inspections.MAX_CHARACTERS,
        nested,
    ]
    for reply in replies:
        inspector._on_update("returns@host-0", "conf", reply)
    inspector._on_update("returns@host-0", "active_queues", [{"name": "returns"}])

    assert len(inspector.workers) == inspections.MAX_WORKERS
    assert inspector.workers["returns@host-0"].keys() == {"stats", "active_queues", "timestamp"}
