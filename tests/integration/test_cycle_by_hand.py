# SPDX-License-Identifier: Apache-2.0
"""The basic returnable cycle at a terminal: from an empty database to "Request completed", without an import."""

import json
import os
import subprocess
import sys

import pytest
from sqlalchemy import select

from schemas.database import open_engine
from schemas.models import Loan, Request, UndoPatronLink
from tests.wire import worker

pytestmark = [pytest.mark.long, pytest.mark.thorough]


def test_a_request_goes_round_by_commands_alone(broker_url, tmp_path):
    """Set up by hand; received, lent, discharged, lent, returned, undone, returned, completed: each told in words."""
    database_url = f"sqlite:///{tmp_path / 'bookdrop.db'}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOOKDROP_")}
    clean |= {"BOOKDROP_BROKER_URL": broker_url, "NO_COLOR": "1"}

    def run(module, *arguments, typed="", **more):
        return subprocess.run(
            [sys.executable, "-m", module, *arguments], env={**clean, **more}, cwd=tmp_path, text=True, timeout=60,
            input=typed, capture_output=True, check=False,
        )  # fmt: skip

    def bookdrop(*arguments):
        done = run("workers.cli", *arguments, BOOKDROP_DATABASE_URL=database_url)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    bookdrop("migrate")
    bookdrop("add", "branches", "code=main", "name=Main Library", "library=Our Public Library")
    bookdrop("add", "printers", "code=main-slips", "branch=main", f"uri=spool://{tmp_path}/slips", "is_default=yes")
    key = json.loads(bookdrop("add", "stations", "code=main-desk-1", "branch=main", "--json"))["key"]
    bookdrop("add", "partners", "code=XX-RUL", "name=Riverside University Library", "delivery_code=RUL")
    bookdrop("add", "patrons", "number=P000001", "name=Test Reader")
    bookdrop(
        *("add", "requests", "external_id=BR-1", "partner=XX-RUL", "branch=main", "status=request_sent"),
        *("title=A book", "patron=P000001"),
    )

    def station(*arguments, typed=""):
        done = run(
            "stations.cli", *arguments, typed=typed, BOOKDROP_STATION_CODE="main-desk-1", BOOKDROP_STATION_KEY=key,
            BOOKDROP_STATION_JOURNAL=str(tmp_path / "desk.journal"),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    parts = {"broker_url": broker_url, "database_url": database_url, "folder": tmp_path}
    with worker("returns", **parts):
        told = [
            station("receive", "BR-1", "ILL-1", "--strap", "--also", "ILL-1", "0042"),
            station("loan", "ILL-1", "--due", "2099-01-31"),
            station("discharge", "0042"),
            station("loan", "0042"),
            station("scan", "0042"),
            station("undo", "last"),
            station("scan", "0042"),
            station("desk", typed=":undo\n"),
            station("undo", "--request", "BR-1"),
            station("scan", "ILL-1"),
            station("complete", "BR-1"),
        ]

    for words, expected in zip(
        told,
        (
            "Physically received by library", "Loaned to patron", "Returned by patron", "Loaned to patron",
            "The item's destination is Riverside University Library", "Loaned to patron",
            "The item's destination is Riverside University Library", "Loaned to patron", "Undone before",
            "The item's destination is Riverside University Library", "Request completed",
        ),
        strict=True,
    ):  # fmt: skip
        assert expected in words
    assert "throw it away" not in told[5]  # no print worker runs, so the slip never left
    story = bookdrop("requests", "show", "BR-1")
    lines = [line.split() for line in story.split("History\n")[1].splitlines() if not line.startswith("      ")]
    assert [line[2] for line in lines] == [
        "received", "loaned", "discharged", "loaned", "returned", "undone", "returned", "undone",
        "returned", "completed",
    ]  # fmt: skip
    engine = open_engine(database_url)
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
def test_a_wrong_addition_is_told(sqlite_url, tmp_path, arguments, code, words):
    """A column that is none, a value that does not fit, a branch that is not there: told, and nothing is changed."""
    done = subprocess.run(
        [sys.executable, "-m", "workers.cli", *arguments], env={**os.environ, "BOOKDROP_DATABASE_URL": sqlite_url},
        cwd=tmp_path, text=True, capture_output=True, check=False,
    )  # fmt: skip

    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
