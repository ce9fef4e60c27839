# SPDX-License-Identifier: Apache-2.0
"""`bookdrop up`, `down` and `status`: the embedded default."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from workers.commands.options import json_option

if TYPE_CHECKING:
    from workers.settings import WorkerSettings

ALREADY_RUNNING = 3

home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Data directory (default: $BOOKDROP_HOME, or .bookdrop in the working folder).",
)


@click.command("up")
@home_option
@click.option("--flower/--no-flower", default=True, help="Start Flower on the loopback address.")
@click.option(
    "--flower-port",
    type=click.IntRange(0, 65535),
    help="Port of Flower (default: the setting flower_port, 5555); 0 for any free port.",
)
@click.option("--demo/--no-demo", default=True, help="Fill an empty database with demo data.")
@click.option("--stay", is_flag=True, help="Open no station; run until Ctrl-C or 'bookdrop down'.")
def up_command(home: Path | None, flower: bool, flower_port: int | None, demo: bool, stay: bool) -> None:
    """Run everything on this machine: Valkey, workers, Flower, and a station at this terminal.

    On a terminal, the station's prompt opens: scan or type a barcode, then press Enter. Otherwise the command scans the
    barcodes on standard input, one a line. If standard input is empty, it plays demo scans, shows the replies, waits for
    the slips and exits. A process that ends is restarted; if it ends again right after each start, the command stops
    everything and shows its error.

    \b
    Exit codes: 0 success; 1 a process did not start, or a slip was not printed;
                3 it already runs in this data directory.
    """
    from schemas.private_files import OTHERS
    from workers import logging
    from workers.embedded import demo as stations
    from workers.embedded import service
    from workers.embedded.data_dir import AlreadyRunningError, DataDirectory
    from workers.settings import WorkerSettings

    directory = DataDirectory(home) if home else DataDirectory.default()
    if flower and flower_port is None:
        flower_port = WorkerSettings.load().flower_port
    logging.configure("warning")
    os.umask(OTHERS)
    started = time.monotonic()
    try:
        with service.running(directory, flower_port=flower_port if flower else None, demo=demo) as embedded:
            click.echo(f"bookdrop is up after {time.monotonic() - started:.1f} s.  Slips: {directory.spool}", err=True)
            if embedded.flower_url:
                click.echo(f"Flower: {embedded.flower_url}   Logs: {directory.logs}", err=True)
            if embedded.taken_port:
                click.echo(
                    f"Another program has port {embedded.taken_port}, so Flower has another one."
                    " To choose it: --flower-port, or the setting flower_port.",
                    err=True,
                )
            if embedded.flower_login:
                name, password = embedded.flower_login
                click.echo(f"Flower login: {name}   Password: {password}", err=True)
            code = _wait() if stay else stations.run(embedded, sys.stdin)
    except AlreadyRunningError as error:
        click.echo(
            f"{error}, in {directory.path}.\nFor another station run 'bookdrop-station' in a second terminal."
            " 'bookdrop status' shows the processes, 'bookdrop down' stops them.",
            err=True,
        )
        code = ALREADY_RUNNING
    except service.StartError as error:
        click.echo(f"Error: {error}\nAll stored data is kept. Run 'bookdrop doctor' to find the cause.", err=True)
        code = 1
    except KeyboardInterrupt:
        click.echo("\nStopped. All scans are stored; 'bookdrop up' continues with them.", err=True)
        code = 0
    raise SystemExit(code)


def _wait() -> int:
    click.echo("Running until Ctrl-C.", err=True)
    signal.pause()
    return 0


@click.command("down")
@home_option
def down_command(home: Path | None) -> None:
    """Stop the processes that 'bookdrop up' started in this data directory, also those that a killed one left."""
    from workers.embedded.data_dir import DataDirectory
    from workers.embedded.service import end_leftover_processes

    directory = DataDirectory(home) if home else DataDirectory.default()
    if directory.is_running():
        pid = directory.load_state().pid
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while directory.is_running():
            if time.monotonic() > deadline:
                raise click.ClickException(f"Process {pid} does not end. Its logs are in {directory.logs}.")
            time.sleep(0.1)
        click.echo("Stopped. All scans are stored.")
        return
    ended = end_leftover_processes(directory) if directory.path.exists() else []
    click.echo(f"It was not running. Ended leftover processes: {', '.join(ended)}." if ended else "It was not running.")


@click.command("status")
@home_option
@json_option
def status_command(home: Path | None, as_json: bool) -> None:
    """Show the processes of bookdrop, and how many messages and slips wait.

    With a data directory of 'bookdrop up' (--home, BOOKDROP_HOME, or .bookdrop in the working folder): its processes. A
    worker hangs if its last heartbeat is more than 30 seconds old. Exit code 1 if nothing runs there.

    Without one: the workers that respond over the broker of the settings, wherever they run, as installed with systemd,
    containers or Kubernetes. Exit code 1 if a role has no worker, or if broker or database do not respond.
    """
    from workers.embedded.data_dir import DataDirectory
    from workers.embedded.supervisor import started_at
    from workers.supervision.heartbeat import STALE_SECONDS, age

    directory = DataDirectory(home) if home else DataDirectory.default()
    if home is None and "BOOKDROP_HOME" not in os.environ and not directory.path.exists():
        _show_installation(as_json)
    state = directory.load_state()
    is_up = directory.path.exists() and directory.is_running()
    processes = {
        name: {
            "pid": pid,
            "alive": started_at(pid) == since,
            "heartbeat_age_seconds": (beat := age(directory.path / f"{name}.heartbeat")),
            "hangs": beat is not None and beat > STALE_SECONDS,
        }
        for name, (pid, since) in state.children.items()
    }
    waiting = _waiting(directory.database_url) if (directory.path / "bookdrop.db").exists() else {}
    if as_json:
        report = {
            "running": is_up,
            "home": str(directory.path),
            "flower": state.flower if is_up else None,
            "processes": processes if is_up else {},
            "waiting": waiting,
        }
        click.echo(json.dumps(report, indent=2))
        raise SystemExit(0 if is_up else 1)
    click.echo(f"bookdrop is {'up' if is_up else 'not running'} in {directory.path}")
    if is_up:
        for name, process in processes.items():
            beat = process["heartbeat_age_seconds"]
            label = "ended" if not process["alive"] else "hangs" if process["hangs"] else "alive"
            click.echo(
                f"  {name:<14}{label:<7}process {process['pid']}"
                + (f", heartbeat {beat:.0f} s ago" if beat is not None else "")
            )
        click.echo(f"  Flower        {state.flower}")
    for name, number in waiting.items():
        click.echo(f"  {name.replace('_', ' ')}: {number}")
    raise SystemExit(0 if is_up else 1)


def _show_installation(as_json: bool) -> NoReturn:
    """Show the workers that respond, and what waits in the database of the settings; exit with 1 if a part is missing."""
    from sqlalchemy.exc import SQLAlchemyError

    from workers.metrics.heartbeats import ROLES, role_of
    from workers.settings import WorkerSettings

    settings = WorkerSettings.load()
    problems = []
    names: list[str] = []
    try:
        names = _responding_workers(settings)
    except Exception as error:  # noqa: BLE001 - any failure means the same, and the broker's errors vary by transport
        problems.append(f"The broker does not respond ({type(error).__name__}).")
    waiting: dict[str, int] = {}
    try:
        waiting = _waiting(settings.database_url)
    except SQLAlchemyError as error:
        problems.append(f"The database cannot be read ({type(error).__name__}).")
    by_role = {role: [name for name in names if role_of(name) == role] for role in ROLES}
    is_up = not problems and all(by_role.values())
    if as_json:
        report = {"running": is_up, "home": None, "workers": by_role, "waiting": waiting, "problems": problems}
        click.echo(json.dumps(report, indent=2))
        raise SystemExit(0 if is_up else 1)
    click.echo(f"bookdrop is {'up' if is_up else 'not complete'}; broker {settings.broker.scheme}")
    for role, found in by_role.items():
        click.echo(f"  {role:<14}{', '.join(found) or 'no worker responds'}")
    for name, number in waiting.items():
        click.echo(f"  {name.replace('_', ' ')}: {number}")
    for problem in problems:
        click.echo(f"  {problem}")
    if not is_up:
        click.echo("Run 'bookdrop doctor' to find the cause.")
    raise SystemExit(0 if is_up else 1)


def _responding_workers(settings: "WorkerSettings") -> list[str]:
    """Names of the workers that respond over the broker within two seconds."""
    from workers import bootstrap
    from workers.app import app
    from workers.doctor.workers import RESPONSE_TIMEOUT

    with bootstrap.connect(settings) as connection:
        connection.ensure_connection(max_retries=1, timeout=5)
        return sorted(app.control.inspect(timeout=RESPONSE_TIMEOUT, connection=connection).ping() or {})


def _waiting(database_url: str) -> dict[str, int]:
    """Count the waiting messages and slips in the database."""
    from sqlalchemy import func, select

    from schemas.database import READ_ONLY, open_engine
    from schemas.models import OutboxEntry, PrintJob, QuarantinedMessage
    from schemas.print_jobs import PrintState
    from tasks.quarantine.store import OPEN_STATES

    engine = open_engine(database_url)
    on_the_way = [PrintState.REQUESTED, PrintState.CLAIMED, PrintState.RENDERED, PrintState.SENDING]
    trouble = [PrintState.HELD, PrintState.FAILED_SAFE, PrintState.UNKNOWN]
    queries = {
        "messages_not_published": select(func.count()).select_from(OutboxEntry),
        "slips_on_the_way": select(func.count()).select_from(PrintJob).where(PrintJob.state.in_(on_the_way)),
        "slips_in_trouble": select(func.count()).select_from(PrintJob).where(PrintJob.state.in_(trouble)),
        "messages_in_quarantine": select(func.count())
        .select_from(QuarantinedMessage)
        .where(QuarantinedMessage.state.in_(OPEN_STATES)),
    }
    try:
        with engine.connect().execution_options(**READ_ONLY) as connection:
            return {name: connection.execute(query).scalar_one() for name, query in queries.items()}
    finally:
        engine.dispose()
