# SPDX-License-Identifier: Apache-2.0
"""The statuses of a borrowing request: the desk's words, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.request_status import CLOSED, RequestStatus

WORDS = {
    "Created borrowing request",
    "Ready to be sent",
    "Request sent to partner",
    "Will supply",
    "Conditional",
    "Shipped physically",
    "Physically received by library",
    "Received - not for loan",
    "Loaned to patron",
    "Renew requested",
    "Renewed by partner",
    "Renew request not accepted",
    "Mediated patron renewal",
    "Overdue request",
    "Recalled by partner",
    "Returned by patron",
    "Report damaged item to partner",
    "Report lost item to partner",
    "Declared lost by partner",
    "Returned item to partner",
    "Request completed",
    "Canceled by partner",
    "Canceled by patron",
    "Canceled by staff",
    "Expired",
    "Rejected by partner",
}
"""Ex Libris Alma's words, as staff see them on a borrowing request."""


def test_the_statuses_are_the_words_of_the_desk():
    """Each of the words has its status, and no status has other words."""
    assert {status.label for status in RequestStatus} == WORDS


@pytest.mark.parametrize("words", sorted(WORDS))
def test_the_desks_words_are_read_and_written_unchanged(words):
    """What an export calls a status is what staff read."""
    assert RequestStatus.from_words(words).label == words


@given(
    status=st.sampled_from(RequestStatus),
    by_label=st.booleans(),
    change=st.sampled_from([str.upper, str.lower, str.title, str.swapcase]),
    gap=st.text(" \t\n_", min_size=1, max_size=3),
)
def test_capitals_and_spaces_make_no_difference(status, by_label, change, gap):
    """Stored values and labels are read whatever their capitals and the gaps between their words."""
    words = (status.label if by_label else status.value).replace("_", " ")

    typed = gap + gap.join(change(words).split(" ")) + gap

    assert RequestStatus.from_words(typed) is status


@pytest.mark.parametrize("words", ["", "Lent", "returned", "Loaned to patrons", "null"])
def test_other_words_are_no_status(words):
    """An unknown status is an error that repeats the words, not a guess."""
    with pytest.raises(ValueError, match="is no status") as error:
        RequestStatus.from_words(words)

    assert repr(words) in str(error.value)


def test_returned_by_patron_is_not_returned_to_partner():
    """Back on our shelf is not sent home: a reused barcode still means the first, no longer the second."""
    assert RequestStatus.RETURNED_BY_PATRON not in CLOSED
    assert RequestStatus.RETURNED_TO_PARTNER in CLOSED
