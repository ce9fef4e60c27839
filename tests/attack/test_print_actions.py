# SPDX-License-Identifier: Apache-2.0
"""A sender who may write to every queue orders no slip, and records no decision under a name that it chose."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
from kombu import Connection, Producer
from sqlalchemy import select, update
from uuid6 import uuid7

from schemas.models import PrintJob, QuarantinedMessage, RequestEvent
from schemas.print_jobs import PrintSlip
from schemas.print_jobs import PrintState as State
from schemas.reasons import DeadLetterReason
from schemas.task_message import task_headers
from schemas.topology import (
    CANCEL_SLIP,
    FOLLOW_SLIP,
    HOUSEKEEPING_QUEUE,
    MOVE_SLIP,
    PRINT_ACTIONS_QUEUE,
    PRINT_SLIP,
    REPRINT_SLIP,
    RETRY_SLIP,
    RETURNS_QUEUE,
    SLIP_PRINTED,
    printing_queue,
)
from tests.library import Library
from tests.polling import wait_until
from workers.runtime.queues import queue_declaration

pytestmark = [pytest.mark.long, pytest.mark.databases("sqlite"), pytest.mark.brokers("redis", "rabbitmq")]

NAME = "the head librarian"
EMBED: Mapping[str, None] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def publish(url: str, queue: str, task: str, call: tuple[list[Any], dict[str, Any]], task_id: str) -> None:
    """Publish a task message as Celery writes it."""
    with Connection(url) as connection:
        channel: Any = connection.default_channel
        queue_declaration(queue).bind(channel).queue_declare()
        Producer(channel).publish(
            json.dumps([*call, EMBED]),
            exchange="",
            routing_key=queue,
            headers=task_headers(task, task_id, origin="an attacker"),
            content_type="application/json",
            content_encoding="utf-8",
            correlation_id=task_id,
        )


def actions_on(slip: UUID, to: str) -> list[tuple[str, tuple[list[Any], dict[str, Any]]]]:
    """Each action on a print job as earlier releases sent it, with a name of the sender's choice."""
    named = {"slip": str(slip), "actor": NAME, "reason": "because"}
    return [
        (RETRY_SLIP, ([], named)),
        (REPRINT_SLIP, ([str(slip), NAME, "because"], {})),
        (REPRINT_SLIP, ([], named)),
        (SLIP_PRINTED, ([], named)),
        (CANCEL_SLIP, ([], named)),
        (MOVE_SLIP, ([], {**named, "to": to})),
    ]


def jobs(library: Library) -> dict[UUID, State]:
    with library.engine.connect() as connection:
        return {row.id: row.state for row in connection.execute(select(PrintJob.id, PrintJob.state))}


def decisions(library: Library) -> list[tuple[str, str]]:
    """Kind and operator of the history lines about slips."""
    with library.engine.connect() as connection:
        lines = connection.execute(select(RequestEvent).where(RequestEvent.kind.like("slip_%"))).all()
    return [(line.kind, line.details["actor"]) for line in lines]


def dead_letters(library: Library) -> list[tuple[str, str]]:
    """Reason and task of the quarantined messages, each as often as it came."""
    with library.engine.connect() as connection:
        rows = connection.execute(
            select(QuarantinedMessage.reason, QuarantinedMessage.task, QuarantinedMessage.times)
        ).all()
    return sorted((row.reason, row.task or "") for row in rows for _ in range(row.times))


def printed(library: Library) -> int:
    """Number of slips in the spool folder of the branch `main`."""
    return len(list((library.spool / "main").glob("*.pdf")))


def test_forged_and_replayed_print_actions_are_dead_letters(broker_url, deployment, raw_station, library):
    """Each action on the queue, sent once or twice, is a dead letter with its task; an operator's reprint is printed."""
    forged = [
        (queue, task, call)
        for queue in (PRINT_ACTIONS_QUEUE, printing_queue("main"), HOUSEKEEPING_QUEUE, RETURNS_QUEUE)
        for task, call in actions_on(uuid7(), "north-slips")
    ]
    with deployment.worker("returns"), deployment.worker("printing"), deployment.worker("housekeeping"):
        raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))
        raw_station.wait_until(lambda: printed(library) == 1)
        wait_until(lambda: set(jobs(library).values()) == {State.DONE}, "the slip is done")
        [slip] = jobs(library)
        replayed = [(PRINT_ACTIONS_QUEUE, task, call, str(uuid7())) for task, call in actions_on(slip, "north-slips")]

        for queue, task, call in forged:
            publish(broker_url, queue, task, call, str(uuid7()))
        for message in (*replayed, *replayed):
            publish(broker_url, *message)
        wait_until(
            lambda: len(dead_letters(library)) == len(forged) + 2 * len(replayed),
            lambda: f"all are dead letters: {dead_letters(library)}",
        )
        tasks = sorted([task for _, task, _ in forged] + 2 * [task for _, task, _, _ in replayed])
        seen = (dead_letters(library), jobs(library), decisions(library), printed(library))

        done = deployment.bookdrop("prints", "reprint", slip, "--reason", "torn", "--actor", "ann")
        wait_until(lambda: printed(library) == 2, "the copy is printed")

    assert done.returncode == 0, done.stderr
    assert seen == ([(DeadLetterReason.UNKNOWN_TASK, task) for task in tasks], {slip: State.DONE}, [], 1)
    assert decisions(library) == [("slip_reprinted", "ann")]


def test_print_tasks_of_slips_that_are_not_due_print_nothing(broker_url, deployment, raw_station, library):
    """A print task names a job only: the database decides, however often one is sent. A due slip is printed."""
    states = (State.DONE, State.UNKNOWN, State.CANCELLED, State.EXPIRED)
    with deployment.worker("returns"), deployment.worker("printing"):
        raw_station.replies_to(*[raw_station.send(library.scan(library.request()[1][0])) for _ in states])
        library.wait_for_slips(len(states))
        set_to = dict(zip(jobs(library), states, strict=True))
        with library.engine.begin() as connection:
            for slip, state in set_to.items():
                connection.execute(update(PrintJob).where(PrintJob.id == slip).values(state=state))

        for slip in set_to:
            for task in (PRINT_SLIP, FOLLOW_SLIP, PRINT_SLIP):
                message = PrintSlip(job_id=slip).model_dump(mode="json")
                publish(broker_url, printing_queue("main"), task, ([message], {}), str(uuid7()))
        raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))
        wait_until(lambda: [*jobs(library).values()].count(State.DONE) == 2, "the due slip is done")

    assert {slip: jobs(library)[slip] for slip in set_to} == set_to
    assert decisions(library) == []
    assert printed(library) == len(states) + 1
