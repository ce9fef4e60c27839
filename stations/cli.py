# SPDX-License-Identifier: Apache-2.0
"""`bookdrop-station`: a desk at this terminal, or single scans for scripts."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from schemas.configuration import ConfigurationError

if TYPE_CHECKING:
    from uuid import UUID

    from stations.client import StationClient
    from stations.settings import StationSettings
    from stations.words import Shown

ALL_WELL, REFUSED, WRONG_USE, PENDING, NOT_TAKEN = range(5)


class _ToldError(click.ClickException):
    """An error told in words, with an exit code of its own."""

    def __init__(self, words: str, code: int) -> None:
        super().__init__(words)
        self.exit_code = code  # type: ignore[misc]  # click reads it from the instance


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bookdrop")
@click.option("--code", help="Code of this station, if not the one of the settings.")
@click.pass_context
def main(ctx: click.Context, code: str | None) -> None:
    """A desk that returns interlibrary loans. Without a command: the desk.

    \b
    bookdrop-station                             a prompt: scan, Enter, scan, Enter...
    bookdrop-station scan 31000000170            one scan, and its answer
    bookdrop-station return BR-2026-00017        Return from the request
    bookdrop-station journal list                the last scans and their answers
    cat barcodes.txt | bookdrop-station          a pipe of barcodes

    Every scan is kept on this machine's disk until it is answered. With the network away go on scanning:
    what was taken is sent later, with its own time.

    \b
    Exit codes:  0  all answered: returned, or returned before
                 1  something was refused (the desk shows it and ends with 0)
                 2  wrong use or settings
                 3  something is pending: kept, and asked again by the next command or desk
                 4  not taken: the journal cannot be written; nothing was sent

    Settings: BOOKDROP_STATION_CODE, BOOKDROP_STATION_KEY (or BOOKDROP_STATION_KEY_FILE), BOOKDROP_BROKER_URL
    and more, or [station] in bookdrop.toml.
    """
    ctx.obj = code
    if ctx.invoked_subcommand is None:
        ctx.invoke(desk_command)


def _settings(code: str | None) -> "StationSettings":
    from stations.settings import StationSettings

    try:
        return StationSettings.load(**({"code": code} if code else {}))
    except ConfigurationError as error:
        raise _ToldError(f"{error}\nNothing was sent.", WRONG_USE) from None


@contextmanager
def _journal_told() -> Iterator[None]:
    from stations.journal import JournalError

    try:
        yield
    except JournalError as error:
        raise _ToldError(str(error), NOT_TAKEN) from None


wait_option = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to wait for answers (default: the setting answer_seconds, 15).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON reply a line, for scripts.")


@main.command("scan")
@click.argument("barcodes", nargs=-1, required=True, metavar="BARCODE...")
@click.option(
    "--print-slip/--no-print-slip", default=None, help="Whether a slip is wanted (default: the station's setting)."
)
@wait_option
@json_option
@click.pass_obj
def scan_command(
    code: str | None, barcodes: tuple[str, ...], print_slip: bool | None, wait: float | None, as_json: bool
) -> None:
    """Scan each BARCODE, all at once, and show the answers in their order.

    \b
    bookdrop-station scan 31000000170 31000000187
    bookdrop-station scan --json --no-print-slip 31000000170 | jq .message
    bookdrop-station scan --wait 0 31000000170       do not wait: code 3, answered to a later command
    """
    from schemas.barcodes import BarcodeRefusedError
    from stations.client import PatronCardError, StationClient
    from stations.journal import JournalError
    from stations.words import printable, refused_here

    settings = _settings(code)
    with _journal_told(), StationClient(settings) as client:
        show = _Answers(client, settings.answer_seconds if wait is None else wait, as_json=as_json)
        steps: list[Callable[[], int]] = []
        told: _ToldError | None = None
        for barcode in barcodes:
            try:
                event_id = client.scan(barcode, print_slip=print_slip)
            except (BarcodeRefusedError, PatronCardError) as error:
                subject = "" if isinstance(error, PatronCardError) else printable(barcode)
                shown = refused_here(subject, str(error))
                steps.append(partial(show.without_reply, shown, subject, "refused"))
            except JournalError as error:
                told = _ToldError(f"{printable(barcode)}: {error}", NOT_TAKEN)
                break
            else:
                steps.append(partial(show.reply, event_id, barcode))
        result = max((step() for step in steps), default=ALL_WELL)
        if told is not None:
            raise told
    raise SystemExit(result)


@main.command("return")
@click.argument("request")
@click.option("--note", help="A note for the request's history.")
@click.option("--print-slip/--no-print-slip", default=False, help="Automatically print slip (default: no).")
@wait_option
@json_option
@click.pass_obj
def return_command(
    code: str | None, request: str, note: str | None, print_slip: bool, wait: float | None, as_json: bool
) -> None:
    """Return REQUEST (its external identifier), loaned to a patron or never loaned.

    \b
    bookdrop-station return BR-2026-00017
    bookdrop-station return BR-2026-00017 --print-slip --note "left in the reading room"
    """
    from pydantic import ValidationError

    from stations.client import StationClient

    settings = _settings(code)
    with _journal_told(), StationClient(settings) as client:
        try:
            event_id = client.request_return(request, note=note, print_slip=print_slip)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            raise _ToldError(f"{first['loc'][0]}: {first['msg']}. Nothing was sent.", WRONG_USE) from None
        show = _Answers(client, settings.answer_seconds if wait is None else wait, as_json=as_json)
        result = show.reply(event_id, request)
    raise SystemExit(result)


class _Answers:
    """Shows answers on standard output; each method gives the exit code that goes with it."""

    def __init__(self, client: "StationClient", seconds: float, *, as_json: bool) -> None:
        import time

        self._client = client
        self._as_json = as_json
        self._deadline = time.monotonic() + seconds
        self._clock = time.monotonic

    def reply(self, event_id: "UUID", subject: str) -> int:
        """Wait for the answer to an event, and show it."""
        from stations import words

        reply = self._client.wait(event_id, max(0.0, self._deadline - self._clock()))
        if reply is None:
            shown = words.pending(subject, is_reached=self._client.is_reached)
            return self.without_reply(shown, subject, "pending", event_id)
        if self._as_json:
            click.echo(reply.model_dump_json(exclude_none=True))
        else:
            _print(words.of_reply(reply, subject))
        return REFUSED if reply.outcome == "refused" else ALL_WELL

    def without_reply(self, shown: "Shown", subject: str, outcome: str, event_id: "UUID | None" = None) -> int:
        """Show what the desk itself says."""
        if self._as_json:
            record: dict[str, Any] = {"event_id": event_id and str(event_id), "barcode": subject or None}
            click.echo(json.dumps({**record, "outcome": outcome, "message": shown.lines[1]}))
        else:
            _print(shown)
        return REFUSED if outcome == "refused" else PENDING


def _print(shown: "Shown") -> None:
    from stations.terminal import Screen

    Screen(sys.stdout, interactive=False, sounds=False).show(shown)


@main.command("desk")
@click.pass_obj
def desk_command(code: str | None) -> None:
    """A prompt for a scanner, or a pipe of barcodes, one a line.

    The prompt is ready again at once after each scan; answers follow, each with its barcode. ":help" at the prompt
    says what else it can do. At the end of the input (Ctrl-D) it waits for the answers that are still out; Ctrl-C
    leaves at once. Refusals are shown and do not change the exit code here.

    \b
    bookdrop-station desk
    bookdrop-station desk <barcodes.txt
    """
    import signal
    from datetime import UTC, datetime

    from stations.client import StationClient
    from stations.desk import Desk
    from stations.terminal import Screen, lines_of, typed_lines

    settings = _settings(code)
    for number in (signal.SIGTERM, signal.SIGHUP):  # leave as Ctrl-C does, with the terminal as it was found
        signal.signal(number, signal.default_int_handler)
    interactive = sys.stdin.isatty()
    screen = Screen(sys.stdout, interactive=interactive, sounds=interactive)
    desk = Desk(screen, lambda: datetime.now(UTC), tells_pending=interactive)
    with _journal_told(), StationClient(settings, on_reply=desk.heard, on_slip=desk.slipped) as client:
        if interactive:
            click.echo(f"Station {settings.code}. Scan an item, or :help.")
        if earlier := len(client.journal.unanswered()):
            click.echo(f"Earlier scans without an answer: {earlier}. They are asked again.")
        try:
            desk.serve(client, typed_lines(sys.stdin, screen) if interactive else lines_of(sys.stdin))
            screen.leave()
            pending = desk.finish(client, settings.answer_seconds)
        except KeyboardInterrupt:
            screen.leave()
            pending = desk.still_pending(client)
    if pending:
        click.echo(
            f"Still pending: {len(pending)}. Kept in {settings.journal_file}, and asked again by the next command or"
            " desk of this station."
        )
    raise SystemExit(NOT_TAKEN if desk.not_taken else PENDING if pending else ALL_WELL)


@main.group("journal")
def journal_group() -> None:
    """What this desk took, and what became of it."""


@journal_group.command("list")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many, newest last.")
@click.option("--json", "as_json", is_flag=True, help="One JSON record a line, for scripts.")
@click.pass_context
def journal_list_command(ctx: click.Context, limit: int, as_json: bool) -> None:
    """Show the last scans of this desk, with their answers and slips.

    \b
    bookdrop-station journal list --limit 100
    bookdrop-station journal list --json | jq 'select(.reply == null)'
    """
    from stations.journal import Journal
    from stations.words import of_entry

    settings = _settings(ctx.obj)
    with _journal_told():
        journal = Journal(settings.journal_file, settings.code)
        entries = journal.recent(limit)
        journal.close()
    for entry in entries:
        if not as_json:
            click.echo(of_entry(entry))
            continue
        record = {
            "event_id": entry.event_id,
            "sequence": entry.sequence,
            "subject": entry.subject,
            "made_at": entry.made_at.isoformat(),
            "attempts": entry.attempts,
            "answered_at": entry.answered_at and entry.answered_at.isoformat(),
            "reply": json.loads(entry.reply) if entry.reply else None,
            "slip_state": entry.slip_state,
            "slip": entry.slip_words,
        }
        click.echo(json.dumps(record))


if __name__ == "__main__":
    main(prog_name="bookdrop-station")
