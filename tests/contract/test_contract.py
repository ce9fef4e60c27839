# SPDX-License-Identifier: Apache-2.0
"""The generated contract: up to date, valid, and true to what is really sent."""

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


def pointed_at(document, reference):
    """What a reference inside `document` points at; raises when there is nothing."""
    assert reference.startswith("#/")
    for part in reference.removeprefix("#/").split("/"):
        document = document[part]
    return document


@pytest.mark.parametrize("path", asyncapi.documents())
def test_committed_documents_are_what_the_types_say(path):
    """After a change of a message, `make docs` has been run and its result committed."""
    wanted = asyncapi.documents()[path]

    committed = (asyncapi.FOLDER / path).read_text(encoding="utf-8")

    assert committed == wanted, "run `make docs` and commit what it writes"


def test_no_schema_of_a_message_that_is_gone():
    """The folder of schemas holds those of today's messages and no other."""
    committed = {f"messages/{file.name}" for file in (asyncapi.FOLDER / "messages").iterdir()}

    assert committed == set(asyncapi.documents()) - {"asyncapi.json"}


def test_writing_repairs_a_drifted_folder(tmp_path):
    """What is missing, changed or obsolete is put right and named; a second run finds nothing to do."""
    asyncapi.write(tmp_path)
    (tmp_path / "asyncapi.json").write_text("{}", encoding="utf-8")
    (tmp_path / "messages" / "gone.v1.schema.json").write_text("{}", encoding="utf-8")

    changed = asyncapi.write(tmp_path)

    assert changed == ["asyncapi.json", "messages/gone.v1.schema.json"]
    assert asyncapi.write(tmp_path) == []


@pytest.mark.parametrize("message", asyncapi.MESSAGES)
def test_schemas_are_valid_and_demand_the_type(message):
    """Each schema keeps to JSON Schema 2020-12, and a message must say what it is."""
    schema = asyncapi.message_schema(message)

    jsonschema.Draft202012Validator.check_schema(schema)

    assert "type" in schema["required"]
    assert schema["properties"]["type"]["const"].endswith(".v1")


def test_every_reference_in_the_asyncapi_document_leads_somewhere():
    """No `$ref` of the AsyncAPI document points at nothing."""
    document = asyncapi.asyncapi()
    found = list(references(document))

    targets = [pointed_at(document, reference) for reference in found]

    assert found
    assert all(isinstance(target, dict) for target in targets)


def test_schemas_in_the_asyncapi_document_are_valid():
    """AsyncAPI 3.0 reads schemas as JSON Schema draft 7."""
    document = asyncapi.asyncapi()
    messages = document["components"]["messages"].values()

    schemas = [*document["components"]["schemas"].values(), *(message["payload"] for message in messages)]

    for schema in schemas:
        jsonschema.Draft7Validator.check_schema(schema)


def test_channels_are_the_queues_of_the_topology():
    """The document names the queues that are really used."""
    addresses = {channel["address"] for channel in asyncapi.asyncapi()["channels"].values()}

    assert addresses == {"returns", PRINTING_QUEUE_PREFIX + "{branch}", REPLY_QUEUE_PREFIX + "{station}"}


@pytest.mark.parametrize("task", [PROCESS_SCAN, PROCESS_RETURN, PRINT_SLIP])
def test_headers_that_are_sent_keep_to_the_documented_ones(task):
    """What our own code puts into a task message fits the schema of its headers."""
    headers = task_headers(task, asyncapi.EXAMPLE_ID, origin="main-desk-1")
    schema = asyncapi.headers_schema(task, from_station=task != PRINT_SLIP)

    jsonschema.validate(headers, schema)

    assert asyncapi.EXAMPLE_ID in headers["argsrepr"]


@pytest.mark.parametrize("header", asyncapi.headers_schema(PROCESS_SCAN, from_station=True)["required"])
def test_a_task_message_needs_each_documented_header(header):
    """Leaving out one of the headers breaks the contract."""
    headers = task_headers(PROCESS_SCAN, asyncapi.EXAMPLE_ID, origin="main-desk-1")
    del headers[header]

    with pytest.raises(jsonschema.ValidationError, match=re.escape(header)):
        jsonschema.validate(headers, asyncapi.headers_schema(PROCESS_SCAN, from_station=True))


def test_an_order_to_print_carries_an_id_and_nothing_else():
    """What a monitoring page shows of an order to print cannot name a reader."""
    fields = set(PrintSlip.model_fields)

    assert fields == {"type", "job_id"}


def test_no_message_has_a_field_for_a_reader():
    """No property of any message is about a patron, except a remark on the way the item came back."""
    names = re.findall(
        r'^ *"(\w+)": \{$', json.dumps([asyncapi.message_schema(m) for m in asyncapi.MESSAGES], indent=1), re.MULTILINE
    )

    assert "barcode" in names
    assert not [name for name in names if re.search("patron|reader|borrower|user", name)]
