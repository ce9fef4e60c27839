# SPDX-License-Identifier: Apache-2.0
"""Broker URLs: the accepted forms, and the errors for all others."""

import ssl

import pytest

from schemas.broker_url import database_of, password_of, read_broker_url, with_user
from schemas.configuration import ConfigurationError
from stations.settings import StationSettings
from workers.settings import WorkerSettings


@pytest.mark.parametrize(
    ("url", "is_redis"),
    [
        ("redis://127.0.0.1:6379/0", True),
        ("redis+socket:///run/valkey.sock", True),
        ("amqp://guest:guest@127.0.0.1//bookdrop", False),
    ],
)
def test_plain_url_is_unchanged(url, is_redis):
    """A URL without options and TLS is passed to kombu as it is."""
    broker = read_broker_url(url)

    assert (broker.url, broker.is_redis, broker.ssl, dict(broker.options)) == (url, is_redis, None, {})


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://desk:secret@one:26379,two:26380,three/2?master_name=books&sentinel_password=s",
        "sentinel://desk:secret@one:26379/2;sentinel://desk:secret@two:26380/2;three?master_name=books&sentinel_password=s",
    ],
    ids=["commas", "as kombu has it"],
)
def test_sentinel_options_are_separated_from_the_server(url):
    """Each Sentinel has a URL with the server's user and database; the master's name and the Sentinel password are options."""
    broker = read_broker_url(url)

    assert broker.url.split(";") == [
        "sentinel://desk:secret@one:26379/2",
        "sentinel://desk:secret@two:26380/2",
        "sentinel://desk:secret@three/2",
    ]
    assert broker.options["master_name"] == "books"
    assert broker.options["sentinel_kwargs"]["password"] == "s"


def test_sentinel_master_defaults_to_mymaster():
    """The default is the name in Sentinel's own example."""
    assert read_broker_url("sentinel://one/0").options["master_name"] == "mymaster"


def test_tls_verifies_the_certificate_by_default():
    """`rediss://` and `amqps://` verify the certificate and its name against the system's authorities."""
    redis, rabbitmq = read_broker_url("rediss://books.example/0").ssl, read_broker_url("amqps://books.example//").ssl

    assert redis == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    assert rabbitmq == {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}
    assert read_broker_url("rediss://books.example/0?ssl_cert_reqs=none").ssl == {
        "ssl_cert_reqs": ssl.CERT_NONE,
        "ssl_check_hostname": False,
    }


def test_tls_files_have_the_names_of_each_library():
    """redis-py and py-amqp get the same three files under their own option names."""
    files = "ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem"

    redis, rabbitmq = read_broker_url(f"rediss://b/0?{files}"), read_broker_url(f"amqps://b//?{files}")

    assert redis.url == "rediss://b/0"
    assert (redis.ssl or {}).items() >= {
        "ssl_ca_certs": "/ca.pem", "ssl_certfile": "/c.pem", "ssl_keyfile": "/k.pem"
    }.items()  # fmt: skip
    assert (rabbitmq.ssl or {}).items() >= {"ca_certs": "/ca.pem", "certfile": "/c.pem", "keyfile": "/k.pem"}.items()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("kafka://secret@b", "write one of amqp://"),
        ("redis:/b", "write one of"),
        ("redis://:secret@b/0?ssl_ca_certs=/ca", "for TLS write rediss://"),
        ("rediss://:secret@b/0?ssl_ca_cert=/ca", "its options are ssl_ca_certs"),
        ("rediss://:secret@b/0?ssl_cert_reqs=maybe", "not one of required, optional, none"),
        ("sentinel://:secret@b/0?master=books", "its options are master_name"),
        ("sentinel://:secret@b/0?ssl_ca_certs=/ca", "its options are master_name"),
    ],
)
@pytest.mark.parametrize("side", [WorkerSettings, StationSettings])
def test_invalid_url_is_refused_without_its_secrets(url, words, side):
    """Workers and stations report the cause, and no password."""
    needed = {} if side is WorkerSettings else {"code": "a", "key": "k"}

    with pytest.raises(ConfigurationError, match=words) as caught:
        side.load(broker_url=url, **needed)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "number"),
    [
        ("redis://b", 0),
        ("rediss://b/3", 3),
        ("sentinel://a,b/4?master_name=x", 4),
        ("redis+socket:///v.sock?virtual_host=5", 5),
    ],
)
def test_database_number_is_the_last_part_of_the_path(url, number):
    """The access-control lists contain it in the names of channels."""
    assert database_of(url) == number


@pytest.mark.parametrize(
    "url", ["redis://b/0", "redis://old:gone@b/0", "sentinel://a,b/0?master_name=x", "redis+socket:///v"]
)
def test_with_user_replaces_user_and_password(url):
    """The URL has the new name and password, and is still valid."""
    made = with_user(url, "desk", "s3cret")

    assert "desk:s3cret@" in made
    assert "gone" not in made
    assert password_of(made) == "s3cret"
    read_broker_url(made)
