# SPDX-License-Identifier: Apache-2.0
"""One formatter for structlog and the standard library's records: JSON, or a console on a terminal.

Keys come from an allow-list: what is not on it does not reach a log, so no reader's name can.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog
from structlog.typing import Processor

ALLOWED_KEYS = frozenset(
    {
        "event", "level", "timestamp", "logger", "exception", "stack",
        "event_id", "station", "branch", "request", "task", "task_id", "job_id", "printer", "worker", "role",
        "reason", "outcome", "state", "error", "queue", "count", "left", "pause_seconds", "seconds", "attempt", "address",
    }
)  # fmt: skip
"""Keys that may stand in a log line."""


def keep_allowed(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop every key that is not on the allow-list, and say how many were dropped."""
    dropped = [key for key in line if key not in ALLOWED_KEYS and not key.startswith("_")]
    for key in dropped:
        del line[key]
    if dropped:
        line["dropped_keys"] = len(dropped)
    return line


def configure(level: str = "info", style: Literal["auto", "json", "console"] = "auto") -> None:
    """Send every log line of this process to standard error, in one form."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[keep_allowed, structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Celery says at "info" what our own lines say better, one line per event.
    for chatty in ("celery.app.trace", "celery.worker.strategy", "kombu.pidbox", "kombu.mixins", "amqp"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    # Our queues are bound to the anonymous exchange and no task of ours has an ETA: its warning is not about us.
    logging.getLogger("kombu.transport.native_delayed_delivery").setLevel(logging.ERROR)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
