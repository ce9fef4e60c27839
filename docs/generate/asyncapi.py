# SPDX-License-Identifier: Apache-2.0
"""The AsyncAPI document and the JSON Schemas, generated from the message types.

They are the contract between stations and workers. A test compares the committed files with the generated ones.
"""

import json
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
from schemas.webhook_messages import WebhookEvent, WebhookTest

CIRCULATION: Final[Mapping[str, type[CirculationEvent]]] = {
    "undoReturn": UndoRequested,
    "receiveItems": ItemsReceived,
    "loanItem": ItemLoaned,
    "dischargeLoan": LoanDischarged,
    "completeRequest": RequestCompleted,
    "confirmSlip": SlipSeen,
    "askReprint": ReprintRequested,
}
"""Operations for the events around the Return."""

MESSAGES: Final[tuple[type[BaseModel], ...]] = (
    BarcodeScanned, ReturnRequested, *CIRCULATION.values(), ReturnReply, ActionReply, SlipNotice,
    PrintSlip,
)  # fmt: skip
"""Every type of message between stations and workers, and to print workers."""

WEBHOOKS: Final[Mapping[str, type[BaseModel]]] = {"webhook-event": WebhookEvent, "webhook-test": WebhookTest}
"""Bodies of webhooks, by the name of their schema. Their types have no version: fields are added only."""

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
FOLDER: Final = Path(__file__).resolve().parents[1] / "reference"
EXAMPLE_ID: Final = "01975d2e-7c00-7000-8000-000000000001"

REDIS_ENVELOPE: Final = (
    "On Redis and Valkey a message is one JSON object, pushed with LPUSH to the list with the queue's name "
    "and popped with BRPOP: `body` is the body's bytes in base64, `content-encoding` is `utf-8`, `content-type` is "
    "`application/json`, `headers` are the headers, and `properties` holds `correlation_id`, `reply_to`, "
    "`delivery_mode` 2, `delivery_info` (`exchange` empty, `routing_key` the queue), `priority` 0, "
    "`body_encoding` `base64` and `delivery_tag`, a UUID that is new for each sending."
)


_REPLIES: Final = {name: {"$ref": f"#/channels/reply/messages/{name}"} for name in ("returnReply", "actionReply")}


class _SchemaGenerator(GenerateJsonSchema):
    """Schemas with `type` required, and without titles of fields, which would repeat their names.

    In Python the class of a message shows its type; on the wire only the field `type` does.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        generated = super().model_schema(schema)
        type_field = generated.get("properties", {}).get("type")
        if type_field is not None and "const" in type_field:
            type_field.pop("default", None)
            generated["required"] = ["type", *generated.get("required", [])]
        return generated


def file_name(message: type[BaseModel]) -> str:
    """Name of a message's schema file, for example `barcode-scanned.v1.schema.json`."""
    name: str = message.model_fields["type"].default
    return name.removeprefix("bookdrop.") + ".schema.json"


def message_schema(message: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema of one message. It allows further fields, because receivers ignore unknown ones."""
    return {"$schema": DRAFT, **message.model_json_schema(schema_generator=_SchemaGenerator)}


def documents() -> dict[str, str]:
    """Every generated document: path under `docs/reference/` and text."""
    contents: dict[str, Mapping[str, Any]] = {f"messages/{file_name(m)}": message_schema(m) for m in MESSAGES}
    contents |= {f"messages/{name}.schema.json": message_schema(message) for name, message in WEBHOOKS.items()}
    contents["asyncapi.json"] = asyncapi()
    return {path: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for path, value in contents.items()}


def write(folder: Path = FOLDER) -> list[str]:
    """Write the documents that differ in `folder`, and delete obsolete ones; return the paths of both."""
    current = documents()
    changed = []
    for path, text in current.items():
        file = folder / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            changed.append(path)
    for file in sorted((folder / "messages").glob("*.schema.json")):
        if f"messages/{file.name}" not in current:
            file.unlink()
            changed.append(f"messages/{file.name}")
    return changed


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document. Its operations are those of the workers: they receive events and send replies."""
    _, schemas = models_json_schema(
        [(message, "validation") for message in MESSAGES],
        ref_template="#/components/schemas/{model}",
        schema_generator=_SchemaGenerator,
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "bookdrop",
            "version": version("bookdrop"),
            "description": (
                "Stations report that a barcode was scanned; workers perform the Return and reply on the station's "
                "reply queue. Within v1 changes are additive only: receivers ignore unknown fields. " + REDIS_ENVELOPE
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
        "returns": {
            **_channel(
                topology.RETURNS_QUEUE,
                "Events from stations, as Celery task messages. On RabbitMQ a station publishes to the exchange in "
                "`x-station-exchange`, the only one that its user may write to.",
                {"processScan": "ScanTask", "processReturn": "ReturnTask"}
                | {operation: f"{event.__name__}Task" for operation, event in CIRCULATION.items()},
            ),
            "x-station-exchange": {
                "name": topology.EVENTS_EXCHANGE,
                "type": "headers",
                "durable": True,
                "autoDelete": False,
                "routingKey": topology.RETURNS_QUEUE,
            },
        },
        "printing": _channel(
            topology.printing_queue("{branch}"),
            "Print tasks for the print workers of one branch.",
            {"printSlip": "PrintTask"},
            {"branch": "Code of the branch, lower case letters, digits and single hyphens."},
        ),
        "reply": _channel(
            topology.reply_queue("{station}"),
            "Replies and notices to one station, as plain messages, not task messages. Station and worker declare "
            "the queue with the same arguments.",
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
            "description": ("The message property `reply_to`. Workers reply only to a name of a reply queue."),
            "location": "$message.header#/reply_to",
        },
        "channel": {"$ref": "#/channels/reply"},
        "messages": [_REPLIES["returnReply"]],
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
                # A message that fails validation is refused with a returnReply, whatever its type.
                "reply": {**reply, "messages": [_REPLIES["actionReply"], _REPLIES["returnReply"]]},
            }
            for operation, event in CIRCULATION.items()
        },
        "printSlip": _operation("receive", "printing", "printSlip", "Print the slip of a Return."),
        "noticeSlip": _operation("send", "reply", "slipNotice", "Notify the station of the result of a print job."),
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
        **{f"{event.__name__}Task": _task_message(TASKS[event], event) for event in CIRCULATION.values()},
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
        "delivery_mode": {"const": 2, "description": "Persistent: kept when the broker restarts."},
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
            "description": "Positional arguments, keyword arguments, and the task's callbacks and workflow.",
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
            **station_status.StationStatus.model_json_schema(schema_generator=_SchemaGenerator),
            "description": "For monitoring only, not signed: the number and time of this sending, and the events that the station holds.",
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
            "description": "The message property `correlation_id` contains it as well.",
            "location": "$message.payload#/event_id",
        },
        "payload": {"$ref": f"#/components/schemas/{message.__name__}"},
        "bindings": {"amqp": {"contentEncoding": "utf-8", "bindingVersion": "0.3.0"}},
    }
