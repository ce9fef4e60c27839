# SPDX-License-Identifier: Apache-2.0
"""`bookdrop health`: the liveness and readiness checks for a supervisor."""

import json

import click

from workers.commands.options import json_option


@click.group("health")
def health_group() -> None:
    """Check liveness and readiness of a worker, for a supervisor.

    Restart a worker that is not live. Do not route work or roll out to a worker that is not ready; restarting it does not
    help.
    """


@health_group.command("live")
@click.argument("role", type=click.Choice(["returns", "printing", "housekeeping"]))
@click.option(
    "--within",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=5),
    metavar="SECONDS",
    help="Maximum age of the last heartbeat; a worker emits one every 5 seconds.",
)
@json_option
def live_command(role: str, within: float, as_json: bool) -> None:
    """Check that the event loop of the worker of ROLE on this machine runs. Needs neither broker nor database.

    Reads the age of its heartbeat file (setting heartbeat_file), so run it with the worker's own settings. Two workers of
    one role on a machine need separate files.
    Exit codes: 0 it is alive; 1 it hangs, or there is no such worker.
    """
    from workers.heartbeat import age, heartbeat_file
    from workers.settings import WorkerSettings

    path = heartbeat_file(WorkerSettings.load(), role)
    since = age(path)
    is_live = since is not None and since <= within
    if as_json:
        click.echo(json.dumps({"live": is_live, "role": role, "heartbeat_age_seconds": since, "file": str(path)}))
    elif since is None:
        click.echo(f"There is no heartbeat of a {role} worker: no file {path}.")
    else:
        state = "is alive" if is_live else "hangs or has ended"
        click.echo(f"The {role} worker {state}: last heartbeat {since:.0f} s ago.")
    raise SystemExit(0 if is_live else 1)


@health_group.command("ready")
@json_option
def ready_command(as_json: bool) -> None:
    """Check that database and broker respond, and that the schema is up to date.

    Exit codes: 0 ready; 1 not ready.
    """
    from workers.doctor.checks import readiness

    findings = readiness()
    is_ready = all(finding.ok for finding in findings)
    if as_json:
        click.echo(json.dumps({"ready": is_ready, "findings": [finding.as_dict() for finding in findings]}))
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.ok else 'BAD '}{finding.part:<12}{finding.message}")
    raise SystemExit(0 if is_ready else 1)
