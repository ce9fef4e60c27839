# SPDX-License-Identifier: Apache-2.0
"""Two releases side by side: each reads what the other writes, on the wire and in the database.

`golden/v1/schemas` has the schema of each message from its first release. A file there is never edited; a new type of
message gets a new file.
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
WITHOUT_EFFECT = frozenset({"description", "title", "default", "examples", "$schema", "$defs"})
"""Parts of a schema that validate nothing."""

CONTRACTED: dict[str, str] = {}
"""Revisions that remove what no release in use writes or reads, with the reason."""


# Messages


def plain(schema, defs):
    """The schema with its references resolved, and without texts."""
    if isinstance(schema, list):
        return [plain(part, defs) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return plain(defs[schema["$ref"].removeprefix("#/$defs/")], defs)
    return {
        key: {name: plain(inner, defs) for name, inner in part.items()} if key == "properties" else plain(part, defs)
        for key, part in schema.items()
        if key not in WITHOUT_EFFECT
    }


def differences(old, new, at=""):
    """The incompatible changes from `old` to `new`. A new optional property is compatible."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [f"{at or 'it'}: was {old}, is {new}"]
    found = []
    for key in sorted({*old, *new} - {"properties", "required"}):
        if key not in old or key not in new:
            found.append(f"{at}/{key}: {'added' if key not in old else 'removed'}")
        else:
            found += differences(old[key], new[key], f"{at}/{key}")
    properties = new.get("properties", {})
    for name, schema in old.get("properties", {}).items():
        if name not in properties:
            found.append(f"{at}/{name}: removed")
        else:
            found += differences(schema, properties[name], f"{at}/{name}")
    was, now = set(old.get("required", ())), set(new.get("required", ()))
    found += [f"{at}/{name}: required now" for name in sorted(now - was)]
    found += [f"{at}/{name}: optional now" for name in sorted(was - now)]
    return found


def compared(released, today):
    return differences(plain(released, released.get("$defs", {})), plain(today, today.get("$defs", {})))


@pytest.mark.parametrize("file", sorted(file.name for file in RELEASED.iterdir()))
def test_message_is_compatible_with_its_first_release(file):
    """No field was removed, required, narrowed or widened: each release reads the other's messages."""
    today = {asyncapi.file_name(message): asyncapi.message_schema(message) for message in asyncapi.MESSAGES}
    released = json.loads((RELEASED / file).read_text(encoding="utf-8"))

    assert file in today, "a released message must still be read"
    assert compared(released, today[file]) == []


def test_every_message_has_its_released_schema():
    """A new type of message is compared from its first release on."""
    assert {asyncapi.file_name(message) for message in asyncapi.MESSAGES} <= {file.name for file in RELEASED.iterdir()}


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda schema: schema["properties"].pop("barcode"), "/barcode: removed"),
        (lambda schema: schema["required"].append("print_slip2"), "required now"),
        (lambda schema: schema["required"].remove("barcode"), "/barcode: optional now"),
        (lambda schema: schema["properties"]["barcode"].update(maxLength=10), "/barcode/maxLength"),
        (lambda schema: schema["properties"]["barcode"].update(type="integer"), "/barcode/type"),
        (lambda schema: schema["properties"]["type"].update(const="bookdrop.barcode-scanned.v2"), "/type/const"),
    ],
    ids=["removed field", "new required field", "field no longer required", "narrower", "other type", "other version"],
)
def test_incompatible_change_is_a_difference(change, difference):
    """Each kind of incompatible change is reported; an additional optional field is not."""
    released = json.loads((RELEASED / "barcode-scanned.v1.schema.json").read_text(encoding="utf-8"))
    changed = copy.deepcopy(released)
    changed["properties"]["added_later"] = {"type": "string", "default": "x"}
    assert compared(released, changed) == []

    change(changed)

    assert any(difference in found for found in compared(released, changed))


def test_queue_arguments_are_unchanged():
    """RabbitMQ refuses a queue that two releases declare with other arguments, so neither could run beside the other."""
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
    """Each table with its columns and constraints."""
    inspector = inspect(engine)
    return {
        table: (
            {column["name"]: column for column in inspector.get_columns(table)},
            {
                *(("unique", *each["column_names"]) for each in inspector.get_unique_constraints(table)),
                *(("unique", *each["column_names"]) for each in inspector.get_indexes(table) if each["unique"]),
                *(("check", each["sqltext"]) for each in inspector.get_check_constraints(table)),
                *(("refers", *each["constrained_columns"]) for each in inspector.get_foreign_keys(table)),
            },
        )
        for table in inspector.get_table_names()
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


@pytest.mark.filterwarnings(
    "ignore:Skipped unsupported reflection of expression-based index"
)  # by SQLAlchemy on SQLite
@pytest.mark.parametrize(("before", "after"), steps(), ids=lambda revision: revision)
def test_previous_release_works_on_migrated_tables(before, after, tmp_path):
    """A migration only adds: no column is removed or stricter, and a row without the new columns is inserted."""
    path = tmp_path / "library.db"
    engine = open_engine(f"sqlite:///{path}")
    migrate(engine, before)
    old = shape(engine)

    migrate(engine, after)
    new = shape(engine)
    engine.dispose()

    for table, (columns, rules) in old.items():
        assert table in new, f"{after} removes the table {table}"
        for name, column in columns.items():
            assert name in new[table][0], f"{after} removes {table}.{name}"
            now = new[table][0][name]
            assert str(now["type"]) == str(column["type"]), f"{after} changes the type of {table}.{name}"
            assert now["nullable"] >= column["nullable"], f"{after} makes {table}.{name} required"
        added = {rule for rule in new[table][1] - rules if set(rule[1:]) & set(columns)}
        assert not added, f"{after} adds constraints to {table}: {added}"
    with closing(sqlite3.connect(path)) as connection:  # without foreign keys: each table alone
        for number, (table, (columns, _)) in enumerate(old.items(), 1):
            names = ", ".join(columns)
            marks = ", ".join("?" for _ in columns)
            connection.execute(
                f"INSERT INTO {table} ({names}) VALUES ({marks})",
                [a_value(column, number) for column in columns.values()],
            )


def test_migrations_form_one_path():
    """One path leads from the first revision to the last."""
    script = ScriptDirectory.from_config(_alembic())

    assert len(script.get_heads()) == 1
    assert len(script.get_bases()) == 1
