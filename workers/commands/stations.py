# SPDX-License-Identifier: Apache-2.0
"""`bookdrop stations`: list, add, disable and enable stations, and rotate their keys."""

import json
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from workers.commands.options import json_option
from workers.commands.sessions import acting, reading

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

Result = TypeVar("Result")

KEY_BYTES: Final = 32
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


class DurationType(click.ParamType[timedelta]):
    """A number of minutes, hours or days, for example 90m, 72h or 3d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Parse the text. The longest overlap is that of `tasks.stations.keys`."""
        from tasks.stations.keys import MAX_OVERLAP

        match = re.fullmatch(r"([0-9]{1,6})([mhd])", str(value))
        if match is None:
            self.fail(f"{value!r} is not a duration; write it as 90m, 72h or 3d", param, ctx)
        duration = timedelta(**{_UNITS[match[2]]: int(match[1])})
        if not timedelta(0) < duration <= MAX_OVERLAP:
            self.fail(f"{value} is not between 1m and {MAX_OVERLAP.days}d; --now ends the previous key", param, ctx)
        return duration


@click.group("stations")
def stations_group() -> None:
    """List, add, disable and enable stations, and rotate their keys.

    A station and the workers share a key. The station signs its events with it, and the workers sign the replies.

    Exit codes: 0 done; 1 refused, nothing was changed; 2 usage error.
    """


@stations_group.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the stations: branch, printer, age of the key, end of an overlap, last event. No key is shown.

    A station has two valid keys until the end of its overlap. The time of the last event is that of its receipt.
    """
    from tasks.stations.administration import format_utc
    from tasks.stations.queries import stations

    now = datetime.now(UTC)
    with reading() as connection:
        found = stations(connection, now)
    if as_json:
        click.echo(json.dumps({"stations": [_record(row, now) for row in found]}, indent=2))
        return
    for row in found:
        age = "unknown" if row["key_since"] is None else _age(now - row["key_since"])
        notes = [f"key age {age}", f"last event {format_utc(row['last_event_at'])}"]
        notes += [f"previous key valid until {format_utc(row['overlap_until'])}"] if row["overlap_until"] else []
        state = "enabled" if row["enabled"] else "disabled"
        click.echo(f"{row['station']:<20}{row['branch']:<12}{row['printer'] or '-':<16}{state:<10}{', '.join(notes)}")
    if not found:
        click.echo("No station is registered. Add one: bookdrop stations add CODE --branch BRANCH")


@stations_group.command("add")
@click.argument("station", metavar="CODE")
@click.option("--branch", required=True, metavar="CODE", help="Branch of the station.")
@click.option("--printer", metavar="CODE", help="Printer of its slips, if not the default printer of the branch.")
@json_option
def add_command(station: str, branch: str, printer: str | None, as_json: bool) -> None:
    """Add a station with a generated key, and print its settings. The key is shown only now.

    \b
    Example: bookdrop stations add main-desk-1 --branch main
    Next:    put the settings on the station's machine, and give it a user of the broker:
             bookdrop acl redis --help, bookdrop acl rabbitmq --help
    """
    from tasks.stations.administration import add_station

    key = secrets.token_hex(KEY_BYTES)
    _change(lambda session, now: add_station(session, now, code=station, branch=branch, printer=printer, key=key))
    settings = {
        "BOOKDROP_STATION_CODE": station,
        "BOOKDROP_STATION_KEY": key,
        "BOOKDROP_STATION_REQUIRE_SIGNED_REPLIES": "true",
    }
    if as_json:
        click.echo(
            json.dumps({"station": station, "branch": branch, "printer": printer, "settings": settings}, indent=2)
        )
        return
    click.echo(f"Station {station} is added. Its settings; the key is shown only now:")
    for name, value in settings.items():
        click.echo(f"{name}={value}")


@stations_group.command("rotate-key")
@click.argument("station", metavar="CODE")
@click.option(
    "--overlap",
    type=DurationType(),
    metavar="DURATION",
    help="Time in which the previous key is still valid, for example 90m, 72h or 3d (default: 72h, at most 30d).",
)
@click.option("--now", "at_once", is_flag=True, help="End every earlier key at once, for example of a stolen machine.")
@json_option
def rotate_key_command(station: str, overlap: timedelta | None, at_once: bool, as_json: bool) -> None:
    """Give a station a new generated key, and print it. The key is shown only now.

    Both keys are valid until the end of the overlap. Put the new key on the station's machine and restart the station
    before that: it signs the scans that wait in its journal again. The previous key is erased after the overlap.

    \b
    Example: bookdrop stations rotate-key main-desk-1
             bookdrop stations rotate-key main-desk-1 --overlap 7d
             bookdrop stations rotate-key main-desk-1 --now

    With --now the station's scans wait in its journal until it has the new key; none is lost if the station requires
    signed replies.
    """
    from tasks.stations.administration import format_utc, rotate_key
    from tasks.stations.keys import DEFAULT_OVERLAP

    if at_once and overlap is not None:
        raise click.UsageError("--now has no overlap. Name one of --now and --overlap. Nothing was changed.")
    duration = timedelta(0) if at_once else overlap or DEFAULT_OVERLAP
    key = secrets.token_hex(KEY_BYTES)
    until = _change(lambda session, now: rotate_key(session, now, station, key, duration))
    if as_json:
        end = None if until is None else until.isoformat(timespec="seconds")
        click.echo(json.dumps({"station": station, "key": key, "previous_key_valid_until": end}, indent=2))
        return
    click.echo(f"Station {station} has a new key, shown only now:")
    click.echo(f"BOOKDROP_STATION_KEY={key}")
    if until is None:
        click.echo("No earlier key is valid any more. Configure this one on the station, and restart it.")
    else:
        click.echo(
            f"The previous key is valid until {format_utc(until)}. Configure the new one on the station, and restart it,"
            " before that."
        )


@stations_group.command("disable")
@click.argument("station", metavar="CODE")
@json_option
def disable_command(station: str, as_json: bool) -> None:
    """Refuse all events of a station, with each of its keys. Its code, its key and its history stay.

    Example: bookdrop stations disable main-desk-1
    """
    _set_active(station, active=False, as_json=as_json)


@stations_group.command("enable")
@click.argument("station", metavar="CODE")
@json_option
def enable_command(station: str, as_json: bool) -> None:
    """Accept the events of a disabled station again. After a theft rotate its key first.

    Example: bookdrop stations enable main-desk-1
    """
    _set_active(station, active=True, as_json=as_json)


def _set_active(station: str, *, active: bool, as_json: bool) -> None:
    from tasks.stations.administration import set_active

    changed = _change(lambda session, _now: set_active(session, station, active=active))
    state = "enabled" if active else "disabled"
    if as_json:
        click.echo(json.dumps({"station": station, "enabled": active, "changed": changed}))
        return
    click.echo(f"Station {station} is {state}." if changed else f"Station {station} is {state} already.")
    if changed and not active:
        click.echo(
            f"Its broker user still exists: see 'bookdrop acl'. To enable it: bookdrop stations enable {station}"
        )


def _change(change: "Callable[[Session, datetime], Result]") -> "Result":
    from tasks.stations.administration import RefusedStationError

    with acting() as context:
        try:
            with context.unit_of_work() as uow:
                return change(uow.session, uow.now)
        except RefusedStationError as error:
            raise click.ClickException(f"{error} Nothing was changed.") from None


def _record(row: dict[str, Any], now: datetime) -> dict[str, Any]:
    """The row as JSON, with the age of the key in seconds."""
    record = {
        name: value.isoformat(timespec="seconds") if isinstance(value, datetime) else value
        for name, value in row.items()
    }
    since = row["key_since"]
    return {**record, "key_age_seconds": None if since is None else int((now - since).total_seconds())}


def _age(span: timedelta) -> str:
    """A duration for operators: days, hours or minutes."""
    if span >= timedelta(days=1):
        return f"{span.days} d"
    minutes = int(span.total_seconds()) // 60
    return f"{minutes // 60} h" if minutes >= 60 else f"{minutes} min"  # noqa: PLR2004 - minutes of an hour
