# SPDX-License-Identifier: Apache-2.0
"""Who works: which workers answer over the broker, which queues nobody takes from, and who hangs on this machine."""

from collections.abc import Collection, Iterator, Mapping

from celery import Celery
from kombu import Connection

from schemas import topology
from workers.doctor.finding import Finding
from workers.heartbeat import STALE_SECONDS, age, heartbeat_file
from workers.metrics.heartbeats import ROLES, role_of
from workers.settings import WorkerSettings

PATIENCE = 2.0
"""How long workers have to answer, in seconds."""


def workers(app: Celery, connection: Connection, branches: Collection[str]) -> Iterator[Finding]:
    """Ask the workers which queues they take from; a finding for each role, and for each queue that none takes."""
    answers = app.control.inspect(timeout=PATIENCE, connection=connection).active_queues() or {}
    yield from told({name: [queue["name"] for queue in queues] for name, queues in answers.items()}, branches)


def told(answers: Mapping[str, Collection[str]], branches: Collection[str]) -> Iterator[Finding]:
    """The findings of `answers`: names of workers, each with the queues it takes from."""
    by_role: dict[str, list[str]] = {role: [] for role in ROLES}
    for name in sorted(answers):
        by_role.setdefault(role_of(name), []).append(name)
    for role in ROLES:
        names = by_role[role]
        yield Finding(
            "worker",
            good=bool(names),
            words=f"{role}: {', '.join(names)}" if names else f"{role}: no worker answers within {PATIENCE:.0f} s",
            advice=""
            if names
            else f"Start one: 'bookdrop worker {role}'. If one runs, it hangs or sees another broker.",
        )
    taken = {queue for queues in answers.values() for queue in queues}
    wanted = [topology.printing_queue(branch) for branch in branches]
    if any(role_of(name) == "printing" for name in answers):
        wanted.append(topology.PRINT_ACTIONS_QUEUE)
        for queue in sorted(set(wanted) - taken):
            branch = queue.removeprefix(topology.PRINTING_QUEUE_PREFIX)
            yield Finding(
                "queue",
                good=False,
                words=f"{queue}: no worker takes from it",
                advice=f"Start one: 'bookdrop worker printing --branch {branch}'.",
            )


def hanging(settings: WorkerSettings) -> Iterator[Finding]:
    """A note for each heartbeat file of this machine that is old."""
    for path in dict.fromkeys(heartbeat_file(settings, role) for role in ROLES):
        since = age(path)
        if since is not None and since > STALE_SECONDS:
            yield Finding(
                "heartbeat",
                good=True,
                words=f"the last one in {path} is {since:.0f} s old",
                advice="If that worker still runs, it hangs: end it (kill -9) and start it again, nothing is lost."
                " Otherwise remove the file.",
            )
