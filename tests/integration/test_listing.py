# SPDX-License-Identifier: Apache-2.0
"""What operations are told of answers, stations and waiting slips, on both databases."""

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
from tasks.returns import queries as desk
from tasks.returns.handler import RETURN_HANDLER
from tasks.returns.queries import ReplyFilter


def test_answers_are_told_newest_first_without_what_is_no_item(engine, library, handle):
    """A return, a refusal, and no other event; of a refused scan not what was scanned; the time since the scan."""
    external_id, [barcode] = library.request()
    coming, _ = library.request(RequestStatus.RECEIVED)
    handle(RETURN_HANDLER, library.scan(barcode))
    handle(CIRCULATION_HANDLER, library.event(RequestCompleted, request=coming))
    handle(RETURN_HANDLER, library.scan("P123456"), library.return_requested("Test Reader 1"))

    with engine.connect() as connection:
        told = desk.replies(connection, ReplyFilter())
        returned = desk.replies(connection, ReplyFilter(outcomes=[Outcome.RETURNED], station="main-desk-1"))
        elsewhere = desk.replies(connection, ReplyFilter(station="main-desk-2"))

    assert [each["outcome"] for each in told] == ["refused", "refused", "returned"]
    assert [each["request"] for each in told] == [None, None, external_id]
    assert [each["barcode"] for each in told] == [None, None, barcode]
    assert all(0 <= each["took_seconds"] < 60 for each in told)
    assert (returned, elsewhere) == (told[2:], [])
    assert "P123456" not in str(told)
    assert "Test Reader" not in str(told)


def test_stations_are_told_with_their_last_answers(engine, library, handle):
    """Answers and refusals of the last day; what is older does not count, and who was not seen is listed as well."""
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode), library.scan("31999999999"))
    handle(RETURN_HANDLER, library.scan(barcode, station="north-desk-1"))
    with engine.begin() as connection:
        old = datetime.now(UTC) - timedelta(hours=25)
        connection.execute(update(InboxEntry).where(InboxEntry.station == "north-desk-1").values(answered_at=old))

        told = {each["station"]: each for each in desk.stations(connection, datetime.now(UTC))}

    assert {code: (each["replies"], each["refusals"]) for code, each in told.items()} == {
        "main-desk-1": (2, 1), "main-desk-2": (0, 0), "north-desk-1": (0, 0),
    }  # fmt: skip
    assert told["main-desk-1"]["last_reply"] is not None
    assert told["north-desk-1"]["last_reply"] is None


def test_slips_behind_a_printer_in_trouble_can_be_asked_for(engine, library, create_print_job):
    """What waits untried is told with the held ones while its printer is on hold or away, and not otherwise."""
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
