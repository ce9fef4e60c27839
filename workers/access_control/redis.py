# SPDX-License-Identifier: Apache-2.0
"""Users of a Redis or Valkey server: what a station, a worker, operations and Flower may do there, and nothing else.

Lines of an ACL file, as Redis 7 and every Valkey read them (earlier ones know no selectors).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas import topology
from schemas.topology import reply_queue, unacked_keys

_GREETING = "+auth +hello +ping +select +client|setinfo +client|setname +client|id"
_TRANSACTION = "+multi +exec +discard +watch +unwatch"
_BINDINGS = "~_kombu.binding*"
"""Which queues an exchange of Celery's own has: for events and remote control. Ours go without."""
_REMOTE = "~*.celery.pidbox*"
_WORK = " ".join(
    f"~{queue}*"
    for queue in (
        topology.RETURNS_QUEUE,
        topology.HOUSEKEEPING_QUEUE,
        topology.PRINT_ACTIONS_QUEUE,
        topology.PRINTING_QUEUE_PREFIX,
        topology.DEAD_LETTER_QUEUE,
    )
)
"""The lists of our queues. The star stands for kombu's list of each other priority."""
_REPLIES = f"~{topology.REPLY_QUEUE_PREFIX}*"

ADMINISTRATOR: Final = "administrator"
WORKER: Final = "worker"
OPERATIONS: Final = "operations"
FLOWER: Final = "flower"
FLOWER_KEYS: Final = ("unacked.flower", "unacked.flower.index", "unacked.flower.mutex")
"""Where Flower notes answers to its questions: it must not give back what workers have taken, nor forget it."""

_SCRIPTS = "+eval +evalsha +script|load +script|exists"
_ALL_OF_QUEUES = f"+@list +@hash +@set +@sortedset +@string +@keyspace +@pubsub {_SCRIPTS} +time -@dangerous -@admin"
_UNACKED = "~unacked ~unacked_index ~unacked_mutex ~unacked_deliveries ~unacked:nobody"


@dataclass(frozen=True)
class User:
    """One user: a name and what it may do, in the words of the ACL file."""

    name: str
    rules: str

    def line(self, secret: str | None) -> str:
        """The user's line. `secret`: SHA-256 of the password in hexadecimal; `None`: off, until somebody sets one."""
        entry = f"on #{secret}" if secret else "off >PLACEHOLDER"
        return f"user {self.name} {entry} {self.rules}"


def users(stations: Sequence[str], database: int) -> list[User]:
    """All users of a server whose numbered database is `database`: a user for each of `stations`, and the others."""
    return [
        User(ADMINISTRATOR, "~* &* +@all"),
        _worker(database),
        _operations(database),
        _flower(database),
        *map(_station, stations),
    ]


DEFAULT_OFF: Final = "user default off resetpass -@all"
"""Without it the server would let everybody in, as it does when nobody has a name."""


def station_user(code: str) -> str:
    """The name of a station's user."""
    return f"station-{code}"


def _station(code: str) -> User:
    """It reads its own reply queue, notes what it has heard under its own keys, and adds to `returns`: no more."""
    own = " ".join(f"~{key}" for key in (reply_queue(code), *unacked_keys(code)))
    return User(
        station_user(code),
        f"resetkeys resetchannels -@all {own} {_GREETING} {_TRANSACTION}"
        " +brpop +rpop +rpush +lpush +llen +exists"
        " +hset +hget +hdel +zadd +zrem +zrange +zrevrangebyscore"
        f" +set +get +del {_SCRIPTS}"
        f" (resetkeys -@all ~{topology.RETURNS_QUEUE} +lpush +llen)",
    )


def _worker(database: int) -> User:
    """All our queues; whoever works may read and write them. Nothing that looks at, stops or empties the server."""
    return User(
        WORKER,
        f"resetkeys resetchannels -@all {_WORK} {_REPLIES} {_UNACKED} {_BINDINGS} {_REMOTE}"
        # What is subscribed to must stand here as it is asked for; what is published may match a pattern.
        f" &/{database}.celeryev/worker.* &/{database}.celeryev/task.* &/{database}.celery.pidbox"
        f" {_GREETING} {_TRANSACTION} {_ALL_OF_QUEUES}",
    )


def _operations(database: int) -> User:
    """What a person at the command line needs: the queues, remote control, and a look at the server; no emptying."""
    return User(
        OPERATIONS,
        f"resetkeys resetchannels -@all {_WORK} {_REPLIES} {_UNACKED} {_BINDINGS} {_REMOTE} ~celeryev.*"
        f" &/{database}.celeryev/* &/{database}.celery.pidbox"
        f" {_GREETING} {_TRANSACTION} {_ALL_OF_QUEUES}"
        " +info +config|get +client|list +slowlog|get +memory|usage +dbsize +acl|whoami +acl|log",
    )


def _flower(database: int) -> User:
    """It hears events, asks workers by remote control, and counts what waits; it reads no message and adds none."""
    own = " ".join(f"~{key}" for key in FLOWER_KEYS)
    return User(
        FLOWER,
        f"resetkeys resetchannels -@all {own} {_BINDINGS} {_REMOTE} ~celeryev.*"
        f" &/{database}.celeryev/* &/{database}.celery.pidbox"
        f" {_GREETING} {_TRANSACTION} +@pubsub +info +brpop +rpop +lpush +llen +exists +pexpire +del"
        " +sadd +srem +smembers +hset +hget +hdel +zadd +zrem +zrange +zrangebyscore +zrevrangebyscore"
        f" +set +get +time {_SCRIPTS}"
        f" (resetkeys -@all {_WORK} {_REPLIES} +llen +exists)",
    )
