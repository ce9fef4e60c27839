# SPDX-License-Identifier: Apache-2.0
"""Users of a RabbitMQ server: the permissions of stations, workers, operations and Flower in the virtual host.

RabbitMQ has three permissions, each a regular expression over names of queues and exchanges: configure (declare and
delete), write (publish to an exchange; bind a queue), read (consume from a queue; bind to an exchange). To create a queue
with a dead-letter exchange a user needs to read the queue and to write to that exchange.

Workers and operations publish to the anonymous exchange, which RabbitMQ names `amq.default`, and so to every queue. They
have the database, with every station's key and the outbox: a narrower permission would protect nothing. A station writes
to one exchange only, which leads to the queue `returns`. Metrics and Flower publish to no queue of bookdrop.
"""

import hashlib
import json
import re
import shlex
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from schemas import topology
from schemas.topology import reply_queue
from workers.access_control.queue_limits import Policy
from workers.access_control.redis import (
    FLOWER,
    HOUSEKEEPING,
    METRICS,
    OPERATIONS,
    PRINTING,
    RETURNS,
    WORKER,
    station_user,
)

STATION_LIMITS: Final = {"max-connections": 16, "max-channels": 64}
"""Limits of a station's user. A station's prompt has two connections, and each command beside it two more."""

_ANONYMOUS = r"amq\.default"
_EVENTS = re.escape(topology.EVENTS_EXCHANGE)
_CHECKED_EVENTS = re.escape(topology.CHECKED_EVENTS_EXCHANGE)
_REFUSED_EVENTS = re.escape(topology.REFUSED_EVENTS_EXCHANGE)
_RETURNS = re.escape(topology.RETURNS_QUEUE)
_HOUSEKEEPING = re.escape(topology.HOUSEKEEPING_QUEUE)
_PRINTING = re.escape(topology.PRINTING_QUEUE_PREFIX) + ".+"
_PRINT_ACTIONS = topology.PRINT_ACTIONS_QUEUE
_DEAD_LETTERS = topology.DEAD_LETTER_QUEUE
_REPLIES = re.escape(topology.REPLY_QUEUE_PREFIX) + ".+"

_MONITORING = "celeryev"
"""Celery's exchange for events."""
_MONITORING_QUEUES = r"celeryev\..+"
_CONTROL = r"celery\.pidbox"
"""Celery's exchange for remote control. A user who may write to it may query the workers."""
_CONTROL_REPLIES = r"reply\.celery\.pidbox"
_CONTROL_REPLY_QUEUES = r".+\.reply\.celery\.pidbox"


@dataclass(frozen=True)
class Permissions:
    """One user, and the regular expression of each permission."""

    name: str
    configure: str
    write: str
    read: str
    limits: Mapping[str, int] = field(default_factory=dict)
    """Limits of the server for this user, by name."""


def permissions(stations: Sequence[str]) -> list[Permissions]:
    """Return the permissions of all users: each role, all roles in one, operations, Flower, metrics, each of `stations`."""
    all_work = (_RETURNS, _HOUSEKEEPING, _PRINT_ACTIONS, _DEAD_LETTERS, _PRINTING)
    return [
        _worker(WORKER, node=".+@", queues=all_work, serves_stations=True, monitors=True),
        # A Return enqueues print tasks: the first one creates the queue.
        _worker(RETURNS, node="returns@", queues=(_RETURNS, _PRINTING), serves_stations=True),
        _worker(PRINTING, node="printing(-.+)?@", queues=(_PRINTING, _PRINT_ACTIONS)),
        _worker(HOUSEKEEPING, node="housekeeping@", queues=all_work, serves_stations=True),
        _user(
            OPERATIONS,
            configure=(*all_work, _REPLIES, _MONITORING, _MONITORING_QUEUES, *_CONTROL_CLIENT_DECLARES),
            write=(_ANONYMOUS, _MONITORING_QUEUES, *_CONTROL_CLIENT_WRITES),
            read=(*all_work, _MONITORING, _MONITORING_QUEUES, _CONTROL_REPLIES, _CONTROL_REPLY_QUEUES),
        ),
        _user(
            FLOWER,
            configure=(_MONITORING, _MONITORING_QUEUES, *_CONTROL_CLIENT_DECLARES),
            write=(_MONITORING_QUEUES, *_CONTROL_CLIENT_WRITES),
            read=(_MONITORING, _MONITORING_QUEUES, _CONTROL_REPLIES, _CONTROL_REPLY_QUEUES),
        ),
        _user(
            METRICS,
            configure=(_MONITORING, _MONITORING_QUEUES),
            write=(_MONITORING_QUEUES,),
            read=(_MONITORING, _MONITORING_QUEUES),
        ),
        *map(_station, stations),
    ]


_CONTROL_CLIENT_DECLARES = (_CONTROL, _CONTROL_REPLIES, _CONTROL_REPLY_QUEUES)
_CONTROL_CLIENT_WRITES = (_CONTROL, _CONTROL_REPLY_QUEUES)


def _worker(
    name: str, *, node: str, queues: Sequence[str], serves_stations: bool = False, monitors: bool = False
) -> Permissions:
    """A worker whose name begins with `node`, and that consumes `queues`.

    `serves_stations`: it declares the stations' exchanges and binds them. `monitors`: it runs `bookdrop metrics` as well.
    """
    own_control = rf"{node}.+\.celery\.pidbox"
    events = (_EVENTS, _CHECKED_EVENTS, _REFUSED_EVENTS) if serves_stations else ()
    binds = (_RETURNS, _CHECKED_EVENTS, _REFUSED_EVENTS) if serves_stations else ()
    monitoring = (_MONITORING_QUEUES,) if monitors else ()
    return _user(
        name,
        configure=(
            *queues, _REPLIES, _DEAD_LETTERS, *events, _MONITORING, *monitoring, _CONTROL, _CONTROL_REPLIES, own_control,
        ),
        write=(
            _ANONYMOUS, *binds, _MONITORING, *monitoring, _CONTROL_REPLIES, own_control,
        ),
        read=(
            *queues, *events, *((_MONITORING, *monitoring) if monitors else ()), _CONTROL, own_control,
        ),
    )  # fmt: skip


def _station(code: str) -> Permissions:
    """A station: declare and consume its own reply queue, publish to the stations' exchange."""
    own = (re.escape(reply_queue(code)),)
    return _user(station_user(code), configure=own, write=(_EVENTS,), read=own, limits=STATION_LIMITS)


def _user(
    name: str,
    *,
    configure: Sequence[str],
    write: Sequence[str],
    read: Sequence[str],
    limits: Mapping[str, int] | None = None,
) -> Permissions:
    return Permissions(name, _any_of(configure), _any_of(write), _any_of(read), limits or {})


def _any_of(names: Sequence[str]) -> str:
    """The regular expression of exactly these `names`, which are expressions themselves."""
    return f"^({'|'.join(dict.fromkeys(names))})$"


def commands(user: Permissions, host: str, prefix: str, password_file: Path | None) -> Iterator[str]:
    """Yield the rabbitmqctl commands that create `user` in the virtual host, or set an existing one's password and rights.

    `password_file`: `None` makes rabbitmqctl prompt for the password.
    """
    name = shlex.quote(prefix + user.name)
    password = f" < {shlex.quote(str(password_file))}" if password_file else ""
    yield f"rabbitmqctl add_user {name}{password} || rabbitmqctl change_password {name}{password}"
    allowed = " ".join(map(shlex.quote, (user.configure, user.write, user.read)))
    yield f"rabbitmqctl set_permissions -p {shlex.quote(host)} {name} {allowed}"
    if user.limits:
        yield f"rabbitmqctl set_user_limits {name} {shlex.quote(json.dumps(user.limits))}"


def definitions(
    users: Sequence[Permissions],
    host: str,
    prefix: str,
    passwords: Mapping[str, str],
    salt: Callable[[int], bytes],
    *,
    limits: Sequence[Policy] = (),
) -> dict[str, Any]:
    """Return RabbitMQ's definitions of `users`, of their virtual host and of the limits of its queues.

    `salt` returns so many random bytes.

    A password is stored as RabbitMQ's `rabbit_password_hashing_sha256`: base64 of a salt of four bytes and the SHA-256 of
    salt and password.
    """
    return {
        "vhosts": [{"name": host}],
        "users": [
            {
                "name": prefix + user.name,
                "password_hash": password_hash(passwords[user.name], salt(4)),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": [],
                "limits": dict(user.limits),
            }
            for user in users
        ],
        "permissions": [
            {
                "user": prefix + user.name,
                "vhost": host,
                "configure": user.configure,
                "write": user.write,
                "read": user.read,
            }
            for user in users
        ],
        "policies": [
            {
                "vhost": host,
                "name": policy.name,
                "pattern": policy.pattern,
                "apply-to": "queues",
                "definition": dict(policy.definition),
                "priority": 0,
            }
            for policy in limits
        ],
    }


def password_hash(password: str, salt: bytes) -> str:
    """Return RabbitMQ's hash of `password`."""
    return b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
