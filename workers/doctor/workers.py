# SPDX-License-Identifier: Apache-2.0
"""Checks of workers: which respond over the broker, which queues have no consumer, which local heartbeats are stale."""

from collections.abc import Collection, Iterator, Mapping

from celery import Celery
from kombu import Connection

from schemas import topology
from workers.doctor.finding import Finding
from workers.metrics.heartbeats import ROLES, role_of
from workers.settings import WorkerSettings
from workers.supervision.heartbeat import STALE_SECONDS, age, heartbeat_files

RESPONSE_TIMEOUT = 2.0
"""Time that workers have to respond, in seconds."""


def responding(app: Celery, connection: Connection, branches: Collection[str]) -> Iterator[Finding]:
    """Ask the workers for their queues; yield a finding for each role and for each printing queue without a consumer."""
    responses = app.control.inspect(timeout=RESPONSE_TIMEOUT, connection=connection).active_queues() or {}
    yield from consumers({name: [queue["name"] for queue in queues] for name, queues in responses.items()}, branches)


def consumers(queues_of: Mapping[str, Collection[str]], branches: Collection[str]) -> Iterator[Finding]:
    """Yield the findings for `queues_of`: names of workers, each with the queues that it consumes."""
    by_role: dict[str, list[str]] = {role: [] for role in ROLES}
    for name in sorted(queues_of):
        by_role.setdefault(role_of(name), []).append(name)
    for role in ROLES:
        names = by_role[role]
        yield Finding(
            "worker",
            ok=bool(names),
            message=f"{role}: {', '.join(names)}"
            if names
            else f"{role}: no worker responds within {RESPONSE_TIMEOUT:.0f} s",
            advice=""
            if names
            else f"Start one: 'bookdrop worker {role}'. If one runs, it hangs or uses another broker.",
        )
    consumed = {queue for queues in queues_of.values() for queue in queues}
    wanted = [topology.printing_queue(branch) for branch in branches]
    if any(role_of(name) == "printing" for name in queues_of):
        wanted.append(topology.PRINT_ACTIONS_QUEUE)
        for queue in sorted(set(wanted) - consumed):
            branch = queue.removeprefix(topology.PRINTING_QUEUE_PREFIX)
            yield Finding(
                "queue",
                ok=False,
                message=f"{queue}: no worker consumes it",
                advice=f"Start one: 'bookdrop worker printing --branch {branch}'.",
            )


def stale_heartbeats(settings: WorkerSettings) -> Iterator[Finding]:
    """Yield a finding for each stale heartbeat file of this machine."""
    for path in dict.fromkeys(path for role in ROLES for path in heartbeat_files(settings, role)):
        since = age(path)
        if since is not None and since > STALE_SECONDS:
            yield Finding(
                "heartbeat",
                ok=True,
                message=f"the last one in {path} is {since:.0f} s old",
                advice="If that worker still runs, it hangs: end it (kill -9) and start it again. No message is lost."
                " Otherwise delete the file.",
            )
