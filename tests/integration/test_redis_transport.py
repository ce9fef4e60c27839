# SPDX-License-Identifier: Apache-2.0
"""Atomic receive on Redis: a channel records each message as it takes it, compatibly with kombu's channels, and loses none."""

import base64
import json
import threading
import time

import pytest
import redis
from kombu import Connection as KombuConnection
from kombu.asynchronous import Hub
from kombu.transport import redis as kombu_redis

from schemas.topology import DEAD_LETTER_QUEUE
from tests.polling import TIMEOUT, wait_until
from tests.redis_consumer import MALFORMED, RedisConsumer, envelope
from workers.redis_transport import Connection, transport
from workers.redis_transport.kombu_compat import KOMBU_VERSION
from workers.redis_transport.scripts import MAX_ENTRY, MAX_WRAPPED

pytestmark = pytest.mark.long


@pytest.fixture
def connect(broker_url):
    """Create consumers on the broker, which are closed after the test."""
    made = []

    def make(**options):
        made.append(RedisConsumer(options.pop("url", broker_url), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def held(valkey, prefix=""):
    """Delivery tags of unacknowledged messages; the hash and its index contain the same ones."""
    tags = set(valkey.hkeys(f"{prefix}unacked"))
    assert tags == set(valkey.zrange(f"{prefix}unacked_index", 0, -1))
    return tags


def expire_held(valkey):
    """Make all held messages older than any visibility timeout."""
    for tag in valkey.zrange("unacked_index", 0, -1):
        valkey.zadd("unacked_index", {tag: 1})


def dead_letters(valkey, key=DEAD_LETTER_QUEUE):
    """The dead letters, oldest first."""
    return [json.loads(each) for each in reversed(valkey.lrange(key, 0, -1))]


def test_unreviewed_kombu_version_uses_kombu_transport(broker_url, monkeypatch):
    """With a version of kombu that was not reviewed, the connection uses kombu's transport."""
    monkeypatch.setattr(transport, "version", lambda _: "5.7.1")
    chosen = Connection(broker_url, transport_options={"atomic_receive": True}).get_transport_cls()

    assert KOMBU_VERSION == "5.7.0"
    assert chosen is kombu_redis.Transport


@pytest.mark.parametrize(
    "url",
    ["redis://one/0;redis://two/0", "rediss://one/0", "redis+socket:///tmp/x.sock", "sentinel://one;sentinel://two"],
)
def test_connection_reports_itself_as_kombu_does(url):
    """URL, transport name and failover equal those of kombu's transport; only the class differs."""
    ours, theirs = Connection(url, transport_options={"atomic_receive": True}), KombuConnection(url)

    assert (ours.as_uri(), ours.transport_cls) == (theirs.as_uri(), theirs.transport_cls)
    assert ours.info() | {"transport_options": None} == theirs.info() | {"transport_options": None}
    assert ours.transport.driver_type == "redis"
    ours.maybe_switch_next()
    assert ours.get_transport_cls().__module__ == "workers.redis_transport.transport"
    assert ours.clone().get_transport_cls() is ours.get_transport_cls()
    assert Connection(url).get_transport_cls() is theirs.get_transport_cls()


def test_taken_message_is_recorded_in_kombu_format(connect, valkey):
    """One call takes what the prefetch count allows, in order. kombu's hash and index hold it, with the server's time."""
    consumer = connect(prefetch=3)
    consumer.send(*range(5))
    raw = valkey.lindex("returns", -1)

    assert consumer.take(3) == [0, 1, 2]
    assert len(held(valkey)) == 3
    first = json.loads(raw)["properties"]["delivery_tag"]
    assert json.loads(valkey.hget("unacked", first)) == [json.loads(raw), "", "returns"]
    assert abs(valkey.zscore("unacked_index", first) - valkey.time()[0]) < 5
    assert valkey.llen("returns") == 2

    consumer.ack()
    assert consumer.take(2) == [3, 4]
    consumer.ack()
    assert held(valkey) == set()


def test_full_prefetch_takes_no_message(connect, valkey):
    """A peek that returns with the prefetch count reached takes no message. After an acknowledgement the next is taken."""
    consumer = connect(prefetch=1)
    consumer.idle()  # now a peek is on its way
    consumer.send("first", queue="other")
    got = consumer.channel.basic_get("other")
    consumer.send("second")
    consumer.idle()

    assert valkey.llen("returns") == 1
    got = consumer.channel.message_to_python(got)
    got.ack()
    assert consumer.take(1) == ["second"]


def test_message_stays_when_its_channel_dies_during_a_peek(connect, valkey):
    """A message that arrives during a peek stays in its list when the channel dies."""
    consumer = connect()
    consumer.idle()
    connect().send("kept")
    consumer.die()

    assert valkey.llen("returns") == 1
    assert held(valkey) == set()


def test_one_message_goes_to_one_of_many_peeks(connect, valkey):
    """Five channels peek at one list. Exactly one takes the message, and the others wait on."""
    consumers = [connect() for _ in range(5)]
    for each in consumers:
        each.idle(0.05)
    consumers[0].send("only")
    for _ in range(3):
        for each in consumers:
            each.drain(0.1)

    assert [message.payload for each in consumers for message in each.messages] == ["only"]


@pytest.mark.parametrize(("holder", "restorer"), [(Connection, KombuConnection), (KombuConnection, Connection)])
def test_each_transport_restores_messages_of_the_other(connect, valkey, holder, restorer):
    """Messages that a dead channel of one transport held are restored by the other, and marked as redelivered."""
    dead = connect(kind=holder)
    dead.send("kept")
    dead.take(1)
    dead.die()
    expire_held(valkey)
    alive = connect(kind=restorer)
    alive.channel.qos.restore_visible(num=10, interval=1)

    assert alive.take(1) == ["kept"]
    assert alive.messages[0].headers["redelivered"] is True
    alive.ack()
    assert held(valkey) == set()


def test_closing_restores_messages_in_order(connect, valkey):
    """A channel that closes restores its messages. The next one takes them in the order in which they were sent."""
    first = connect()
    first.send(*range(5))
    first.take(5)
    first.close()

    assert held(valkey) == set()
    assert connect().take(5) == [0, 1, 2, 3, 4]


def test_wrong_worker_clock_does_not_affect_restoring(connect, valkey, monkeypatch):
    """A worker whose clock is a day ahead restores nothing too early; one a day behind restores in time."""
    consumer = connect(visibility_timeout=60)
    consumer.send("held")
    consumer.take(1)
    real = time.time
    monkeypatch.setattr(kombu_redis, "time", lambda: real() + 86_400)
    consumer.channel.qos.restore_visible(num=10, interval=1)
    assert (valkey.llen("returns"), len(held(valkey))) == (0, 1)

    monkeypatch.setattr(kombu_redis, "time", lambda: real() - 86_400)
    [tag] = held(valkey)
    valkey.zadd("unacked_index", {tag: valkey.time()[0] - 61})
    consumer.channel.qos.restore_visible(num=10, interval=1)
    assert (valkey.llen("returns"), len(held(valkey))) == (1, 0)


def test_single_get_is_recorded_with_server_time(connect, valkey, monkeypatch):
    """A message that is taken without a peek is also recorded with the server's clock."""
    monkeypatch.setattr(kombu_redis, "time", lambda: 5.0)
    consumer = connect(queues=["other"])
    consumer.send("single")
    consumer.channel.basic_get("returns")

    [tag] = held(valkey)
    assert valkey.zscore("unacked_index", tag) > 1_000_000_000


def test_consumer_without_acknowledgement_records_nothing(connect, valkey):
    """A consumer with `no_ack` takes all messages, whatever the prefetch count is, and no message is recorded."""
    consumer = connect(no_ack=True, prefetch=1)
    consumer.send(*range(4))

    assert consumer.take(4) == [0, 1, 2, 3]
    assert held(valkey) == set()
    assert valkey.keys("*") == []


def test_every_key_has_the_global_prefix(connect, valkey):
    """With a global key prefix all keys have it: taken, acknowledged, restored and dead-lettered messages."""
    consumer = connect(global_keyprefix="house:")
    kombu = connect(kind=KombuConnection, global_keyprefix="house:", queues=["other"])
    kombu.send("one", "two")
    valkey.lpush("house:returns", b"not JSON")
    assert consumer.take(2) == ["one", "two"]
    consumer.idle()
    assert len(held(valkey, "house:")) == 2
    assert [key for key in valkey.keys("*") if not key.startswith(b"house:")] == []
    assert len(dead_letters(valkey, f"house:{DEAD_LETTER_QUEUE}")) == 1

    consumer.messages.pop(0).ack()
    consumer.close()
    assert connect(global_keyprefix="house:").take(1) == ["two"]


def test_several_queues_and_priorities_are_consumed(connect):
    """Several queues are consumed as by kombu. A message of another priority is taken, if later."""
    both = connect(queues=["returns", "other"])
    both.send("a")
    both.send("b", queue="other")
    assert sorted(both.take(2)) == ["a", "b"]
    both.ack()
    both.close()

    one = connect()
    one.send("urgent", priority=9)
    assert one.take(1) == ["urgent"]


def test_messages_with_one_delivery_tag_are_all_delivered(connect, valkey):
    """Messages with the same delivery tag are all delivered and acknowledged; none displaces another."""
    for word in (b'"first"', b'"second"', b'"third"'):
        valkey.lpush("returns", json.dumps(envelope("same", body=base64.b64encode(word).decode())))
    consumer = connect(prefetch=2)

    assert consumer.take(2) == ["first", "second"]
    assert len(held(valkey)) == 2
    consumer.messages[0].ack()
    consumer.take(3)
    assert [m.payload for m in consumer.messages] == ["first", "second", "third"]
    consumer.ack()
    assert held(valkey) == set()


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_malformed_message_is_dead_lettered(connect, valkey, raw):
    """A malformed message is dead-lettered, its first bytes unchanged. Its neighbours are delivered."""
    consumer = connect()
    consumer.send("before")
    valkey.lpush("returns", raw)
    consumer.send("after")

    assert consumer.take(2) == ["before", "after"]
    consumer.ack()
    assert held(valkey) == set()
    consumer_of_dead_letters = connect(kind=KombuConnection, queues=[DEAD_LETTER_QUEUE])
    consumer_of_dead_letters.connection.drain_events(timeout=5)
    [letter] = consumer_of_dead_letters.messages
    assert letter.body == raw[:MAX_WRAPPED]
    assert letter.headers["x-quarantine-reason"]
    assert letter.headers["x-quarantine-queue"] == "returns"


@pytest.mark.parametrize("raw", [*MALFORMED.values()], ids=MALFORMED)
def test_malformed_message_is_dead_lettered_without_acknowledgement(connect, valkey, raw):
    """A consumer with `no_ack` dead-letters it as well."""
    consumer = connect(no_ack=True)
    valkey.lpush("returns", raw)
    consumer.send("after")

    assert consumer.take(1) == ["after"]
    [letter] = dead_letters(valkey)
    assert base64.b64decode(letter["body"]) == raw[:MAX_WRAPPED]


@pytest.mark.parametrize("queues", [["returns"], ["returns", "other"]], ids=["atomically", "with BRPOP"])
def test_oversize_entry_is_dead_lettered_unparsed(connect, valkey, queues):
    """An entry above the limit is not parsed, whichever way the channel receives. The next one is delivered."""
    consumer = connect(queues=queues)
    valkey.lpush("returns", json.dumps(envelope(headers={"words": "x" * MAX_ENTRY})))
    consumer.send("after")

    assert consumer.take(1) == ["after"]
    [letter] = dead_letters(valkey)
    assert letter["headers"]["x-quarantine-reason"] == "oversize"
    assert len(base64.b64decode(letter["body"])) <= 65_536


def test_types_of_kombus_json_are_read_as_plain_objects(connect, valkey):
    """Kombu's own reader would build a time of this, and end at it."""
    named = {"__type__": "datetime", "__value__": "never"}
    valkey.lpush("returns", json.dumps(envelope(headers={"eta": named})))
    consumer = connect()

    assert consumer.take(1) == ["hello"]
    assert consumer.messages[0].headers["eta"] == named


def test_utf8_text_is_delivered(connect, valkey):
    """UTF-8 characters of every length are delivered unchanged."""
    words = "é € 😀 שלום ÿ퟿𐀀\u07ff\uffff\U0010ffff"
    message = envelope(headers={"words": words})
    valkey.lpush("returns", json.dumps(message, ensure_ascii=False))
    consumer = connect()
    consumer.take(1)

    assert consumer.messages[0].headers["words"] == words
    assert json.loads(valkey.hget("unacked", "t-1"))[0]["headers"]["words"] == words


def lose_once(connect, valkey, **options):
    """Take the message, lose its consumer, and restore the message."""
    consumer = connect(**options)
    consumer.take(1)
    consumer.die()
    expire_held(valkey)
    other = connect(kind=KombuConnection, queues=["other"])
    other.channel.qos.restore_visible(num=10, interval=1)
    other.close()


def test_message_beyond_its_delivery_limit_is_dead_lettered(connect, valkey, capsys):
    """A message that was lost more often than the limit is dead-lettered with its reason and count."""
    connect(queues=["other"]).send("poison", headers={"id": "event-1"})
    for _ in range(3):
        lose_once(connect, valkey, delivery_limit=2)
    consumer = connect(delivery_limit=2)
    consumer.send("healthy")

    assert consumer.take(1) == ["healthy"]
    [letter] = dead_letters(valkey)
    assert letter["headers"]["x-quarantine-reason"] == "lost_too_often"
    assert letter["headers"]["x-quarantine-losses"] == 3
    assert letter["headers"]["id"] == "event-1"
    assert base64.b64decode(letter["body"]) == b"poison"
    consumer.ack()
    assert held(valkey) == set()
    assert valkey.hgetall("unacked_deliveries") == {}


def test_orderly_restore_does_not_count_as_loss(connect, valkey):
    """Consumers that close orderly restore a message any number of times. Its acknowledgement deletes all its keys."""
    connect(queues=["other"]).send("patient")
    for _ in range(6):
        consumer = connect(delivery_limit=2)
        consumer.take(1)
        consumer.close()
    last = connect(delivery_limit=2)

    assert last.take(1) == ["patient"]
    last.ack()
    assert valkey.keys("*") == []


def test_failing_callback_restores_the_remaining_messages(connect, valkey):
    """When the callback of one message raises, the messages taken with it are restored at once."""
    consumer = connect()
    consumer.send(*range(4))

    def fail(_raw):
        raise RuntimeError("failed")

    consumer.connection.transport._callbacks["returns"] = fail
    with pytest.raises(RuntimeError):
        consumer.take(1)

    assert valkey.llen("returns") == 3
    assert connect().take(3) == [1, 2, 3]


def test_cancelled_consumer_restores_its_messages(connect, valkey):
    """Messages taken for a consumer that was cancelled meanwhile return to their queue."""
    consumer = connect()
    consumer.send(*range(4))
    consumer.connection.transport._callbacks.pop("returns")
    for _ in range(3):
        consumer.drain(0.1)
    consumer.channel.basic_cancel(next(iter(consumer.channel._consumers)))

    assert held(valkey) == set()
    assert connect().take(4) == [0, 1, 2, 3]


def test_script_is_sent_again_after_script_flush(connect, valkey):
    """After SCRIPT FLUSH, and on a new server, the script is sent in full."""
    consumer = connect()
    consumer.send("one")
    consumer.take(1)
    consumer.ack()
    valkey.script_flush()
    consumer.send("two")

    assert consumer.take(1) == ["two"]


def test_channel_falls_back_to_kombu_without_blmove(connect, valkey):
    """Where BLMOVE is not permitted, the channel receives as kombu's transport does."""
    valkey.execute_command("ACL", "SETUSER", "default", "-blmove")
    try:
        consumer = connect()
        consumer.send("one")
        assert consumer.take(1) == ["one"]
        assert consumer.channel._use_brpop
    finally:
        valkey.execute_command("ACL", "SETUSER", "default", "+@all")


def test_full_server_is_consumed(connect, valkey):
    """A server with full memory rejects publishers and peeks. Waiting messages are still taken and acknowledged."""
    consumer = connect(prefetch=2)
    consumer.send(*range(5))
    valkey.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            valkey.lpush("returns", "more")
        for number in (2, 2, 1):
            consumer.take(number)
            consumer.ack()
        consumer.idle(2)
    finally:
        valkey.config_set("maxmemory", 0)

    assert held(valkey) == set()
    consumer.send("again")
    assert consumer.take(1) == ["again"]


def test_queue_key_of_wrong_type_is_survived(connect, valkey):
    """A key of another type under the queue's name does not end the consumer. Deleting the key repairs the queue."""
    consumer = connect()
    valkey.set("returns", "not a list")
    consumer.idle(1.5)
    valkey.delete("returns")
    consumer.send("now")

    assert consumer.take(1) == ["now"]


class Loop:
    """An event loop as in a worker, advanced by the test."""

    def __init__(self, consumer):
        self.hub = consumer.hub = Hub()
        consumer.connection.register_with_event_loop(self.hub)
        self._turns = self.hub.create_loop()

    def run_until(self, condition):
        """Run turns of the loop until `condition()` is true."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline
            next(self._turns)


def calls_of_commands(valkey):
    """Number of calls so far by command."""
    return {name: each["calls"] for name, each in valkey.info("commandstats").items()}


def test_acknowledgements_are_sent_with_the_next_script(connect, valkey):
    """With an event loop, acknowledgements go with the next script and need no command. None is left behind."""
    consumer = connect(prefetch=5)
    consumer.send(*range(20))
    loop = Loop(consumer)
    loop.run_until(lambda: len(consumer.messages) == 5)
    before = calls_of_commands(valkey)
    for wanted in (10, 15, 20):
        for message in consumer.messages:
            if not message.acknowledged:
                loop.hub.call_soon(message.ack)
        loop.run_until(lambda: len(consumer.messages) == wanted)  # noqa: B023 - called at once
    after = calls_of_commands(valkey)

    assert [message.payload for message in consumer.messages] == list(range(20))
    assert after["cmdstat_evalsha"] - before["cmdstat_evalsha"] == 3
    assert after.get("cmdstat_multi", 0) == before.get("cmdstat_multi", 0)
    assert len(held(valkey)) == 5


def test_acknowledgements_are_sent_before_the_loop_blocks(connect, valkey):
    """With no message to take, acknowledgements of a turn are on the server at its end."""
    consumer = connect()
    loop = Loop(consumer)
    loop.run_until(lambda: valkey.info("clients")["blocked_clients"] == 1)
    consumer.send("only")
    loop.run_until(lambda: consumer.messages)
    loop.run_until(lambda: valkey.info("clients")["blocked_clients"] == 1)
    loop.hub.call_soon(consumer.messages[0].ack)
    loop.run_until(lambda: not consumer.channel.qos.pending_acks and consumer.messages[0].acknowledged)

    assert held(valkey) == set()


def test_acknowledgement_from_another_thread_is_immediate(connect, valkey):
    """A thread that is not the loop's cannot wait for the loop's next turn."""
    consumer = connect()
    consumer.send("only")
    loop = Loop(consumer)
    loop.run_until(lambda: consumer.messages)
    thread = threading.Thread(target=consumer.messages[0].ack)
    thread.start()
    thread.join()

    assert held(valkey) == set()


def test_closing_during_a_script_restores_its_messages(connect, valkey):
    """A channel that closes before it has read the script's response restores the messages that the script took."""
    consumer = connect(prefetch=2)
    consumer.send(*range(4))
    loop = Loop(consumer)
    loop.run_until(lambda: len(consumer.messages) == 2)
    for message in consumer.messages:
        message.ack()
    consumer.connection.transport.cycle.on_poll_start()  # the script is sent, its response not read
    wait_until(lambda: len(held(valkey)) == 2 and not valkey.llen("returns"), "the script has run")
    consumer.close()

    assert held(valkey) == set()
    assert connect().take(2) == [2, 3]


def test_restore_lock_expires_within_seconds(connect, valkey):
    """The lock for restoring messages expires in seconds, not in minutes."""
    seen = []
    consumer = connect()
    consumer.send("held")
    consumer.take(1)
    expire_held(valkey)
    consumer.channel.qos.restore_by_tag = lambda *_: seen.append(valkey.ttl("unacked_mutex"))
    consumer.channel.qos.restore_visible(num=10, interval=1)

    assert len(seen) == 1
    assert 0 < seen[0] <= 10


@pytest.mark.parametrize("is_restored", [True, False])
def test_closed_channel_acknowledges_without_error(connect, valkey, is_restored):
    """A task that ends after its connection was lost acknowledges without harm, also when nothing is left to acknowledge."""
    consumer = connect()
    consumer.send("slow")
    consumer.take(1)
    if not is_restored:
        consumer.channel.do_restore = False
    consumer.close()
    consumer.messages[0].ack()

    assert held(valkey) == set()
    assert valkey.llen("returns") == (1 if is_restored else 0)
