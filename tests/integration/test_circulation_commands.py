# SPDX-License-Identifier: Apache-2.0
"""The cycle of a request by commands: from an empty database to "Request completed", without an import."""

import json

import pytest
from sqlalchemy import select

from schemas.database import open_engine
from schemas.models import Loan, Request, UndoPatronLink
from tests.processes import Deployment

pytestmark = [pytest.mark.long, pytest.mark.thorough, pytest.mark.databases("sqlite")]


def test_commands_move_a_request_through_the_full_cycle(broker_url, tmp_path):
    """A request of an empty database is received, loaned, discharged, returned, undone and completed by commands."""
    deployment = Deployment(broker_url, f"sqlite:///{tmp_path / 'bookdrop.db'}", tmp_path)

    def bookdrop(*arguments):
        done = deployment.bookdrop(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    bookdrop("migrate")
    bookdrop("add", "branches", "code=main", "name=Main Library", "library=Our Public Library")
    bookdrop("add", "printers", "code=main-slips", "branch=main", f"uri=spool://{tmp_path}/slips", "is_default=yes")
    key = json.loads(bookdrop("add", "stations", "code=main-desk-1", "branch=main", "--json"))["key"]
    bookdrop("add", "partners", "code=XX-RUL", "name=Riverside University Library", "delivery_code=RUL")
    bookdrop("add", "patrons", "number=P000001", "name=Test Patron")
    bookdrop(
        *("add", "requests", "external_id=BR-1", "partner=XX-RUL", "branch=main", "status=request_sent"),
        *("title=A book", "patron=P000001"),
    )

    def station(*arguments, stdin=""):
        done = deployment.station(*arguments, stdin=stdin, BOOKDROP_STATION_KEY=key)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with deployment.worker("returns"):
        outputs = [
            station("receive", "BR-1", "ILL-1", "--strap", "--also", "ILL-1", "0042"),
            station("loan", "ILL-1", "--due", "2099-01-31"),
            station("discharge", "0042"),
            station("loan", "0042"),
            station("scan", "0042"),
            station("undo", "last"),
            station("scan", "0042"),
            station("desk", stdin=":undo\n"),
            station("undo", "--request", "BR-1"),
            station("scan", "ILL-1"),
            station("complete", "BR-1"),
        ]

    for output, expected in zip(
        outputs,
        (
            "Physically received by library", "Loaned to patron", "Returned by patron", "Loaned to patron",
            "The item's destination is Riverside University Library", "Loaned to patron",
            "The item's destination is Riverside University Library", "Loaned to patron", "Undone before",
            "The item's destination is Riverside University Library", "Request completed",
        ),
        strict=True,
    ):  # fmt: skip
        assert expected in output
    assert "throw it away" not in outputs[5]  # no print worker runs, so the slip never left
    story = bookdrop("requests", "show", "BR-1")
    lines = [line.split() for line in story.split("History\n")[1].splitlines() if not line.startswith("      ")]
    assert [line[2] for line in lines] == [
        "received", "loaned", "discharged", "loaned", "returned", "undone", "returned", "undone",
        "returned", "completed",
    ]  # fmt: skip
    engine = open_engine(deployment.database_url)
    with engine.connect() as connection:
        assert connection.execute(select(Request.patron_id)).all() == [(None,)]
        assert connection.execute(select(Loan.patron_id)).all() == [(None,), (None,)]
        assert connection.execute(select(UndoPatronLink.id)).all() == []
    engine.dispose()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("add", "branches", "name"), 2, "Columns: code, name"),
        (("add", "branches", "colour=red"), 2, "Nothing was changed"),
        (("add", "branches", "code=Main Street"), 1, "code"),
        (("add", "stations", "code=main-desk-1", "branch=nowhere"), 1, "nowhere"),
    ],
)
def test_invalid_addition_is_rejected(deployment, arguments, code, words):
    """An unknown column, an invalid value and an unknown branch are reported, and nothing is changed."""
    done = deployment.bookdrop(*arguments)

    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
