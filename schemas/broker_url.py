# SPDX-License-Identifier: Apache-2.0
"""Parser of broker URLs, for workers and stations: server, Sentinel, TLS."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

REDIS: Final = frozenset({"redis", "rediss", "redis+socket", "sentinel"})
RABBITMQ: Final = frozenset({"amqp", "amqps"})
DEFAULT_MASTER: Final = "mymaster"
"""Name of the master in the example configuration of Sentinel."""

_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_SENTINEL: Final = ("master_name", "sentinel_username", "sentinel_password")
_REQUIREMENTS: Final = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


@dataclass(frozen=True)
class Broker:
    """A broker, as kombu and Celery are configured for it."""

    url: str
    """URL without bookdrop's options; `;` separates several servers."""
    scheme: str
    ssl: dict[str, Any] | None = field(default=None, repr=False)
    """kombu's `ssl` and Celery's `broker_use_ssl`; `None`: no TLS."""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Options of the URL that go into kombu's `transport_options`."""

    @property
    def is_redis(self) -> bool:
        """True for Redis or Valkey, directly or behind Sentinel."""
        return self.scheme in REDIS


def read_broker_url(url: str) -> Broker:
    """Parse `url`. Raises `ValueError`, whose text contains no part of the URL except names of options.

    `redis://`, `rediss://`, `redis+socket://`, `amqp://` and `amqps://` name one server. `sentinel://` names one or more
    Sentinels, separated by commas, and the master with `?master_name=`. TLS (`rediss`, `amqps`) is set with `ssl_ca_certs`,
    `ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs`, `ssl_check_hostname`. The client verifies the server's certificate unless
    `ssl_cert_reqs=none`.
    """
    scheme = url.split(":", 1)[0]
    if scheme not in REDIS | RABBITMQ or "://" not in url:
        raise ValueError(
            f"is not a broker URL; write one of {', '.join(f'{name}://' for name in sorted(REDIS | RABBITMQ))}"
        )
    if scheme == "redis+socket":
        return Broker(url, scheme)
    address, _, query = url.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    allowed = _SENTINEL if scheme == "sentinel" else _TLS if scheme in {"rediss", "amqps"} else ()
    for name in options:
        if name not in allowed:
            raise ValueError(
                f"has an option {name} that {scheme}:// does not have; "
                + (
                    f"its options are {', '.join(allowed)}"
                    if allowed
                    else "it has none (for TLS write rediss:// or amqps://)"
                )
            )
    tls = _tls(scheme, options)
    if scheme != "sentinel":
        return Broker(address, scheme, tls)
    # Imported here because every command reads settings, and few of them use Sentinel.
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    # The server's password is not that of the Sentinels: without sentinel_password they are queried without one. The
    # client queries an unreachable Sentinel once, not four times with pauses, because there are others.
    sentinel = {"socket_timeout": 3, "socket_connect_timeout": 3, "retry": Retry(NoBackoff(), 0)}
    sentinel |= {name.removeprefix("sentinel_"): options[name] for name in _SENTINEL[1:] if name in options}
    transport_options = {
        "master_name": options.get("master_name", DEFAULT_MASTER),
        "sentinel_kwargs": sentinel,
    }
    return Broker(_sentinel_urls(address), scheme, tls, transport_options)


def _tls(scheme: str, options: Mapping[str, str]) -> dict[str, Any] | None:
    if scheme not in {"rediss", "amqps"}:
        return None
    requirement = _REQUIREMENTS.get(options.get("ssl_cert_reqs", "required"))
    if requirement is None:
        raise ValueError(f"has an ssl_cert_reqs that is not one of {', '.join(_REQUIREMENTS)}")
    verifies = requirement is not ssl.CERT_NONE
    checks_hostname = verifies and options.get("ssl_check_hostname", "true").lower() != "false"
    files = {name: options[name] for name in _TLS[:3] if name in options}
    if scheme == "amqps":
        amqp: dict[str, Any] = {name.removeprefix("ssl_"): path for name, path in files.items()}
        if checks_hostname:  # py-amqp checks the name if the key exists; kombu replaces None by the host's name
            amqp["server_hostname"] = None
        return amqp | {"cert_reqs": requirement}
    return {**files, "ssl_cert_reqs": requirement, "ssl_check_hostname": checks_hostname}


def _sentinel_urls(address: str) -> str:
    """Several Sentinels in kombu's form: a URL for each, with the server's user, password and database number."""
    first = urlsplit(address.split(";", 1)[0])
    user, at, _ = first.netloc.rpartition("@")
    hosts = [
        host
        for part in address.split(";")
        for host in urlsplit(part if "://" in part else f"sentinel://{part}").netloc.rpartition("@")[2].split(",")
    ]
    return ";".join(f"sentinel://{user}{at}{host}{first.path or '/0'}" for host in hosts)


def database_of(url: str) -> int:
    """The number of the Redis database in `url`. Raises `ValueError` unless it is the URL of a Redis server."""
    broker = read_broker_url(url)
    if not broker.is_redis:
        raise ValueError("does not name a Redis server")
    if broker.scheme == "redis+socket":
        number = dict(parse_qsl(urlsplit(url).query)).get("virtual_host", "0")
    else:
        number = urlsplit(broker.url.split(";", 1)[0]).path.strip("/") or "0"
    if not number.isdecimal():
        raise ValueError("has a database that is not a number")
    return int(number)


def virtual_host_of(url: str) -> str:
    """The virtual host in `url`. Raises `ValueError` unless it is the URL of a RabbitMQ server."""
    broker = read_broker_url(url)
    if broker.is_redis:
        raise ValueError("does not name a RabbitMQ server")
    return unquote(urlsplit(broker.url).path.removeprefix("/")) or "/"


def with_user(url: str, user: str, password: str) -> str:
    """`url` with this user and password instead of those in it. The password must not need escaping."""
    head, slashes, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{head}{slashes}{user}:{password}@{place.rpartition('@')[2]}{slash}{path}"


def password_of(url: str) -> str | None:
    """The password in `url`; `None` when it has none."""
    return urlsplit(url).password
