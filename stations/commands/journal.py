# SPDX-License-Identifier: Apache-2.0
"""`journal`: list the stored scans, replay them after an outage, and move the journal to another machine."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stations.commands.output import NOT_STORED, PENDING, REFUSED, SUCCESS, CommandError, journal_errors, load_settings

if TYPE_CHECKING:
    from stations.journal.events import Entry, Journal
    from stations.journal.transfer import TransferCounts
    from stations.settings import StationSettings

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, for scripts.")


@click.group("journal")
def journal_group() -> None:
    """List the scans of this station, replay them after an outage, and move the journal to another machine.

    Exit codes are those of the station: 0 success, 1 at least one refusal, 2 wrong usage, 3 at least one scan is
    pending, 4 the journal cannot be used or was not changed.
    """


@journal_group.command("list")
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, 100_000), help="Number of scans, newest last."
)
@click.option("--unanswered", is_flag=True, help="Only scans without a reply.")
@click.option("--refused", is_flag=True, help="Only refused scans (with --unanswered: both).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON record a line, for scripts.")
@click.pass_context
def journal_list_command(ctx: click.Context, limit: int, unanswered: bool, refused: bool, as_json: bool) -> None:
    """List the last scans of this station, with their replies and slips.

    Warns when the oldest unanswered scan is older than the setting unanswered_warning_hours, and when messages without a
    valid signature were ignored (setting require_signed_replies).

    \b
    bookdrop-station journal list --limit 100
    bookdrop-station journal list --unanswered
    bookdrop-station journal list --json | jq 'select(.reply == null)'
    """
    from stations import messages
    from stations.journal.rejected_messages import rejected_messages

    settings = load_settings(ctx.obj)
    with _open_journal(settings) as journal:
        entries = journal.recent(limit, unanswered=unanswered, refused=refused)
        stats = journal.stats()
        moved = journal.moved_to()
        rejected = rejected_messages(journal)
    _print_entries(entries, as_json=as_json)
    if stats.is_overdue(datetime.now(UTC), settings.unanswered_warning_after):
        click.echo("Warning: " + "\n  ".join(messages.replies_overdue(stats).lines), err=True)
    if rejected.count:
        click.echo("Warning: " + "\n  ".join(messages.messages_rejected(rejected).lines), err=True)
    if moved is not None:
        click.echo(f"Warning: this journal was moved to {moved}. This machine accepts and sends nothing.", err=True)


@journal_group.command("exceptions")
@click.option("--done", multiple=True, metavar="EVENT", help="Acknowledge this exception; may be repeated.")
@click.option("--all-done", is_flag=True, help="Acknowledge all exceptions.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON record a line, for scripts.")
@click.pass_context
def journal_exceptions_command(ctx: click.Context, done: tuple[str, ...], all_done: bool, as_json: bool) -> None:
    """List held scans that were refused later, after staff had moved on.

    They stay on this list until staff acknowledge them. The exit code is 1 while the list has entries.

    \b
    bookdrop-station journal exceptions
    bookdrop-station journal exceptions --done 01a20aee-905b-70e3-bbdd-6f98a0bee5d1
    """
    with _open_journal(load_settings(ctx.obj)) as journal:
        chosen = [entry.event_id for entry in journal.exceptions()] if all_done else list(done)
        unknown = len(chosen) - journal.acknowledge_exceptions(chosen, datetime.now(UTC)) if chosen else 0
        entries = journal.exceptions()
    _print_entries(entries, as_json=as_json, with_ids=True)
    if unknown:
        raise CommandError(f"Not on the list: {unknown} of those named. The others are acknowledged.", REFUSED)
    if not entries and not as_json:
        click.echo("No held scan was refused, or all of them were seen to.")
    raise SystemExit(REFUSED if entries else SUCCESS)


@journal_group.command("replay")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Time to wait after each reply for the next one (default: the setting reply_timeout_seconds, 15).",
)
@json_option
@click.pass_context
def journal_replay_command(ctx: click.Context, wait: float | None, as_json: bool) -> None:
    """Send every unanswered scan now, in the order of the scans, and wait for the replies.

    An open prompt does this automatically after an outage; use this command for a closed station, or for a journal
    that was moved here. Each scan keeps its own time, and a worker processes each scan once.
    """
    import time

    from stations import messages
    from stations.client import StationClient
    from stations.journal.replay import Progress

    settings = load_settings(ctx.obj)
    seconds = settings.reply_timeout_seconds if wait is None else wait

    replied_at = time.monotonic()

    def show(progress: Progress) -> None:
        nonlocal replied_at
        replied_at = time.monotonic()
        if not as_json and not progress.is_complete:
            click.echo(messages.format_progress(progress).lines[0])

    with journal_errors(), StationClient(settings, on_progress=show) as client:
        if (moved := client.journal.moved_to()) is not None:
            raise CommandError(f"This journal was moved to {moved}. Nothing was sent.", NOT_STORED)
        before = {entry.event_id for entry in client.journal.exceptions()}
        total = client.replay()
        while (left := client.journal.stats().unanswered) and time.monotonic() - replied_at < seconds:
            time.sleep(0.05)
        refused = [entry for entry in client.journal.exceptions() if entry.event_id not in before]
        is_connected = client.is_connected
    replied = max(0, total - left)
    if as_json:
        click.echo(
            json.dumps({"held": total, "answered": replied, "pending": left, "refused": [*map(_record, refused)]})
        )
    else:
        away = "" if is_connected else " The network is away."
        click.echo(f"Held scans: {total}, answered: {replied}, refused: {len(refused)}, pending: {left}.{away}")
        _print_entries(refused, as_json=False, with_ids=True)
    raise SystemExit(PENDING if left else REFUSED if refused else SUCCESS)


@journal_group.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--copy", is_flag=True, help="Write a copy only; this journal stays in use.")
@json_option
@click.pass_context
def journal_export_command(ctx: click.Context, file: Path, copy: bool, as_json: bool) -> None:
    """Move the journal into FILE, for example on a USB stick, to send it from another machine.

    Afterwards this machine accepts and sends nothing. On the other machine, with the same station code and key:

    \b
    bookdrop-station journal import FILE
    bookdrop-station journal replay

    To use the journal here again, import FILE here.
    """
    from stations.journal.transfer import export_journal

    with _open_journal(load_settings(ctx.obj)) as journal:
        counts = export_journal(journal, file.absolute(), datetime.now(UTC), closes=not copy)
    _print_counts(counts, as_json, f"Written to {file}: {counts.events} scans, {counts.unanswered} without a reply.")
    if not copy and not as_json:
        click.echo(
            "This machine accepts and sends nothing any more. On the other machine: bookdrop-station journal import FILE"
        )


@journal_group.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@click.pass_context
def journal_import_command(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Import the scans in FILE into this machine's journal, which must belong to the same station.

    The import sends nothing; the next command of this station or 'journal replay' does. A second import is harmless.
    """
    from stations.journal.transfer import import_journal

    with _open_journal(load_settings(ctx.obj)) as journal:
        counts = import_journal(journal, file, datetime.now(UTC))
    _print_counts(counts, as_json, f"New here: {counts.events} scans, {counts.unanswered} without a reply.")


@contextmanager
def _open_journal(settings: "StationSettings") -> "Iterator[Journal]":
    from stations.journal.events import Journal

    with journal_errors():
        journal = Journal(settings.journal_file, settings.code, settings.journal_limits)
        try:
            yield journal
        finally:
            journal.close()


def _print_entries(entries: "Iterable[Entry]", *, as_json: bool, with_ids: bool = False) -> None:
    from stations.messages import format_entry

    for entry in entries:
        if as_json:
            click.echo(json.dumps(_record(entry)))
        else:
            click.echo(f"{entry.event_id}  {format_entry(entry)}" if with_ids else format_entry(entry))


def _print_counts(counts: "TransferCounts", as_json: bool, text: str) -> None:
    click.echo(json.dumps({"events": counts.events, "unanswered": counts.unanswered}) if as_json else text)


def _record(entry: "Entry") -> dict[str, Any]:
    return {
        "event_id": entry.event_id,
        "sequence": entry.sequence,
        "subject": entry.subject,
        "made_at": entry.made_at.isoformat(),
        "attempts": entry.attempts,
        "held": entry.held,
        "answered_at": entry.answered_at and entry.answered_at.isoformat(),
        "reply": json.loads(entry.reply) if entry.reply else None,
        "slip_state": entry.slip_state,
        "slip": entry.slip_message,
    }
