# SPDX-License-Identifier: Apache-2.0
"""Names on the wire: which queues may be answered to, and how queues are declared."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import topology
from schemas.topology import CODE_PATTERN, is_reply_queue, queue_arguments, reply_queue

CODES = st.from_regex(re.compile(CODE_PATTERN, re.ASCII), fullmatch=True).filter(lambda code: len(code) <= 40)


@given(station=CODES)
def test_every_stations_reply_queue_may_be_answered_to(station):
    """Any station with a valid code gets its answers."""
    assert is_reply_queue(reply_queue(station))


@given(name=st.text(max_size=90))
def test_only_reply_queues_may_be_answered_to(name):
    """Whatever else a message names, nothing is sent there."""
    is_one = re.fullmatch(r"reply\.[a-z0-9-]{1,74}", name, re.ASCII) is not None

    assert is_reply_queue(name) == is_one


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "returns",
        "housekeeping",
        "dead-letter",
        "printing.main",
        "reply.",
        "reply.Main-1",
        "reply.main\n",
        "reply.main.2",
        "reply.*",
        "xreply.main",
        " reply.main",
        "reply.main\x00",
        "reply.дом",
        "reply.\u0661",
        "amq.rabbitmq.reply-to",
    ],
)
def test_other_queues_are_not_answered_to(name):
    """Neither our own work queues, nor patterns, nor a name with something hidden at its end."""
    assert not is_reply_queue(name)


def test_a_name_that_is_too_long_is_not_answered_to():
    """80 characters are the longest name of a reply queue."""
    longest = "reply." + "a" * 74

    assert is_reply_queue(longest)
    assert not is_reply_queue(longest + "a")


@given(station=CODES)
def test_an_unread_reply_queue_goes_after_a_week(station):
    """A reply queue is declared with an expiry and nothing else, by everybody alike."""
    assert queue_arguments(reply_queue(station)) == {"x-expires": 604_800_000}


@pytest.mark.parametrize("queue", ["returns", "housekeeping", "printing.main"])
def test_work_queues_survive_and_give_up_in_the_end(queue):
    """Work queues are quorum queues; what is redelivered too often goes to the dead letters, not away."""
    arguments = queue_arguments(queue)

    assert arguments["x-queue-type"] == "quorum"
    assert arguments["x-delivery-limit"] == 20
    assert arguments["x-dead-letter-routing-key"] == topology.DEAD_LETTER_QUEUE


def test_dead_letters_go_nowhere_else():
    """The last queue has no dead-letter queue of its own: nothing goes round in circles."""
    assert "x-dead-letter-exchange" not in queue_arguments(topology.DEAD_LETTER_QUEUE)


def test_names_on_the_wire_stay_as_they_are():
    """Stations in other languages have these names written down."""
    assert (topology.RETURNS_QUEUE, topology.PROCESS_SCAN, topology.PROCESS_RETURN) == (
        "returns",
        "returns.process_scan",
        "returns.process_return",
    )
    assert (topology.printing_queue("main"), reply_queue("main-desk-1")) == ("printing.main", "reply.main-desk-1")
