# SPDX-License-Identifier: Apache-2.0
"""Mutations of golden messages: of the event, of its JSON text, of the headers, the properties and the list entry.

All randomness comes from the generator that the caller passes, so that a seed repeats a run. Pure.
"""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

from schemas import signing
from schemas.task_message import task_headers

EMBED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
SIGNATURE: Final = {"task": "printing.print_slip", "args": ["x"], "kwargs": {}, "options": {}, "immutable": True}
"""A task that a sender wants published."""


@dataclass(frozen=True)
class Sample:
    """A message to publish: the event's text is the one argument of its body."""

    headers: dict[str, Any]
    body: bytes
    content_type: Any = "application/json"
    content_encoding: Any = "utf-8"
    properties: dict[str, Any] = field(default_factory=dict)
    """`correlation_id`, `reply_to` and `priority`."""
    entry: dict[str, Any] = field(default_factory=dict)
    """Redis: keys that replace those of the list entry."""
    raw: bytes | None = None
    """Redis: bytes that replace the whole list entry."""
    signed: dict[str, Any] | None = None
    """The event, if it was changed and then signed with the station's key."""


@dataclass(frozen=True)
class Golden:
    """An event and its task."""

    task: str
    event: dict[str, Any]


def message(golden: Golden) -> Sample:
    """The golden message itself."""
    return _with_event(golden, golden.event, json.dumps(golden.event))


def mutants(
    random: Random, events: Callable[[], Golden], key: str, *, with_entries: bool
) -> Iterator[tuple[str, Sample]]:
    """Endless mutated messages, each with the name of its mutation.

    `events` returns a new golden event, with the time and the id of this moment. `key`: the station's key. `with_entries`:
    also mutate the list entries of Redis.
    """
    mutations: list[Callable[[Random, Golden, str], Sample]] = [
        signed_event, unsigned_event, duplicate_keys, event_text, call, body_bytes, headers, headers, properties,
    ]  # fmt: skip
    if with_entries:
        mutations += [list_entry, list_entry_bytes]
    while True:
        mutate, golden = random.choice(mutations), events()
        try:
            sample = mutate(random, golden, key)
        except (ValueError, TypeError, RecursionError, OverflowError):  # canonical JSON cannot carry the event
            continue
        yield mutate.__name__, sample


# Mutations


def signed_event(random: Random, golden: Golden, key: str) -> Sample:
    """An event with changed fields and a valid signature: a station that goes wrong, or an attacker with its key."""
    event = _changed(random, golden.event)
    if isinstance(event, dict):
        event = {**event, "signature": signing.sign(event, key.encode())}
        return replace(_with_event(golden, event, json.dumps(event)), signed=event)
    return _with_event(golden, golden.event, json.dumps(event))


def unsigned_event(random: Random, golden: Golden, _key: str) -> Sample:
    """An event with changed fields and the signature of the golden one."""
    return _with_event(golden, golden.event, json.dumps(_changed(random, golden.event)))


def duplicate_keys(random: Random, golden: Golden, _key: str) -> Sample:
    """A key of the event twice: JSON does not say which value counts."""
    name = random.choice(list(golden.event))
    text = json.dumps(golden.event)
    doubled = f"{json.dumps(name)}: {json.dumps(value(random, 2))}"
    text = f"{{{doubled}, {text[1:]}" if random.random() < 0.5 else f"{text[:-1]}, {doubled}}}"
    return _with_event(golden, golden.event, text)


def event_text(random: Random, golden: Golden, _key: str) -> Sample:
    """The event's JSON text changed: numbers, spaces, escapes and values that JSON does not have."""
    text = json.dumps(golden.event)
    at = random.randrange(1, len(text))
    part = random.choice(
        ["NaN", "-Infinity", "1e400", "9" * 5000, "\\u0000", "\\ud800", "\x00", "\ufeff", " " * 1000, "{", "[", "]", '"',
         ",", "[" * 900 + "]" * 900, '{"__type__": "code", "__value__": "1"}', "\u202e", "\\u202e"]
    )  # fmt: skip
    text = text[:at] + part + text[at + random.randrange(3) :]
    return _with_event(golden, golden.event, text)


def call(random: Random, golden: Golden, _key: str) -> Sample:
    """Other arguments, keyword arguments or embed than a task of events has."""
    args: Any = random.choice([[golden.event], [], [golden.event, golden.event], value(random), [value(random)]])
    kwargs: Any = random.choice([{}, {"self": 1}, value(random)])
    embed: Any = random.choice(
        [EMBED, None, {}, {**EMBED, random.choice(list(EMBED)): random.choice([[SIGNATURE], SIGNATURE, value(random)])},
         {**EMBED, "more": None}, value(random)]
    )  # fmt: skip
    parts: Any = random.choice([[args, kwargs, embed], [args, kwargs], [args, kwargs, embed, None], {"args": args}])
    return replace(_with_event(golden, golden.event, ""), body=json.dumps(parts).encode("utf-8", "replace"))


def body_bytes(random: Random, golden: Golden, _key: str) -> Sample:
    """The body cut, changed in some bytes, in another encoding, or something else."""
    sample = message(golden)
    body = bytearray(sample.body)
    match random.randrange(6):
        case 0:
            del body[random.randrange(len(body)) :]
        case 1:
            for _ in range(random.randrange(1, 6)):
                body[random.randrange(len(body))] = random.randrange(256)
        case 2:
            body = bytearray(bytes(body).decode().encode(random.choice(["utf-16", "utf-32", "utf-7"])))
        case 3:
            body = bytearray(random.randbytes(random.randrange(2000)))
        case 4:
            depth = random.choice([20, 33, 100, 900, 20_000])
            opened, closed = random.choice([("[", "]"), ('{"a":', "}")])
            body = bytearray(f"[[{opened * depth}1{closed * depth}], {{}}, null]".encode())
        case _:
            body = bytearray(f"[[{' ' * random.choice([10, 70_000, 1_100_000])}1], {{}}, null]".encode())
    return replace(sample, body=bytes(body))


CONTROL: Final = (
    "eta", "expires", "timelimit", "shadow", "group", "group_index", "stamps", "stamped_headers", "retries", "id",
    "root_id", "parent_id", "task", "lang", "argsrepr", "kwargsrepr", "ignore_result", "compression", "origin",
    "replaced_task_nesting", "redelivered", "x-delivery-count", "x-death", "x-quarantine-reason", "desk", "callbacks",
)  # fmt: skip
"""Headers that Celery, kombu, the broker or a worker read."""


def headers(random: Random, golden: Golden, _key: str) -> Sample:
    """Some headers changed, added or removed."""
    sample = message(golden)
    changed = dict(sample.headers)
    for _ in range(random.randrange(1, 4)):
        name = random.choice(CONTROL) if random.random() < 0.9 else text(random, 20)
        if random.random() < 0.2:
            changed.pop(name, None)
        else:
            changed[name] = random.choice([*_HEADER_VALUES, value(random, 2)])
    return replace(sample, headers=changed)


_HEADER_VALUES: Final = (
    None, "2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z", [0.001, None], [5, 5], 10**9, -1, "celery.chord_unlock",
    "returns.process_undo", "printing.print_slip", "application/x-gzip", "x" * 5000, [["a"]], {"a": ["b"]}, True,
)  # fmt: skip


def properties(random: Random, golden: Golden, _key: str) -> Sample:
    """Some properties changed."""
    sample = message(golden)
    return replace(
        sample,
        content_type=random.choice(
            ["application/json", "application/x-python-serialize", "application/x-yaml", "application/data", "", "text/plain"]
        ),
        content_encoding=random.choice(["utf-8", "utf-16", "latin-1", "rot-13", "binary", "zlib", "", "base64"]),
        properties={
            "correlation_id": random.choice([sample.headers["id"], "x" * 250, "", "\x00"]),
            "reply_to": random.choice(
                ["reply.main-desk-1", "reply.main-desk-2", "returns", "celery.pidbox", "reply." + "a" * 200, "", "\x00"]
            ),
            "priority": random.choice([None, 0, 9, 255]),
        },
    )  # fmt: skip


def list_entry(random: Random, golden: Golden, _key: str) -> Sample:
    """Redis: keys of the list entry changed, as a client without kombu can write them."""
    sample = message(golden)
    info: Any = random.choice(
        [{"exchange": "", "routing_key": "housekeeping"}, {"exchange": "celery.pidbox", "routing_key": ""}, {}, None,
         {"exchange": 1, "routing_key": []}, {"exchange": "", "routing_key": "returns", "redelivered": True}, "x"]
    )  # fmt: skip
    keys: dict[str, Any] = {
        "headers": random.choice([None, [], "x", 1, {"task": None}, value(random)]),
        "body": random.choice([None, 1, [], {}, "", "not base64 §", value(random)]),
        "content-type": value(random, 1),
        "content-encoding": value(random, 1),
        "properties": random.choice(
            [None, [], {}, "x", value(random),
             {"delivery_tag": random.choice(["", "x", 1, None, "a" * 10_000]), "delivery_info": info,
              "body_encoding": random.choice(["base64", "x", None, 1]), "priority": value(random, 1)}]
        ),
        text(random, 10): value(random),
    }  # fmt: skip
    chosen = random.sample(sorted(keys), random.randrange(1, 3))
    return replace(sample, entry={name: keys[name] for name in chosen})


def list_entry_bytes(random: Random, golden: Golden, _key: str) -> Sample:
    """Redis: a list entry that is no entry of kombu at all."""
    raw = random.choice(
        [b"", b"{", b"null", b"[]", b"7", b'"x"', b"{}", b"\xff\xfe", b"[" * 2000 + b"]" * 2000, b"9" * 5000,
         b'{"a":' * 1500 + b"1" + b"}" * 1500, random.randbytes(random.randrange(500)), b"x" * 300_000]
    )  # fmt: skip
    return replace(message(golden), raw=raw)


# Values


def text(random: Random, longest: int = 200) -> str:
    """A text of characters that programs confuse."""
    alphabet = "aZ09 _-./'\"\\\x00\x1b\n\r\t\u202e\u200d\ufeff\u2028\U0001f4da\u0130\u00e9%;<>&{}[]"
    return "".join(random.choices(alphabet, k=random.randrange(longest + 1)))


def value(random: Random, depth: int = 3) -> Any:
    """A value that an event does not expect in a field."""
    if depth > 0 and random.random() < 0.3:
        if random.random() < 0.5:
            return [value(random, depth - 1) for _ in range(random.randrange(4))]
        return {text(random, 8): value(random, depth - 1) for _ in range(random.randrange(4))}
    return random.choice(
        [None, True, False, 0, -1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, 0.1, 1e308, "", text(random),
         "x" * random.choice([65, 300, 5000, 70_000]), "01975d2e-7c00-7000-8000-000000000001", "main-desk-2",
         "9999-12-31T23:59:59Z", "2026-13-45", "0001-01-01T00:00:00+14:00", nested(random),
         {"__type__": random.choice(["uuid", "datetime", "decimal", "bytes", "x", []]), "__value__": text(random, 10)}]
    )  # fmt: skip


def nested(random: Random) -> Any:
    """Arrays or objects in each other, some deeper than the envelope allows."""
    inner: Any = 1
    for _ in range(random.choice([3, 30, 40, 200])):
        inner = [inner] if random.random() < 0.5 else {"a": inner}
    return inner


def _changed(random: Random, event: dict[str, Any]) -> Any:
    """The event with one to three changes."""
    if random.random() < 0.02:
        return value(random)
    changed = deepcopy(event)
    for _ in range(random.randrange(1, 4)):
        name = random.choice(list(changed) or ["event_id"])
        match random.randrange(5):
            case 0:
                changed.pop(name, None)
            case 1:
                changed[text(random, 20)] = value(random)
            case 2:
                changed[name.upper()] = changed.pop(name, None)
            case _:
                changed[name] = value(random)
    return changed


def _with_event(golden: Golden, event: dict[str, Any], argument: str) -> Sample:
    """A valid envelope around `argument`. Its id is the event's where that is a text."""
    task_id = event.get("event_id")
    task_id = task_id if isinstance(task_id, str) and len(task_id) < 200 else golden.event["event_id"]
    return Sample(
        headers=task_headers(golden.task, task_id, origin="the fuzz run"),
        body=f"[[{argument}], {{}}, {json.dumps(EMBED)}]".encode("utf-8", "surrogatepass"),
        properties={"correlation_id": task_id, "reply_to": "reply.main-desk-1"},
    )
