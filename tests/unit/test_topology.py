# SPDX-License-Identifier: Apache-2.0
"""Names on the wire: the queues that replies may be sent to, and the arguments of queues."""

import re
from string import ascii_lowercase, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import topology
from schemas.topology import CODE_PATTERN, is_reply_queue, queue_arguments, reply_queue

CODES = st.lists(st.text(ascii_lowercase + digits, min_size=1, max_size=8), min_size=1, max_size=4).map("-".join)


@given(station=CODES)
def test_reply_queue_of_any_station_is_accepted(station):
    """The queue of every valid station code is a reply queue."""
    assert re.fullmatch(CODE_PATTERN, station)
    assert is_reply_queue(reply_queue(station))


@given(name=st.text(max_size=90) | st.text("ab9-.A \n\u0661", max_size=80).map("reply.{}".format))
def test_name_is_a_reply_queue_only_in_the_defined_form(name):
    """Any other text in a message's `reply_to` is not a reply queue."""
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
def test_other_queue_is_not_a_reply_queue(name):
    """Work queues, patterns, and names with a hidden suffix are not reply queues."""
    assert not is_reply_queue(name)


def test_reply_queue_of_more_than_80_characters_is_not_accepted():
    """The longest name of a reply queue has 80 characters."""
    longest = "reply." + "a" * 74

    assert is_reply_queue(longest)
    assert not is_reply_queue(longest + "a")


@given(station=CODES)
def test_reply_queue_expires_after_a_week(station):
    """Stations and workers declare a reply queue with this one argument."""
    assert queue_arguments(reply_queue(station)) == {"x-expires": 604_800_000}


@pytest.mark.parametrize("queue", ["returns", "housekeeping", "printing.main"])
def test_work_queue_is_a_quorum_queue_with_a_delivery_limit(queue):
    """A message that is redelivered too often goes to the dead-letter queue."""
    arguments = queue_arguments(queue)

    assert arguments["x-queue-type"] == "quorum"
    assert arguments["x-delivery-limit"] == 20
    assert arguments["x-dead-letter-routing-key"] == topology.DEAD_LETTER_QUEUE


def test_dead_letter_queue_has_no_dead_letter_exchange():
    """A dead letter cannot circulate between queues."""
    assert "x-dead-letter-exchange" not in queue_arguments(topology.DEAD_LETTER_QUEUE)


def test_names_on_the_wire_are_unchanged():
    """Stations in other languages contain these names."""
    assert (topology.RETURNS_QUEUE, topology.PROCESS_SCAN, topology.PROCESS_RETURN) == (
        "returns",
        "returns.process_scan",
        "returns.process_return",
    )
    assert (topology.printing_queue("main"), reply_queue("main-desk-1")) == ("printing.main", "reply.main-desk-1")
