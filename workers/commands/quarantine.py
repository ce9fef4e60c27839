# SPDX-License-Identifier: Apache-2.0
"""`bookdrop quarantine`: list and show quarantined messages, retry and drop them."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from schemas.external_text import text_lines
from workers.commands.json_output import to_json
from workers.commands.moments import format_moment
from workers.commands.options import actor_option, command_operator, json_option
from workers.commands.sessions import acting, reading

if TYPE_CHECKING:
    from tasks.context import Context
    from tasks.operator import Operator


def filters(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select messages."""
    for option in (
        click.option("--queue", metavar="QUEUE", help="Only messages of this queue."),
        click.option("--station", metavar="CODE", help="Only messages with this station's code, which may be forged."),
        click.option(
            "--why", metavar="WHY", help="Only messages with this reason, for example unknown_station or malformed."
        ),
    ):
        command = option(command)
    return command


def count_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that count the messages of `--all` first."""
    for option in (
        click.option(
            "--expect", metavar="COUNT", type=click.IntRange(0), help="With --all: act only if exactly so many match."
        ),
        click.option("--dry-run", is_flag=True, help="With --all: show the number that matches; change nothing."),
    ):
        command = option(command)
    return command


@click.group("quarantine")
def quarantine_group() -> None:
    """Show messages that failed validation or could not be processed, and act on them.

    \b
    unknown_station   the station is not registered: 'bookdrop add stations', then 'retry'
    bad_signature     wrong key: correct it at the server or the station, then 'retry' or scan again
    unknown_version   the station is newer than this server: upgrade the server, then 'retry'
    other_payload     one event id for two different events: a faulty station; scan again, then 'drop'
    bad_schema        the event's schema is violated;   oversize   larger than any event
    failed            processing failed three times: see the worker's log, upgrade, then 'retry'
    malformed         not a task message: 'drop'
    unknown_task      no worker has the task: upgrade the workers, then 'retry'
    lost_too_often    each worker that processed it died: find the cause, then 'retry'
    rejected          the worker rejected it: its arguments do not fit the task
    unroutable        its queue does not exist
    handover_failed   a worker raised an error before it processed it: see the worker's log, upgrade, then 'retry'
    not_restored      it could not be returned to its queue on Redis: 'drop'; a station resends its event

    Exit codes: 0 done, 1 an action was refused and changed nothing, 2 usage or settings error
    """  # fmt: skip


@quarantine_group.command("list")
@filters
@click.option("--all", "closed", is_flag=True, help="Also messages that are settled, dropped or expired.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Maximum number.")
@json_option
def list_command(
    why: str | None, station: str | None, queue: str | None, closed: bool, limit: int, as_json: bool
) -> None:
    """List the messages that wait for a decision, oldest first.

    Example: bookdrop quarantine list --why unknown_station --station north-desk-1
    """
    from tasks.quarantine.queries import MessageFilter, messages

    with reading() as connection:
        found = messages(
            connection, MessageFilter(reason=why, station=station, queue=queue, closed=closed, limit=limit)
        )
    if as_json:
        click.echo(to_json({"messages": found}))
        return
    for row in found:
        times = f"  {row['times']} times" if row["times"] > 1 else ""
        click.echo(
            _printable(
                f"{row['id']:>6}  {format_moment(row['received_at'])}  {row['state']:<8}{row['reason']:<17}"
                f"{row['queue']:<14}{row['station'] or '-':<16}{row['task'] or '-'}{times}"
            )
        )
    if not found:
        click.echo("No message is in quarantine." if not (why or station or queue) else "No message matches.")


@quarantine_group.command("show")
@click.argument("message", type=int)
@click.option(
    "--body", "reveal", is_flag=True, help="Show the content unmasked. It may contain a patron card or a note."
)
@json_option
def show_command(message: int, reveal: bool, as_json: bool) -> None:
    """Show one message. Scanned and typed text is masked unless --body is given."""
    from tasks.operator import named_person
    from tasks.quarantine.queries import message as read_message

    with reading() as connection:
        found = read_message(connection, message, reveal=reveal)
    if found is None:
        raise click.ClickException(f"There is no message {message}. Run 'bookdrop quarantine list' to see all.")
    if as_json:
        click.echo(to_json(found))
        return
    lines = [
        f"Message {found['id']}: {found['state']}, {found['reason']}"
        + (f" ({found['detail']})" if found["detail"] else ""),
        f"Received {format_moment(found['received_at'], seconds=True)} on {found['queue']}"
        + (
            f", {found['times']} times, last {format_moment(found['last_at'], seconds=True)}"
            if found["last_at"]
            else ""
        ),
        f"Station {found['station'] or '-'}   event {found['event_id'] or '-'}   task {found['task'] or '-'}",
        f"Reply queue {found['reply_to'] or 'none'}",
    ]
    if found["decided_at"]:
        reason = f": {found['reason_of_decision']}" if found["reason_of_decision"] else ""
        who = named_person(found["decided_by"], found["decided_identified_by"], found["decided_account"])
        lines.append(f"{found['state'].title()} {format_moment(found['decided_at'], seconds=True)} by {who}{reason}")
    if found["headers"]:
        lines.append("Headers " + to_json(found["headers"], indent=None))
    lines.append(found["body"] or "(erased)")
    if not found["whole"]:
        lines.append("(truncated: it was larger than the limit)")
    for line in lines:
        click.echo(_printable(line))


@quarantine_group.command("retry")
@click.argument("message", type=int, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All messages that match --why, --station and --queue.")
@filters
@count_options
@click.option("--reason", help="Reason; recorded with the message.")
@actor_option
@json_option
def retry_command(
    message: tuple[int, ...],
    everything: bool,
    why: str | None,
    station: str | None,
    queue: str | None,
    dry_run: bool,
    expect: int | None,
    reason: str | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Requeue messages unchanged; the station receives the reply as usual.

    Retry after the cause is removed. An event that was processed in the meantime is not processed twice.

    \b
    bookdrop quarantine retry 17 18
    bookdrop quarantine retry --all --why unknown_station --station north-desk-1 --dry-run
    bookdrop quarantine retry --all --why unknown_station --station north-desk-1 --expect 12
    """
    from tasks.quarantine.actions import retry

    chosen = _chosen(message, everything, why, station, queue, dry_run=dry_run, expect=expect)
    if dry_run:
        _show_number(chosen, as_json)
        return
    _act(retry, chosen, actor, reason, as_json)


@quarantine_group.command("drop")
@click.argument("message", type=int, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All messages that match --why, --station and --queue.")
@filters
@count_options
@click.option("--reason", required=True, help="Reason; recorded with the message.")
@actor_option
@json_option
def drop_command(
    message: tuple[int, ...],
    everything: bool,
    why: str | None,
    station: str | None,
    queue: str | None,
    dry_run: bool,
    expect: int | None,
    reason: str,
    actor: str | None,
    as_json: bool,
) -> None:
    """Drop messages. Their content is deleted at once; the record of receipt, operator and reason is kept.

    Example: bookdrop quarantine drop 17 --reason "sent by a test program"
    """
    from tasks.quarantine.actions import drop

    chosen = _chosen(message, everything, why, station, queue, dry_run=dry_run, expect=expect)
    if dry_run:
        _show_number(chosen, as_json)
        return
    _act(drop, chosen, actor, reason, as_json)


@quarantine_group.command("gather")
@json_option
def gather_command(as_json: bool) -> None:
    """Move the broker's dead letters into the quarantine now. Housekeeping does it every few seconds."""
    from sqlalchemy.exc import SQLAlchemyError

    from tasks.quarantine.maintenance import collect_dead_letters

    with acting() as context:
        try:
            count = collect_dead_letters(context)
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001 - any error of the transport
            raise click.ClickException(
                f"The broker is unavailable ({type(error).__name__}). No message is lost. Run 'bookdrop doctor' to find the cause."
            ) from None
    click.echo(json.dumps({"gathered": count}) if as_json else f"Dead letters gathered: {count}.")


def _chosen(
    given: tuple[int, ...],
    everything: bool,
    why: str | None,
    station: str | None,
    queue: str | None,
    *,
    dry_run: bool,
    expect: int | None,
) -> list[int]:
    """Return the ids of the selected messages. Raises `click.ClickException` if their number is not the expected one."""
    if bool(given) == everything:
        raise click.UsageError("Give either the numbers of messages or --all.")
    if not everything:
        if why or station or queue or dry_run or expect is not None:
            raise click.UsageError("--why, --station, --queue, --dry-run and --expect require --all.")
        return list(given)
    from tasks.quarantine.queries import MessageFilter, messages

    with reading() as connection:
        found = messages(connection, MessageFilter(reason=why, station=station, queue=queue, limit=10_000))
    chosen = [row["id"] for row in found if row["state"] == "kept"]  # not those that are requeued already
    if expect is not None and len(chosen) != expect and not dry_run:
        raise click.ClickException(f"{len(chosen)} messages match, not {expect}. Nothing was changed.")
    return chosen


def _show_number(chosen: list[int], as_json: bool) -> None:
    text = f"{len(chosen)} messages match. Nothing was changed."
    click.echo(json.dumps({"matching": len(chosen), "ids": chosen}) if as_json else text)


def _act(
    action: "Callable[[int, Operator, Context], str]",
    numbers: list[int],
    actor: str | None,
    reason: str | None,
    as_json: bool,
) -> None:
    from tasks.quarantine.actions import DecisionRefusedError

    results: list[dict[str, Any]] = []
    operator = command_operator(actor, reason)
    with acting() as context:
        for number in numbers:
            try:
                results.append({"id": number, "done": True, "message": action(number, operator, context)})
            except DecisionRefusedError as error:
                results.append({"id": number, "done": False, "message": f"{error} Nothing was changed."})
    if as_json:
        click.echo(to_json({"messages": results}))
    else:
        for result in results:
            click.echo(f"{result['id']:>6}  {result['message']}", err=not result["done"])
        if not results:
            click.echo("No message matches.")
    if not all(result["done"] for result in results):
        raise SystemExit(1)


def _printable(text: str) -> str:
    """The text as one line for the terminal; the stored body is not changed."""
    return text_lines(text).replace("\n", " ")
