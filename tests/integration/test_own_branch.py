# SPDX-License-Identifier: Apache-2.0
"""The setting that binds undo and overrides to the station's own branch, on both databases."""

from dataclasses import replace

import pytest

from schemas.circulation_events import UndoRequested
from schemas.events import Override
from schemas.models import Request, RequestEvent
from schemas.request_status import RequestStatus
from tasks.context import Context
from tasks.events.processing import commit
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tasks.returns.undo_handler import UNDO_HANDLER
from tests.library import reply_to
from tests.task_context import POLICY
from workers import bootstrap
from workers.settings import WorkerSettings

BOUND = replace(POLICY, own_branch_only=True)
OVERRIDE = Override(reason="behind the shelf", supervisor="A. Chief")


@pytest.mark.parametrize(
    ("policy", "station", "reason"),
    [
        (POLICY, "north-desk-1", "undone"),
        (BOUND, "north-desk-1", "other_branch"),
        (BOUND, "main-desk-2", "undone"),
    ],
)
@pytest.mark.parametrize("names_event", [True, False])
def test_undo_of_another_branchs_return_follows_the_setting(
    library, handle, rows, policy, station, reason, names_event
):
    """Bound: a station of the Return's branch may undo it, another may not, by its event or by its request."""
    request, [barcode] = library.request()
    [returned] = handle(RETURN_HANDLER, library.scan(barcode, station="main-desk-1"))
    named = {"undoes": returned.event_id} if names_event else {"request": request}

    [reply] = handle(UNDO_HANDLER, library.event(UndoRequested, station=station, **named), policy=policy)

    assert reply.reason == reason
    is_undone = reason == "undone"
    [row] = rows(Request)
    assert row.status is (RequestStatus.LOANED if is_undone else RequestStatus.RETURNED_TO_PARTNER)
    assert [line.kind for line in rows(RequestEvent)] == ["returned", *(["undone"] if is_undone else [])]


def test_undo_at_the_branch_that_returned_anothers_item_is_permitted(library, handle):
    """The branch of the Return counts for undo, not the branch that owns the request."""
    _, [barcode] = library.request()
    [returned] = handle(RETURN_HANDLER, library.scan(barcode, station="north-desk-1"), policy=BOUND)

    [at_owner] = handle(UNDO_HANDLER, library.event(UndoRequested, undoes=returned.event_id), policy=BOUND)
    event = library.event(UndoRequested, undoes=returned.event_id, station="north-desk-1")
    [at_returning] = handle(UNDO_HANDLER, event, policy=BOUND)

    assert (at_owner.reason, at_returning.reason) == ("other_branch", "undone")


@pytest.mark.parametrize(
    ("policy", "station", "reason"),
    [
        (POLICY, "north-desk-1", "lost_overridden"),
        (BOUND, "north-desk-1", "other_branch"),
        (BOUND, "main-desk-2", "lost_overridden"),
    ],
)
@pytest.mark.parametrize("status", [RequestStatus.LOST, RequestStatus.DECLARED_LOST])
def test_override_for_another_branchs_request_follows_the_setting(
    library, handle, rows, policy, station, reason, status
):
    """Bound: a supervisor overrides at a station of the branch that owns the request, and nowhere else."""
    request, _ = library.request(status, on_loan=True)
    event = library.return_requested(request, station=station, override=OVERRIDE)

    [reply] = handle(RETURN_HANDLER, event, policy=policy)

    assert reply.reason == reason
    assert len(rows(RequestEvent)) == (reason == "lost_overridden")
    assert reply.destination is not None
    assert reply.destination.name in (reply.message if reason == "other_branch" else reply.destination.name)


def test_return_without_override_is_not_bound(library, handle):
    """A scan, and a Return whose override is not needed, are performed at every branch."""
    _, [barcode] = library.request()
    request, _ = library.request()

    [scanned] = handle(RETURN_HANDLER, library.scan(barcode, station="north-desk-1"), policy=BOUND)
    event = library.return_requested(request, station="north-desk-1", override=OVERRIDE)
    [returned] = handle(RETURN_HANDLER, event, policy=BOUND)

    assert (scanned.outcome, returned.outcome) == ("returned", "returned")


@pytest.mark.parametrize(
    ("settings", "outcome"), [({}, "done"), ({"undo_and_override_own_branch_only": "true"}, "refused")]
)
def test_setting_reaches_the_handlers(library, handle, engine, broker_url, database_url, settings, outcome):
    """The worker's setting decides; by default undo is permitted at every station."""
    given = {"database_url": database_url, "broker_url": broker_url, **settings}
    context: Context = bootstrap.make(WorkerSettings.model_validate(given), engine)
    _, [barcode] = library.request()
    [returned] = handle(RETURN_HANDLER, library.scan(barcode))
    event = library.event(UndoRequested, undoes=returned.event_id, station="north-desk-1")
    received = Received(event, reply_to(event))

    committed = commit([received], UNDO_HANDLER, context)

    assert committed.batch.outcomes([received]) == [outcome]
