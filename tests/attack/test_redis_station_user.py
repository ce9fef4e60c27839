# SPDX-License-Identifier: Apache-2.0
"""An attacker with a station's Redis user: the commands, keys and channels beyond the station's own are refused."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from schemas.topology import RETURNS_QUEUE, reply_queue
from stations.transport import EventPublisher, OutgoingEvent, ReplyConsumer
from tests.secured_redis import SERVERS, STATIONS, secured_redis

pytestmark = pytest.mark.long

STATION, OTHER = STATIONS
USER = f"station-{STATION}"

PERMITTED = {"auth", "brpop", "exec", "hello", "llen", "lpush", "multi", "ping", "select"}
WITHOUT_RIGHTS = {"quit", "reset"}
"""Redis and Valkey permit these two, and `AUTH` and `HELLO`, to every connection."""

LOOP = "local n = 0; for i = 1, 1000000000 do n = n + i end; return n"


@pytest.fixture(scope="module", params=SERVERS)
def secured(request, tmp_path_factory):
    """One server of each kind for all refusals."""
    with secured_redis(request.param, tmp_path_factory.mktemp("secured")) as server:
        yield server


def test_station_may_run_only_the_commands_that_it_sends(secured):
    """Of all commands and subcommands of the server a station may run those of `PERMITTED`."""
    permitted = set()
    for command, arity in commands_of(secured.administrator):
        words = command.split("|")
        words += [reply_queue(STATION)] * (abs(arity) - len(words))
        result = secured.administrator.execute_command("ACL DRYRUN", USER, *words)
        if b"permissions to run" not in result:
            permitted.add(command)

    assert permitted - WITHOUT_RIGHTS == PERMITTED


def commands_of(client):
    """Name and arity of each command and each subcommand of the server."""
    names = [name.decode() for name in client.execute_command("COMMAND LIST")]
    for [name, arity, *_, subcommands] in client.execute_command("COMMAND INFO", *names):
        if subcommands:
            yield from ((each[0].decode(), each[1]) for each in subcommands)
        else:
            yield name.decode(), arity


@pytest.mark.parametrize(
    "command",
    [
        # scripts
        ("EVAL", LOOP, "0"),
        ("EVAL_RO", LOOP, "0"),
        ("EVALSHA", "0" * 40, "0"),
        ("EVALSHA_RO", "0" * 40, "0"),
        ("SCRIPT", "LOAD", LOOP),
        ("SCRIPT", "EXISTS", "0" * 40),
        ("SCRIPT", "FLUSH"),
        ("SCRIPT", "KILL"),
        ("FUNCTION", "LIST"),
        ("FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('x', function() return 1 end)"),
        ("FCALL", "x", "0"),
        ("FCALL_RO", "x", "0"),
        # events of all stations
        ("RPOP", RETURNS_QUEUE),
        ("BRPOP", RETURNS_QUEUE, "0.1"),
        ("BRPOP", reply_queue(STATION), RETURNS_QUEUE, "0.1"),
        ("LRANGE", RETURNS_QUEUE, "0", "-1"),
        ("LINDEX", RETURNS_QUEUE, "0"),
        ("LTRIM", RETURNS_QUEUE, "1", "0"),
        ("LSET", RETURNS_QUEUE, "0", "x"),
        ("LMOVE", RETURNS_QUEUE, reply_queue(STATION), "LEFT", "LEFT"),
        ("RPUSH", RETURNS_QUEUE, "x"),
        ("DEL", RETURNS_QUEUE),
        ("RENAME", RETURNS_QUEUE, reply_queue(STATION)),
        ("COPY", RETURNS_QUEUE, reply_queue(STATION)),
        ("DUMP", RETURNS_QUEUE),
        ("EXPIRE", RETURNS_QUEUE, "1"),
        ("SORT", RETURNS_QUEUE, "ALPHA"),
        # other queues
        ("LPUSH", "printing.main", "x"),
        ("LPUSH", "printing.main\x06\x163", "x"),
        ("LPUSH", "housekeeping", "x"),
        ("LPUSH", "print-actions", "x"),
        ("LPUSH", "dead-letter", "x"),
        ("LPUSH", "returns\x06\x163", "x"),
        ("LLEN", "printing.main"),
        # replies
        ("BRPOP", reply_queue(OTHER), "0.1"),
        ("BRPOP", reply_queue(STATION), reply_queue(OTHER), "0.1"),
        ("LRANGE", reply_queue(OTHER), "0", "-1"),
        ("LPUSH", reply_queue(OTHER), "x"),
        ("LLEN", reply_queue(OTHER)),
        ("LPUSH", reply_queue(STATION), "x"),
        ("BRPOP", f"{reply_queue(STATION)}0", "0.1"),
        # unacknowledged messages, bindings
        ("HGETALL", "unacked"),
        ("HDEL", "unacked", "x"),
        ("ZREM", "unacked_index", "x"),
        ("SET", "unacked_mutex", "x"),
        ("SET", f"unacked.station.{OTHER}.mutex", "x"),
        ("SADD", "_kombu.binding.celery.pidbox", "x"),
        # remote control and events of Celery
        ("PUBLISH", "/0.celery.pidbox", "x"),
        ("PUBLISH", "/0.celeryev/worker.heartbeat", "x"),
        ("SPUBLISH", "/0.celery.pidbox", "x"),
        ("SUBSCRIBE", "/0.celery.pidbox"),
        ("SUBSCRIBE", f"__keyspace@0__:{RETURNS_QUEUE}"),
        ("PSUBSCRIBE", "*"),
        ("SSUBSCRIBE", "x"),
        ("PUBSUB", "CHANNELS"),
        ("CLIENT", "TRACKING", "ON", "BCAST"),
        # the server
        ("CONFIG", "GET", "*"),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("CONFIG", "REWRITE"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("RANDOMKEY",),
        ("DBSIZE",),
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("SWAPDB", "0", "1"),
        ("DEBUG", "SLEEP", "1"),
        ("MONITOR",),
        ("INFO",),
        ("ACL", "LIST"),
        ("ACL", "SETUSER", USER, "+@all"),
        ("CLIENT", "LIST"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("CLIENT", "PAUSE", "1000"),
        ("CLIENT", "NO-EVICT", "ON"),
        ("MODULE", "LOAD", "/tmp/x.so"),
        ("REPLICAOF", "127.0.0.1", "1"),
        ("SLAVEOF", "127.0.0.1", "1"),
        ("PSYNC", "?", "-1"),
        ("SAVE",),
        ("BGREWRITEAOF",),
        ("SHUTDOWN", "NOSAVE"),
        ("WAIT", "1", "0"),
    ],
    ids=lambda command: " ".join(command)[:48].encode("unicode_escape").decode(),
)
def test_refused(secured, command):
    """The server refuses the command before it runs, alone and in a transaction, and still responds."""
    with secured.client(USER) as station:
        with pytest.raises(redis.ResponseError, match=r"(?i)permission|(DEBUG|MODULE) command not allowed"):
            station.execute_command(*command)
        with pytest.raises(redis.ResponseError, match=r"(?i)permission|EXECABORT|not allowed"):
            station.pipeline().execute_command(*command).execute()

    assert secured.administrator.ping()
    assert secured.administrator.exists("printing.main", "housekeeping", "print-actions", "dead-letter", "x") == 0


def test_one_station_cannot_delay_the_others_with_a_script(secured):
    """A loop of seconds is refused within the time of a round trip."""
    with secured.client(USER) as station, ThreadPoolExecutor() as pool:
        began = time.monotonic()
        script = pool.submit(station.execute_command, "EVAL", LOOP, "0")
        secured.administrator.ping()
        duration = time.monotonic() - began

    assert isinstance(script.exception(), redis.ResponseError)
    assert duration < 1


def test_station_publishes_receives_and_reconnects_without_a_refusal(secured):
    """Events in batches, more than one sweep interval of kombu, lost connections, a reply that waited, close."""
    secured.administrator.flushall()
    secured.administrator.acl_log_reset()
    url = secured.urls[USER]
    received: list[str] = []
    publisher = EventPublisher(url, STATION)
    publisher.publish([OutgoingEvent("one", "task", "{}")])
    publisher.publish([OutgoingEvent("two", "task", "{}"), OutgoingEvent("three", "task", "{}")])
    event = secured.administrator.rpop(RETURNS_QUEUE)
    consumer = ReplyConsumer(url, STATION, received.extend)
    secured.administrator.lpush(reply_queue(STATION), *[event] * 60)
    while len(received) < 60:
        consumer.receive(1, gather=True)
    for _ in range(12):  # the 1st and the 11th idle poll would sweep
        consumer.receive(0.3, gather=False)

    secured.administrator.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(redis.ConnectionError):
        consumer.receive(1, gather=False)
    consumer.close()
    secured.administrator.lpush(reply_queue(STATION), event)
    consumer = ReplyConsumer(url, STATION, received.extend)
    while len(received) < 61:
        consumer.receive(1, gather=False)
    publisher.publish([OutgoingEvent("four", "task", "{}")])
    consumer.close()
    publisher.close()

    assert secured.administrator.llen(RETURNS_QUEUE) == 3
    assert secured.refused() == []
    assert secured.administrator.keys("*") == [RETURNS_QUEUE.encode()]
