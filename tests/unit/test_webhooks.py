# SPDX-License-Identifier: Apache-2.0
"""The pure parts of webhooks: signature, URL, and the rules of a retry."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.webhook_messages import WebhookEvent, WebhookTest
from schemas.webhook_signature import InvalidSecretError, format_secret, read_secret, sign, signed_headers
from tasks.requests.export import EXPORTED_KINDS
from tasks.webhooks.endpoint_url import EndpointUrl, RefusedUrlError, permits_address, read_url
from tasks.webhooks.messages import TYPES
from tasks.webhooks.policy import (
    FIRST_DELAY,
    JITTER,
    LONGEST_DELAY,
    LONGEST_RETRY_AFTER,
    Result,
    delay_after,
    result_of,
    retry_after,
)
from tests.webhook_receiver import verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def test_signature_equals_the_vector_of_the_reference_libraries():
    """The vector that the libraries of Standard Webhooks test themselves with."""
    signature = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.binary(min_size=24, max_size=64), st.binary(max_size=200))
def test_receiver_verifies_each_of_two_signatures(key, body):
    """During a rotation a receiver with either secret accepts the message, and one with neither refuses it."""
    secrets = [format_secret(key), format_secret(b"previous".ljust(32, b"."))]
    headers = signed_headers(secrets, "msg_1", NOW, body)

    assert all(verify(secret, headers, body, NOW.timestamp()) for secret in secrets)
    assert not verify(format_secret(b"another".ljust(32, b".")), headers, body, NOW.timestamp())
    assert not verify(secrets[0], headers, body + b" ", NOW.timestamp())
    assert not verify(secrets[0], headers, body, NOW.timestamp() + 301)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_%%%", "whsec_" + "QUFB" * 5, "whsec_" + "QUFB" * 30])
def test_text_that_is_no_secret_is_refused_and_not_repeated(secret):
    """Too short, too long, or not base64; the error does not contain it."""
    with pytest.raises(InvalidSecretError) as refused:
        read_secret(secret)

    assert len(secret) < 10 or secret not in str(refused.value)


@pytest.mark.parametrize("message_id", ["", "msg.1"])
def test_id_with_a_full_stop_is_refused(message_id):
    """A full stop separates the signed parts."""
    with pytest.raises(ValueError, match="id of a webhook"):
        signed_headers([SECRET], message_id, NOW, b"{}")


def test_url_is_read_into_its_parts():
    """Host, port and target as they are sent; without its query when it is shown."""
    assert read_url("https://ils.example.org/hooks?token=s3cret", plain_http=False) == EndpointUrl(
        "https", "ils.example.org", 443, "/hooks?token=s3cret", "ils.example.org"
    )
    url = read_url("http://[::1]:8080", plain_http=True)
    assert (url.host, url.port, url.target, url.authority) == ("::1", 8080, "/", "[::1]:8080")
    assert "s3cret" not in read_url("https://ils.example.org/hooks?token=s3cret", plain_http=False).shown


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/", "//host/", "host", "", "https://", "https:///path", "https://host:0/", "https://host:99999/",
        "https://user:s3cret@host/", "https://s3cret@host/", "https://host/#part", "https://host/a b", "https://host/\n",
        "https://hóst/", "https://[::1/", "https://host/" + "a" * 500, "http://host/",
    ],
)  # fmt: skip
def test_url_that_cannot_be_an_endpoint_is_refused(url):
    """The refusal contains no part of the URL that may be a secret."""
    with pytest.raises(RefusedUrlError) as refused:
        read_url(url, plain_http=False)

    assert "s3cret" not in str(refused.value)


@given(st.text(max_size=60))
def test_any_text_is_an_endpoint_or_refused(text):
    """No other exception, and what is accepted has a host and fits into a request line."""
    for url in (text, f"https://{text}"):
        try:
            found = read_url(url, plain_http=True)
        except RefusedUrlError:
            continue
        assert found.host
        assert 0 < found.port < 65536
        assert not set(found.target) & set(" \r\n")


@pytest.mark.parametrize(
    ("address", "encrypted", "plain"),
    [
        ("93.184.216.34", True, False), ("2606:2800:220:1::1", True, False), ("127.0.0.1", True, True), ("::1", True, True),
        ("10.1.2.3", True, True), ("192.168.1.1", True, True), ("fd00::1", True, True), ("::ffff:10.1.2.3", True, True),
        ("::ffff:93.184.216.34", True, False), ("169.254.169.254", False, False), ("::ffff:169.254.169.254", False, False),
        ("fe80::1%eth0", False, False), ("0.0.0.0", False, False), ("224.0.0.1", False, False),
    ],
)  # fmt: skip
def test_address_is_permitted_by_encryption_and_network(address, encrypted, plain):
    """Without encryption only this machine and private networks; never a metadata service on the link."""
    assert permits_address(address, is_encrypted=True) is encrypted
    assert permits_address(address, is_encrypted=False) is plain


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (200, Result.ACKNOWLEDGED), (204, Result.ACKNOWLEDGED), (299, Result.ACKNOWLEDGED), (100, Result.UNAVAILABLE),
        (301, Result.UNAVAILABLE), (307, Result.UNAVAILABLE), (400, Result.REFUSED), (422, Result.REFUSED),
        (401, Result.UNAVAILABLE), (404, Result.UNAVAILABLE), (410, Result.GONE), (429, Result.UNAVAILABLE),
        (500, Result.UNAVAILABLE), (503, Result.UNAVAILABLE), (999, Result.UNAVAILABLE),
    ],
)  # fmt: skip
def test_status_has_a_result(status, result):
    """2xx acknowledges, 410 disables, a refusal concerns the one message, everything else the endpoint."""
    assert result_of(status) is result


@given(st.integers(min_value=1, max_value=10_000), st.floats(min_value=0, max_value=1))
def test_delay_grows_to_its_limit_with_jitter(failures, chance):
    """Never below the first delay, never above the limit, but for the jitter."""
    delay = delay_after(failures, LONGEST_DELAY, chance)

    assert FIRST_DELAY * (1 - JITTER) <= delay <= LONGEST_DELAY * (1 + JITTER)
    assert delay_after(failures, LONGEST_DELAY, 0.5) <= delay_after(failures + 1, LONGEST_DELAY, 0.5)


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        (None, 0), ("", 0), ("120", 120), (" 7 ", 7), ("-1", 0), ("1.5", 0), ("²", 0), ("9" * 30, 3600),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_up_to_an_hour(header, pause):
    """A hostile header causes no error and no endless pause."""
    assert retry_after(header) == timedelta(seconds=pause) <= LONGEST_RETRY_AFTER


def test_types_are_those_of_the_export():
    """An event that the export has is one that a webhook has, and the other way round."""
    assert set(TYPES) == set(EXPORTED_KINDS)
    assert len(set(TYPES.values())) == len(TYPES)


def test_no_message_has_a_field_for_a_patron_or_a_typed_text():
    """The schema itself: names of all fields, at every depth."""
    fields = set()

    def collect(schema):
        if isinstance(schema, dict):
            fields.update(schema.get("properties", {}))
            for each in schema.values():
                collect(each)
        elif isinstance(schema, list):
            for each in schema:
                collect(each)

    for model in (WebhookEvent, WebhookTest):
        collect(model.model_json_schema())

    assert fields == {
        "type", "timestamp", "data", "cursor", "event", "request", "status_before", "status_after", "at", "recorded_at",
        "branch", "station", "lender", "items", "position", "barcodes", "loans_discharged", "undoes", "loans_reopened",
        "endpoint",
    }  # fmt: skip
