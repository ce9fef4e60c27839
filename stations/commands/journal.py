# SPDX-License-Identifier: Apache-2.0
"""`journal`: what this desk took, what became of it, and how it is sent or moved after an outage."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stations.commands.output import NOT_TAKEN, PENDING, REFUSED, SUCCESS, CommandError, journal_errors, load_settings

if TYPE_CHECKING:
    from stations.journal.events import Entry, Journal
    from stations.journal.transfer import TransferCounts
    from stations.settings import StationSettings

json_option = click.option("--json", "as_json", is_flag=True, help="For scripts.")


@click.group("journal")
def journal_group() -> None:
    """What this desk took, what became of it, and how it is sent or moved after an outage.

    Exit codes are those of the station: 0 all well, 1 something was refused, 2 wrong use, 3 something is still
    pending, 4 the journal cannot be used or was not changed.
    """


@journal_group.command("list")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 100_000), help="How many, newest last.")
@click.option("--unanswered", is_flag=True, help="Only those without an answer.")
@click.option("--refused", is_flag=True, help="Only those that were refused (with --unanswered: both).")
@click.option("--json", "as_json", is_flag=True, help="One JSON record a line, for scripts.")
@click.pass_context
def journal_list_command(ctx: click.Context, limit: int, unanswered: bool, refused: bool, as_json: bool) -> None:
    """Show the last scans of this desk, with their answers and slips.

    Warns when the oldest scan has waited for its answer for longer than the setting unanswered_warning_hours.

    \b
    bookdrop-station journal list --limit 100
    bookdrop-station journal list --unanswered
    bookdrop-station journal list --json | jq 'select(.reply == null)'
    """
    from stations import messages

    settings = load_settings(ctx.obj)
    with _open_journal(settings) as journal:
        entries = journal.recent(limit, unanswered=unanswered, refused=refused)
        stats = journal.stats()
        moved = journal.moved_to()
    _print_entries(entries, as_json=as_json)
    if stats.is_overdue(datetime.now(UTC), settings.unanswered_warning_after):
        click.echo("Warning: " + "\n  ".join(messages.replies_overdue(stats).lines), err=True)
    if moved is not None:
        click.echo(f"Warning: this journal was moved to {moved}. Nothing is taken or sent from here.", err=True)


@journal_group.command("exceptions")
@click.option("--done", multiple=True, metavar="EVENT", help="Somebody has seen to this one; may be repeated.")
@click.option("--all-done", is_flag=True, help="Somebody has seen to all of them.")
@click.option("--json", "as_json", is_flag=True, help="One JSON record a line, for scripts.")
@click.pass_context
def journal_exceptions_command(ctx: click.Context, done: tuple[str, ...], all_done: bool, as_json: bool) -> None:
    """Show held scans that were refused later, when nobody stood at the desk any more.

    They stay on this list until somebody says that they were seen to. The exit code is 1 while there are any.

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
        raise CommandError(f"Not on the list: {unknown} of those named. The others are noted.", REFUSED)
    if not entries and not as_json:
        click.echo("No held scan was refused, or all of them were seen to.")
    raise SystemExit(REFUSED if entries else SUCCESS)


@journal_group.command("replay")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to wait after the last answer for the next one (default: the setting reply_timeout_seconds, 15).",
)
@json_option
@click.pass_context
def journal_replay_command(ctx: click.Context, wait: float | None, as_json: bool) -> None:
    """Send everything now that has no answer, in the order in which it was taken, and wait for the answers.

    A desk does it by itself when the network is back; this is for a desk that is closed, or a journal that was moved
    here. Each scan keeps its own time. What was performed before is not performed again.
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
            raise CommandError(f"This journal was moved to {moved}. Nothing was sent.", NOT_TAKEN)
        before = {entry.event_id for entry in client.journal.exceptions()}
        total = client.replay()
        while (left := client.journal.stats().unanswered) and time.monotonic() - replied_at < seconds:
            time.sleep(0.05)
        refused = [entry for entry in client.journal.exceptions() if entry.event_id not in before]
        is_connected = client.is_connected
    answered = max(0, total - left)
    if as_json:
        click.echo(
            json.dumps({"held": total, "answered": answered, "pending": left, "refused": [*map(_record, refused)]})
        )
    else:
        away = "" if is_connected else " The network is away."
        click.echo(f"Held scans: {total}, answered: {answered}, refused: {len(refused)}, pending: {left}.{away}")
        _print_entries(refused, as_json=False, with_ids=True)
    raise SystemExit(PENDING if left else REFUSED if refused else SUCCESS)


@journal_group.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--copy", is_flag=True, help="Only a copy, to look at: this desk goes on.")
@json_option
@click.pass_context
def journal_export_command(ctx: click.Context, file: Path, copy: bool, as_json: bool) -> None:
    """Move the journal into FILE, such as on a stick, to send it from another machine.

    From then on nothing is taken or sent here. On the other machine, with the same station code and key:

    \b
    bookdrop-station journal import FILE
    bookdrop-station journal replay

    To take it back, import FILE here again.
    """
    from stations.journal.transfer import export_journal

    with _open_journal(load_settings(ctx.obj)) as journal:
        counts = export_journal(journal, file.absolute(), datetime.now(UTC), closes=not copy)
    _print_counts(counts, as_json, f"Written to {file}: {counts.events} scans, {counts.unanswered} without an answer.")
    if not copy and not as_json:
        click.echo("Nothing is taken or sent here any more. On the other machine: bookdrop-station journal import FILE")


@journal_group.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@click.pass_context
def journal_import_command(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Take what FILE holds into the journal of this machine, which must be of the same station.

    Nothing is sent yet: the next desk or 'journal replay' does that. To import twice does no harm.
    """
    from stations.journal.transfer import import_journal

    with _open_journal(load_settings(ctx.obj)) as journal:
        counts = import_journal(journal, file, datetime.now(UTC))
    _print_counts(counts, as_json, f"New here: {counts.events} scans, {counts.unanswered} without an answer.")


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
