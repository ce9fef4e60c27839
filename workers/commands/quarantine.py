# SPDX-License-Identifier: Apache-2.0
"""`bookdrop quarantine`: what could not be believed, read or done; and what a person decides about it."""

import getpass
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from workers.commands.sessions import deciding, reading

if TYPE_CHECKING:
    from tasks.context import Context
    from tasks.operator import Operator

actor_option = click.option("--actor", help="Who decides (default: your login name); stands in the record.")
json_option = click.option("--json", "as_json", is_flag=True, help="For scripts.")


def filters(command: Callable[..., None]) -> Callable[..., None]:
    """Options that choose messages."""
    for option in (
        click.option("--queue", metavar="QUEUE", help="Only what came on this queue."),
        click.option("--station", metavar="CODE", help="Only what claims to be from this station."),
        click.option("--why", metavar="WHY", help="Only what is here for this, such as unknown_station or malformed."),
    ):
        command = option(command)
    return command


@click.group("quarantine")
def quarantine_group() -> None:
    """Look at messages that were not believed, not read or not done, and decide about them.

    \b
    unknown_station   no such station: 'bookdrop add stations', then 'retry'
    bad_signature     wrong key: correct it at the server or at the desk, then 'retry' or scan again
    unknown_version   the station is newer than this server: update, then 'retry'
    other_payload     one event id for two scans: a faulty station; scan the item again, then 'drop'
    bad_schema        not of the right form;   oversize   larger than any event
    failed            the server failed on it three times: see its log, update, then 'retry'
    malformed         no message at all: 'drop'
    unknown_task      a task that no worker knew: update the workers, then 'retry'
    lost_too_often    every worker that took it died: see why, then 'retry'
    rejected          its worker refused it: other arguments than its task has
    unroutable        there was no queue for it

    Exit codes: 0 done, 1 something could not be done and is as it was, 2 wrong use or settings
    """  # fmt: skip


@quarantine_group.command("list")
@filters
@click.option("--all", "closed", is_flag=True, help="Also what was settled, dropped or has expired.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="How many at most.")
@json_option
def list_command(
    why: str | None, station: str | None, queue: str | None, closed: bool, limit: int, as_json: bool
) -> None:
    """List what waits for a decision, the oldest first.

    Example: bookdrop quarantine list --why unknown_station --station north-desk-1
    """
    from tasks.quarantine.queries import MessageFilter, messages

    with reading() as connection:
        found = messages(
            connection, MessageFilter(reason=why, station=station, queue=queue, closed=closed, limit=limit)
        )
    if as_json:
        click.echo(json.dumps({"messages": found}, indent=2, ensure_ascii=False))
        return
    for each in found:
        times = f"  {each['times']} times" if each["times"] > 1 else ""
        click.echo(
            _printable(
                f"{each['id']:>6}  {each['received_at'][:16]}  {each['state']:<8}{each['reason']:<17}"
                f"{each['queue']:<14}{each['station'] or '-':<16}{each['task'] or '-'}{times}"
            )
        )
    if not found:
        click.echo("Nothing is in quarantine." if not (why or station or queue) else "No message fits.")


@quarantine_group.command("show")
@click.argument("message", type=int)
@click.option("--body", "reveal", is_flag=True, help="What it says, unmasked: it may hold a reader's card or a note.")
@json_option
def show_command(message: int, reveal: bool, as_json: bool) -> None:
    """Tell all of one message. What was scanned or typed is masked unless --body is given."""
    from tasks.quarantine.queries import message as story_of

    with reading() as connection:
        found = story_of(connection, message, reveal=reveal)
    if found is None:
        raise click.ClickException(f"There is no message {message}. 'bookdrop quarantine list' shows them.")
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    lines = [
        f"Message {found['id']}: {found['state']}, {found['reason']}"
        + (f" ({found['detail']})" if found["detail"] else ""),
        f"Came {found['received_at'][:19]} on {found['queue']}"
        + (f", {found['times']} times, last {found['last_at'][:19]}" if found["last_at"] else ""),
        f"Station {found['station'] or '-'}   event {found['event_id'] or '-'}   task {found['task'] or '-'}",
        f"Answers to {found['reply_to'] or 'nobody'}",
    ]
    if found["decided_at"]:
        reason = f": {found['reason_of_decision']}" if found["reason_of_decision"] else ""
        lines.append(f"{found['state'].title()} {found['decided_at'][:19]} by {found['decided_by']}{reason}")
    if found["headers"]:
        lines.append("Headers " + json.dumps(found["headers"], ensure_ascii=False))
    lines.append(found["body"] or "(erased)")
    if not found["whole"]:
        lines.append("(not all of it: it was larger than is kept)")
    for line in lines:
        click.echo(_printable(line))


@quarantine_group.command("retry")
@click.argument("message", type=int, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that fit --why, --station and --queue.")
@filters
@click.option("--reason", help="Why you decide so; stands in the record.")
@actor_option
@json_option
def retry_command(
    message: tuple[int, ...],
    everything: bool,
    why: str | None,
    station: str | None,
    queue: str | None,
    reason: str | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Put messages back on their queues as they were; the station is answered as usual.

    Do it when the cause is gone. What was done in the meantime is not done twice.

    \b
    bookdrop quarantine retry 17 18
    bookdrop quarantine retry --all --why unknown_station --station north-desk-1
    """
    from tasks.quarantine.actions import retry

    chosen = _chosen(message, everything, why, station, queue)
    _decide(retry, chosen, actor, reason, as_json)


@quarantine_group.command("drop")
@click.argument("message", type=int, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that fit --why, --station and --queue.")
@filters
@click.option("--reason", required=True, help="Why; stands in the record.")
@actor_option
@json_option
def drop_command(
    message: tuple[int, ...],
    everything: bool,
    why: str | None,
    station: str | None,
    queue: str | None,
    reason: str,
    actor: str | None,
    as_json: bool,
) -> None:
    """Give messages up. What they said is erased at once; that they came, and who dropped them and why, is kept.

    Example: bookdrop quarantine drop 17 --reason "sent by a test program"
    """
    from tasks.quarantine.actions import drop

    chosen = _chosen(message, everything, why, station, queue)
    _decide(drop, chosen, actor, reason, as_json)


@quarantine_group.command("gather")
@json_option
def gather_command(as_json: bool) -> None:
    """Bring the broker's dead letters into the list now; housekeeping does it every few seconds."""
    from sqlalchemy.exc import SQLAlchemyError

    from tasks.quarantine.maintenance import collect_dead_letters

    with deciding() as here:
        try:
            count = collect_dead_letters(here)
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the transport raises
            raise click.ClickException(
                f"The broker does not answer ({type(error).__name__}). Nothing is lost. 'bookdrop doctor' says more."
            ) from None
    click.echo(json.dumps({"gathered": count}) if as_json else f"Dead letters gathered: {count}.")


def _chosen(
    given: tuple[int, ...], everything: bool, why: str | None, station: str | None, queue: str | None
) -> list[int]:
    """The messages that are meant."""
    if bool(given) == everything:
        raise click.UsageError("Name messages by their numbers, or say --all.")
    if not everything:
        if why or station or queue:
            raise click.UsageError("--why, --station and --queue go with --all.")
        return list(given)
    from tasks.quarantine.queries import MessageFilter, messages

    with reading() as connection:
        found = messages(connection, MessageFilter(reason=why, station=station, queue=queue, limit=10_000))
    return [each["id"] for each in found if each["state"] == "kept"]  # what is on its way already is left alone


def _decide(
    act: "Callable[[int, Operator, Context], str]",
    numbers: list[int],
    actor: str | None,
    reason: str | None,
    as_json: bool,
) -> None:
    from tasks.operator import Operator
    from tasks.quarantine.actions import DecisionRefusedError

    told: list[dict[str, Any]] = []
    by = Operator(actor or getpass.getuser(), reason)
    with deciding() as here:
        for number in numbers:
            try:
                told.append({"id": number, "done": True, "message": act(number, by, here)})
            except DecisionRefusedError as error:
                told.append({"id": number, "done": False, "message": f"{error} Nothing was changed."})
    if as_json:
        click.echo(json.dumps({"messages": told}, indent=2, ensure_ascii=False))
    else:
        for each in told:
            click.echo(f"{each['id']:>6}  {each['message']}", err=not each["done"])
        if not told:
            click.echo("No message fits.")
    if not all(each["done"] for each in told):
        raise SystemExit(1)


def _printable(text: str) -> str:
    """Fit for a terminal: what came from outside has no say over it."""
    return "".join(char if char.isprintable() else "?" for char in text)
