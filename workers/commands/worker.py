# SPDX-License-Identifier: Apache-2.0
"""`bookdrop worker ROLE`: Celery's worker, with the queues and the pool of its role."""

import os
import socket

import click


@click.command("worker")
@click.argument("role", type=click.Choice(["returns", "printing", "housekeeping"]))
@click.option(
    "--branch",
    "branches",
    multiple=True,
    metavar="CODE",
    help="Branch to print for; may be repeated. Only for role printing; without it, every branch of the database.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    help="Processes of this worker (default: the setting concurrency for returns, 1 else).",
)
def worker_command(role: str, branches: tuple[str, ...], concurrency: int | None) -> None:
    """Run a worker of ROLE until it is told to end (TERM finishes what is in hand).

    \b
    returns        takes scans, performs the Return, answers
    printing       prints the slips of its branches, one at a time
    housekeeping   sweeps what is due (run one; a second does no harm, but does nothing either)

    Example: bookdrop worker printing --branch main --branch north
    """  # fmt: skip
    os.environ["BOOKDROP_ROLE"] = role
    from schemas import topology
    from workers.app import app
    from workers.settings import WorkerSettings

    settings = WorkerSettings.load()
    name = role
    options: list[str] = []
    match role:
        case "returns":
            queues = [topology.RETURNS_QUEUE]
            options += ["--pool", "prefork", "--concurrency", str(concurrency or settings.concurrency)]
        case "printing":
            found = list(branches) or _branches(settings.database_url)
            if not found:
                raise click.ClickException(
                    "There is no branch to print for. Import branches first, or name one with --branch CODE."
                )
            queues = [*(topology.printing_queue(branch) for branch in found), topology.PRINT_ACTIONS_QUEUE]
            name = f"printing-{branches[0]}" if len(branches) == 1 else "printing"
            options += _few(concurrency)
        case _:
            queues = [topology.HOUSEKEEPING_QUEUE]
            # Beat inside a solo worker would starve behind its tasks; as a thread beside them it does not.
            options += [
                "--beat",
                "--pool",
                "threads",
                "--concurrency",
                str(concurrency or 2),
            ]
    app.worker_main(
        [
            "worker",
            *("--queues", ",".join(queues)),
            *("--hostname", f"{name}@{socket.gethostname()}"),
            *("--loglevel", settings.log_level),
            "--without-gossip",
            "--without-mingle",
            *options,
        ]
    )


def _few(concurrency: int | None) -> list[str]:
    return ["--pool", "prefork", "--concurrency", str(concurrency or 1)]


def _branches(database_url: str) -> list[str]:
    from sqlalchemy import select

    from schemas.database import READ_ONLY, open_engine
    from schemas.models import Branch

    engine = open_engine(database_url)
    try:
        with engine.connect().execution_options(**READ_ONLY) as connection:
            return list(connection.execute(select(Branch.code).order_by(Branch.code)).scalars())
    finally:
        engine.dispose()
