# SPDX-License-Identifier: Apache-2.0
"""What is let go of, on both databases: links set aside, links of ended loans, links of closed requests."""

import json
from datetime import timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from schemas.models import Loan, Request, UndoPatronLink
from schemas.request_status import RequestStatus
from tasks.privacy.purge import purge
from tasks.returns.handler import RETURN_HANDLER
from tests.polling import wait_until
from workers.cli import main


@pytest.fixture
def linked(engine):
    """How many rows of a model point to a reader."""

    def count(model):
        with engine.connect() as connection:
            return connection.execute(
                select(func.count()).select_from(model).where(model.patron_id.is_not(None))
            ).scalar_one()

    return count


def test_what_undo_needs_is_kept_for_its_window_and_no_longer(library, handle, linked, engine):
    """A Return severs both links at once; the ones set aside go with the first purge after the window."""
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode), now=library.now)

    assert (linked(Loan), linked(Request), linked(UndoPatronLink)) == (0, 0, 2)
    with Session(engine) as session, session.begin():
        early = purge(session, library.now + timedelta(minutes=9))
    assert (early.total, linked(UndoPatronLink)) == (0, 2)
    with Session(engine) as session, session.begin():
        late = purge(session, library.now + timedelta(minutes=11))
    assert (late.set_aside, linked(UndoPatronLink)) == (2, 0)


@pytest.mark.parametrize("owes", [{"fee_open": True}, {"claimed_returned": True}])
def test_a_fee_or_a_claim_keeps_the_link_until_it_is_settled(library, linked, engine, owes):
    """A discharged loan that owes something keeps its reader, and so does its request; settled, both let go."""
    ended = {"discharged_at": library.now}
    library.request(RequestStatus.COMPLETED, on_loan=True, loan={**ended, **owes})

    with Session(engine) as session, session.begin():
        kept = purge(session, library.now)
    with engine.begin() as connection:
        connection.execute(update(Loan).values(fee_open=False, claimed_returned=False))
    with Session(engine) as session, session.begin():
        purged = purge(session, library.now)

    assert kept.total == 0
    assert (purged.loans, purged.requests) == (1, 1)
    assert (linked(Loan), linked(Request)) == (0, 0)


def test_what_is_with_its_reader_is_left_alone(library, linked, engine):
    """An open loan, and a request that can still be lent, keep their reader."""
    library.request(RequestStatus.LOANED)
    library.request(RequestStatus.RECEIVED)

    with Session(engine) as session, session.begin():
        purged = purge(session, library.now)

    assert purged.total == 0
    assert (linked(Loan), linked(Request)) == (1, 2)


def test_a_dry_run_says_what_would_go(library, linked, database_url, monkeypatch, tmp_path):
    """`bookdrop privacy purge --dry-run` counts and changes nothing; without it what was counted goes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    library.request(RequestStatus.COMPLETED, on_loan=False)

    dry = CliRunner().invoke(main, ["privacy", "purge", "--dry-run"])
    left = linked(Request)
    done = CliRunner().invoke(main, ["privacy", "purge", "--json"])

    assert "Links to patrons to delete: 1." in dry.stdout
    assert left == 1
    assert json.loads(done.stdout) == {"set_aside": 0, "loans": 0, "requests": 1, "dry_run": False}
    assert linked(Request) == 0


def test_housekeeping_lets_go_by_itself(library, handle, linked, deployment):
    """What is set aside goes without anybody's command, once its window is over."""
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode), now=library.now - timedelta(minutes=20))

    with deployment.worker("housekeeping", BOOKDROP_SWEEP_INTERVAL_SECONDS="0.5"):
        wait_until(lambda: linked(UndoPatronLink) == 0, "the links are purged")
