# SPDX-License-Identifier: Apache-2.0
"""What the commands share: settings and errors in words, options, and answers on standard output with an exit code."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

import click

from schemas.configuration import ConfigurationError

if TYPE_CHECKING:
    from uuid import UUID

    from stations.client import StationClient
    from stations.messages import ScreenMessage
    from stations.settings import StationSettings

SUCCESS, REFUSED, USAGE_ERROR, PENDING, NOT_TAKEN = range(5)


class CommandError(click.ClickException):
    """An error told in words, with an exit code of its own."""

    def __init__(self, words: str, code: int) -> None:
        super().__init__(words)
        self.exit_code = code  # type: ignore[misc]  # click reads it from the instance


def load_settings(code: str | None) -> "StationSettings":
    """The settings of this station. Raises an error that is told in words."""
    from stations.settings import StationSettings

    try:
        return StationSettings.load(**({"code": code} if code else {}))
    except ConfigurationError as error:
        raise CommandError(f"{error}\nNothing was sent.", USAGE_ERROR) from None


@contextmanager
def journal_errors() -> Iterator[None]:
    """Tell in words when the journal cannot be used."""
    from stations.journal.file import JournalError

    try:
        yield
    except JournalError as error:
        raise CommandError(str(error), NOT_TAKEN) from None


class TimeOption(click.ParamType[datetime]):
    """A date and time as a desk writes it: by the clock on the wall, or with an offset. Aware."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read ISO 8601."""
        try:
            return datetime.fromisoformat(str(value)).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time; write it as 2026-11-22 or '2026-11-22 18:00'", param, ctx)


wait_option = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to wait for answers (default: the setting reply_timeout_seconds, 15).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON reply a line, for scripts.")


backdate_option = click.option(
    "--backdate",
    type=TimeOption(),
    metavar="TIME",
    help="When it really came back (drop-box mode), such as '2026-11-22 18:00'.",
)


class ReplyPrinter:
    """Shows answers on standard output; each method gives the exit code that goes with it."""

    def __init__(self, client: "StationClient", seconds: float, *, as_json: bool) -> None:
        import time

        self._client = client
        self._as_json = as_json
        self._deadline = time.monotonic() + seconds
        self._clock = time.monotonic

    def reply(self, event_id: "UUID", subject: str) -> int:
        """Wait for the answer to an event, and show it."""
        from stations import messages

        reply = self._client.wait(event_id, max(0.0, self._deadline - self._clock()))
        if reply is None:
            shown = messages.pending(subject, is_connected=self._client.is_connected)
            return self.without_reply(shown, subject, "pending", event_id)
        if self._as_json:
            click.echo(reply.model_dump_json(exclude_none=True))
        else:
            show(messages.format_reply(reply, subject))
        return REFUSED if reply.outcome == "refused" else SUCCESS

    def without_reply(self, shown: "ScreenMessage", subject: str, outcome: str, event_id: "UUID | None" = None) -> int:
        """Show what the desk itself says."""
        if self._as_json:
            record: dict[str, Any] = {"event_id": event_id and str(event_id), "barcode": subject or None}
            click.echo(json.dumps({**record, "outcome": outcome, "message": shown.lines[1]}))
        else:
            show(shown)
        return REFUSED if outcome == "refused" else PENDING


def show(shown: "ScreenMessage") -> None:
    """Put it on standard output."""
    from stations.terminal import Screen

    Screen(sys.stdout, interactive=False, sounds=False).show(shown)


def send_and_print(
    code: str | None, send: "Callable[[StationClient], UUID]", subject: str, *, wait: float | None, as_json: bool
) -> NoReturn:
    """Have `send` send one event, show its answer, and end with the exit code that goes with it."""
    from pydantic import ValidationError

    from schemas.barcodes import BarcodeRefusedError
    from stations.client import PatronCardError, StationClient
    from stations.messages import printable, refused_locally

    settings = load_settings(code)
    with journal_errors(), StationClient(settings) as client:
        printer = ReplyPrinter(client, settings.reply_timeout_seconds if wait is None else wait, as_json=as_json)
        try:
            event_id = send(client)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise CommandError(
                f"{where + ': ' if where else ''}{first['msg']}. Nothing was sent.", USAGE_ERROR
            ) from None
        except (BarcodeRefusedError, PatronCardError) as error:
            shown = "" if isinstance(error, PatronCardError) else printable(subject)
            result = printer.without_reply(refused_locally(shown, str(error)), shown, "refused")
        else:
            result = printer.reply(event_id, subject)
    raise SystemExit(result)
