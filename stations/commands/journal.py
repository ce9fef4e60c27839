# SPDX-License-Identifier: Apache-2.0
"""`journal`: what this desk took, and what became of it."""

import json

import click

from stations.commands.answers import journal_told, settings_of


@click.group("journal")
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

    settings = settings_of(ctx.obj)
    with journal_told():
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
