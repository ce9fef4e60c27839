# SPDX-License-Identifier: Apache-2.0
"""Queries for operators on both databases: replies, stations, waiting slips."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from schemas.circulation_events import RequestCompleted
from schemas.models import InboxEntry, Printer
from schemas.print_jobs import PrintState as State
from schemas.replies import Outcome
from schemas.request_status import RequestStatus
from tasks.circulation.handler import CIRCULATION_HANDLER
from tasks.printing import queries as printing
from tasks.printing.queries import SlipFilter
from tasks.returns import queries as returns
from tasks.returns.handler import RETURN_HANDLER
from tasks.returns.queries import ReplyFilter


def test_replies_are_listed_newest_first_without_unknown_codes(engine, library, handle):
    """A return and a refusal, no other event; of a refused scan not the code, which could be a patron card."""
    external_id, [barcode] = library.request()
    coming, _ = library.request(RequestStatus.RECEIVED)
    handle(RETURN_HANDLER, library.scan(barcode))
    handle(CIRCULATION_HANDLER, library.event(RequestCompleted, request=coming))
    handle(RETURN_HANDLER, library.scan("P123456"), library.return_requested("Test Patron 1"))

    with engine.connect() as connection:
        listed = returns.replies(connection, ReplyFilter())
        returned = returns.replies(connection, ReplyFilter(outcomes=[Outcome.RETURNED], station="main-desk-1"))
        elsewhere = returns.replies(connection, ReplyFilter(station="main-desk-2"))

    assert [each["outcome"] for each in listed] == ["refused", "refused", "returned"]
    assert [each["request"] for each in listed] == [None, None, external_id]
    assert [each["barcode"] for each in listed] == [None, None, barcode]
    assert all(0 <= each["took_seconds"] < 60 for each in listed)
    assert (returned, elsewhere) == (listed[2:], [])
    assert "P123456" not in str(listed)
    assert "Test Patron" not in str(listed)


def test_stations_are_listed_with_replies_of_the_last_day(engine, library, handle):
    """Replies and refusals of the last day; older ones do not count, and stations without events are listed as well."""
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode), library.scan("31999999999"))
    handle(RETURN_HANDLER, library.scan(barcode, station="north-desk-1"))
    with engine.begin() as connection:
        old = datetime.now(UTC) - timedelta(hours=25)
        connection.execute(update(InboxEntry).where(InboxEntry.station == "north-desk-1").values(answered_at=old))

        listed = {each["station"]: each for each in returns.stations(connection, datetime.now(UTC))}

    assert {code: (each["replies"], each["refusals"]) for code, each in listed.items()} == {
        "main-desk-1": (2, 1), "main-desk-2": (0, 0), "north-desk-1": (0, 0),
    }  # fmt: skip
    assert listed["main-desk-1"]["last_reply"] is not None
    assert listed["north-desk-1"]["last_reply"] is None


def test_waiting_slips_of_an_unavailable_printer_are_listed(engine, library, create_print_job):
    """Slips that were not tried are listed with the held ones while their printer is on hold or unavailable."""
    slips = {str(create_print_job()) for _ in range(2)}
    held = SlipFilter(states=[State.HELD], blocked=True)

    def found():
        with engine.connect() as connection:
            return {each["slip"] for each in printing.slips(connection, held)}, printing.count(connection, held)

    def be(**columns):
        with engine.begin() as connection:
            connection.execute(update(Printer).values(**columns))
        return found()

    assert found() == (set(), 0)
    assert be(on_hold=True) == (slips, 2)
    assert be(on_hold=False, failures=1) == (slips, 2)
    assert be(failures=0) == (set(), 0)
