# SPDX-License-Identifier: Apache-2.0
"""A broker's URL, read once for workers and stations alike: which server, behind Sentinel or not, over TLS or not."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

REDIS: Final = frozenset({"redis", "rediss", "redis+socket", "sentinel"})
RABBITMQ: Final = frozenset({"amqp", "amqps"})
DEFAULT_MASTER: Final = "mymaster"
"""What Sentinel's own example configuration calls the master."""

_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_SENTINEL: Final = ("master_name", "sentinel_username", "sentinel_password")
_REQUIREMENTS: Final = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


@dataclass(frozen=True)
class Broker:
    """How kombu is told of a broker."""

    url: str
    """Without our options; several servers are divided by `;`."""
    scheme: str
    ssl: dict[str, Any] | None = field(default=None, repr=False)
    """kombu's `ssl` and Celery's `broker_use_ssl`; `None`: no TLS."""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the URL adds to kombu's `transport_options`."""

    @property
    def is_redis(self) -> bool:
        """Whether this is a Redis or Valkey server, directly or behind Sentinel."""
        return self.scheme in REDIS


def read_broker_url(url: str) -> Broker:
    """Take `url` apart. Raises `ValueError`, in words that hold no part of the URL but names of options.

    `redis://`, `rediss://`, `redis+socket://`, `amqp://` and `amqps://` name one server. `sentinel://` names one or more
    Sentinels, divided by commas, and the master with `?master_name=`. TLS (`rediss`, `amqps`) is set with `ssl_ca_certs`,
    `ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs`, `ssl_check_hostname`; a server's certificate is checked unless
    `ssl_cert_reqs=none`.
    """
    scheme = url.split(":", 1)[0]
    if scheme not in REDIS | RABBITMQ or "://" not in url:
        raise ValueError(
            f"is no broker's URL; write one of {', '.join(f'{name}://' for name in sorted(REDIS | RABBITMQ))}"
        )
    if scheme == "redis+socket":
        return Broker(url, scheme)
    address, _, query = url.partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    known = _SENTINEL if scheme == "sentinel" else _TLS if scheme in {"rediss", "amqps"} else ()
    for name in asked:
        if name not in known:
            raise ValueError(
                f"has an option {name} that means nothing after {scheme}://; "
                + (f"known are {', '.join(known)}" if known else "there are none (for TLS write rediss:// or amqps://)")
            )
    tls = _tls(scheme, asked)
    if scheme != "sentinel":
        return Broker(address, scheme, tls)
    # Here, because every command reads settings, and few have a Sentinel.
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    options: dict[str, Any] = {"master_name": asked.get("master_name", DEFAULT_MASTER)}
    # Without a password of their own, Sentinels are asked without one: theirs is not the server's. One that is away is
    # asked once, not four times with pauses: there are others.
    sentinel = {"socket_timeout": 3, "socket_connect_timeout": 3, "retry": Retry(NoBackoff(), 0)}
    options["sentinel_kwargs"] = sentinel | {
        name.removeprefix("sentinel_"): asked[name] for name in _SENTINEL[1:] if name in asked
    }
    return Broker(_each_sentinel(address), scheme, tls, options)


def _tls(scheme: str, asked: Mapping[str, str]) -> dict[str, Any] | None:
    if scheme not in {"rediss", "amqps"}:
        return None
    wanted = asked.get("ssl_cert_reqs", "required")
    if wanted not in _REQUIREMENTS:
        raise ValueError(f"has an ssl_cert_reqs that is none of {', '.join(_REQUIREMENTS)}")
    is_checked = _REQUIREMENTS[wanted] is not ssl.CERT_NONE
    named = is_checked and asked.get("ssl_check_hostname", "true").lower() != "false"
    files = {name: asked[name] for name in _TLS[:3] if name in asked}
    if scheme == "amqps":
        plain: dict[str, Any] = {name.removeprefix("ssl_"): path for name, path in files.items()}
        if named:  # py-amqp compares the name when it is given one; kombu fills in the host's
            plain["server_hostname"] = None
        return plain | {"cert_reqs": _REQUIREMENTS[wanted]}
    return {**files, "ssl_cert_reqs": _REQUIREMENTS[wanted], "ssl_check_hostname": named}


def _each_sentinel(address: str) -> str:
    """Kombu's form of several Sentinels: a whole URL for each, with the server's user, password and number."""
    first = urlsplit(address.split(";", 1)[0])
    user, at, _ = first.netloc.rpartition("@")
    hosts = [
        host
        for part in address.split(";")
        for host in urlsplit(part if "://" in part else f"sentinel://{part}").netloc.rpartition("@")[2].split(",")
    ]
    return ";".join(f"sentinel://{user}{at}{host}{first.path or '/0'}" for host in hosts)


def database_of(url: str) -> int:
    """The number of the Redis database that `url` names. Raises `ValueError` when it names no Redis server."""
    broker = read_broker_url(url)
    if not broker.is_redis:
        raise ValueError("names no Redis server")
    if broker.scheme == "redis+socket":
        number = dict(parse_qsl(urlsplit(url).query)).get("virtual_host", "0")
    else:
        number = urlsplit(broker.url.split(";", 1)[0]).path.strip("/") or "0"
    if not number.isdecimal():
        raise ValueError("has a database that is no number")
    return int(number)


def virtual_host_of(url: str) -> str:
    """The virtual host that `url` names. Raises `ValueError` when it names no RabbitMQ server."""
    broker = read_broker_url(url)
    if broker.is_redis:
        raise ValueError("names no RabbitMQ server")
    return unquote(urlsplit(broker.url).path.removeprefix("/")) or "/"


def with_user(url: str, user: str, password: str) -> str:
    """`url` with this user, instead of the one it names. The password must need no escaping."""
    head, slashes, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{head}{slashes}{user}:{password}@{place.rpartition('@')[2]}{slash}{path}"


def password_of(url: str) -> str | None:
    """The password that `url` holds."""
    return urlsplit(url).password
