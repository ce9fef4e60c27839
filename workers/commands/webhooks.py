# SPDX-License-Identifier: Apache-2.0
"""`bookdrop webhooks`: endpoints of other systems, their secrets, and what was sent to them."""

import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from workers.commands.options import actor_option, command_operator, json_option
from workers.commands.sessions import acting, reading
from workers.commands.stations import DurationType

if TYPE_CHECKING:
    from tasks.context import Context
    from tasks.unit_of_work import UnitOfWork

Result = TypeVar("Result")

SECRET_BYTES: Final = 32
NOT_DELIVERED: Final = 3

number_argument = click.argument("number", metavar="NUMBER", type=click.IntRange(1, 2**31 - 1))


class EventType(click.ParamType[str]):
    """A type of event of `schemas.webhook_messages.WebhookType`."""

    name = "type"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse other texts, and name the types."""
        from schemas.webhook_messages import WebhookType

        if value not in set(WebhookType):
            self.fail(f"{value!r} is not a type of event; the types are {', '.join(WebhookType)}", param, ctx)
        return str(value)


@click.group("webhooks")
def webhooks_group() -> None:
    """Send every discharge, Return and undo to another system, until it acknowledges.

    bookdrop sends each event as a signed HTTPS request in the form of Standard Webhooks. A housekeeping worker sends
    them and retries. The messages contain no patron.

    Exit codes: 0 done; 1 refused, nothing was changed; 2 usage error; 3 a test message was not acknowledged.
    """


@webhooks_group.command("add")
@click.argument("url")
@click.option("--event", "types", type=EventType(), multiple=True, metavar="TYPE",
              help="Send events of this type only, for example request.returned; repeatable. Default: all.")  # fmt: skip
@click.option("--allow-http", is_flag=True,
              help="Permit http://, without encryption, to an address of this machine or of a private network.")  # fmt: skip
@actor_option
@json_option
def add_command(url: str, types: tuple[str, ...], allow_http: bool, actor: str | None, as_json: bool) -> None:
    """Add an endpoint with a generated secret, and print both. The secret is shown only now.

    The endpoint receives the events from now on. The URL contains no user and no password.

    \b
    Example: bookdrop webhooks add https://ils.example.org/bookdrop
             bookdrop webhooks add https://ils.example.org/bookdrop --event request.returned --event return.undone
    Next:    configure the secret in the other system, then: bookdrop webhooks test 1
    """
    from tasks.webhooks.administration import add_endpoint

    by = command_operator(actor, None)
    secret = _new_secret()
    number = _change(lambda uow, _: add_endpoint(uow, by, url=url, types=types, plain_http=allow_http, secret=secret))
    if as_json:
        click.echo(json.dumps({"endpoint": number, "secret": secret, "types": sorted(set(types))}, indent=2))
        return
    click.echo(f"Endpoint {number} is added. Its secret, shown only now:")
    click.echo(secret)
    click.echo(f"Configure it in the other system, then run: bookdrop webhooks test {number}")


@webhooks_group.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the endpoints: state, pending and failed messages, the last failure. No secret is shown.

    Queries of URLs are not shown either, because they may contain a token.
    """
    from tasks.webhooks.queries import endpoints

    with reading() as connection:
        found = endpoints(connection, datetime.now(UTC))
    if as_json:
        click.echo(json.dumps({"endpoints": [_record(row) for row in found]}, indent=2))
        return
    for row in found:
        click.echo(
            f"{row['endpoint']:>3}  {_state(row):<10}{row['pending']:>6} pending {row['failed']:>6} failed  {row['url']}"
        )
        if row["trouble"]:
            click.echo(f"     the endpoint {row['trouble']}")
    if not found:
        click.echo("There is no endpoint. Add one: bookdrop webhooks add URL")


@webhooks_group.command("show")
@number_argument
@json_option
def show_command(number: int, as_json: bool) -> None:
    """Show an endpoint, and who changed it. No secret is shown."""
    from tasks.stations.administration import format_utc
    from tasks.webhooks.queries import changes, endpoints

    with reading() as connection:
        found = endpoints(connection, datetime.now(UTC), number)
        history = changes(connection, number)
    if not found:
        raise click.ClickException(f"There is no endpoint {number}. 'bookdrop webhooks list' shows the numbers.")
    [row] = found
    if as_json:
        click.echo(json.dumps({**_record(row), "history": [_record(line) for line in history]}, indent=2))
        return
    click.echo(f"Endpoint {number}: {row['url']}")
    click.echo(f"State:          {_state(row)}{' (410 Gone)' if row['disabled_because'] == 'gone' else ''}")
    click.echo(f"Events:         {', '.join(row['types']) or 'all'}")
    click.echo(f"Messages:       {row['pending']} pending, {row['failed']} failed")
    click.echo(f"Oldest pending: {format_utc(row['oldest_pending_at'])}")
    click.echo(f"Last delivered: {format_utc(row['last_delivered_at'])}")
    click.echo(f"Secret since:   {format_utc(row['secret_since'])}")
    if row["overlap_until"]:
        click.echo(f"Overlap until:  {format_utc(row['overlap_until'])}: messages have two signatures")
    if row["trouble"]:
        click.echo(f"Last failure:   the endpoint {row['trouble']}")
    if row["retry_at"]:
        click.echo(f"Next attempt:   {format_utc(row['retry_at'])}")
    for line in history:
        click.echo(f"{format_utc(line['at'])}  {line['action'].replace('_', ' ')} by {line['by']}")


@webhooks_group.command("test")
@number_argument
@json_option
def test_command(number: int, as_json: bool) -> None:
    """Send a test message (webhook.test) now, once, and print the response. It is not stored and not retried.

    \b
    Exit codes: 0 acknowledged; 1 there is no such endpoint; 3 not acknowledged.
    """
    from tasks.webhooks.administration import RefusedEndpointError
    from tasks.webhooks.delivery import send_test
    from tasks.webhooks.policy import Result

    with acting() as context:
        try:
            attempt = send_test(context, number)
        except RefusedEndpointError as error:
            raise click.ClickException(str(error)) from None
    is_acknowledged = attempt.result is Result.ACKNOWLEDGED
    if as_json:
        report = {"endpoint": number, "acknowledged": is_acknowledged, "status": attempt.status, "error": attempt.error}
        click.echo(json.dumps(report, indent=2))
    elif is_acknowledged:
        click.echo(f"Endpoint {number} acknowledged the test message with HTTP {attempt.status}.")
    else:
        click.echo(f"Not acknowledged: endpoint {number} {attempt.error}. Nothing was changed.")
    raise SystemExit(0 if is_acknowledged else NOT_DELIVERED)


@webhooks_group.command("rotate-secret")
@number_argument
@click.option("--overlap", type=DurationType(), metavar="DURATION",
              help="Time in which messages have a signature with the previous secret as well, for example 90m, 72h or 3d"
              " (default: 72h, at most 30d).")  # fmt: skip
@click.option("--now", "at_once", is_flag=True, help="Sign with the new secret only, for example after a theft.")
@actor_option
@json_option
def rotate_secret_command(
    number: int, overlap: timedelta | None, at_once: bool, actor: str | None, as_json: bool
) -> None:
    """Give an endpoint a new generated secret, and print it. The secret is shown only now.

    Until the end of the overlap each message has two signatures, one with each secret. Configure the new secret in the
    other system before that. The previous secret is erased after the overlap.

    \b
    Example: bookdrop webhooks rotate-secret 1
             bookdrop webhooks rotate-secret 1 --now
    """
    from tasks.stations.administration import format_utc
    from tasks.stations.keys import DEFAULT_OVERLAP
    from tasks.webhooks.administration import rotate_secret

    if at_once and overlap is not None:
        raise click.UsageError("--now has no overlap. Name one of --now and --overlap. Nothing was changed.")
    by = command_operator(actor, None)
    secret = _new_secret()
    duration = timedelta(0) if at_once else overlap or DEFAULT_OVERLAP
    until = _change(lambda uow, _: rotate_secret(uow, by, number, secret, duration))
    if as_json:
        end = None if until is None else until.isoformat(timespec="seconds")
        click.echo(json.dumps({"endpoint": number, "secret": secret, "previous_secret_valid_until": end}, indent=2))
        return
    click.echo(f"Endpoint {number} has a new secret, shown only now:")
    click.echo(secret)
    if until is None:
        click.echo("Messages are signed with it alone. They are refused until the other system has it, and sent again.")
    else:
        click.echo(f"Messages are signed with the previous secret as well until {format_utc(until)}.")


@webhooks_group.command("disable")
@number_argument
@actor_option
@json_option
def disable_command(number: int, actor: str | None, as_json: bool) -> None:
    """Send nothing more to an endpoint. Its pending messages stay, and later events are not lost.

    Example: bookdrop webhooks disable 1
    """
    from tasks.webhooks.administration import disable

    by = command_operator(actor, None)
    changed = _change(lambda uow, _: disable(uow, by, number))
    if as_json:
        click.echo(json.dumps({"endpoint": number, "enabled": False, "changed": changed}))
        return
    click.echo(f"Endpoint {number} is disabled." if changed else f"Endpoint {number} is disabled already.")


@webhooks_group.command("enable")
@number_argument
@click.option("--from-now", is_flag=True, help="Send only events from now on; pending messages become failed.")
@actor_option
@json_option
def enable_command(number: int, from_now: bool, actor: str | None, as_json: bool) -> None:
    """Send to a disabled endpoint again: first all events since it was disabled, in order.

    An endpoint that responds with 410 Gone is disabled automatically.

    \b
    Example: bookdrop webhooks enable 1
             bookdrop webhooks enable 1 --from-now
    """
    from tasks.webhooks.administration import enable

    by = command_operator(actor, None)
    skipped = _change(lambda uow, context: enable(uow, by, number, context.webhooks, skip=from_now))
    if as_json:
        report = {"endpoint": number, "enabled": True, "changed": skipped is not None, "skipped": skipped or 0}
        click.echo(json.dumps(report))
        return
    if skipped is None:
        click.echo(f"Endpoint {number} is enabled already. Nothing was changed.")
    else:
        click.echo(f"Endpoint {number} is enabled.{f' {skipped} pending messages are skipped.' if from_now else ''}")


@webhooks_group.command("deliveries")
@number_argument
@click.option("--state", "states", type=click.Choice(["pending", "delivered", "failed"]), multiple=True,
              help="Only deliveries in this state; repeatable.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Largest number of rows.")
@json_option
def deliveries_command(number: int, states: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List the deliveries to an endpoint, newest event first: state, attempts, last response.

    Example: bookdrop webhooks deliveries 1 --state failed
    """
    from tasks.stations.administration import format_utc
    from tasks.webhooks.queries import deliveries

    with reading() as connection:
        found = deliveries(connection, number, states, limit)
    if as_json:
        click.echo(json.dumps({"deliveries": [_record(row) for row in found]}, indent=2))
        return
    for row in found:
        due = f", next attempt {format_utc(row['next_attempt_at'])}" if row["next_attempt_at"] else ""
        cause = f", the endpoint {row['error']}" if row["error"] else ""
        click.echo(
            f"{row['delivery']:>8}  {format_utc(row['created_at'])}  {row['state']:<10}{row['type']:<22}"
            f"{row['attempts']} {'attempt' if row['attempts'] == 1 else 'attempts'}{cause}{due}"
        )
    if not found:
        click.echo(f"There is no such delivery to endpoint {number}.")


@webhooks_group.command("retry")
@number_argument
@click.argument("deliveries", metavar="[DELIVERY]...", nargs=-1, type=click.IntRange(1, 2**62))
@actor_option
@json_option
def retry_command(number: int, deliveries: tuple[int, ...], actor: str | None, as_json: bool) -> None:
    """Send failed and delayed messages of an endpoint again now: all, or the deliveries named.

    A housekeeping worker sends them, with the same ids. A failed message may arrive after later ones of its request: the
    receiver compares 'cursor'.

    \b
    Example: bookdrop webhooks retry 1
             bookdrop webhooks retry 1 4711 4712
    """
    from tasks.webhooks.administration import retry

    by = command_operator(actor, None)
    count = _change(lambda uow, context: retry(uow, by, context.webhooks, number=number, deliveries=deliveries))
    if as_json:
        click.echo(json.dumps({"endpoint": number, "retried": count}))
        return
    click.echo(f"{count} messages to endpoint {number} are due now." if count else "There is nothing to retry.")


def _change(change: "Callable[[UnitOfWork, Context], Result]") -> "Result":
    from tasks.webhooks.administration import RefusedEndpointError

    with acting() as context:
        try:
            with context.unit_of_work() as uow:
                return change(uow, context)
        except RefusedEndpointError as error:
            raise click.ClickException(f"{error} Nothing was changed.") from None


def _new_secret() -> str:
    from schemas.webhook_signature import format_secret

    return format_secret(secrets.token_bytes(SECRET_BYTES))


def _state(row: dict[str, Any]) -> str:
    if not row["enabled"]:
        return "disabled"
    return "failing" if row["failures"] else "enabled"


def _record(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat(timespec="seconds") if isinstance(value, datetime) else value
        for name, value in row.items()
    }
