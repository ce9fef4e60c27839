# SPDX-License-Identifier: Apache-2.0
"""The request that a barcode identifies."""

from datetime import UTC, datetime, timedelta

import pytest

from schemas.replies import Destination
from schemas.request_status import RequestStatus
from tasks.requests.barcode_lookup import Ambiguous, Found, Match, find_item
from tasks.requests.model import ItemState, Refused, RequestState

NOW = datetime(2026, 11, 23, tzinfo=UTC)
LENDER = Destination(name="Riverside", code="XX-RUL", delivery_code="RUL")


def resolve(matches, barcode="310001", *, is_external_id=False, patron_card_pattern=None):
    return find_item(matches, barcode, is_external_id=is_external_id, patron_card_pattern=patron_card_pattern)


def found(match):
    return Found(match.request, match.item_id)


def match(number, status, returned_at=None):
    request = RequestState(number, f"BR-{number}", "T", status, LENDER, (ItemState(number),), returned_at=returned_at)
    return Match(number, request)


def test_reused_barcode_finds_the_open_request():
    """Closed requests with the same barcode are ignored."""
    old = match(1, RequestStatus.RETURNED_TO_PARTNER, NOW)
    current = match(2, RequestStatus.LOANED)

    assert resolve([old, current]) == found(current)


def test_barcode_of_closed_requests_finds_the_one_returned_last():
    """Without an open request, the most recent Return counts."""
    older = match(9, RequestStatus.RETURNED_TO_PARTNER, NOW - timedelta(days=400))
    newer = match(3, RequestStatus.RETURNED_TO_PARTNER, NOW)

    assert resolve([older, newer]) == found(newer)


def test_barcode_of_two_open_requests_is_ambiguous():
    """Both requests are listed, each once, and staff pick one."""
    one, two = match(1, RequestStatus.LOANED), match(2, RequestStatus.RECEIVED)

    assert resolve([one, two, Match(5, one.request)]) == Ambiguous((one.request, two.request))


def test_barcode_of_two_items_of_one_request_finds_the_request():
    """Two items of one request with one barcode are not ambiguous."""
    one = match(1, RequestStatus.LOANED)

    assert resolve([one, Match(5, one.request)]) == found(one)


def test_barcode_of_the_library_itself_is_refused():
    """The item is checked in normally, also when a closed request had its barcode."""
    for matches in ([Match(1, None)], [Match(1, None), match(2, RequestStatus.COMPLETED)]):
        refused = resolve(matches)

        assert isinstance(refused, Refused)
        assert refused.reason == "not_interlibrary_loan"
        assert refused.message == "Not an interlibrary loan: use the normal check-in"
        assert refused.next_step


def test_closed_request_that_was_returned_precedes_one_that_never_was():
    """A canceled request has no time of a Return; the returned one is found, whatever its item's id."""
    canceled = match(9, RequestStatus.CANCELED_BY_STAFF)
    returned = match(3, RequestStatus.RETURNED_TO_PARTNER, NOW)

    assert resolve([canceled, returned]) == resolve([returned, canceled]) == found(returned)


def test_closed_requests_without_a_return_find_the_newest_item():
    """Without any time of a Return, the item with the highest id counts."""
    older, newer = match(3, RequestStatus.CANCELED_BY_STAFF), match(9, RequestStatus.EXPIRED)

    assert resolve([newer, older]) == found(newer)


@pytest.mark.parametrize(
    ("code", "is_external_id", "reason", "message"),
    [
        ("X1", False, "unknown_barcode", "Unknown barcode: X1"),
        ("BR-1", True, "external_id_scanned", "Not an item barcode: BR-1 is the identifier of a request"),
        ("P12", False, "patron_card", "Not an item barcode: that is a patron card"),
        ("BD:01a20a85-0c89-7e6f-9d55-be5c2b392977", False, "slip_code", "That is the code of a slip, not of an item"),
        ("bd:01A20A85-0C89-7E6F-9D55-BE5C2B392977", False, "slip_code", "That is the code of a slip, not of an item"),
        ("BD:17", False, "unknown_barcode", "Unknown barcode: BD:17"),
        ("P12x", False, "unknown_barcode", "Unknown barcode: P12x"),
    ],
)
def test_unmatched_barcode_is_refused_by_its_form(code, is_external_id, reason, message):
    """The form of the code decides the reason. Only the refusal of a patron card hides the code."""
    refused = resolve([], code, is_external_id=is_external_id, patron_card_pattern=r"P\d+")

    assert isinstance(refused, Refused)
    assert (refused.reason, refused.message) == (reason, message)
    assert refused.next_step
    assert refused.hides_code is (reason == "patron_card")


def test_patron_card_is_an_unknown_barcode_without_a_pattern():
    """A library that sets no pattern has no patron cards to detect."""
    assert resolve([], "P12").reason == "unknown_barcode"
