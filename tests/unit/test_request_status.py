# SPDX-License-Identifier: Apache-2.0
"""The statuses of a borrowing request: stored values and labels."""

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


def test_labels_are_the_statuses_of_alma():
    """Each of Alma's statuses has a member, and no member has another label."""
    assert {status.label for status in RequestStatus} == WORDS


@pytest.mark.parametrize("words", sorted(WORDS))
def test_label_is_read_as_its_status(words):
    """The label of a status in an export is the label that staff read."""
    assert RequestStatus.parse(words).label == words


@given(
    status=st.sampled_from(RequestStatus),
    by_label=st.booleans(),
    change=st.sampled_from([str.upper, str.lower, str.title, str.swapcase]),
    gap=st.text(" \t\n_", min_size=1, max_size=3),
)
def test_capitals_and_spaces_are_ignored(status, by_label, change, gap):
    """Values and labels are read with any capitals and any gaps between words."""
    words = (status.label if by_label else status.value).replace("_", " ")

    typed = gap + gap.join(change(words).split(" ")) + gap

    assert RequestStatus.parse(typed) is status


@pytest.mark.parametrize("words", ["", "Lent", "returned", "Loaned to patrons", "null"])
def test_unknown_status_raises_value_error(words):
    """The error repeats the unknown words; no similar status is chosen."""
    with pytest.raises(ValueError, match="is not a status") as error:
        RequestStatus.parse(words)

    assert repr(words) in str(error.value)


def test_returned_by_patron_is_open():
    """A reused barcode can identify a request that is returned by patron, and not one that is returned to the partner."""
    assert RequestStatus.RETURNED_BY_PATRON not in CLOSED
    assert RequestStatus.RETURNED_TO_PARTNER in CLOSED
