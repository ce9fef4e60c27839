# SPDX-License-Identifier: Apache-2.0
"""IPP requests and replies as bytes."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.external_text import one_line
from tasks.printing.printers.ipp_codec import (
    MAX_TEXT_LENGTH,
    MAX_VALUES,
    InvalidResponseError,
    Operation,
    Response,
    decode,
    encode,
)


def attribute(tag, name, value):
    return struct.pack(">BH", tag, len(name)) + name + struct.pack(">H", len(value)) + value


HEAD = {
    "attributes-charset": "utf-8",
    "attributes-natural-language": "en",
    "printer-uri": "ipp://printer.example.com/ipp/print/pinetree",
}


def test_print_job_request_has_the_bytes_of_the_standard():
    """The request follows the example of RFC 8010, appendix A.1."""
    request = encode(Operation.PRINT_JOB, 1, {**HEAD, "job-name": "foobar"})

    assert request == (
        b"\x01\x01\x00\x02\x00\x00\x00\x01\x01"
        b"\x47\x00\x12attributes-charset\x00\x05utf-8"
        b"\x48\x00\x1battributes-natural-language\x00\x02en"
        b"\x45\x00\x0bprinter-uri\x00\x2cipp://printer.example.com/ipp/print/pinetree"
        b"\x42\x00\x08job-name\x00\x06foobar"
        b"\x03"
    )


def test_further_values_have_no_name_and_integers_four_bytes():
    """RFC 8010, sections 3.1.5 and 3.9."""
    request = encode(Operation.GET_JOB_ATTRIBUTES, 7, {"job-id": 147, "requested-attributes": ("job-id", "job-state")})

    assert request == (
        b"\x01\x01\x00\x09\x00\x00\x00\x07\x01"
        b"\x21\x00\x06job-id\x00\x04\x00\x00\x00\x93"
        b"\x44\x00\x14requested-attributes\x00\x06job-id"
        b"\x44\x00\x00\x00\x09job-state"
        b"\x03"
    )


def test_job_attributes_are_in_their_own_group():
    """Attributes that a printer may ignore follow the operation attributes (RFC 8010, section 3.1.2)."""
    request = encode(Operation.PRINT_JOB, 1, {"job-name": "a"}, {"print-scaling": "none"})

    assert request == (
        b"\x01\x01\x00\x02\x00\x00\x00\x01\x01\x42\x00\x08job-name\x00\x01a"
        b"\x02\x44\x00\x0dprint-scaling\x00\x04none\x03"
    )


def test_reply_is_decoded_with_printer_and_jobs():
    """Status, message, printer attributes and jobs are decoded; a collection between them is skipped."""
    reply = decode(
        b"\x02\x00\x00\x01\x00\x00\x00\x01"
         b"\x01" + attribute(0x47, b"attributes-charset", b"utf-8")
        + attribute(0x41, b"status-message", "gelöst".encode())
        + b"\x04" + attribute(0x44, b"printer-state-reasons", b"media-empty") + attribute(0x44, b"", b"paused")
        + attribute(0x34, b"media-col-ready", b"") + attribute(0x4A, b"", b"media-size") + attribute(0x34, b"", b"")
        + attribute(0x4A, b"", b"x") + attribute(0x21, b"", b"\0\0\0\1") + attribute(0x37, b"", b"")
        + attribute(0x37, b"", b"") + attribute(0x22, b"printer-is-accepting-jobs", b"\x01")
        + b"\x02" + attribute(0x21, b"job-id", b"\0\0\0\x93") + attribute(0x36, b"job-name", b"\0\x02de\0\x01a")
        + b"\x02" + attribute(0x23, b"job-state", b"\0\0\0\x09")
        + b"\x03"
    )  # fmt: skip

    assert reply == Response(
        status=1,
        message="gelöst",
        printer={"printer-state-reasons": ("media-empty", "paused"), "printer-is-accepting-jobs": (True,)},
        jobs=({"job-id": (147,), "job-name": ("a",)}, {"job-state": (9,)}),
    )
    assert reply.succeeded


@pytest.mark.parametrize("status", [0x0100, 0x0406, 0x0507])
def test_status_from_0x0100_on_is_a_failure(status):
    """From 0x0100 on the printer did not perform the operation (RFC 8011, appendix B)."""
    assert not decode(struct.pack(">BBHI", 1, 1, status, 1) + b"\x01\x03").succeeded


values = st.lists(st.tuples(st.sampled_from([0x41, 0x44, 0x45]), st.text(max_size=40)), min_size=1, max_size=4)


@given(st.dictionaries(st.text(min_size=1, max_size=20), values, max_size=5))
def test_any_text_attributes_are_decoded_as_printable_lines(attributes):
    """Encoded attributes of any names and texts are decoded to the same values, each as one printable line."""
    body = b"".join(
        attribute(tag, name.encode() if number == 0 else b"", value.encode())
        for name, given in attributes.items()
        for number, (tag, value) in enumerate(given)
    )

    reply = decode(b"\x01\x01\x00\x00\x00\x00\x00\x01\x01\x04" + body + b"\x03")

    assert reply.printer == {name: tuple(one_line(value) for _, value in given) for name, given in attributes.items()}


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"\x01\x01\x00\x00\x00\x00\x00\x01" + tail))
@example(b"")
@example(b"HTTP/1.1 200 OK\r\n\r\n<html>")
def test_any_bytes_are_a_reply_or_no_ipp_error(body):
    """No other exception is raised, whatever a printer sends."""
    try:
        reply = decode(body)
    except InvalidResponseError:
        return

    assert isinstance(reply, Response)


def test_long_texts_and_many_values_are_bounded():
    """A text is cut and values are left out; a response of the largest size with one byte per value is decoded."""
    response = b"\x01\x01\x00\x00\x00\x00\x00\x01\x01\x04"
    values = attribute(0x44, b"printer-state-reasons", b"x" * 60_000) + attribute(0x44, b"", b"a") * 150_000

    decoded = decode(response + values + b"\x03").printer["printer-state-reasons"]

    assert len(decoded) == MAX_VALUES
    assert len(str(decoded[0])) == MAX_TEXT_LENGTH
