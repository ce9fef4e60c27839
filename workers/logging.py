# SPDX-License-Identifier: Apache-2.0
"""One formatter for structlog and the standard library's records: JSON, or a console on a terminal.

Keys come from an allow-list. A key that is not in it does not reach a log, so no patron's name can.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog
from structlog.typing import Processor

from schemas.external_text import text_lines

ALLOWED_KEYS = frozenset(
    {
        "event", "level", "timestamp", "logger", "exception", "stack",
        "event_id", "station", "branch", "request", "task", "task_id", "job_id", "printer", "fallback", "worker", "role",
        "reason", "kind", "outcome", "state", "error", "queue", "count", "left", "pause_seconds", "seconds", "attempt", "address", "webhook", "delivery",
    }
)  # fmt: skip
"""Keys that a log line may have."""


def keep_allowed(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop every key that is not in the allow-list, and add their number as `dropped_keys`."""
    dropped = [key for key in line if key not in ALLOWED_KEYS and not key.startswith("_")]
    for key in dropped:
        del line[key]
    if dropped:
        line["dropped_keys"] = len(dropped)
    return line


def keep_printable(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make each text a printable one, for a terminal. JSON escapes what is not printable."""
    for key, value in line.items():
        if isinstance(value, str):
            line[key] = text_lines(value)
    return line


def configure(level: str = "info", style: Literal["auto", "json", "console"] = "auto") -> None:
    """Write every log line of this process to standard error, in one format."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderers: list[Processor] = (
        [keep_printable, structlog.dev.ConsoleRenderer()]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[keep_allowed, structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # At level "info" these repeat what the product logs itself, one line per event.
    for verbose in ("celery.app.trace", "celery.worker.strategy", "kombu.pidbox", "kombu.mixins", "amqp"):
        logging.getLogger(verbose).setLevel(max(logging.WARNING, root.level))
    # At level "debug" it logs the arguments of each task, and with them scanned barcodes and notes.
    logging.getLogger("celery.pool").setLevel(max(logging.INFO, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
