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

    Reads the age of its heartbeat file, so run it with the worker's own settings. With several workers of ROLE on this
    machine each has to be alive; with the setting heartbeat_file the check concerns the worker with that file alone.
    Exit codes: 0 it is alive; 1 it hangs, or there is no such worker.
    """
    from workers.settings import WorkerSettings
    from workers.supervision.heartbeat import age, heartbeat_files

    ages = {path: age(path) for path in heartbeat_files(WorkerSettings.load(), role)}
    path, since = max(ages.items(), key=lambda each: each[1] or 0.0)
    is_live = since is not None and since <= within
    if as_json:
        found = {"live": is_live, "role": role, "heartbeat_age_seconds": since, "file": str(path)}
        workers = [{"file": str(each), "heartbeat_age_seconds": of_each} for each, of_each in ages.items()]
        click.echo(json.dumps({**found, "workers": workers}))
    elif since is None:
        click.echo(f"There is no heartbeat of a {role} worker: no file {path}.")
    elif len(ages) > 1 and is_live:
        click.echo(f"The {len(ages)} {role} workers are alive: last heartbeats at most {since:.0f} s ago.")
    elif len(ages) > 1:
        click.echo(
            f"A {role} worker hangs or has ended: the last heartbeat in {path} is {since:.0f} s old. If it was killed and"
            " does not run any more, delete that file."
        )
    else:
        state = "is alive" if is_live else "hangs or has ended"
        click.echo(f"The {role} worker {state}: last heartbeat {since:.0f} s ago.")
    raise SystemExit(0 if is_live else 1)


@health_group.command("ready")
@json_option
def ready_command(as_json: bool) -> None:
    """Check that database and broker respond, that the broker accepts messages, and that the schema is up to date.

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
