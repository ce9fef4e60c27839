# SPDX-License-Identifier: Apache-2.0
"""The generated contract: current, valid, and equal to the messages that are sent."""

import json
import re

import jsonschema
import pytest

from docs.generate import asyncapi
from schemas.print_jobs import PrintSlip
from schemas.task_message import task_headers
from schemas.topology import PRINT_SLIP, PRINTING_QUEUE_PREFIX, PROCESS_RETURN, PROCESS_SCAN, REPLY_QUEUE_PREFIX


def references(value):
    """Every `$ref` in a document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def resolve(document, reference):
    """What a reference inside `document` points at; raises when there is nothing."""
    assert reference.startswith("#/")
    for part in reference.removeprefix("#/").split("/"):
        document = document[part]
    return document


@pytest.mark.parametrize("path", asyncapi.documents())
def test_committed_document_equals_the_generated_one(path):
    """After a change of a message, `make docs` was run and its result committed."""
    generated = asyncapi.documents()[path]

    committed = (asyncapi.FOLDER / path).read_text(encoding="utf-8")

    assert committed == generated, "run `make docs` and commit what it writes"


def test_folder_has_no_schema_of_a_removed_message():
    """The folder of schemas has those of the present messages only."""
    committed = {f"messages/{file.name}" for file in (asyncapi.FOLDER / "messages").iterdir()}

    assert committed == set(asyncapi.documents()) - {"asyncapi.json"}


def test_write_repairs_a_drifted_folder_once(tmp_path):
    """Missing, changed and obsolete files are corrected and named; a second run changes nothing."""
    asyncapi.write(tmp_path)
    (tmp_path / "asyncapi.json").write_text("{}", encoding="utf-8")
    (tmp_path / "messages" / "gone.v1.schema.json").write_text("{}", encoding="utf-8")

    changed = asyncapi.write(tmp_path)

    assert changed == ["asyncapi.json", "messages/gone.v1.schema.json"]
    assert asyncapi.write(tmp_path) == []


@pytest.mark.parametrize("message", asyncapi.MESSAGES)
def test_schema_is_valid_and_requires_the_type(message):
    """Each schema follows JSON Schema 2020-12, and its message has a type of a version."""
    schema = asyncapi.message_schema(message)

    jsonschema.Draft202012Validator.check_schema(schema)

    assert "type" in schema["required"]
    assert schema["properties"]["type"]["const"].endswith(".v1")


def test_every_reference_in_the_asyncapi_document_resolves():
    """No `$ref` points to a missing part."""
    document = asyncapi.asyncapi()
    found = list(references(document))

    targets = [resolve(document, reference) for reference in found]

    assert found
    assert all(isinstance(target, dict) for target in targets)


def test_schemas_in_the_asyncapi_document_are_valid():
    """AsyncAPI 3.0 interprets schemas as JSON Schema draft 7."""
    document = asyncapi.asyncapi()
    messages = document["components"]["messages"].values()

    schemas = [*document["components"]["schemas"].values(), *(message["payload"] for message in messages)]

    assert schemas
    for schema in schemas:
        jsonschema.Draft7Validator.check_schema(schema)


def test_channels_are_the_queues_of_the_topology():
    """The document names the queues that are used."""
    addresses = {channel["address"] for channel in asyncapi.asyncapi()["channels"].values()}

    assert addresses == {"returns", PRINTING_QUEUE_PREFIX + "{branch}", REPLY_QUEUE_PREFIX + "{station}"}


@pytest.mark.parametrize("task", [PROCESS_SCAN, PROCESS_RETURN, PRINT_SLIP])
def test_sent_headers_are_valid_under_the_documented_schema(task):
    """The headers that this code writes are valid."""
    headers = task_headers(task, asyncapi.EXAMPLE_ID, origin="main-desk-1")
    schema = asyncapi.headers_schema(task, from_station=task != PRINT_SLIP)

    jsonschema.validate(headers, schema)

    assert asyncapi.EXAMPLE_ID in headers["argsrepr"]


@pytest.mark.parametrize("header", asyncapi.headers_schema(PROCESS_SCAN, from_station=True)["required"])
def test_task_message_without_a_documented_header_is_invalid(header):
    """Each documented header is required."""
    headers = task_headers(PROCESS_SCAN, asyncapi.EXAMPLE_ID, origin="main-desk-1")
    del headers[header]

    with pytest.raises(jsonschema.ValidationError, match=re.escape(header)):
        jsonschema.validate(headers, asyncapi.headers_schema(PROCESS_SCAN, from_station=True))


def test_print_task_contains_an_id_only():
    """A monitoring page that shows a print task cannot show a patron."""
    fields = set(PrintSlip.model_fields)

    assert fields == {"type", "job_id"}


def test_no_message_has_a_field_for_a_patron():
    """No property of any message names a patron."""
    names = re.findall(
        r'^ *"(\w+)": \{$', json.dumps([asyncapi.message_schema(m) for m in asyncapi.MESSAGES], indent=1), re.MULTILINE
    )

    assert "barcode" in names
    assert not [name for name in names if re.search("patron|reader|borrower|user", name)]
