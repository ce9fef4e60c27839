# SPDX-License-Identifier: Apache-2.0
"""`bookdrop worker ROLE`: Celery's worker with the queues and the pool of its role."""

import os
import socket

import click

PRINTING_PROCESSES = 4
"""A printer that does not respond holds two processes at most, until a deadline: one that prints and one that polls. The
others print on other printers meanwhile."""


@click.command("worker")
@click.argument("role", type=click.Choice(["returns", "printing", "housekeeping"]))
@click.option(
    "--branch",
    "branches",
    multiple=True,
    metavar="CODE",
    help="Branch whose slips it prints; repeatable. For role printing only. Default: every branch of the database.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    help="Processes of the pool (default: the setting concurrency for returns, 4 for printing), or threads (housekeeping, 2).",
)
def worker_command(role: str, branches: tuple[str, ...], concurrency: int | None) -> None:
    """Run a worker of ROLE until TERM, which lets it finish its running tasks.

    \b
    returns        processes scans, performs the Return, publishes the reply
    printing       prints the slips of its branches, one at a time on each printer
    housekeeping   sweeps outbox, print jobs and quarantine; one is enough, a second one is harmless

    Workers of one role may run beside each other, also on one machine: their names are ROLE@HOST, ROLE@HOST_2 and so on.

    Example: bookdrop worker printing --branch main --branch north
    """  # fmt: skip
    os.environ["BOOKDROP_ROLE"] = role
    from schemas import topology
    from schemas.private_files import OTHERS
    from workers.app import app
    from workers.settings import WorkerSettings
    from workers.supervision import heartbeat
    from workers.supervision.node_name import NoNodeNameError, node_name

    settings = WorkerSettings.load()
    name = role
    options: list[str] = []
    match role:
        case "returns":
            queues = [topology.RETURNS_QUEUE]
            options += ["--pool", "prefork", "--concurrency", str(concurrency or settings.concurrency)]
        case "printing":
            codes = list(branches) or _branches(settings.database_url)
            if not codes:
                raise click.ClickException(
                    "The database has no branch. Import branches first, or name one with --branch CODE."
                )
            queues = [*(topology.printing_queue(branch) for branch in codes), topology.PRINT_ACTIONS_QUEUE]
            name = f"printing-{branches[0]}" if len(branches) == 1 else "printing"
            options += ["--pool", "prefork", "--concurrency", str(concurrency or PRINTING_PROCESSES)]
        case _:
            queues = [topology.HOUSEKEEPING_QUEUE]
            # Not the solo pool: it runs tasks in the main thread, where a long sweep would delay heartbeats and timers.
            options += ["--beat", "--pool", "threads", "--concurrency", str(concurrency or 2)]
    os.umask(OTHERS)
    try:
        with node_name(name, socket.gethostname(), settings.broker.url) as node:
            heartbeat.prepare(heartbeat.heartbeat_file(settings, node))
            app.worker_main(
                [
                    "worker",
                    *("--queues", ",".join(queues)),
                    *("--hostname", node),
                    *("--loglevel", settings.log_level),
                    "--without-gossip",
                    "--without-mingle",
                    *options,
                ]
            )
    except NoNodeNameError as error:
        raise click.ClickException(str(error)) from None


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
