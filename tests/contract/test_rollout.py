# SPDX-License-Identifier: Apache-2.0
"""Old and new side by side: what is written by one release is read by the other, on the wire and in the database.

`golden/v1/schemas` holds each message as it was first released. A file there is never edited: a new kind of message gets a new file.
"""

import copy
import itertools
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from docs.generate import asyncapi
from schemas import topology
from schemas.database import open_engine
from schemas.migration import _alembic, migrate

RELEASED = Path(__file__).parent / "golden" / "v1" / "schemas"
SAYS_NOTHING = frozenset({"description", "title", "default", "examples", "$schema", "$defs"})
"""Parts of a schema that no message is measured by."""

CONTRACTED: dict[str, str] = {}
"""Revisions that take away what no release in use writes or reads any more, with the reason."""


# Messages


def plain(schema, defs):
    """A schema with its references written out, and without words."""
    if isinstance(schema, list):
        return [plain(part, defs) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return plain(defs[schema["$ref"].removeprefix("#/$defs/")], defs)
    return {
        key: {name: plain(inner, defs) for name, inner in part.items()} if key == "properties" else plain(part, defs)
        for key, part in schema.items()
        if key not in SAYS_NOTHING
    }


def differences(old, new, at=""):
    """What of `new` keeps one release from reading the other. A new property that may be absent is none."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [f"{at or 'it'}: was {old}, is {new}"]
    found = []
    for key in sorted({*old, *new} - {"properties", "required"}):
        if key not in old or key not in new:
            found.append(f"{at}/{key}: {'came' if key not in old else 'went'}")
        else:
            found += differences(old[key], new[key], f"{at}/{key}")
    properties = new.get("properties", {})
    for name, schema in old.get("properties", {}).items():
        if name not in properties:
            found.append(f"{at}/{name}: went")
        else:
            found += differences(schema, properties[name], f"{at}/{name}")
    was, now = set(old.get("required", ())), set(new.get("required", ()))
    found += [f"{at}/{name}: must be there now" for name in sorted(now - was)]
    found += [f"{at}/{name}: may be absent now" for name in sorted(was - now)]
    return found


def compared(released, today):
    return differences(plain(released, released.get("$defs", {})), plain(today, today.get("$defs", {})))


@pytest.mark.parametrize("file", sorted(file.name for file in RELEASED.iterdir()))
def test_a_message_is_the_same_for_old_and_new(file):
    """Nothing was taken away, added as a must, narrowed or widened: each release reads what the other writes."""
    today = {asyncapi.file_name(message): asyncapi.message_schema(message) for message in asyncapi.MESSAGES}
    released = json.loads((RELEASED / file).read_text(encoding="utf-8"))

    assert file in today, "a message that was released is still read"
    assert compared(released, today[file]) == []


def test_every_message_is_kept_as_it_was_released():
    """A new kind of message is held to its word from its first release on."""
    assert {asyncapi.file_name(message) for message in asyncapi.MESSAGES} <= {file.name for file in RELEASED.iterdir()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda schema: schema["properties"].pop("barcode"), "/barcode: went"),
        (lambda schema: schema["required"].append("print_slip2"), "must be there now"),
        (lambda schema: schema["required"].remove("barcode"), "/barcode: may be absent now"),
        (lambda schema: schema["properties"]["barcode"].update(maxLength=10), "/barcode/maxLength"),
        (lambda schema: schema["properties"]["barcode"].update(type="integer"), "/barcode/type"),
        (lambda schema: schema["properties"]["type"].update(const="bookdrop.barcode-scanned.v2"), "/type/const"),
    ],
    ids=["field gone", "new must", "must no more", "narrower", "other type", "other version"],
)
def test_the_comparison_sees_what_breaks_a_rollout(change, told):
    """Each kind of change that one of two releases would not understand is told; an additional field is none."""
    released = json.loads((RELEASED / "barcode-scanned.v1.schema.json").read_text(encoding="utf-8"))
    changed = copy.deepcopy(released)
    changed["properties"]["added_later"] = {"type": "string", "default": "x"}
    assert compared(released, changed) == []

    change(changed)

    assert any(told in difference for difference in compared(released, changed))


def test_queues_are_declared_as_they_were():
    """RabbitMQ refuses a queue that two releases declare otherwise: neither could work beside the other."""
    work = {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "dead-letter",
    }

    assert {
        name: topology.queue_arguments(name)
        for name in ("returns", "housekeeping", "print-actions", "printing.main", "dead-letter", "reply.main-desk-1")
    } == {
        "returns": work,
        "housekeeping": work,
        "print-actions": work,
        "printing.main": work,
        "dead-letter": {"x-queue-type": "quorum"},
        "reply.main-desk-1": {"x-expires": 604_800_000},
    }


# Tables


def steps():
    """Pairs of revisions that follow each other, oldest first."""
    revisions = [script.revision for script in ScriptDirectory.from_config(_alembic()).walk_revisions()][::-1]
    return [pair for pair in itertools.pairwise(revisions) if pair[1] not in CONTRACTED]


def shape(engine):
    """Each table: its columns, and what a row must fulfil."""
    look = inspect(engine)
    return {
        table: (
            {column["name"]: column for column in look.get_columns(table)},
            {
                *(("unique", *each["column_names"]) for each in look.get_unique_constraints(table)),
                *(("unique", *each["column_names"]) for each in look.get_indexes(table) if each["unique"]),
                *(("check", each["sqltext"]) for each in look.get_check_constraints(table)),
                *(("refers", *each["constrained_columns"]) for each in look.get_foreign_keys(table)),
            },
        )
        for table in look.get_table_names()
        if table != "alembic_version"
    }


def a_value(column, number):
    kind = str(column["type"]).upper()
    if "DATE" in kind:
        return "2026-11-24 12:00:00.000000"
    if kind.startswith(("CHAR(32)", "UUID")):
        return f"{number:032x}"
    if kind == "JSON":
        return "[]"
    return number if kind.startswith(("INTEGER", "BIGINT", "BOOL", "SMALLINT")) else f"value-{number}"


@pytest.mark.parametrize(("before", "after"), steps(), ids=lambda revision: revision)
def test_the_release_before_works_on_the_migrated_tables(before, after, tmp_path):
    """A migration only adds: no column is gone or stricter, and a row without what is new goes in."""
    path = tmp_path / "library.db"
    engine = open_engine(f"sqlite:///{path}")
    migrate(engine, before)
    old = shape(engine)

    migrate(engine, after)
    new = shape(engine)
    engine.dispose()

    for table, (columns, rules) in old.items():
        assert table in new, f"{after} takes the table {table} away"
        for name, column in columns.items():
            assert name in new[table][0], f"{after} takes {table}.{name} away"
            now = new[table][0][name]
            assert str(now["type"]) == str(column["type"]), f"{after} changes the type of {table}.{name}"
            assert now["nullable"] >= column["nullable"], f"{after} makes {table}.{name} a must"
        added = {rule for rule in new[table][1] - rules if set(rule[1:]) & set(columns)}
        assert not added, f"{after} asks more of the rows of {table}: {added}"
    with closing(sqlite3.connect(path)) as connection:  # without foreign keys: each table by itself
        for number, (table, (columns, _)) in enumerate(old.items(), 1):
            names = ", ".join(columns)
            marks = ", ".join("?" for _ in columns)
            connection.execute(
                f"INSERT INTO {table} ({names}) VALUES ({marks})",
                [a_value(column, number) for column in columns.values()],
            )


def test_every_table_can_be_reached_from_the_first_release():
    """There is one way from the first revision to the last."""
    script = ScriptDirectory.from_config(_alembic())

    assert len(script.get_heads()) == 1
    assert len(script.get_bases()) == 1
