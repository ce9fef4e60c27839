# SPDX-License-Identifier: Apache-2.0
"""Actions on several slips and messages while the database or the broker fails: what is changed is reported."""

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from schemas.models import PrintJob, QuarantinedMessage, table
from schemas.print_jobs import PrintState as State
from schemas.topology import PROCESS_SCAN
from tasks.events.processing import process_in
from tasks.operator import Operator
from tasks.printing import batch as slip_batch
from tasks.quarantine import batch as message_batch
from tasks.quarantine.queries import MessageFilter
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tests.network import free_port
from tests.task_context import POLICY
from workers import bootstrap
from workers.settings import WorkerSettings

ANN = Operator("ann", "because")
quarantine = table(QuarantinedMessage)


def fail_updates_of(engine, slip):
    """Let each update of one print job fail in the database."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(
                text(
                    "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END $$"
                )
            )
            connection.execute(
                text(
                    f"CREATE TRIGGER fails BEFORE UPDATE ON print_jobs FOR EACH ROW WHEN (new.id = '{slip}') EXECUTE FUNCTION fail()"
                )
            )
        else:
            connection.execute(
                text(
                    f"CREATE TRIGGER fails BEFORE UPDATE ON print_jobs WHEN new.id = '{slip.hex}'"
                    " BEGIN SELECT RAISE(FAIL, 'no space left on device'); END"
                )
            )


def states(engine, slips):
    with engine.connect() as connection:
        found = {row.id: row.state for row in connection.execute(select(PrintJob.id, PrintJob.state))}
    return [found[slip] for slip in slips]


def test_failure_of_the_database_reports_the_slips_that_were_not_changed(engine, context, create_print_job):
    """The slips before the failure are cancelled and reported so, the others are not; at the first one the error is raised."""
    slips = [create_print_job() for _ in range(4)]
    fail_updates_of(engine, slips[2])

    result = slip_batch.perform("cancel", slips, ANN, context)
    with pytest.raises(SQLAlchemyError):
        slip_batch.perform("cancel", slips[2:], ANN, context)

    assert [done.slip for done in result.done] == slips[:2]
    assert [(refused.slip, refused.message) for refused in result.refused] == [
        (slip, slip_batch.DATABASE_FAILED) for slip in slips[2:]
    ]
    assert states(engine, slips) == [State.CANCELLED, State.CANCELLED, State.REQUESTED, State.REQUESTED]


def test_unavailable_broker_is_tried_once_for_all_messages(engine, library, context, database_url):
    """No message is requeued or lost: the first is refused with the cause, the others without an attempt."""
    with context.unit_of_work() as uow:
        for number in range(3):
            scan = library.scan(f"3100000001{number}", station=f"west-desk-{number}")
            process_in(uow, [Received(scan, "reply.main-desk-1", PROCESS_SCAN)], RETURN_HANDLER, POLICY)
    settings = WorkerSettings(broker_url=f"redis://127.0.0.1:{free_port()}", database_url=database_url)
    without_broker = bootstrap.make(settings, engine)
    with engine.connect() as connection:
        selection = message_batch.select_matching(connection, MessageFilter())

    result = message_batch.perform("retry", selection.ids, ANN, without_broker)

    assert (result.done, list(result.refused)) == ({}, list(selection.ids))
    texts = list(result.refused.values())
    assert "The broker did not accept it" in texts[0]
    assert texts[1:] == [message_batch.NOT_TRIED] * 2
    with engine.connect() as connection:
        assert set(connection.scalars(select(quarantine.c.state))) == {"kept"}
