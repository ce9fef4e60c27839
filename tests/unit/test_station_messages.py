# SPDX-License-Identifier: Apache-2.0
"""Screen messages of a station."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from schemas.replies import Destination, ItemCount, Outcome, RequestChoice, ReturnReply
from schemas.request_status import RequestStatus
from stations import messages
from stations.journal.events import Entry, JournalStats
from stations.journal.replay import Progress

RIVERSIDE = Destination(name="Riverside University Library", code="XX-RUL", delivery_code="RUL")
MESSAGE = "The item's destination is Riverside University Library"
NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def reply(outcome: Outcome = Outcome.RETURNED, **fields: Any) -> ReturnReply:
    return ReturnReply(
        **{
            "event_id": UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
            "outcome": outcome,
            "reason": "loaned",
            "message": MESSAGE,
            "barcode": "31000000170",
            "destination": RIVERSIDE,
            **fields,
        }
    )


def entry(**fields: Any) -> Entry:
    return Entry(
        **{
            "sequence": 1,
            "event_id": "e",
            "task": "returns.process_scan",
            "subject": "31000000170",
            "payload": "{}",
            "made_at": NOW,
            "attempts": 1,
            "next_resend_at": None,
            "answered_at": None,
            "reply": None,
            "slip_state": None,
            "slip_message": None,
            **fields,
        }
    )


def test_return_shows_barcode_message_and_delivery_code() -> None:
    """The outcome and the barcode are on the first line."""
    shown = messages.format_reply(reply(), "31000000170")

    assert shown.lines == ("RETURNED  31000000170", MESSAGE, "Delivery code RUL")


def test_return_shows_urgency_items_warnings_and_next_step() -> None:
    """Each part of the reply has its own line, in this order."""
    shown = messages.format_reply(
        reply(
            urgent=True,
            items=ItemCount(here=1, of=3),
            warnings=("The station's clock is wrong",),
            next_step="Wait for the others.",
            destination=RIVERSIDE.model_copy(update={"delivery_code": None}),
        ),
        "31000000170",
    )

    assert shown.lines == (
        "RETURNED  URGENT  31000000170",
        MESSAGE,
        "No delivery code: send it by name and address",
        "1 of 3 items of this request are here",
        "Note: The station's clock is wrong",
        "-> Wait for the others.",
    )


def test_already_returned_shows_the_first_return_and_the_destination() -> None:
    """Time and station of the first Return are shown."""
    shown = messages.format_reply(reply(Outcome.ALREADY_RETURNED, returned_at=NOW, returned_by="main-desk-2"), "x")

    assert shown.lines[0] == "ALREADY RETURNED  31000000170"
    assert "Delivery code RUL" in shown.lines
    assert f"Returned {NOW.astimezone():%Y-%m-%d %H:%M} at main-desk-2" in shown.lines


def test_choice_is_shown_as_the_command_that_returns_it() -> None:
    """Each request that the barcode may identify has one line."""
    choice = RequestChoice(external_id="BR-1", title="A book", status=RequestStatus.LOANED, destination=RIVERSIDE)

    shown = messages.format_reply(reply(Outcome.REFUSED, destination=None, choices=(choice,)), "x")

    assert ":return BR-1   A book, to Riverside University Library" in shown.lines


def test_each_outcome_has_its_own_colour_and_tone() -> None:
    """Returned, already returned, refused and pending all differ."""
    shown = [messages.format_reply(reply(outcome), "x") for outcome in Outcome] + [messages.pending("x")]

    assert len({s.colour for s in shown}) == len({s.tone for s in shown}) == 4
    assert all(s.tone for s in shown)


def test_pending_without_a_connection_shows_held() -> None:
    """A scan that waits for its reply is not shown as held."""
    assert "Held, slip follows" in messages.pending("x", is_connected=False).lines[1]
    assert "Held" not in messages.pending("x").lines[1]


@pytest.mark.parametrize(("state", "tone"), [("done", 0), ("held", 1), ("failed_safe", 1)])
def test_slip_notice_has_a_tone_only_when_staff_must_act(state: str, tone: int) -> None:
    """The notice of a printed slip has none."""
    shown = messages.format_slip(entry(slip_state=state, slip_message="The printer main-slips is away"))

    assert shown.lines == ("The printer main-slips is away  (31000000170)",)
    assert shown.tone == tone


@pytest.mark.parametrize("state", ["unknown", "expired"])
def test_slip_that_will_not_print_shows_the_reprint_command(state: str) -> None:
    """The command contains the event id of the Return."""
    shown = messages.format_slip(entry(slip_state=state, slip_message="Look at the printer main-slips"))

    assert shown.lines[1] == f"-> If there is none: bookdrop-station reprint {entry().event_id} --reason ..."


def test_journal_line_shows_reply_and_slip() -> None:
    """A line without a reply is shown as pending."""
    answered = entry(reply=reply().model_dump_json(), slip_message="Printed")

    assert messages.format_entry(answered).endswith(f"31000000170  returned: {MESSAGE}  [Printed]")
    assert messages.format_entry(entry()).endswith("31000000170  pending")


@pytest.mark.parametrize(("line", "shown"), [("\x1b[A\r\n", "?[A"), ("x" * 64, "x" * 64), ("x" * 65, "x" * 61 + "...")])
def test_scanned_text_is_shown_without_control_characters_and_cut(line: str, shown: str) -> None:
    """Control characters are replaced, and a long line is cut."""
    assert messages.printable(line) == shown


def test_end_of_a_replay_lists_ten_refusals_and_counts_the_rest() -> None:
    """Before the end only the progress is shown, without a tone."""
    refused = entry(reply=reply(Outcome.REFUSED, next_step="Look at it").model_dump_json())

    during = messages.format_progress(Progress(120, 60))
    end = messages.format_progress(Progress(120, 120, (refused,) * 12))

    assert (during.lines, during.tone) == (("HELD SCANS  60 of 120 done",), 0)
    assert end.lines[:2] == ("HELD SCANS  all 120 done", "Refused: 12")
    assert len([line for line in end.lines if "31000000170" in line]) == 10
    assert end.lines[-2] == "... and 2 more: :exceptions"
    assert (end.colour, end.tone) == ("red", messages.refused_locally("", "").tone)
    assert messages.format_progress(Progress(3, 3)).lines == ("HELD SCANS  all 3 done",)


def test_overdue_replies_show_time_number_and_next_step() -> None:
    """The message states that the scans are stored."""
    shown = messages.replies_overdue(JournalStats(7, NOW, 0))

    assert shown.lines[0] == f"NO REPLY SINCE {NOW.astimezone():%Y-%m-%d %H:%M}"
    assert "7 scans wait" in shown.lines[1]
    assert "Do not wipe this machine" in shown.lines[2]
