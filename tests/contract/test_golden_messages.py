# SPDX-License-Identifier: Apache-2.0
"""Messages as they stood on the wire when v1 was new: they are understood for as long as there is a v1.

A golden file is never edited. A new kind of message gets a new file.
"""

import json
from pathlib import Path

import jsonschema
import pytest
from pydantic import BaseModel

from docs.generate import asyncapi
from schemas import signing
from schemas.circulation_events import (
    ActionReply,
    ItemLoaned,
    ItemsReceived,
    LoanDischarged,
    ReprintRequested,
    RequestCompleted,
    SlipSeen,
    UndoRequested,
)
from schemas.events import BarcodeScanned, ReturnRequested
from schemas.print_jobs import PrintSlip
from schemas.replies import ReturnReply, SlipNotice
from schemas.task_message import task_body, task_headers

GOLDEN = Path(__file__).parent / "golden" / "v1"
MESSAGES: dict[str, type[BaseModel]] = {
    "barcode-scanned": BarcodeScanned,
    "return-requested": ReturnRequested,
    "items-received": ItemsReceived,
    "item-loaned": ItemLoaned,
    "loan-discharged": LoanDischarged,
    "request-completed": RequestCompleted,
    "undo-requested": UndoRequested,
    "slip-seen": SlipSeen,
    "reprint-requested": ReprintRequested,
    "return-reply": ReturnReply,
    "action-reply": ActionReply,
    "slip-notice": SlipNotice,
    "print-slip": PrintSlip,
}


def golden(name):
    """A golden file's content."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def test_every_message_type_has_a_golden_message():
    """No message type is left out of these tests."""
    assert set(MESSAGES.values()) == set(asyncapi.MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_messages_fill_every_field(name):
    """The golden message uses all fields of its type, so none can change unseen. A new optional field may be absent."""
    required = {field for field, info in MESSAGES[name].model_fields.items() if info.is_required()}

    assert required <= set(golden(name)) <= set(MESSAGES[name].model_fields)


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_messages_are_read_and_written_unchanged(name):
    """Reading a golden message and writing it again loses and changes nothing."""
    message = MESSAGES[name].model_validate(golden(name))

    written = json.loads(message.model_dump_json(exclude_none=True))

    assert {key: written[key] for key in golden(name)} == without_nulls(golden(name))


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_messages_keep_to_their_schema(name):
    """The generated schema, formats included, accepts the golden message."""
    validator = jsonschema.Draft202012Validator(
        asyncapi.message_schema(MESSAGES[name]), format_checker=jsonschema.FormatChecker()
    )

    errors = [error.message for error in validator.iter_errors(golden(name))]

    assert errors == []


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_of_another_version_is_not_read(name):
    """The type's name carries the version: v2 is not taken for v1."""
    payload = golden(name)
    payload["type"] = payload["type"].replace(".v1", ".v2")

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload, asyncapi.message_schema(MESSAGES[name]))
    with pytest.raises(ValueError, match="type"):
        MESSAGES[name].model_validate(payload)


@pytest.mark.parametrize("name", MESSAGES)
def test_readers_ignore_fields_they_do_not_know(name):
    """In a rollout a newer sender's additional field is neither an error nor kept, by type and by schema."""
    payload = golden(name)

    message = MESSAGES[name].model_validate({**payload, "added_later": {"by": "a newer sender"}})
    jsonschema.validate({**payload, "added_later": 1}, asyncapi.message_schema(MESSAGES[name]))

    assert message == MESSAGES[name].model_validate(payload)


@pytest.mark.parametrize("name", [name for name in MESSAGES if "signature" in MESSAGES[name].model_fields])
def test_the_golden_signature_is_still_believed(name):
    """A station that signed when v1 was new is still understood."""
    key = golden("signature")["key"].encode()

    assert signing.verify(golden(name), key)


def test_the_canonical_bytes_and_their_signature_stay_as_they_are():
    """Fixed event, fixed key: the same bytes, HMAC-SHA256 and SHA-256 as on the first day."""
    wanted = golden("signature")
    event = golden("barcode-scanned")

    made = {
        "key": wanted["key"],
        "canonical": signing.canonical(event).decode(),
        "signature": signing.sign(event, wanted["key"].encode()),
        "sha256": signing.fingerprint(event),
    }

    assert made == wanted


@pytest.mark.parametrize("name", ["barcode-scanned", "return-requested"])
def test_the_signature_covers_fields_that_the_reader_does_not_know(name):
    """Adding, and then changing, an unknown field after signing breaks the signature."""
    key = golden("signature")["key"].encode()
    payload = {**golden(name), "added_later": "one"}
    signed = {**payload, "signature": signing.sign(payload, key)}

    assert signing.verify(signed, key)
    assert not signing.verify(payload, key)
    assert not signing.verify({**signed, "added_later": "two"}, key)


def test_the_envelope_of_a_scan_stays_as_it_is():
    """Headers and body of the task message, to the byte."""
    event_id = golden("barcode-scanned")["event_id"]

    made = {
        "headers": task_headers("returns.process_scan", event_id, origin="main-desk-1"),
        "body": task_body(f'{{"event_id":"{event_id}"}}'),
    }

    assert made == golden("scan-task")


def without_nulls(value):
    """`value` as it is written: absent, not null."""
    match value:
        case dict():
            return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [without_nulls(inner) for inner in value]
        case _:
            return value
