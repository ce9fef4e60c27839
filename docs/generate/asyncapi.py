# SPDX-License-Identifier: Apache-2.0
"""The contract of the wire, generated from the message types: JSON Schemas and an AsyncAPI document.

`python -m docs.generate.asyncapi` writes them to `docs/reference/`; they are committed, and a test fails when they drift.
"""

import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from schemas import station_status, topology
from schemas.circulation_events import (
    TASKS,
    ActionReply,
    CirculationEvent,
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
from schemas.task_message import EMBED, HEADERS, task_headers

CYCLE: Final[Mapping[str, type[CirculationEvent]]] = {
    "undoReturn": UndoRequested,
    "receiveItems": ItemsReceived,
    "loanItem": ItemLoaned,
    "dischargeLoan": LoanDischarged,
    "completeRequest": RequestCompleted,
    "confirmSlip": SlipSeen,
    "askReprint": ReprintRequested,
}
"""The cycle around the Return: operations and their events."""

MESSAGES: Final[tuple[type[BaseModel], ...]] = (
    BarcodeScanned, ReturnRequested, *CYCLE.values(), ReturnReply, ActionReply, SlipNotice,
    PrintSlip,
)  # fmt: skip
"""Every type of message that crosses the wire."""

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
FOLDER: Final = Path(__file__).resolve().parents[1] / "reference"
EXAMPLE_ID: Final = "01975d2e-7c00-7000-8000-000000000001"

REDIS_ENVELOPE: Final = (
    "On Redis and Valkey a message is one JSON object, put with LPUSH on the list that has the queue's name "
    "and taken with BRPOP: `body` is the body's bytes in base64, `content-encoding` is `utf-8`, `content-type` is "
    "`application/json`, `headers` are the headers, and `properties` holds `correlation_id`, `reply_to`, "
    "`delivery_mode` 2, `delivery_info` (`exchange` empty, `routing_key` the queue), `priority` 0, "
    "`body_encoding` `base64` and `delivery_tag`, a UUID made for this one sending."
)


_HEARD: Final = {name: {"$ref": f"#/channels/reply/messages/{name}"} for name in ("returnReply", "actionReply")}


class _Plain(GenerateJsonSchema):
    """Schemas without a title for each field, which would repeat its name, and with `type` required.

    In Python the type of a message is known; on the wire nothing else tells it.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        made = super().model_schema(schema)
        of_type = made.get("properties", {}).get("type")
        if of_type is not None and "const" in of_type:
            of_type.pop("default", None)
            made["required"] = ["type", *made.get("required", [])]
        return made


def file_name(message: type[BaseModel]) -> str:
    """Name of a message's schema file, such as `barcode-scanned.v1.schema.json`."""
    name: str = message.model_fields["type"].default
    return name.removeprefix("bookdrop.") + ".schema.json"


def message_schema(message: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema of one message. It allows further fields: readers ignore what they do not know."""
    return {"$schema": DRAFT, **message.model_json_schema(schema_generator=_Plain)}


def documents() -> dict[str, str]:
    """Every generated document: its path under `docs/reference/`, and its text."""
    made: dict[str, Mapping[str, Any]] = {f"messages/{file_name(m)}": message_schema(m) for m in MESSAGES}
    made["asyncapi.json"] = asyncapi()
    return {path: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for path, value in made.items()}


def write(folder: Path = FOLDER) -> list[str]:
    """Write what is not as it should be in `folder`; give the paths that changed, obsolete ones included."""
    wanted = documents()
    changed = []
    for path, text in wanted.items():
        file = folder / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            changed.append(path)
    for file in sorted((folder / "messages").glob("*.schema.json")):
        if f"messages/{file.name}" not in wanted:
            file.unlink()
            changed.append(f"messages/{file.name}")
    return changed


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document, told from the side of bookdrop's workers: they receive scans and send replies."""
    _, schemas = models_json_schema(
        [(message, "validation") for message in MESSAGES],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Plain,
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "bookdrop",
            "version": version("bookdrop"),
            "description": (
                "Stations say that a barcode was scanned; workers perform the Return and answer on the station's "
                "own reply queue. Within v1 changes are additive only: readers ignore fields they do not know. "
                + REDIS_ENVELOPE
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": _channels(),
        "operations": _operations(),
        "components": {"messages": _messages(), "schemas": schemas["$defs"]},
    }


def _channels() -> dict[str, Any]:
    return {
        "returns": _channel(
            topology.RETURNS_QUEUE,
            "What stations ask for, as Celery task messages.",
            {"processScan": "ScanTask", "processReturn": "ReturnTask"}
            | {operation: f"{event.__name__}Task" for operation, event in CYCLE.items()},
        ),
        "printing": _channel(
            topology.printing_queue("{branch}"),
            "Orders to print, for the print workers of one branch.",
            {"printSlip": "PrintTask"},
            {"branch": "Code of the branch, lower case letters, digits and single hyphens."},
        ),
        "reply": _channel(
            topology.reply_queue("{station}"),
            "What one station hears. Plain messages, no task messages. Station and worker declare the queue alike.",
            {"returnReply": "ReturnReply", "actionReply": "ActionReply", "slipNotice": "SlipNotice"},
            {"station": "Code of the station, lower case letters, digits and single hyphens."},
        ),
    }


def _channel(
    address: str, description: str, messages: dict[str, str], parameters: dict[str, str] | None = None
) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": address,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{message}"} for name, message in messages.items()},
    }
    if parameters:
        channel["parameters"] = {name: {"description": text} for name, text in parameters.items()}
    channel["bindings"] = {
        "amqp": {
            "is": "queue",
            "queue": {"name": address, "durable": True, "exclusive": False, "autoDelete": False},
            "bindingVersion": "0.3.0",
        }
    }
    channel["x-queue-arguments"] = topology.queue_arguments(address)
    return channel


def _operations() -> dict[str, Any]:
    reply: dict[str, Any] = {
        "address": {
            "description": (
                "The message property `reply_to`. It is answered to only when it is the name of a reply queue."
            ),
            "location": "$message.header#/reply_to",
        },
        "channel": {"$ref": "#/channels/reply"},
        "messages": [_HEARD["returnReply"]],
    }
    return {
        "processScan": {
            **_operation("receive", "returns", "processScan", "Return the item whose barcode was scanned."),
            "reply": reply,
        },
        "processReturn": {
            **_operation("receive", "returns", "processReturn", "Return a request that staff chose."),
            "reply": reply,
        },
        **{
            operation: {
                **_operation("receive", "returns", operation, (event.__doc__ or "").splitlines()[0]),
                # What cannot be believed is refused with a returnReply, whatever it was meant to be.
                "reply": {**reply, "messages": [_HEARD["actionReply"], _HEARD["returnReply"]]},
            }
            for operation, event in CYCLE.items()
        },
        "printSlip": _operation("receive", "printing", "printSlip", "Print a slip that a Return promised."),
        "noticeSlip": _operation("send", "reply", "slipNotice", "Tell the station what became of the slip."),
    }


def _operation(action: str, channel: str, message: str, summary: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
        "bindings": {"amqp": {"deliveryMode": 2, "bindingVersion": "0.3.0"}},
    }


def _messages() -> dict[str, Any]:
    return {
        "ScanTask": _task_message(topology.PROCESS_SCAN, BarcodeScanned),
        "ReturnTask": _task_message(topology.PROCESS_RETURN, ReturnRequested),
        **{f"{event.__name__}Task": _task_message(TASKS[event], event) for event in CYCLE.values()},
        "PrintTask": _task_message(topology.PRINT_SLIP, PrintSlip),
        "ReturnReply": _plain_message(ReturnReply),
        "ActionReply": _plain_message(ActionReply),
        "SlipNotice": _plain_message(SlipNotice),
    }


def _task_message(task: str, argument: type[BaseModel]) -> dict[str, Any]:
    """A Celery task message (protocol 2) whose one argument is `argument`."""
    from_station = argument is not PrintSlip
    properties = {
        "content_type": {"const": "application/json"},
        "content_encoding": {"const": "utf-8"},
        "delivery_mode": {"const": 2, "description": "Kept by the broker when it restarts."},
        "correlation_id": {"type": "string", "description": "The same as the header `id`."},
    }
    if from_station:
        properties["reply_to"] = {
            "type": "string",
            "pattern": topology.REPLY_TO_PATTERN.pattern.replace(r"\Z", "$"),
            "description": "The station's reply queue.",
        }
    return {
        "name": task,
        "title": argument.__name__,
        "summary": (argument.__doc__ or "").splitlines()[0],
        "contentType": "application/json",
        "correlationId": {"location": "$message.header#/id"},
        "headers": headers_schema(task, from_station=from_station),
        "payload": {
            "type": "array",
            "description": "Positional arguments, keyword arguments, and what comes after the task.",
            "items": [
                {
                    "type": "array",
                    "items": [{"$ref": f"#/components/schemas/{argument.__name__}"}],
                    "minItems": 1,
                    "maxItems": 1,
                },
                {"type": "object", "maxProperties": 0},
                {"type": "object", "properties": {key: {"type": "null"} for key in EMBED}, "required": list(EMBED)},
            ],
            "minItems": 3,
            "maxItems": 3,
        },
        "bindings": {"amqp": {"contentEncoding": "utf-8", "messageType": task, "bindingVersion": "0.3.0"}},
        "x-message-properties": {"type": "object", "properties": properties, "required": list(properties)},
        "examples": [{"headers": task_headers(task, EXAMPLE_ID, origin="main-desk-1")}],
    }


def headers_schema(task: str, *, from_station: bool) -> dict[str, Any]:
    """JSON Schema of a task message's headers, from the table by which workers check them (`schemas.task_message`)."""
    properties: dict[str, Any] = {"task": {"const": task}}
    properties |= {name: field.described() for name, field in HEADERS.items()}
    if from_station:
        properties[station_status.HEADER] = {
            **station_status.StationStatus.model_json_schema(schema_generator=_Plain),
            "description": "For monitoring, and not signed: how the event was sent, and what the station still holds.",
        }
    return {
        "type": "object",
        "properties": properties,
        "required": ["task", *(name for name, field in HEADERS.items() if field.required)],
    }


def _plain_message(message: type[BaseModel]) -> dict[str, Any]:
    return {
        "name": message.model_fields["type"].default,
        "title": message.__name__,
        "summary": (message.__doc__ or "").splitlines()[0],
        "contentType": "application/json",
        "correlationId": {
            "description": "The message property `correlation_id` carries it as well.",
            "location": "$message.payload#/event_id",
        },
        "payload": {"$ref": f"#/components/schemas/{message.__name__}"},
        "bindings": {"amqp": {"contentEncoding": "utf-8", "bindingVersion": "0.3.0"}},
    }


if __name__ == "__main__":
    for to_header in write():
        sys.stdout.write(f"docs/reference/{to_header}\n")
