# SPDX-License-Identifier: Apache-2.0
"""Users of a Redis or Valkey server: the permissions of stations, workers, operations and Flower.

The rules are those of an ACL file for Redis 7.0 and later and every Valkey; earlier versions have no selectors. A server
refuses to start with a file that names a command that it does not have, so the default rules name those of Redis 7.0.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from schemas import topology
from schemas.topology import reply_queue

OLDEST_SERVER: Final = "7.0"
SERVER_VERSIONS: Final = (OLDEST_SERVER, "7.2")
"""Oldest Redis that loads the file. Redis 7.2 and every Valkey have `CLIENT SETINFO`, Redis 7.0 does not."""

_CONNECT_STATION = "+auth +hello +ping +select"
_CONNECT = f"{_CONNECT_STATION} +client|setname +client|id"
_LIBRARY_NAME = "+client|setinfo"
"""redis-py sends its name and version with this subcommand on each connection, and ignores a refusal."""
_NO_RIGHTS = "resetkeys resetchannels -@all"
_TRANSACTION = "+multi +exec +discard +watch +unwatch"
_BINDINGS = "~_kombu.binding*"
"""Bindings of Celery's exchanges for events and remote control. bookdrop's queues have none."""
_REMOTE = "~*.celery.pidbox*"
_WORK_QUEUES = (
    topology.RETURNS_QUEUE,
    topology.HOUSEKEEPING_QUEUE,
    topology.PRINT_ACTIONS_QUEUE,
    topology.PRINTING_QUEUE_PREFIX,
    topology.DEAD_LETTER_QUEUE,
)


def _lists(queues: Iterable[str]) -> str:
    """The lists of `queues`. The star matches kombu's list of each other priority."""
    return " ".join(f"~{queue}*" for queue in queues)


_WORK = _lists(_WORK_QUEUES)
_REPLIES = f"~{topology.REPLY_QUEUE_PREFIX}*"

ADMINISTRATOR: Final = "administrator"
WORKER: Final = "worker"
RETURNS: Final = "returns"
PRINTING: Final = "printing"
HOUSEKEEPING: Final = "housekeeping"
METRICS: Final = "metrics"
OPERATIONS: Final = "operations"
FLOWER: Final = "flower"
FLOWER_KEYS: Final = ("unacked.flower", "unacked.flower.index", "unacked.flower.mutex")
"""Flower's own unacknowledged keys: with the workers' keys it would restore or delete messages that they process."""

_SCRIPTS = "+eval +evalsha +script|load +script|exists"
_QUEUE_COMMANDS = f"+@list +@hash +@set +@sortedset +@string +@keyspace +@pubsub {_SCRIPTS} +time -@dangerous -@admin"
_UNACKED = "~unacked ~unacked_index ~unacked_mutex ~unacked_deliveries ~unacked:nobody"


@dataclass(frozen=True)
class User:
    """One user: name and rules in the syntax of an ACL file."""

    name: str
    rules: str

    def line(self, secret: str | None) -> str:
        """Return the line for the ACL file. `secret`: SHA-256 of the password in hexadecimal; `None`: a disabled user."""
        entry = f"on #{secret}" if secret else "off >PLACEHOLDER"
        return f"user {self.name} {entry} {self.rules}"


def users(stations: Sequence[str], database: int, server_version: str = OLDEST_SERVER) -> list[User]:
    """Return all users of a server for the database number `database`, with one user for each of `stations`.

    `server_version`: one of `SERVER_VERSIONS`; the server must not be older.
    """
    roles = (
        _worker(WORKER, database, "*@", _WORK_QUEUES, monitors=True),
        _worker(RETURNS, database, "returns@", (topology.RETURNS_QUEUE,)),
        _worker(PRINTING, database, "printing*@", (topology.PRINTING_QUEUE_PREFIX, topology.PRINT_ACTIONS_QUEUE)),
        _worker(HOUSEKEEPING, database, "housekeeping@", (topology.HOUSEKEEPING_QUEUE,)),
    )
    restricted = [*roles, _operations(database), _flower(database), _metrics(database), *map(_station, stations)]
    start = _NO_RIGHTS if server_version == OLDEST_SERVER else f"{_NO_RIGHTS} {_LIBRARY_NAME}"
    return [
        User(ADMINISTRATOR, "~* &* +@all"),
        *(User(user.name, f"{start} {user.rules}") for user in restricted),
    ]


DEFAULT_OFF: Final = "user default off resetpass -@all"
"""Disables the user that needs no password."""


def station_user(code: str) -> str:
    """Return the name of a station's user."""
    return f"station-{code}"


def _station(code: str) -> User:
    """A station: pop from its own reply queue, push to `returns`, count both, as `stations.transport` does.

    No scripts, because a script blocks the server for all clients. No keys for unacknowledged messages, because the
    station receives replies without acknowledging them.
    """
    return User(
        station_user(code),
        f"~{reply_queue(code)} {_CONNECT_STATION} +multi +exec +brpop +llen"
        f" (resetkeys -@all ~{topology.RETURNS_QUEUE} +lpush +llen)",
    )


def _worker(name: str, database: int, node: str, queues: Sequence[str], *, monitors: bool = False) -> User:
    """A worker whose name begins with `node`: read `queues`, push to all. No command that inspects, stops or empties the server.

    Each worker restores the unacknowledged messages of every dead worker, so it may push to every work queue. Its receive
    is a script with the list of dead letters as a key, which needs the right to read it as well. It subscribes to remote
    control, and may publish nothing there. `monitors`: it runs `bookdrop metrics` as well.
    """
    events = f"&/{database}.celeryev/worker.* &/{database}.celeryev/task.*"
    return User(
        name,
        f"{_lists(dict.fromkeys((*queues, topology.DEAD_LETTER_QUEUE)))} {_UNACKED} {_BINDINGS} ~{node}*.celery.pidbox*"
        + (" ~celeryev.*" if monitors else "")  # the queue on which `bookdrop metrics` receives heartbeats
        # The pattern of a PSUBSCRIBE must be listed literally; the channel of a PUBLISH may match a listed pattern.
        + f" &/{database}.celery.pidbox"
        + (f" &/{database}.celeryev/worker.*" if monitors else "")
        + f" {_CONNECT} {_TRANSACTION} {_QUEUE_COMMANDS} -publish -spublish"
        f" (resetkeys -@all {_WORK} {_REPLIES} ~*.reply.celery.pidbox* +lpush +rpush +llen +exists +pexpire)"
        f" (resetkeys resetchannels -@all {events} +publish)",
    )


def _operations(database: int) -> User:
    """Operations at the command line: the queues, remote control and inspection of the server; no emptying."""
    return User(
        OPERATIONS,
        f"{_WORK} {_REPLIES} {_UNACKED} {_BINDINGS} {_REMOTE} ~celeryev.*"
        # `bookdrop metrics` subscribes to the second pattern, which the first does not permit.
        f" &/{database}.celeryev/* &/{database}.celeryev/worker.* &/{database}.celery.pidbox"
        f" {_CONNECT} {_TRANSACTION} {_QUEUE_COMMANDS}"
        " +info +config|get +client|list +slowlog|get +memory|usage +dbsize +acl|whoami +acl|log",
    )


def _flower(database: int) -> User:
    """Flower: receive events, use remote control, read queue lengths. It reads and publishes no work message."""
    own = " ".join(f"~{key}" for key in FLOWER_KEYS)
    return User(
        FLOWER,
        f"{own} {_BINDINGS} {_REMOTE} ~celeryev.*"
        f" &/{database}.celeryev/* &/{database}.celery.pidbox"
        f" {_CONNECT} {_TRANSACTION} +@pubsub +info +brpop +rpop +lpush +llen +exists +pexpire +del"
        " +sadd +srem +smembers +hset +hget +hdel +zadd +zrem +zrange +zrangebyscore +zrevrangebyscore"
        f" +set +get +time {_SCRIPTS}"
        f" (resetkeys -@all {_WORK} {_REPLIES} +llen +exists)",
    )


def _metrics(database: int) -> User:
    """`bookdrop metrics`: receive heartbeats, count messages. It reads and publishes no message.

    It may run scripts, because kombu declares the expiry of a queue for events with one.
    """
    return User(
        METRICS,
        f"{_BINDINGS} ~celeryev.* &/{database}.celeryev/worker.*"
        f" {_CONNECT} {_TRANSACTION} {_SCRIPTS} +@pubsub -publish -spublish +brpop +llen +exists +pexpire +del +time"
        " +sadd +srem +smembers +zadd +zrem +zrange +zrangebyscore"
        f" (resetkeys -@all {_WORK} +llen +exists)"
        " (resetkeys -@all ~unacked_index +zcard +zrange)"
        # KEDA's script, which counts the messages that wait in one list.
        f" (resetkeys -@all ~{topology.RETURNS_QUEUE} +eval +evalsha +type +llen)",
    )
