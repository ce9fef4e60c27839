# SPDX-License-Identifier: Apache-2.0
"""`bookdrop health`: the two questions of a supervisor."""

import json

import click

json_option = click.option("--json", "as_json", is_flag=True, help="For scripts.")


@click.group("health")
def health_group() -> None:
    """Answer a supervisor: is this worker alive; is everything there that it needs.

    Restart a worker that is not live. Send no work, and start no roll-out, where it is not ready; restarting helps nothing.
    """


@health_group.command("live")
@click.argument("role", type=click.Choice(["returns", "printing", "housekeeping"]))
@click.option(
    "--within",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=5),
    metavar="SECONDS",
    help="How old the last heartbeat may be; a worker beats every 5 seconds.",
)
@json_option
def live_command(role: str, within: float, as_json: bool) -> None:
    """Tell whether the main loop of the worker of ROLE on this machine turns. Asks neither broker nor database.

    Looks at its heartbeat file (setting heartbeat_file), so run it with the worker's own settings. Two workers of one
    role on a machine need a file each.
    Exit codes: 0 it is alive; 1 it hangs, or there is none.
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
        click.echo(
            f"The {role} worker {'is alive' if is_live else 'hangs or is gone'}: last heartbeat {since:.0f} s ago."
        )
    raise SystemExit(0 if is_live else 1)


@health_group.command("ready")
@json_option
def ready_command(as_json: bool) -> None:
    """Tell whether broker and database answer and the tables are up to date.

    Exit codes: 0 all is there; 1 something is not.
    """
    from workers.doctor.checks import readiness

    findings = readiness()
    if as_json:
        is_ready = all(finding.good for finding in findings)
        click.echo(json.dumps({"ready": is_ready, "findings": [finding.as_dict() for finding in findings]}))
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.good else 'BAD '}{finding.part:<12}{finding.words}")
    raise SystemExit(0 if all(finding.good for finding in findings) else 1)
