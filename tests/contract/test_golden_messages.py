# SPDX-License-Identifier: Apache-2.0
"""Messages on the wire when v1 was new: they are accepted as long as v1 is.

A golden file is never edited. A new type of message gets a new file.
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
from schemas.events import BarcodeScanned, ReturnRequested, StationEvent
from schemas.print_jobs import PrintSlip
from schemas.replies import ReturnReply, SlipNotice
from schemas.reply_signature import ReplyKeys, canonical_reply, reply_defect, sign_reply
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
    """The tests below cover all types."""
    assert set(MESSAGES.values()) == set(asyncapi.MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_message_has_every_required_field(name):
    """No required field can change unnoticed. A new optional field may be absent."""
    required = {field for field, info in MESSAGES[name].model_fields.items() if info.is_required()}

    assert required <= set(golden(name)) <= set(MESSAGES[name].model_fields)


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_message_is_read_and_written_unchanged(name):
    """A golden message that is read and written again has the same fields and values."""
    message = MESSAGES[name].model_validate(golden(name))

    written = json.loads(message.model_dump_json(exclude_none=True))

    assert {key: written[key] for key in golden(name)} == without_nulls(golden(name))


@pytest.mark.parametrize("name", MESSAGES)
def test_golden_message_is_valid_under_its_schema(name):
    """The generated schema accepts the message, including its formats."""
    validator = jsonschema.Draft202012Validator(
        asyncapi.message_schema(MESSAGES[name]), format_checker=jsonschema.FormatChecker()
    )

    errors = [error.message for error in validator.iter_errors(golden(name))]

    assert errors == []


@pytest.mark.parametrize("name", MESSAGES)
def test_message_of_another_version_is_refused(name):
    """The type contains the version: v2 is not read as v1."""
    payload = golden(name)
    payload["type"] = payload["type"].replace(".v1", ".v2")

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload, asyncapi.message_schema(MESSAGES[name]))
    with pytest.raises(ValueError, match="type"):
        MESSAGES[name].model_validate(payload)


@pytest.mark.parametrize("name", MESSAGES)
def test_unknown_field_is_ignored(name):
    """During a rollout a newer sender's additional field is neither an error nor stored."""
    payload = golden(name)

    message = MESSAGES[name].model_validate({**payload, "added_later": {"by": "a newer sender"}})
    jsonschema.validate({**payload, "added_later": 1}, asyncapi.message_schema(MESSAGES[name]))

    assert message == MESSAGES[name].model_validate(payload)


@pytest.mark.parametrize("name", [name for name in MESSAGES if issubclass(MESSAGES[name], StationEvent)])
def test_golden_signature_is_valid(name):
    """A station that signed when v1 was new is still accepted."""
    key = golden("signature")["key"].encode()

    assert signing.verify(golden(name), key)


def test_canonical_bytes_and_signature_are_unchanged():
    """A fixed event and key give the bytes, HMAC-SHA256 and SHA-256 of the first release."""
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
def test_signature_covers_unknown_fields(name):
    """An unknown field that is added or changed after signing makes the signature invalid."""
    key = golden("signature")["key"].encode()
    payload = {**golden(name), "added_later": "one"}
    signed = {**payload, "signature": signing.sign(payload, key)}

    assert signing.verify(signed, key)
    assert not signing.verify(payload, key)
    assert not signing.verify({**signed, "added_later": "two"}, key)


@pytest.mark.parametrize("name", ["return-reply", "action-reply", "slip-notice"])
def test_signed_reply_is_unchanged(name):
    """A fixed message, station and keys give the same canonical bytes and signatures, in the fixed form."""
    wanted = golden("reply-signature")
    keys = ReplyKeys(wanted["station"], wanted["key"], wanted["second_key"])
    message = without_nulls(golden(name))

    signed = sign_reply(json.dumps(message), keys)

    assert signed == wanted["signed"][name]
    assert canonical_reply(json.loads(signed)).decode() == wanted["canonical"][name]
    assert {reply_defect(json.loads(signed), wanted["station"], wanted[key]) for key in ("key", "second_key")} == {None}
    assert MESSAGES[name].model_validate_json(signed)


def test_task_message_of_a_scan_is_unchanged():
    """Headers and body equal the golden ones to the byte."""
    event_id = golden("barcode-scanned")["event_id"]

    made = {
        "headers": task_headers("returns.process_scan", event_id, origin="main-desk-1"),
        "body": task_body(f'{{"event_id":"{event_id}"}}'),
    }

    assert made == golden("scan-task")


def without_nulls(value):
    """`value` without null fields, as it is written."""
    match value:
        case dict():
            return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [without_nulls(inner) for inner in value]
        case _:
            return value
