# SPDX-License-Identifier: Apache-2.0
"""The outbox on real brokers and databases: every committed message is published, whatever fails in between."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kombu import Connection
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import sessionmaker

from schemas.models import OutboxEntry, Patron
from tasks.context import Context
from tasks.outbox.relay import retry_after, sweep
from tasks.unit_of_work import SWEEP_GRACE, PublishedRows, StaleStateError, UnitOfWork, retry_on_conflict
from tests.clock import Clock
from tests.polling import wait_until
from workers.bootstrap import connect
from workers.publisher import BrokerPublisher
from workers.settings import WorkerSettings

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
QUEUE = "reply.main-desk-1"


@pytest.fixture
def clock():
    return Clock(NOW)


@pytest.fixture
def make_context(engine, clock):
    """Create a context whose publisher uses the broker at a URL."""
    sessions = sessionmaker(engine, expire_on_commit=False)
    publishers = []

    def make(url):
        published_rows = PublishedRows()
        publisher = BrokerPublisher(
            lambda: connect(WorkerSettings.load(broker_url=url)), sessions, published_rows, "test"
        )
        publishers.append(publisher)
        return Context(sessions, clock, publisher, "test", published_rows)

    yield make
    for publisher in publishers:
        publisher.close()


def enqueue(context, *bodies):
    """Commit messages to the outbox; return them."""
    with context.unit_of_work() as uow:
        for body in bodies:
            uow.enqueue(QUEUE, body)
    return uow.pending_messages


def outbox_rows(engine):
    """Number of messages in the outbox."""
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(OutboxEntry)).scalar_one()


def bodies(broker_url):
    """Receive all messages of the queue; return their bodies."""
    found = []
    with Connection(broker_url) as connection:
        channel: Any = connection.default_channel
        while (message := channel.basic_get(QUEUE, no_ack=True)) is not None:
            found.append(message.body if isinstance(message.body, str) else message.body.decode())
    return found


def test_published_message_is_deleted_with_the_next_commit(make_context, broker_url, engine):
    """A message published after its commit is deleted by the next transaction; its bytes are unchanged."""
    context = make_context(broker_url)

    published = context.publisher.publish_outbox(enqueue(context, '{"a":1}', '{"b":2}'))
    enqueue(context, "the next transaction")

    assert published == 2
    assert outbox_rows(engine) == 1
    assert bodies(broker_url) == ['{"a":1}', '{"b":2}']


def test_sweep_publishes_what_a_broker_outage_left(make_context, broker_url, engine, clock):
    """An unavailable broker raises no error; the sweep publishes the messages later, in order."""
    disconnected = make_context("redis://127.0.0.1:1/0")
    published = disconnected.publisher.publish_outbox(enqueue(disconnected, '"one"', '"two"'))
    assert (published, outbox_rows(engine)) == (0, 2)

    context = make_context(broker_url)
    early = sweep(context)
    clock.now += SWEEP_GRACE
    late = sweep(context)

    context.publisher.flush()

    assert (early, late) == (0, 2)
    assert bodies(broker_url) == ['"one"', '"two"']
    assert outbox_rows(engine) == 0


def test_rolled_back_message_is_never_published(make_context, broker_url, engine, clock):
    """A message of a failed transaction is never published."""
    context = make_context(broker_url)

    with pytest.raises(RuntimeError), context.unit_of_work() as uow:
        uow.enqueue(QUEUE, '"never"')
        raise RuntimeError

    clock.now += timedelta(hours=1)
    assert sweep(context) == 0
    assert bodies(broker_url) == []


def test_concurrent_sweeps_publish_each_message_once(make_context, broker_url, engine, clock):
    """Two sweeps at the same time share the due messages."""
    context = make_context(broker_url)
    enqueue(context, *[f'"{n}"' for n in range(450)])
    clock.now += SWEEP_GRACE

    sweeps = [threading.Thread(target=sweep, args=(context,)) for _ in range(2)]
    for each in sweeps:
        each.start()
    for each in sweeps:
        each.join()
    context.publisher.flush()

    assert sorted(bodies(broker_url)) == sorted(f'"{n}"' for n in range(450))
    assert outbox_rows(engine) == 0


def test_published_rows_are_deleted_without_another_commit(make_context, broker_url, engine):
    """Without another transaction the rows of published messages are deleted soon anyway."""
    context = make_context(broker_url)

    context.publisher.publish_outbox(enqueue(context, '"one"'))

    wait_until(lambda: outbox_rows(engine) == 0, "the published row is deleted")


def test_failed_commit_keeps_the_list_of_published_rows(make_context, broker_url, engine):
    """A failed transaction leaves the published rows for the next one to delete."""
    context = make_context(broker_url)
    context.publisher.publish_outbox(enqueue(context, '"one"'))

    with pytest.raises(IntegrityError), context.unit_of_work() as uow:
        uow.session.add_all([Patron(id=1, number="P1", name="Test Patron 1"), Patron(id=2, number="P1", name="Twin")])
        uow.session.flush()

    context.publisher.flush()
    assert outbox_rows(engine) == 0


def test_retry_delay_grows_to_one_minute():
    """From two seconds to a minute."""
    waits = [retry_after(n).total_seconds() for n in range(20)]

    assert waits[0] == 2
    assert waits == sorted(waits)
    assert waits[-1] == 60


def test_conflict_retries_the_transaction(engine):
    """A unique key inserted meanwhile and a stale row retry the transaction; another error does not."""
    tries = []

    def conflicting():
        tries.append(1)
        if len(tries) < 3:
            raise StaleStateError
        return "done"

    assert retry_on_conflict(conflicting, pause=lambda _: None) == "done"

    def duplicate():
        tries.append(1)
        with UnitOfWork(sessionmaker(engine), NOW) as uow:
            for _ in range(2):
                uow.session.execute(text("INSERT INTO patrons (id, number, name) VALUES (1, 'P1', 'Test Patron 1')"))

    tries.clear()
    with pytest.raises(IntegrityError):
        retry_on_conflict(duplicate, pause=lambda _: None)
    assert len(tries) == 4

    def fault():
        tries.append(1)
        raise ZeroDivisionError

    tries.clear()
    with pytest.raises(ZeroDivisionError):
        retry_on_conflict(fault, pause=lambda _: None)
    assert len(tries) == 1


def test_no_try_begins_after_the_longest_time():
    """A transaction that has waited long for a lock is not tried again; a quick conflict is."""
    times = iter([100.0, 101.0, 110.0])
    tries = []

    def conflicting():
        tries.append(1)
        raise StaleStateError

    with pytest.raises(StaleStateError):
        retry_on_conflict(conflicting, within=10, pause=lambda _: None, clock=lambda: next(times))

    assert len(tries) == 2


def test_database_error_contains_no_values(engine):
    """The text of an error contains no value of a row, so that no log and no page of Flower does."""
    with pytest.raises(IntegrityError) as caught, engine.begin() as connection:
        for _ in range(2):
            connection.execute(
                text("INSERT INTO patrons (id, number, name) VALUES (:i, :n, :name)"),
                {"i": 1, "n": "P1", "name": "Test Patron Unmistakable"},
            )

    assert "Unmistakable" not in str(caught.value)
