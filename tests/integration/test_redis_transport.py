# SPDX-License-Identifier: Apache-2.0
"""Atomic receive on Redis: what a channel takes is recorded first, shared with stock channels, and never lost."""

import base64
import json
import threading
import time
from typing import Any

import pytest
import redis
from kombu import Connection as StockConnection
from kombu import Consumer, Producer, Queue
from kombu.asynchronous import Hub
from kombu.transport import redis as kombu_redis

from schemas.topology import DEAD_LETTER_QUEUE
from workers.redis_transport import Connection, transport
from workers.redis_transport.kombu_compat import KOMBU_VERSION

pytestmark = pytest.mark.long

OPTIONS = {"visibility_timeout": 60, "unacked_restore_interval": 1, "unacked_restore_throttle": 1, "socket_timeout": 5}


class Peer:
    """One consumer and one producer, in this process."""

    def __init__(self, url, *, kind=Connection, queues=("returns",), prefetch=10, no_ack=False, **options):
        transport_options = {**OPTIONS, "deadletter_queue": DEAD_LETTER_QUEUE, **options}
        if kind is Connection:
            transport_options["atomic_receive"] = True
        self.connection = kind(url, transport_options=transport_options)
        self.channel = self.connection.channel()
        self.channel.basic_qos(0, prefetch, False)
        self.messages: list[Any] = []
        self.hub = None
        self._producer = Producer(self.connection.channel())
        consumer = Consumer(
            self.channel, [Queue(name) for name in queues], on_message=self.messages.append, no_ack=no_ack
        )
        consumer.consume()

    def send(self, *bodies, queue="returns", **options):
        for body in bodies:
            self._producer.publish(body, exchange="", routing_key=queue, **options)

    def take(self, number, patience=10.0):
        """Wait for `number` messages in all; give what they say."""
        deadline = time.monotonic() + patience
        while len(self.messages) < number:
            assert time.monotonic() < deadline, f"only {len(self.messages)} came"
            try:
                self.connection.drain_events(timeout=0.2)
            except TimeoutError:
                continue
        return [message.payload for message in self.messages]

    def idle(self, seconds=0.3):
        """Listen; nothing more than a peek is wanted."""
        with pytest.raises(TimeoutError):
            self.connection.drain_events(timeout=seconds)

    def ack(self):
        for message in self.messages:
            if not message.acknowledged:
                message.ack()
        self.messages.clear()

    def die(self):
        """Let go of the server as a killed process does: nothing is given back."""
        self.channel.do_restore = False
        self.channel.qos._on_collect.cancel()
        self.connection.release()

    def close(self):
        self.connection.release()
        if self.hub is not None:
            self.hub.close()
            self.hub = None


@pytest.fixture
def desk(broker_url):
    """Make desks at the broker; they are closed at the end."""
    made = []

    def make(**options):
        made.append(Peer(options.pop("url", broker_url), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def held(valkey, prefix=""):
    """Tags that are held and not acknowledged: the hash and its index agree."""
    tags = set(valkey.hkeys(f"{prefix}unacked"))
    assert tags == set(valkey.zrange(f"{prefix}unacked_index", 0, -1))
    return tags


def make_overdue(valkey):
    """Let everything that is held be older than any visibility timeout."""
    for tag in valkey.zrange("unacked_index", 0, -1):
        valkey.zadd("unacked_index", {tag: 1})


def letters(valkey, key=DEAD_LETTER_QUEUE):
    return [json.loads(each) for each in reversed(valkey.lrange(key, 0, -1))]


def envelope(tag="t-1", **changes):
    """A message as kombu writes it."""
    return {
        "body": base64.b64encode(b'"hello"').decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {},
        "properties": {
            "delivery_tag": tag,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "returns"},
            "body_encoding": "base64",
            "priority": 0,
        },
        **changes,
    }


def test_another_kombu_gets_the_stock_transport(broker_url, monkeypatch):
    """With a version of kombu that nobody has looked at, the stock transport is used."""
    monkeypatch.setattr(transport, "version", lambda _: "5.7.1")
    chosen = Connection(broker_url, transport_options={"atomic_receive": True}).get_transport_cls()

    assert KOMBU_VERSION == "5.7.0"
    assert chosen is kombu_redis.Transport


@pytest.mark.parametrize(
    "url",
    ["redis://one/0;redis://two/0", "rediss://one/0", "redis+socket:///tmp/x.sock", "sentinel://one;sentinel://two"],
)
def test_a_connection_shows_itself_as_stock(url):
    """URL, transport's name and failover are those of the stock transport; only the class is ours."""
    ours, theirs = Connection(url, transport_options={"atomic_receive": True}), StockConnection(url)

    assert (ours.as_uri(), ours.transport_cls) == (theirs.as_uri(), theirs.transport_cls)
    assert ours.info() | {"transport_options": None} == theirs.info() | {"transport_options": None}
    assert ours.transport.driver_type == "redis"
    ours.maybe_switch_next()
    assert ours.get_transport_cls().__module__ == "workers.redis_transport.transport"
    assert ours.clone().get_transport_cls() is ours.get_transport_cls()
    assert Connection(url).get_transport_cls() is theirs.get_transport_cls()


def test_what_is_taken_is_recorded_as_kombu_records(desk, valkey):
    """One call takes what the prefetch count allows, in order; kombu's hash and index hold it, with the server's time."""
    at = desk(prefetch=3)
    at.send(*range(5))
    raw = valkey.lindex("returns", -1)

    assert at.take(3) == [0, 1, 2]
    assert len(held(valkey)) == 3
    first = json.loads(raw)["properties"]["delivery_tag"]
    assert json.loads(valkey.hget("unacked", first)) == [json.loads(raw), "", "returns"]
    assert abs(valkey.zscore("unacked_index", first) - valkey.time()[0]) < 5
    assert valkey.llen("returns") == 2

    at.ack()
    assert at.take(2) == [3, 4]
    at.ack()
    assert held(valkey) == set()


def test_a_full_prefetch_takes_nothing(desk, valkey):
    """A peek that is answered when the prefetch count is reached takes nothing; with an acknowledgement it goes on."""
    at = desk(prefetch=1)
    at.idle()  # now a peek is on its way
    at.send("first", queue="other")
    got = at.channel.basic_get("other")
    at.send("second")
    at.idle()

    assert valkey.llen("returns") == 1
    got = at.channel.message_to_python(got)
    got.ack()
    assert at.take(1) == ["second"]


def test_nothing_is_lost_while_a_channel_looks_away(desk, valkey):
    """A message that comes while a peek is on its way stays in its list when the channel dies."""
    at = desk()
    at.idle()
    desk().send("kept")
    at.die()

    assert valkey.llen("returns") == 1
    assert held(valkey) == set()


def test_many_peeks_and_one_message(desk, valkey):
    """Five channels wait for the same list; a message goes to exactly one, and the others wait on."""
    peers = [desk() for _ in range(5)]
    for each in peers:
        each.idle(0.05)
    peers[0].send("only")
    for _ in range(3):
        for each in peers:
            try:
                each.connection.drain_events(timeout=0.1)
            except TimeoutError:
                continue

    assert [message.payload for each in peers for message in each.messages] == ["only"]


@pytest.mark.parametrize(("holder", "giver"), [(Connection, StockConnection), (StockConnection, Connection)])
def test_stock_and_atomic_give_back_for_each_other(desk, valkey, holder, giver):
    """What one kind held when it died the other gives back, marked as redelivered, and may deliver."""
    dead = desk(kind=holder)
    dead.send("kept")
    dead.take(1)
    dead.die()
    make_overdue(valkey)
    alive = desk(kind=giver)
    alive.channel.qos.restore_visible(num=10, interval=1)

    assert alive.take(1) == ["kept"]
    assert alive.messages[0].headers["redelivered"] is True
    alive.ack()
    assert held(valkey) == set()


def test_closing_gives_back_in_order(desk, valkey):
    """A channel that closes gives back what it held; the next takes it in the order in which it was sent."""
    first = desk()
    first.send(*range(5))
    first.take(5)
    first.close()

    assert held(valkey) == set()
    assert desk().take(5) == [0, 1, 2, 3, 4]


def test_a_wrong_clock_of_the_worker_changes_nothing(desk, valkey, monkeypatch):
    """A worker whose clock is a day ahead gives nothing back too early, and one a day behind not too late."""
    at = desk(visibility_timeout=60)
    at.send("held")
    at.take(1)
    real = time.time
    monkeypatch.setattr(kombu_redis, "time", lambda: real() + 86_400)
    at.channel.qos.restore_visible(num=10, interval=1)
    assert (valkey.llen("returns"), len(held(valkey))) == (0, 1)

    monkeypatch.setattr(kombu_redis, "time", lambda: real() - 86_400)
    [tag] = held(valkey)
    valkey.zadd("unacked_index", {tag: valkey.time()[0] - 61})
    at.channel.qos.restore_visible(num=10, interval=1)
    assert (valkey.llen("returns"), len(held(valkey))) == (1, 0)


def test_what_is_got_singly_has_the_servers_time(desk, valkey, monkeypatch):
    """A message that did not come by a peek is recorded by the server's clock as well."""
    monkeypatch.setattr(kombu_redis, "time", lambda: 5.0)
    at = desk(queues=["other"])
    at.send("single")
    at.channel.basic_get("returns")

    [tag] = held(valkey)
    assert valkey.zscore("unacked_index", tag) > 1_000_000_000


def test_a_consumer_without_acknowledgement(desk, valkey):
    """For a consumer that does not acknowledge nothing is recorded, whatever the prefetch count says."""
    at = desk(no_ack=True, prefetch=1)
    at.send(*range(4))

    assert at.take(4) == [0, 1, 2, 3]
    assert held(valkey) == set()
    assert valkey.keys("*") == []


def test_every_key_has_the_prefix(desk, valkey):
    """With a global key prefix every key has it: taken, acknowledged, given back, and put aside."""
    at = desk(global_keyprefix="house:")
    stock = desk(kind=StockConnection, global_keyprefix="house:", queues=["other"])
    stock.send("one", "two")
    valkey.lpush("house:returns", b"no json")
    assert at.take(2) == ["one", "two"]
    at.idle()
    assert len(held(valkey, "house:")) == 2
    assert [key for key in valkey.keys("*") if not key.startswith(b"house:")] == []
    assert len(letters(valkey, f"house:{DEAD_LETTER_QUEUE}")) == 1

    at.messages.pop(0).ack()
    at.close()
    assert desk(global_keyprefix="house:").take(1) == ["two"]


def test_two_queues_and_other_priorities(desk):
    """Several queues are consumed as kombu does; a message of another priority is found, if later."""
    both = desk(queues=["returns", "other"])
    both.send("a")
    both.send("b", queue="other")
    assert sorted(both.take(2)) == ["a", "b"]
    both.ack()
    both.close()

    one = desk()
    one.send("urgent", priority=9)
    assert one.take(1) == ["urgent"]


def test_one_tag_for_two_messages(desk, valkey):
    """Two messages of the same delivery tag are both delivered and both acknowledged; neither displaces the other."""
    for word in (b'"first"', b'"second"', b'"third"'):
        valkey.lpush("returns", json.dumps(envelope("same", body=base64.b64encode(word).decode())))
    at = desk(prefetch=2)

    assert at.take(2) == ["first", "second"]
    assert len(held(valkey)) == 2
    at.messages[0].ack()
    at.take(3)
    assert [m.payload for m in at.messages] == ["first", "second", "third"]
    at.ack()
    assert held(valkey) == set()


MALFORMED = {
    "not JSON": b"\x80\x04no json at all",
    "not UTF-8": json.dumps(envelope()).encode().replace(b"utf-8", b"ut\xff-8"),
    "a list": b"[1, 2]",
    "a word": b'"word"',
    "nothing": b"null",
    "empty": b"",
    "no properties": json.dumps({"body": "x"}).encode(),
    "properties are a list": json.dumps(envelope(properties=[])).encode(),
    "no body": json.dumps({k: v for k, v in envelope().items() if k != "body"}).encode(),
    "no tag": json.dumps(envelope(tag=None)).encode(),
    "no delivery info": json.dumps(envelope(properties={"delivery_tag": "x"})).encode(),
    "headers are a list": json.dumps(envelope(headers=["x"])).encode(),
    "body is not base64": json.dumps(envelope(body="***x")).encode(),
    "unknown body encoding": json.dumps(
        envelope(properties=envelope()["properties"] | {"body_encoding": "rot13"})
    ).encode(),
    "a number only one side reads": json.dumps(envelope()).encode().replace(b'"priority": 0', b'"priority": 0x10'),
    "a type nobody knows": json.dumps(envelope(extra={"__type__": "datetime", "__value__": "never"})).encode(),
    "deep": b'{"body":' + b"[" * 5000 + b"]" * 5000 + b"}",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_message_is_put_aside(desk, valkey, raw):
    """What is no message goes to the dead letters byte for byte, where any consumer can read it; its neighbours are delivered."""
    at = desk()
    at.send("before")
    valkey.lpush("returns", raw)
    at.send("after")

    assert at.take(2) == ["before", "after"]
    at.ack()
    assert held(valkey) == set()
    reader = desk(kind=StockConnection, queues=[DEAD_LETTER_QUEUE])
    reader.connection.drain_events(timeout=5)
    [letter] = reader.messages
    assert letter.body == raw
    assert letter.headers["x-quarantine-reason"]
    assert letter.headers["x-quarantine-queue"] == "returns"


@pytest.mark.parametrize("raw", [*MALFORMED.values()], ids=MALFORMED)
def test_a_malformed_message_for_a_consumer_without_acknowledgement(desk, valkey, raw):
    """It is put aside all the same."""
    at = desk(no_ack=True)
    valkey.lpush("returns", raw)
    at.send("after")

    assert at.take(1) == ["after"]
    [letter] = letters(valkey)
    assert base64.b64decode(letter["body"]) == raw


def test_text_in_utf8_is_delivered(desk, valkey):
    """Letters of every length in UTF-8 are no reason to put a message aside."""
    words = "é € 😀 שלום ÿ퟿𐀀\u07ff\uffff\U0010ffff"
    message = envelope(headers={"words": words})
    valkey.lpush("returns", json.dumps(message, ensure_ascii=False))
    at = desk()
    at.take(1)

    assert at.messages[0].headers["words"] == words
    assert json.loads(valkey.hget("unacked", "t-1"))[0]["headers"]["words"] == words


def lose(desk, valkey, **options):
    """Take the message and die with it; let it come back."""
    at = desk(**options)
    at.take(1)
    at.die()
    make_overdue(valkey)
    other = desk(kind=StockConnection, queues=["other"])
    other.channel.qos.restore_visible(num=10, interval=1)
    other.close()


def test_what_kills_every_worker_is_put_aside(desk, valkey, capsys):
    """A message whose holders died once more than the limit goes to the dead letters with its reason, and not to a sixth."""
    desk(queues=["other"]).send("poison", headers={"id": "event-1"})
    for _ in range(3):
        lose(desk, valkey, delivery_limit=2)
    at = desk(delivery_limit=2)
    at.send("healthy")

    assert at.take(1) == ["healthy"]
    [letter] = letters(valkey)
    assert letter["headers"]["x-quarantine-reason"] == "lost_too_often"
    assert letter["headers"]["x-quarantine-losses"] == 3
    assert letter["headers"]["id"] == "event-1"
    assert base64.b64decode(letter["body"]) == b"poison"
    at.ack()
    assert held(valkey) == set()
    assert valkey.hgetall("unacked_deliveries") == {}


def test_giving_back_is_no_loss(desk, valkey):
    """Workers that end well give a message back as often as they like; it is delivered still, and then forgotten."""
    desk(queues=["other"]).send("patient")
    for _ in range(6):
        at = desk(delivery_limit=2)
        at.take(1)
        at.close()
    last = desk(delivery_limit=2)

    assert last.take(1) == ["patient"]
    last.ack()
    assert valkey.keys("*") == []


def test_a_callback_that_fails_gives_the_rest_back(desk, valkey):
    """When the program fails with a message, those that were taken with it are given back at once."""
    at = desk()
    at.send(*range(4))

    def fail(_raw):
        raise RuntimeError("of the program")

    at.connection.transport._callbacks["returns"] = fail
    with pytest.raises(RuntimeError):
        at.take(1)

    assert valkey.llen("returns") == 3
    assert desk().take(3) == [1, 2, 3]


def test_a_consumer_that_was_cancelled_gives_back(desk, valkey):
    """What was taken for a consumer that is gone by then goes back to its queue."""
    at = desk()
    at.send(*range(4))
    at.connection.transport._callbacks.pop("returns")
    for _ in range(3):
        try:
            at.connection.drain_events(timeout=0.1)
        except TimeoutError:
            continue
    at.channel.basic_cancel(next(iter(at.channel._consumers)))

    assert held(valkey) == set()
    assert desk().take(4) == [0, 1, 2, 3]


def test_a_server_that_forgot_the_script_is_told_again(desk, valkey):
    """After SCRIPT FLUSH, or on a server that never saw it, the script is sent in full."""
    at = desk()
    at.send("one")
    at.take(1)
    at.ack()
    valkey.script_flush()
    at.send("two")

    assert at.take(1) == ["two"]


def test_a_server_that_allows_no_peek_is_consumed_as_kombu_does(desk, valkey):
    """Where BLMOVE is not allowed, the channel says so and receives as the stock transport."""
    valkey.execute_command("ACL", "SETUSER", "default", "-blmove")
    try:
        at = desk()
        at.send("one")
        assert at.take(1) == ["one"]
        assert at.channel._use_brpop
    finally:
        valkey.execute_command("ACL", "SETUSER", "default", "+@all")


def test_a_full_server_is_drained(desk, valkey):
    """A server whose memory is full refuses publishers and peeks; what waits is taken and acknowledged nevertheless."""
    at = desk(prefetch=2)
    at.send(*range(5))
    valkey.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            valkey.lpush("returns", "more")
        for number in (2, 2, 1):
            at.take(number)
            at.ack()
        at.idle(2)
    finally:
        valkey.config_set("maxmemory", 0)

    assert held(valkey) == set()
    at.send("again")
    assert at.take(1) == ["again"]


def test_a_queue_that_is_no_list_ends_nothing(desk, valkey):
    """Somebody wrote something else under the queue's name: it is said again and again, and mended without a restart."""
    at = desk()
    valkey.set("returns", "not a list")
    at.idle(1.5)
    valkey.delete("returns")
    at.send("now")

    assert at.take(1) == ["now"]


class Loop:
    """An event loop as Celery's, turned by hand."""

    def __init__(self, desk):
        self.hub = desk.hub = Hub()
        desk.connection.register_with_event_loop(self.hub)
        self._turns = self.hub.create_loop()

    def turn(self, until, patience=10.0):
        deadline = time.monotonic() + patience
        while not until():
            assert time.monotonic() < deadline
            next(self._turns)


def commands(valkey):
    """How often the server was asked for what, so far."""
    return {name: each["calls"] for name, each in valkey.info("commandstats").items()}


def test_acknowledgements_ride_along(desk, valkey):
    """With an event loop what is acknowledged goes with the next script: no command of its own, and nothing left behind."""
    at = desk(prefetch=5)
    at.send(*range(20))
    loop = Loop(at)
    loop.turn(lambda: len(at.messages) == 5)
    before = commands(valkey)
    for wanted in (10, 15, 20):
        for message in at.messages:
            if not message.acknowledged:
                loop.hub.call_soon(message.ack)
        loop.turn(lambda: len(at.messages) == wanted)  # noqa: B023 - called at once
    after = commands(valkey)

    assert [message.payload for message in at.messages] == list(range(20))
    assert after["cmdstat_evalsha"] - before["cmdstat_evalsha"] == 3
    assert after.get("cmdstat_multi", 0) == before.get("cmdstat_multi", 0)
    assert len(held(valkey)) == 5


def test_acknowledgements_leave_before_the_loop_sleeps(desk, valkey):
    """With nothing to take, what is acknowledged in a turn is on the server at the end of it."""
    at = desk()
    loop = Loop(at)
    loop.turn(lambda: valkey.info("clients")["blocked_clients"] == 1)
    at.send("only")
    loop.turn(lambda: at.messages)
    loop.turn(lambda: valkey.info("clients")["blocked_clients"] == 1)
    loop.hub.call_soon(at.messages[0].ack)
    loop.turn(lambda: not at.channel.qos.pending_acks and at.messages[0].acknowledged)

    assert held(valkey) == set()


def test_another_thread_acknowledges_at_once(desk, valkey):
    """A thread that is not the loop's cannot wait for the loop's turn."""
    at = desk()
    at.send("only")
    loop = Loop(at)
    loop.turn(lambda: at.messages)
    thread = threading.Thread(target=at.messages[0].ack)
    thread.start()
    thread.join()

    assert held(valkey) == set()


def test_what_a_call_took_when_the_channel_closes_goes_back(desk, valkey):
    """A channel that closes with the script's answer still on its way gives back what it took."""
    at = desk(prefetch=2)
    at.send(*range(4))
    loop = Loop(at)
    loop.turn(lambda: len(at.messages) == 2)
    for message in at.messages:
        message.ack()
    at.connection.transport.cycle.on_poll_start()  # the script is sent, its answer not read
    until = time.monotonic() + 5
    while len(held(valkey)) != 2 or valkey.llen("returns"):
        assert time.monotonic() < until
    at.close()

    assert held(valkey) == set()
    assert desk().take(2) == [2, 3]


def test_a_sweeper_that_was_killed_keeps_others_away_for_seconds(desk, valkey):
    """The sweep's lock goes by itself, in seconds and not in minutes."""
    seen = []
    at = desk()
    at.send("held")
    at.take(1)
    make_overdue(valkey)
    at.channel.qos.restore_by_tag = lambda *_: seen.append(valkey.ttl("unacked_mutex"))
    at.channel.qos.restore_visible(num=10, interval=1)

    assert len(seen) == 1
    assert 0 < seen[0] <= 10


@pytest.mark.parametrize("is_given_back", [True, False])
def test_a_closed_channel_still_acknowledges(desk, valkey, is_given_back):
    """Work that was going on when the connection was lost ends later: its acknowledgement does no harm, and may find nothing."""
    at = desk()
    at.send("slow")
    at.take(1)
    if not is_given_back:
        at.channel.do_restore = False
    at.close()
    at.messages[0].ack()

    assert held(valkey) == set()
    assert valkey.llen("returns") == (1 if is_given_back else 0)
