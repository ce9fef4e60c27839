# SPDX-License-Identifier: Apache-2.0
"""The reference page of webhooks, generated from their types and messages."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from pydantic import BaseModel

from docs.generate.markdown import table
from schemas.request_status import RequestStatus
from schemas.webhook_messages import WebhookData, WebhookEvent, WebhookItem, WebhookType

PAGE: Final = Path("docs/reference/webhooks.md")

_HEAD: Final = """# Webhooks

The bodies of the messages that [endpoints receive](../how-to/send-webhooks.md). JSON Schemas:
[event](messages/webhook-event.schema.json), [test message](messages/webhook-test.schema.json). No message has a field for
a patron, a title or a note. Fields and types are added only: ignore those that you do not know. This page is generated
from `schemas/webhook_messages.py` (`make docs`).
"""

_HEADERS: Final = """## Headers

| header | content |
| --- | --- |
| `webhook-id` | id of the message: equal for every attempt and every endpoint; contains letters, digits and `_` |
| `webhook-timestamp` | time of this attempt, in seconds since 1970 |
| `webhook-signature` | `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`; two of them, separated by a space, while the rotation of the secret overlaps |
| `content-type` | `application/json`; the body is UTF-8 |

The form is that of [Standard Webhooks 1.0.0](https://github.com/standard-webhooks/standard-webhooks), whose libraries
verify the messages. The key of the HMAC is the base64 after `whsec_` of the secret, decoded.

## Types of events
"""

_RESPONSES: Final = """## Responses

| response | effect |
| --- | --- |
| 200 to 299 | The message is acknowledged and not sent again. |
| 410 | The endpoint is disabled. Its messages wait until an operator enables it. |
| 400 to 499, except 401, 403, 404, 407, 408, 421, 425, 429 | The message is sent again later, before every later message of its request. Messages about other requests are sent meanwhile. |
| every other one, a redirect included, and none within `webhook_timeout_seconds` | Nothing is sent to the endpoint for a while: 5 seconds, then longer, up to 5 minutes, or as long as `Retry-After` states in seconds, up to one hour. |

A message is sent again after 5 seconds, 20 seconds, 80 seconds, 5 minutes, 21 minutes, then each hour, each with up to a
fifth more or less. A failure after `webhook_give_up_days` is the last one.
"""


def example() -> WebhookEvent:
    """A message of a Return."""
    at = datetime(2026, 3, 2, 14, 5, 9, 250_000, tzinfo=UTC)
    return WebhookEvent(
        type=WebhookType.RETURNED,
        timestamp=at,
        data=WebhookData(
            cursor=4711,
            event=UUID("01975d2e-7c00-7000-8000-000000000001"),
            request="BR-00017",
            status_before=RequestStatus.LOANED,
            status_after=RequestStatus.RETURNED_TO_PARTNER,
            at=at,
            recorded_at=at.replace(microsecond=310_000),
            branch="main",
            station="main-desk-1",
            lender="XX-RUL",
            items=(WebhookItem(position=1, barcodes=("31000012345",)),),
            loans_discharged=1,
        ),
    )


def page() -> str:
    """The page, as Markdown."""
    body = json.dumps(example().model_dump(mode="json"), indent=2)
    return "\n".join(
        [
            _HEAD,
            _HEADERS,
            *table(("type", "event"), ((f"`{kind}`", kind.meaning) for kind in WebhookType)),
            "| `webhook.test` | `bookdrop webhooks test`: acknowledge it and change nothing. |",
            "",
            "## Body\n",
            f"```json\n{body}\n```\n",
            *table(("field", "content"), _fields("", WebhookEvent)),
            *_rows("data.", WebhookData),
            *_rows("data.items[].", WebhookItem),
            "",
            _RESPONSES,
        ]
    )


def _fields(prefix: str, message: type[BaseModel]) -> Iterator[tuple[str, str]]:
    for name, field in message.model_fields.items():
        yield f"`{prefix}{name}`", field.description or _UNDESCRIBED[name]


def _rows(prefix: str, message: type[BaseModel]) -> Iterator[str]:
    """The rows of a table, without its header."""
    _, _, *rows = table(("", ""), _fields(prefix, message))
    yield from rows


_UNDESCRIBED: Final = {
    "type": "Type of the event.",
    "data": "The event.",
    "status_before": "Status of the request before the event.",
    "status_after": "Status of the request after the event.",
    "station": "Code of the station.",
}
