# SPDX-License-Identifier: Apache-2.0
"""The options with which a command acts on several slips, and counts them first."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from workers.commands.json_output import to_json
from workers.commands.moments import format_moment
from workers.commands.options import command_operator
from workers.commands.sessions import acting, reading

if TYPE_CHECKING:
    from tasks.printing.actions import Done
    from tasks.printing.batch import BatchAction
    from tasks.printing.queries import SlipFilter
    from tasks.selection import Selection

_SAMPLE = 10
"""Slips that a dry run shows."""


@dataclass(frozen=True)
class SlipSelection:
    """The values of the options."""

    all: bool = False
    failed: bool = False
    held: bool = False
    unknown: bool = False
    branch: str | None = None
    printer: str | None = None
    dry_run: bool = False
    expect: int | None = None

    def require_count(self, slip: UUID | None) -> None:
        """Raise `click.UsageError` unless the command names one slip, or all with their number or a dry run."""
        if (slip is None) == (not self.all):
            raise click.UsageError("Give either the id of a slip or --all.")
        if slip is not None and self != SlipSelection():
            raise click.UsageError("The options that select or count slips require --all.")
        if self.all and not self.dry_run and self.expect is None:
            raise click.UsageError("Count them first: --all requires --dry-run or --expect COUNT.")

    def slip_filter(self) -> "SlipFilter":
        """The slips that match; without a state, those in every state that the action allows."""
        from schemas.print_jobs import PrintState as State
        from tasks.printing.queries import SlipFilter

        chosen = {State.FAILED_SAFE: self.failed, State.HELD: self.held, State.UNKNOWN: self.unknown}
        states = [state for state, is_chosen in chosen.items() if is_chosen]
        return SlipFilter(states=states, branch=self.branch, printer=self.printer)


def selection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options; the command receives them as `selection`."""

    @wraps(command)
    def with_selection(
        *args: Any,
        all: bool,  # noqa: A002 - the option's name
        failed: bool,
        held: bool,
        unknown: bool,
        branch: str | None,
        printer: str | None,
        dry_run: bool,
        expect: int | None,
        **others: Any,
    ) -> None:
        selection = SlipSelection(all, failed, held, unknown, branch, printer, dry_run, expect)
        command(*args, selection=selection, **others)

    decorated: Callable[..., None] = with_selection
    for option in (
        click.option(
            "--expect", metavar="COUNT", type=click.IntRange(0), help="Act only if exactly so many slips match."
        ),
        click.option(
            "--dry-run", is_flag=True, help="Show the number of matching slips and the oldest; change nothing."
        ),
        click.option("--printer", metavar="CODE", help="With --all: only slips of this printer."),
        click.option("--branch", metavar="CODE", help="With --all: only slips of this branch."),
        click.option("--unknown", is_flag=True, help="With --all: only slips whose result is unknown."),
        click.option("--held", is_flag=True, help="With --all: only slips that are held."),
        click.option("--failed", is_flag=True, help="With --all: only slips whose last attempt failed."),
        click.option("--all", is_flag=True, help="All slips that match; with --dry-run or --expect."),
    ):
        decorated = option(decorated)
    return decorated


def act_on_all(
    action: "BatchAction",
    wanted: SlipSelection,
    *,
    actor: str | None,
    reason: str | None,
    as_json: bool,
    to: str = "",
) -> None:
    """Perform the action on all slips that match, if their number is the expected one. `to`: a printer, to move them."""
    from tasks.printing import batch

    with reading() as connection:
        selection = batch.select_matching(connection, action, wanted.slip_filter())
    if wanted.dry_run:
        _show_selection(selection, as_json)
        return
    if wanted.expect is not None and wanted.expect != selection.total:
        raise click.ClickException(f"{selection.total} slips match, not {wanted.expect}. Nothing was changed.")
    with acting() as context:
        result = batch.perform(action, selection.ids, command_operator(actor, reason), context, to=to)
    left = selection.left
    if as_json:
        report = {
            "slips": [done_as_json(each) for each in result.done],
            "refused": [{"slip": str(each.slip), "message": each.message} for each in result.refused],
            "left": left,
        }
        click.echo(to_json(report))
    else:
        for done in result.done:
            click.echo(f"{done.slip}  {done.message}")
        for refused in result.refused:
            click.echo(f"{refused.slip}  not changed: {refused.message}", err=True)
        if left:
            click.echo(f"{left} further slips match. Repeat the command for the next ones.", err=True)
        if not selection.ids:
            click.echo("No slip waits." if action == "retry" else "No slip matches.")
    if result.refused and not result.done:
        raise SystemExit(1)


def _show_selection(selection: "Selection[UUID]", as_json: bool) -> None:
    from tasks.printing.queries import SlipFilter, slips

    with reading() as connection:
        sample = slips(connection, SlipFilter(ids=selection.ids[:_SAMPLE], limit=_SAMPLE))
    if as_json:
        click.echo(to_json({"matching": selection.total, "oldest": sample}))
        return
    click.echo(f"{selection.total} slips match. Nothing was changed.")
    for row in sample:
        click.echo(
            f"{row['slip']}  {format_moment(row['since'])}  {row['branch']:<10}{row['request']:<16}{row['words']}"
        )
    if selection.total > len(sample):
        click.echo(f"... and {selection.total - len(sample)} more")


def done_as_json(done: "Done") -> dict[str, str]:
    """The result for one slip."""
    return {"slip": str(done.slip), "state": done.state.value, "message": done.message}
