# SPDX-License-Identifier: Apache-2.0
"""Which request a barcode means."""

from datetime import UTC, datetime, timedelta

import pytest

from schemas.replies import Destination
from schemas.request_status import RequestStatus
from tasks.requests.barcode_lookup import Ambiguous, Found, Match, find_item
from tasks.requests.model import ItemState, Refused, RequestState
from tasks.requests.notes import MAX_LENGTH, clean_note

NOW = datetime(2026, 11, 23, tzinfo=UTC)
LENDER = Destination(name="Riverside", code="XX-RUL", delivery_code="RUL")


def resolve(matches, barcode="310001", *, is_external_id=False, patron_card_pattern=None):
    return find_item(matches, barcode, is_external_id=is_external_id, patron_card_pattern=patron_card_pattern)


def found(match):
    return Found(match.request, match.item_id)


def match(number, status, returned_at=None):
    request = RequestState(number, f"BR-{number}", "T", status, LENDER, (ItemState(number),), returned_at=returned_at)
    return Match(number, request)


def test_open_request_is_meant_and_closed_ones_are_ignored():
    """A barcode used again means the one request that is open."""
    old = match(1, RequestStatus.RETURNED_TO_PARTNER, NOW)
    current = match(2, RequestStatus.LOANED)

    assert resolve([old, current]) == found(current)


def test_newest_closed_request_answers_when_none_is_open():
    """With none open, the one returned last answers."""
    older = match(9, RequestStatus.RETURNED_TO_PARTNER, NOW - timedelta(days=400))
    newer = match(3, RequestStatus.RETURNED_TO_PARTNER, NOW)

    assert resolve([older, newer]) == found(newer)


def test_two_open_requests_are_listed():
    """Two open requests on one barcode: staff pick."""
    one, two = match(1, RequestStatus.LOANED), match(2, RequestStatus.RECEIVED)

    assert resolve([one, two]) == Ambiguous((one.request, two.request))


def test_two_items_of_one_request_are_no_choice():
    """Two items of one request with one barcode mean that request."""
    one = match(1, RequestStatus.LOANED)

    assert resolve([one, Match(5, one.request)]) == found(one)


def test_our_own_item_goes_to_the_normal_check_in():
    """An item of our own is no interlibrary loan, also when its barcode was a closed request's once."""
    for matches in ([Match(1, None)], [Match(1, None), match(2, RequestStatus.COMPLETED)]):
        refused = resolve(matches)

        assert isinstance(refused, Refused)
        assert refused.message == "Not an interlibrary loan: use the normal check-in"


def test_nothing_bears_it():
    """No match is no answer; the reason is found by the form of what was scanned."""
    assert resolve([], "X1", is_external_id=False, patron_card_pattern=r"P\d+").reason == "unknown_barcode"
    assert resolve([], "P12", is_external_id=False, patron_card_pattern=r"P\d+").reason == "patron_card"
    assert resolve([], "BR-1", is_external_id=True, patron_card_pattern=None).reason == "external_id_scanned"


@pytest.mark.parametrize(
    ("note", "kept"),
    [
        (None, None),
        ("  \x00\x07 ", None),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("tab\there", "tab\there"),
    ],
)
def test_note_is_kept_as_text(note, kept):
    """Markup stays the text it is; control characters go; lines stay lines."""
    assert clean_note(note) == kept


def test_long_note_is_cut_and_says_so():
    """Ten thousand characters are cut at the bound."""
    kept = clean_note("n" * 10_000) or ""

    assert len(kept) == MAX_LENGTH
    assert kept.endswith("[cut]")
