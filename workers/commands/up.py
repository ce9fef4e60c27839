# SPDX-License-Identifier: Apache-2.0
"""`bookdrop up`, `down` and `status`: the embedded default."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import click

ALREADY_RUNNING = 3

home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of everything it keeps (default: $BOOKDROP_HOME, or .bookdrop here).",
)


@click.command("up")
@home_option
@click.option("--flower/--no-flower", default=True, help="Start Flower on the loopback address.")
@click.option("--demo/--no-demo", default=True, help="Fill an empty database with demo data.")
@click.option("--stay", is_flag=True, help="No desk: keep everything running until Ctrl-C or 'bookdrop down'.")
def up_command(home: Path | None, flower: bool, demo: bool, stay: bool) -> None:
    """Run everything on this machine: server, workers, Flower, and a desk at this terminal.

    With a terminal you get a station's prompt: scan or type a barcode, then Enter.
    Without one, barcodes are read from standard input, one a line; if that is empty, demo scans are played,
    their outcomes shown, and the command ends when the slips are out.

    \b
    Exit codes: 0 all well; 1 a part did not come up, or a slip did not come out;
                3 it runs in this folder already.
    """
    from workers.embedded import service
    from workers.embedded.data_dir import AlreadyRunningError, DataDirectory
    from workers.embedded.demo import play

    place = DataDirectory(home) if home else DataDirectory.default()
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    try:
        with service.running(place, flower=flower, demo=demo) as parts:
            click.echo(f"bookdrop is up after {time.monotonic() - started:.1f} s.  Slips: {place.spool}", err=True)
            if parts.flower:
                click.echo(f"Flower: {parts.flower}   Logs: {place.logs}", err=True)
            if parts.login:
                name, password = parts.login
                click.echo(f"Flower login: {name}   Password: {password}", err=True)
            code = _wait() if stay else play(parts, sys.stdin)
    except AlreadyRunningError as error:
        click.echo(
            f"{error}, in {place.path}.\nFor another desk run 'bookdrop-station' in a second terminal;"
            " 'bookdrop status' shows what runs, 'bookdrop down' stops it.",
            err=True,
        )
        code = ALREADY_RUNNING
    except service.StartError as error:
        click.echo(f"Error: {error}\nWhat was stored is kept. Run 'bookdrop doctor' to find out more.", err=True)
        code = 1
    except KeyboardInterrupt:
        click.echo("\nStopped. What was scanned is kept; 'bookdrop up' goes on from here.", err=True)
        code = 0
    raise SystemExit(code)


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _wait() -> int:
    click.echo("Running until Ctrl-C.", err=True)
    signal.pause()
    return 0


@click.command("down")
@home_option
def down_command(home: Path | None) -> None:
    """Stop what 'bookdrop up' started in this folder, in order; clear what a killed one left behind."""
    from workers.embedded.data_dir import DataDirectory
    from workers.embedded.service import clear_leftovers

    place = DataDirectory(home) if home else DataDirectory.default()
    if place.is_running():
        pid = place.remembered().pid
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while place.is_running():
            if time.monotonic() > deadline:
                raise click.ClickException(f"Process {pid} does not end. Its logs are in {place.logs}.")
            time.sleep(0.1)
        click.echo("Stopped. Everything that was scanned is kept.")
        return
    left = clear_leftovers(place) if place.path.exists() else []
    click.echo(f"It was not running; cleared what was left over: {', '.join(left)}." if left else "It was not running.")


@click.command("status")
@home_option
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def status_command(home: Path | None, as_json: bool) -> None:
    """Show what runs in this folder, and how many events and slips wait.

    A worker "hangs" when its last heartbeat is over 30 seconds old. Exit code 1 when nothing runs here.
    """
    from workers.embedded.data_dir import DataDirectory
    from workers.embedded.supervisor import started_at
    from workers.heartbeat import STALE_SECONDS, age

    place = DataDirectory(home) if home else DataDirectory.default()
    state = place.remembered()
    is_up = place.path.exists() and place.is_running()
    children = {
        name: {
            "pid": pid,
            "alive": started_at(pid) == since,
            "heartbeat_age_seconds": (beat := age(place.path / f"{name}.heartbeat")),
            "hangs": beat is not None and beat > STALE_SECONDS,
        }
        for name, (pid, since) in state.children.items()
    }
    report = {
        "running": is_up,
        "home": str(place.path),
        "flower": state.flower if is_up else None,
        "processes": children if is_up else {},
        "waiting": _waiting(place.database_url) if (place.path / "bookdrop.db").exists() else {},
    }
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo(f"bookdrop is {'up' if is_up else 'not running'} in {place.path}")
        if is_up:
            for name, child in children.items():
                beat = child["heartbeat_age_seconds"]
                words = "gone" if not child["alive"] else "hangs" if child["hangs"] else "alive"
                click.echo(
                    f"  {name:<14}{words:<7}process {child['pid']}"
                    + (f", heartbeat {beat:.0f} s ago" if beat is not None else "")
                )
            click.echo(f"  Flower        {state.flower}")
        for what, number in _dict(report["waiting"]).items():
            click.echo(f"  {what.replace('_', ' ')}: {number}")
    raise SystemExit(0 if is_up else 1)


def _dict(value: object) -> dict[str, int]:
    return value if isinstance(value, dict) else {}


def _waiting(database_url: str) -> dict[str, int]:
    """How much waits in the database."""
    from sqlalchemy import func, select

    from schemas.database import READ_ONLY, open_engine
    from schemas.models import OutboxEntry, PrintJob, QuarantinedMessage
    from schemas.print_jobs import PrintState

    engine = open_engine(database_url)
    unsettled = [PrintState.REQUESTED, PrintState.CLAIMED, PrintState.RENDERED, PrintState.SENDING]
    trouble = [PrintState.HELD, PrintState.FAILED_SAFE, PrintState.UNKNOWN]
    questions = {
        "messages_not_published": select(func.count()).select_from(OutboxEntry),
        "slips_on_the_way": select(func.count()).select_from(PrintJob).where(PrintJob.state.in_(unsettled)),
        "slips_in_trouble": select(func.count()).select_from(PrintJob).where(PrintJob.state.in_(trouble)),
        "messages_in_quarantine": select(func.count()).select_from(QuarantinedMessage),
    }
    try:
        with engine.connect().execution_options(**READ_ONLY) as connection:
            return {name: connection.execute(question).scalar_one() for name, question in questions.items()}
    finally:
        engine.dispose()
