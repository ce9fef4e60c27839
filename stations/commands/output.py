# SPDX-License-Identifier: Apache-2.0
"""Shared by all commands: settings, options, error texts, and replies on standard output with an exit code."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from schemas.configuration import ConfigurationError
from schemas.reply_signature import SIGNATURE_FIELDS

if TYPE_CHECKING:
    from uuid import UUID

    from stations.client import StationClient
    from stations.messages import ScreenMessage
    from stations.settings import StationSettings

SUCCESS, REFUSED, USAGE_ERROR, PENDING, NOT_STORED = range(5)


class CommandError(click.ClickException):
    """An error that ends a command with its text and the exit code given here."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = code  # type: ignore[misc]  # click reads it from the instance


def load_settings(code: str | None) -> "StationSettings":
    """Load the station's settings; `code` overrides the setting. Raises `CommandError`."""
    from stations.settings import StationSettings

    try:
        return StationSettings.load(**({"code": code} if code else {}))
    except ConfigurationError as error:
        raise CommandError(f"{error}\nNothing was sent.", USAGE_ERROR) from None


@contextmanager
def journal_errors() -> Iterator[None]:
    """Raise a `JournalError` as a `CommandError` with exit code 4."""
    from stations.journal.file import JournalError

    try:
        yield
    except JournalError as error:
        raise CommandError(str(error), NOT_STORED) from None


END_OF_DAY: Final = time(23, 59, 59)


class TimeOption(click.ParamType[datetime]):
    """A date and time in ISO 8601: local time, or with an offset. The value is aware."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse ISO 8601."""
        try:
            return datetime.fromisoformat(str(value)).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time; write it as 2026-11-22 or '2026-11-22 18:00'", param, ctx)


class DueOption(TimeOption):
    """A due time; a date is due at the end of that day."""

    name = "due"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse ISO 8601."""
        due = super().convert(value, param, ctx)
        try:
            day = date.fromisoformat(str(value))
        except ValueError:
            return due
        return datetime.combine(day, END_OF_DAY).astimezone()


wait_option = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Time to wait for replies (default: the setting reply_timeout_seconds, 15).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON reply a line, for scripts.")


backdate_option = click.option(
    "--backdate",
    type=TimeOption(),
    metavar="TIME",
    help="When the item came back (drop-box mode), for example '2026-11-22 18:00'.",
)


class ReplyPrinter:
    """Prints replies on standard output; each method returns the exit code that belongs to the reply."""

    def __init__(self, client: "StationClient", seconds: float, *, as_json: bool) -> None:
        import time

        self._client = client
        self._clock = time.monotonic
        self._deadline = self._clock() + seconds
        self._as_json = as_json

    def reply(self, event_id: "UUID", subject: str) -> int:
        """Wait for the reply to an event, and print it."""
        from stations import messages

        reply = self._client.wait(event_id, max(0.0, self._deadline - self._clock()))
        if reply is None:
            shown = messages.pending(subject, is_connected=self._client.is_connected)
            return self.without_reply(shown, subject, "pending", event_id)
        if self._as_json:
            click.echo(reply.model_dump_json(exclude_none=True, exclude=set(SIGNATURE_FIELDS)))
        else:
            show(messages.format_reply(reply, subject))
        return REFUSED if reply.outcome == "refused" else SUCCESS

    def refused_line(self, line: str, error: ValueError) -> int:
        """Print why the station refuses a barcode. A patron card's number is not printed."""
        from stations.client import PatronCardError
        from stations.messages import printable, refused_locally

        subject = "" if isinstance(error, PatronCardError) else printable(line)
        return self.without_reply(refused_locally(subject, str(error)), subject, "refused")

    def without_reply(self, shown: "ScreenMessage", subject: str, outcome: str, event_id: "UUID | None" = None) -> int:
        """Print a message of the station itself."""
        if self._as_json:
            record: dict[str, Any] = {"event_id": event_id and str(event_id), "barcode": subject or None}
            click.echo(json.dumps({**record, "outcome": outcome, "message": shown.lines[1]}))
        else:
            show(shown)
        return REFUSED if outcome == "refused" else PENDING


@contextmanager
def warn_of_rejected_messages(client: "StationClient") -> Iterator[None]:
    """Warn on standard error if the station ignored messages meanwhile."""
    from stations.journal.rejected_messages import rejected_messages
    from stations.messages import messages_rejected

    before = rejected_messages(client.journal).count
    yield
    rejected = rejected_messages(client.journal)
    if rejected.count > before:
        click.echo("Warning: " + "\n  ".join(messages_rejected(rejected).lines), err=True)


def show(shown: "ScreenMessage") -> None:
    """Print a message on standard output."""
    from stations.terminal import Screen

    Screen(sys.stdout, interactive=False, sounds=False).show(shown)


def send_and_print(
    code: str | None, send: "Callable[[StationClient], UUID]", subject: str, *, wait: float | None, as_json: bool
) -> NoReturn:
    """Open a client, let `send` send one event, print its reply, and exit with the reply's code."""
    from pydantic import ValidationError

    from schemas.barcodes import BarcodeRefusedError
    from stations.client import PatronCardError, StationClient

    settings = load_settings(code)
    with journal_errors(), StationClient(settings) as client, warn_of_rejected_messages(client):
        printer = ReplyPrinter(client, settings.reply_timeout_seconds if wait is None else wait, as_json=as_json)
        try:
            event_id = send(client)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            text = f"{where + ': ' if where else ''}{first['msg']}. Nothing was sent."
            raise CommandError(text, USAGE_ERROR) from None
        except (BarcodeRefusedError, PatronCardError) as error:
            result = printer.refused_line(subject, error)
        else:
            result = printer.reply(event_id, subject)
    raise SystemExit(result)
