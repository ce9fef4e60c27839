# SPDX-License-Identifier: Apache-2.0
"""The outbox on real brokers and databases: what a commit promised goes out, whatever happened in between."""

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
    """Make a context whose publisher speaks to the broker at a URL."""
    sessions = sessionmaker(engine, expire_on_commit=False)
    publishers = []

    def make(url):
        settled = PublishedRows()
        publisher = BrokerPublisher(lambda: connect(WorkerSettings.load(broker_url=url)), sessions, settled, "test")
        publishers.append(publisher)
        return Context(sessions, clock, publisher, "test", settled)

    yield make
    for publisher in publishers:
        publisher.close()


def promise(context, *bodies):
    with context.unit_of_work() as uow:
        for body in bodies:
            uow.enqueue(QUEUE, body)
    return uow.pending_messages


def waiting(engine):
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(OutboxEntry)).scalar_one()


def bodies(broker_url):
    found = []
    with Connection(broker_url) as connection:
        channel: Any = connection.default_channel
        while (message := channel.basic_get(QUEUE, no_ack=True)) is not None:
            found.append(message.body if isinstance(message.body, str) else message.body.decode())
    return found


def test_published_promise_leaves_the_outbox(make_context, broker_url, engine):
    """What was published straight after the commit is forgotten; its bytes are as they were said."""
    context = make_context(broker_url)

    published = context.publisher.publish_outbox(promise(context, '{"a":1}', '{"b":2}'))
    promise(context, "the next one takes them along")

    assert published == 2
    assert waiting(engine) == 1
    assert bodies(broker_url) == ['{"a":1}', '{"b":2}']


def test_broker_away_loses_nothing(make_context, broker_url, engine, clock):
    """A broker that is away raises nothing; the sweep brings the promise later, in order."""
    away = make_context("redis://127.0.0.1:1/0")
    published = away.publisher.publish_outbox(promise(away, '"one"', '"two"'))
    assert (published, waiting(engine)) == (0, 2)

    context = make_context(broker_url)
    early = sweep(context)
    clock.now += SWEEP_GRACE
    late = sweep(context)

    context.publisher.flush()

    assert (early, late) == (0, 2)
    assert bodies(broker_url) == ['"one"', '"two"']
    assert waiting(engine) == 0


def test_rolled_back_promise_is_none(make_context, broker_url, engine, clock):
    """What was said in a transaction that failed is never published."""
    context = make_context(broker_url)

    with pytest.raises(RuntimeError), context.unit_of_work() as uow:
        uow.enqueue(QUEUE, '"never"')
        raise RuntimeError

    clock.now += timedelta(hours=1)
    assert sweep(context) == 0
    assert bodies(broker_url) == []


def test_two_sweeps_side_by_side_send_each_message_once(make_context, broker_url, engine, clock):
    """Two sweeps at the same moment share what is due."""
    context = make_context(broker_url)
    promise(context, *[f'"{n}"' for n in range(450)])
    clock.now += SWEEP_GRACE

    sweeps = [threading.Thread(target=sweep, args=(context,)) for _ in range(2)]
    for each in sweeps:
        each.start()
    for each in sweeps:
        each.join()
    context.publisher.flush()

    assert sorted(bodies(broker_url)) == sorted(f'"{n}"' for n in range(450))
    assert waiting(engine) == 0


def test_settled_rows_go_by_themselves(make_context, broker_url, engine):
    """When no other transaction comes, the rows of what was published go soon all the same."""
    context = make_context(broker_url)

    context.publisher.publish_outbox(promise(context, '"one"'))

    wait_until(lambda: waiting(engine) == 0, "the published row is deleted")


def test_failed_commit_keeps_settled_rows_in_mind(make_context, broker_url, engine):
    """A transaction that fails does not forget the rows it would have taken along."""
    context = make_context(broker_url)
    context.publisher.publish_outbox(promise(context, '"one"'))

    with pytest.raises(IntegrityError), context.unit_of_work() as uow:
        uow.session.add_all([Patron(id=1, number="P1", name="Test Reader 1"), Patron(id=2, number="P1", name="Twin")])
        uow.session.flush()

    context.publisher.flush()
    assert waiting(engine) == 0


def test_wait_grows_and_is_bounded():
    """From two seconds to a minute."""
    waits = [retry_after(n).total_seconds() for n in range(20)]

    assert waits[0] == 2
    assert waits == sorted(waits)
    assert waits[-1] == 60


def test_conflict_runs_the_transaction_again(engine):
    """A unique key taken in between, or a row that moved, makes the transaction run again; another error does not."""
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
                uow.session.execute(text("INSERT INTO patrons (id, number, name) VALUES (1, 'P1', 'Test Reader 1')"))

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


def test_errors_words_hold_no_values(engine):
    """No value of a row stands in an error's words, so none in a log or in Flower."""
    with pytest.raises(IntegrityError) as caught, engine.begin() as connection:
        for _ in range(2):
            connection.execute(
                text("INSERT INTO patrons (id, number, name) VALUES (:i, :n, :name)"),
                {"i": 1, "n": "P1", "name": "Test Reader Unmistakable"},
            )

    assert "Unmistakable" not in str(caught.value)
