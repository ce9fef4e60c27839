# SPDX-License-Identifier: Apache-2.0
"""The purge of patron links on both databases: links of the undo window, of ended loans, of closed requests."""

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
def count_links(engine):
    """Number of rows of a model with a link to a patron."""

    def count(model):
        with engine.connect() as connection:
            return connection.execute(
                select(func.count()).select_from(model).where(model.patron_id.is_not(None))
            ).scalar_one()

    return count


def test_undo_links_are_purged_after_the_window(library, handle, count_links, engine):
    """A Return severs both links at once; the copies for undo are deleted by the first purge after the window."""
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode), now=library.now)

    assert (count_links(Loan), count_links(Request), count_links(UndoPatronLink)) == (0, 0, 2)
    with Session(engine) as session, session.begin():
        early = purge(session, library.now + timedelta(minutes=9))
    assert (early.total, count_links(UndoPatronLink)) == (0, 2)
    with Session(engine) as session, session.begin():
        late = purge(session, library.now + timedelta(minutes=11))
    assert (late.set_aside, count_links(UndoPatronLink)) == (2, 0)


@pytest.mark.parametrize("open_matter", [{"fee_open": True}, {"claimed_returned": True}])
def test_open_fee_or_claim_keeps_the_link(library, count_links, engine, open_matter):
    """A discharged loan with an open fee or claim keeps its patron, and so does its request, until it is settled."""
    ended = {"discharged_at": library.now}
    library.request(RequestStatus.COMPLETED, on_loan=True, loan={**ended, **open_matter})

    with Session(engine) as session, session.begin():
        kept = purge(session, library.now)
    with engine.begin() as connection:
        connection.execute(update(Loan).values(fee_open=False, claimed_returned=False))
    with Session(engine) as session, session.begin():
        purged = purge(session, library.now)

    assert kept.total == 0
    assert (purged.loans, purged.requests) == (1, 1)
    assert (count_links(Loan), count_links(Request)) == (0, 0)


def test_open_loan_keeps_its_link(library, count_links, engine):
    """An open loan, and a request that can still be loaned, keep their patron."""
    library.request(RequestStatus.LOANED)
    library.request(RequestStatus.RECEIVED)

    with Session(engine) as session, session.begin():
        purged = purge(session, library.now)

    assert purged.total == 0
    assert (count_links(Loan), count_links(Request)) == (1, 2)


def test_dry_run_counts_and_deletes_nothing(library, count_links, database_url, monkeypatch, tmp_path):
    """`bookdrop privacy purge --dry-run` counts the links; without it those links are deleted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    library.request(RequestStatus.COMPLETED, on_loan=False)

    dry = CliRunner().invoke(main, ["privacy", "purge", "--dry-run"])
    left = count_links(Request)
    done = CliRunner().invoke(main, ["privacy", "purge", "--json"])

    assert "Links to patrons to delete: 1." in dry.stdout
    assert left == 1
    assert json.loads(done.stdout) == {"set_aside": 0, "loans": 0, "requests": 1, "dry_run": False}
    assert count_links(Request) == 0


def test_housekeeping_purges_links(library, handle, count_links, deployment):
    """Housekeeping deletes undo links once their window is over, without a command."""
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode), now=library.now - timedelta(minutes=20))

    with deployment.worker("housekeeping", BOOKDROP_SWEEP_INTERVAL_SECONDS="0.5"):
        wait_until(lambda: count_links(UndoPatronLink) == 0, "the links are purged")
