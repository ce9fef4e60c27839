# SPDX-License-Identifier: Apache-2.0
"""Attackers with users of a real RabbitMQ, with exactly the printed permissions: what is beyond a user's own is refused."""

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import amqp
import pytest
from amqp import spec
from kombu import Connection
from uuid6 import uuid7

from schemas.events_exchange import declare_events_exchange
from schemas.task_message import task_body, task_headers
from schemas.topology import (
    CHECKED_EVENTS_EXCHANGE,
    DEAD_LETTER_QUEUE,
    EVENTS_EXCHANGE,
    HOUSEKEEPING_QUEUE,
    PRINT_ACTIONS_QUEUE,
    PRINT_SLIP,
    PROCESS_SCAN,
    REFUSED_EVENTS_EXCHANGE,
    RETURNS_QUEUE,
    queue_arguments,
    reply_queue,
)
from stations.client import StationClient
from stations.transport import EventPublisher, OutgoingEvent
from tasks.quarantine.dead_letter import quarantine_row
from tests.library import LENDER
from tests.polling import wait_until
from tests.processes import Deployment
from tests.rabbitmq import rabbitmqctl
from tests.secured_rabbitmq import STATIONS, secured_rabbitmq
from workers.access_control.queue_limits import policies
from workers.dead_letters import open_dead_letters

pytestmark = [pytest.mark.long, pytest.mark.brokers("rabbitmq"), pytest.mark.databases("sqlite")]

STATION, OTHER = STATIONS
OWN, OTHERS = reply_queue(STATION), reply_queue(OTHER)
WORK_QUEUES = (RETURNS_QUEUE, HOUSEKEEPING_QUEUE, PRINT_ACTIONS_QUEUE, DEAD_LETTER_QUEUE, "printing.main")
CONTROL_QUEUE = "returns@victim.celery.pidbox"
EXCHANGES = (
    "", "celery.pidbox", "reply.celery.pidbox", "celeryev", "amq.direct", "amq.fanout", "amq.topic", "amq.headers",
    "amq.match", "amq.rabbitmq.trace", CHECKED_EVENTS_EXCHANGE, REFUSED_EVENTS_EXCHANGE,
)  # fmt: skip
"""Every exchange of the virtual host but that of the stations."""


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """One virtual host with all users, and all queues and exchanges as after the start of every worker."""
    with secured_rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as server:
        with Connection(server.host.url) as connection:
            channel: Any = connection.default_channel
            for queue in (*WORK_QUEUES, OWN, OTHERS):
                channel.queue_declare(queue, durable=True, auto_delete=False, arguments=queue_arguments(queue))
            channel.queue_declare(CONTROL_QUEUE, durable=False, auto_delete=False)
            channel.queue_declare("celeryev.victim", durable=False, auto_delete=False)
            channel.exchange_declare("celery.pidbox", "fanout", durable=False, auto_delete=False)
            channel.exchange_declare("reply.celery.pidbox", "direct", durable=False, auto_delete=False)
            channel.exchange_declare("celeryev", "topic", durable=True, auto_delete=False)
            declare_events_exchange(channel)
            channel.queue_bind(CONTROL_QUEUE, "celery.pidbox")
            channel.queue_bind("celeryev.victim", "celeryev", routing_key="#")
        yield server


@pytest.fixture
def count_messages(secured):
    """Number of messages in a queue."""

    def count(queue):
        with Connection(secured.host.url) as connection:
            channel: Any = connection.default_channel
            return channel.queue_declare(queue, passive=True).message_count

    return count


@pytest.fixture
def channel_of(secured):
    """A new channel of a user."""
    connections = []

    def open_channel(user) -> Any:
        connections.append(Connection(secured.urls[user]))
        return connections[-1].channel()

    yield open_channel
    for connection in connections:
        connection.release()


def published(channel, exchange, routing_key, body=b"{}", **properties):
    """Publish a mandatory message and wait for its confirm. Raises the server's refusal."""
    channel.confirm_select()
    returned: list[Any] = []
    channel.events["basic_return"].add(lambda *error: returned.append(error))
    channel.basic_publish(amqp.Message(body, **properties), exchange, routing_key, mandatory=True)
    channel.wait(spec.Basic.Ack)
    return not returned


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("routing_key", [*WORK_QUEUES, OTHERS, OWN, CONTROL_QUEUE, "worker.heartbeat"])
def test_station_publishes_to_no_other_exchange(channel_of, exchange, routing_key):
    """Every exchange but the stations' own refuses the station's message, whatever its routing key."""
    with pytest.raises(amqp.AccessRefused):
        published(channel_of(f"station-{STATION}"), exchange, routing_key)


@pytest.mark.parametrize("routing_key", [*WORK_QUEUES[1:], OTHERS, OWN, CONTROL_QUEUE, "", "#", "returns.x"])
def test_the_exchange_of_the_stations_leads_to_returns_alone(secured, channel_of, count_messages, routing_key):
    """Any other routing key returns the message to its sender, also with copies to further keys in `CC` and `BCC`."""
    queues = (*WORK_QUEUES, OWN, OTHERS, CONTROL_QUEUE)
    before = [count_messages(queue) for queue in queues]
    copies = {"CC": [OTHERS, "printing.main", CONTROL_QUEUE], "BCC": [HOUSEKEEPING_QUEUE, PRINT_ACTIONS_QUEUE]}

    plain = published(channel_of(f"station-{STATION}"), EVENTS_EXCHANGE, routing_key)
    copied = published(channel_of(f"station-{STATION}"), EVENTS_EXCHANGE, routing_key, application_headers=copies)

    assert (plain, copied) == (False, False)
    assert [count_messages(queue) for queue in queues] == before


@pytest.mark.parametrize(
    "death", [None, "x", 1, [], [["a"]], ["a"], [{}], [{"count": "a", "queue": "returns"}], {"a": 1}]
)
@pytest.mark.parametrize("properties", [{}, {"expiration": "0"}, {"expiration": "1"}])
def test_a_forged_death_returns_to_its_sender(channel_of, secured, death, properties):
    """The header that RabbitMQ trusts when it dead-letters reaches no queue; the queue `returns` accepts the next event."""
    station = f"station-{STATION}"
    with Connection(secured.host.url) as connection:
        channel: Any = connection.default_channel
        channel.queue_purge(RETURNS_QUEUE)

        forged = published(
            channel_of(station), EVENTS_EXCHANGE, RETURNS_QUEUE, application_headers={"x-death": death}, **properties
        )
        next_event = published(channel_of(station), EVENTS_EXCHANGE, RETURNS_QUEUE)

        wait_until(lambda: channel.queue_declare(RETURNS_QUEUE, passive=True).message_count == 1)
        received = channel.basic_get(RETURNS_QUEUE, no_ack=True)
    assert (forged, next_event) == (False, True)
    assert "x-death" not in received.headers


def call(method: str, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
    """A method of py-amqp's channel with its arguments, to be called with the channel."""
    return lambda channel: getattr(channel, method)(*arguments, **options)


def redeclare_own_queue(**arguments: Any) -> Callable[[Any], Any]:
    """Delete the station's own reply queue and declare it with other arguments."""

    def redeclare(channel: Any) -> None:
        channel.queue_delete(OWN)
        named = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
        channel.queue_declare(OWN, durable=True, auto_delete=False, arguments=named)

    return redeclare


STATION_COMMANDS: dict[str, Callable[[Any], Any]] = {
    **{
        f"{method} {queue}": call(method, queue)
        for method in ("basic_consume", "basic_get", "queue_purge", "queue_delete")
        for queue in (*WORK_QUEUES, OTHERS, CONTROL_QUEUE, "celeryev.victim")
    },
    **{
        f"declare {queue!r}": call("queue_declare", queue)
        for queue in ("new", "", "reply.", "reply.main-desk-11", "xreply.main-desk-1", "printing.new", "celeryev.new")
    },
    **{
        f"bind own queue to {exchange}": call("queue_bind", OWN, exchange, routing_key="#")
        for exchange in (*EXCHANGES[1:], EVENTS_EXCHANGE)
    },
    **{
        f"bind {queue} to the stations' exchange": call("queue_bind", queue, EVENTS_EXCHANGE, routing_key="x")
        for queue in (*WORK_QUEUES, OTHERS, CONTROL_QUEUE)
    },
    "unbind returns": call("queue_unbind", RETURNS_QUEUE, CHECKED_EVENTS_EXCHANGE, routing_key=RETURNS_QUEUE),
    "unbind the refused header": call(
        "exchange_unbind",
        REFUSED_EVENTS_EXCHANGE,
        EVENTS_EXCHANGE,
        arguments={"x-match": "any-with-x", "x-death": None},
    ),
    "delete the exchange of refused events": call("exchange_delete", REFUSED_EVENTS_EXCHANGE),
    "bind remote control to the stations' exchange": call("exchange_bind", "celery.pidbox", EVENTS_EXCHANGE, "x"),
    "bind the stations' exchange to events": call("exchange_bind", EVENTS_EXCHANGE, "celeryev", "#"),
    "delete the stations' exchange": call("exchange_delete", EVENTS_EXCHANGE),
    "delete remote control": call("exchange_delete", "celery.pidbox"),
    "declare an exchange": call("exchange_declare", "new", "fanout"),
    "declare an exchange with an alternate": call(
        "exchange_declare", OWN, "fanout", arguments={"alternate-exchange": "celery.pidbox"}
    ),
    "dead-letter own replies to a queue": redeclare_own_queue(
        dead_letter_exchange="", dead_letter_routing_key="printing.main", message_ttl=0
    ),
    "dead-letter own replies to remote control": redeclare_own_queue(dead_letter_exchange="celery.pidbox"),
}


@pytest.mark.parametrize("command", STATION_COMMANDS.values(), ids=STATION_COMMANDS)
def test_station_is_refused(channel_of, command):
    """The server refuses to read, create, empty, delete or bind anything but the station's own reply queue."""
    with pytest.raises(amqp.AccessRefused):
        command(channel_of(f"station-{STATION}"))


def test_definitions_limit_every_queue(secured):
    """The imported definitions have the limits that the script sets."""
    listed = rabbitmqctl("list_policies", "-p", secured.host.name, "--formatter", "json")

    assert {each["name"]: (each["pattern"], each["apply-to"], json.loads(each["definition"])) for each in json.loads(listed)} == {
        policy.name: (policy.pattern, "queues", dict(policy.definition)) for policy in policies()
    }  # fmt: skip


def test_station_sends_under_no_other_user_and_reaches_no_other_virtual_host(secured, channel_of):
    """The property `user_id` must be the station's own, and the server's other virtual hosts are closed to it."""
    with pytest.raises(amqp.PreconditionFailed):
        published(channel_of(f"station-{STATION}"), EVENTS_EXCHANGE, RETURNS_QUEUE, user_id=secured.users[0])
    with (
        pytest.raises(amqp.NotAllowed),
        Connection(secured.urls[f"station-{STATION}"].rpartition("/")[0] + "//") as connection,
    ):
        connection.connect()


def test_station_opens_a_bounded_number_of_connections(secured):
    """One station's user cannot use up the server's connections."""
    connections = [Connection(secured.urls[f"station-{OTHER}"]) for _ in range(17)]
    try:
        with pytest.raises(amqp.NotAllowed):
            for connection in connections:
                connection.connect()
    finally:
        for connection in connections:
            connection.release()


OTHER_USERS = {
    "metrics": {
        "publish": lambda channel: published(channel, "", RETURNS_QUEUE),
        "publish an event": lambda channel: published(channel, EVENTS_EXCHANGE, RETURNS_QUEUE),
        "query workers": lambda channel: published(channel, "celery.pidbox", ""),
        "forge a heartbeat": lambda channel: published(channel, "celeryev", "worker.heartbeat"),
        "read replies": lambda channel: channel.basic_get(OTHERS),
        "read events": lambda channel: channel.basic_get(RETURNS_QUEUE),
        "delete a queue": lambda channel: channel.queue_delete(RETURNS_QUEUE),
    },
    "flower": {
        "publish": lambda channel: published(channel, "", PRINT_ACTIONS_QUEUE),
        "publish an event": lambda channel: published(channel, EVENTS_EXCHANGE, RETURNS_QUEUE),
        "forge a reply": lambda channel: published(channel, "", OTHERS),
        "forge a heartbeat": lambda channel: published(channel, "celeryev", "worker.heartbeat"),
        "read events": lambda channel: channel.basic_get(RETURNS_QUEUE),
        "read replies": lambda channel: channel.basic_get(OTHERS),
        "read dead letters": lambda channel: channel.basic_get(DEAD_LETTER_QUEUE),
        "read a worker's commands": lambda channel: channel.basic_get(CONTROL_QUEUE),
        "purge": lambda channel: channel.queue_purge(RETURNS_QUEUE),
        "delete a queue": lambda channel: channel.queue_delete(PRINT_ACTIONS_QUEUE),
    },
    "printing": {
        "read events": lambda channel: channel.basic_get(RETURNS_QUEUE),
        "read replies": lambda channel: channel.basic_get(OTHERS),
        "read dead letters": lambda channel: channel.basic_get(DEAD_LETTER_QUEUE),
        "read sweeps": lambda channel: channel.basic_get(HOUSEKEEPING_QUEUE),
        "publish an event": lambda channel: published(channel, EVENTS_EXCHANGE, RETURNS_QUEUE),
        "query workers": lambda channel: published(channel, "celery.pidbox", ""),
        "read monitoring events": lambda channel: channel.basic_get("celeryev.victim"),
        "read another worker's commands": lambda channel: channel.basic_get(CONTROL_QUEUE),
        "delete events": lambda channel: channel.queue_delete(RETURNS_QUEUE),
        "delete the stations' exchange": lambda channel: channel.exchange_delete(EVENTS_EXCHANGE),
    },
    "returns": {
        "read sweeps": lambda channel: channel.basic_get(HOUSEKEEPING_QUEUE),
        "read decisions": lambda channel: channel.basic_get(PRINT_ACTIONS_QUEUE),
        "read dead letters": lambda channel: channel.basic_get(DEAD_LETTER_QUEUE),
        "read replies": lambda channel: channel.basic_get(OTHERS),
        "query workers": lambda channel: published(channel, "celery.pidbox", ""),
        "delete decisions": lambda channel: channel.queue_delete(PRINT_ACTIONS_QUEUE),
    },
    "housekeeping": {
        "read replies": lambda channel: channel.basic_get(OTHERS),
        "query workers": lambda channel: published(channel, "celery.pidbox", ""),
        "read another worker's commands": lambda channel: channel.basic_get(CONTROL_QUEUE),
    },
    "operations": {
        "read replies": lambda channel: channel.basic_get(OTHERS),
        "forge a heartbeat": lambda channel: published(channel, "celeryev", "worker.heartbeat"),
        "delete the stations' exchange": lambda channel: channel.exchange_delete(EVENTS_EXCHANGE),
    },
}


@pytest.mark.parametrize(
    ("user", "command"),
    [
        pytest.param(user, command, id=f"{user}: {name}")
        for user, commands in OTHER_USERS.items()
        for name, command in commands.items()
    ],
)
def test_other_users_are_refused(channel_of, user, command):
    """Workers, Flower, metrics and operations may not read, publish or delete what belongs to another role."""
    with pytest.raises(amqp.AccessRefused):
        command(channel_of(user))


@pytest.fixture
def user_deployment(database_url, tmp_path):
    """A deployment on a server with the URL of one of its users."""
    return lambda server, user: Deployment(server.urls[user], database_url, tmp_path)


@pytest.mark.timeout(300)
def test_every_role_works_with_its_own_user_behind_the_attacks_of_a_station(tmp_path, user_deployment, library):
    """While one station attacks, the other's scan gets its reply and its slip, and doctor and metrics find every worker."""
    slips: list[Any] = []
    with secured_rabbitmq(tmp_path) as server:
        of = {user: user_deployment(server, user) for user in server.urls}
        with (
            of["returns"].worker("returns"),
            of["printing"].worker("printing", "--branch", "main"),
            of["housekeeping"].worker("housekeeping"),
        ):
            wait_until(
                lambda: all(
                    server.host.queues("consumers").get(queue, {}).get("consumers")
                    for queue in (RETURNS_QUEUE, "printing.main", HOUSEKEEPING_QUEUE)
                ),
                "every worker consumes",
            )
            attack(server.urls[f"station-{OTHER}"])
            with StationClient(of[f"station-{STATION}"].station_settings(), on_slip=slips.append) as station:
                _, [barcode] = library.request()
                reply = station.wait(station.scan(barcode), 60)
                wait_until(lambda: slips, "the slip notice arrives")
            doctor = of["operations"].bookdrop("doctor", "--json")
            metrics = of["metrics"].bookdrop("metrics", "--once")
        logs = {role: of[role].log(role) for role in ("returns", "printing", "housekeeping")}

    assert reply is not None
    assert reply.message == f"The item's destination is {LENDER}"
    assert {"returns@", "printing-main@", "housekeeping@"} <= {
        finding["message"].partition(": ")[2].partition("@")[0] + "@"
        for finding in json.loads(doctor.stdout)
        if finding["part"] == "worker"
    }
    for role in ("returns", "printing", "housekeeping"):
        assert f'bookdrop_workers{{role="{role}"}} 1.0' in metrics.stdout
        assert "ACCESS_REFUSED" not in logs[role]


def attack(url):
    """Whatever a station's user may send: unsigned messages, forged replies, its own reply queue with other arguments."""
    with Connection(url) as connection:
        channel: Any = connection.channel()
        for headers in ({}, task_headers(PRINT_SLIP, str(uuid7()), origin="an attacker"), {"task": "shutdown"}):
            assert published(channel, EVENTS_EXCHANGE, RETURNS_QUEUE, b"[[],{},{}]", application_headers=headers)
        control: dict[str, Any] = {"method": "shutdown", "arguments": {}, "destination": None}
        assert published(
            channel, EVENTS_EXCHANGE, RETURNS_QUEUE, json.dumps(control).encode(), content_type="application/json"
        )
        for exchange, key in (("", OWN), ("celery.pidbox", ""), ("", "printing.main")):
            with pytest.raises(amqp.AccessRefused):
                published(connection.channel(), exchange, key)


def test_reply_queue_with_other_arguments_does_not_delay_other_stations(rabbitmq, deployment, library, raw_station):
    """A station declares its own reply queue exclusively: its event and another station's, sent together, get replies."""
    with Connection(rabbitmq.url) as connection:
        channel: Any = connection.channel()
        channel.queue_declare(OTHERS, durable=False, exclusive=True, auto_delete=True)
        barcodes = [library.request()[1][0] for _ in range(6)]
        received: list[Any] = []
        channel.basic_consume(OTHERS, no_ack=True, callback=received.append)
        for number, barcode in enumerate(barcodes):
            rogue = number % 2 == 0
            payload = library.scan(barcode, station=OTHER if rogue else STATION)
            if rogue:
                body = task_body(json.dumps(payload)).encode()
                headers = task_headers(PROCESS_SCAN, payload["event_id"], origin="an attacker")
                message = amqp.Message(
                    body, content_type="application/json", content_encoding="utf-8", reply_to=OTHERS,
                    correlation_id=payload["event_id"], application_headers=headers,
                )  # fmt: skip
                channel.basic_publish(message, EVENTS_EXCHANGE, RETURNS_QUEUE)
            else:
                raw_station.send(payload)
        with deployment.worker("returns"):
            replies = raw_station.replies_to(*raw_station.sent)
            raw_station.wait_until(lambda: drained(connection) and len(received) >= 3)

    assert {reply["outcome"] for reply in replies} == {"returned"}


def drained(connection):
    """Deliver what the connection has received; True."""
    try:
        while True:
            connection.drain_events(timeout=0.1)
    except TimeoutError:
        return True


def test_station_publishes_while_workers_or_permissions_are_those_of_an_earlier_release(secured, rabbitmq):
    """Without the exchange, or without the right to write to it, a station uses the anonymous exchange as before."""
    event = OutgoingEvent(str(uuid7()), PROCESS_SCAN, "{}")
    with closing(EventPublisher(rabbitmq.url, STATION)) as without_exchange:
        without_exchange.publish([event])
        without_exchange.publish([event])
    with closing(EventPublisher(secured.urls["printing"], STATION)) as without_right:
        without_right.publish([event])

    with Connection(rabbitmq.url) as connection:
        channel: Any = connection.default_channel
        wait_until(lambda: channel.queue_declare(RETURNS_QUEUE, passive=True).message_count == 2, "both events wait")


FORGED_HEADERS: dict[str, dict[str, Any]] = {
    "array of arrays": {"x-death": [["a"]]},
    "count that is a text": {"x-death": [{"count": "a", "reason": "rejected", "queue": RETURNS_QUEUE}]},
    "text": {"x-death": "x"},
    "headers too long for a dead letter": {"x-death": [["a"]], "more": "a" * 20_000},
}


def test_rejected_message_with_a_forged_death_is_a_dead_letter(rabbitmq, deployment, library, raw_station):
    """Sent around the stations' exchange, as an administrator can: the queue continues, and each message is recorded."""
    with deployment.worker("returns"):
        raw_station.replies_to(raw_station.send(library.scan(library.request()[1][0])))
        with Connection(rabbitmq.url) as connection:
            channel: Any = connection.channel()
            for _ in range(3):
                for forged in FORGED_HEADERS.values():
                    headers = {"task": PROCESS_SCAN, "x-quarantine-queue": HOUSEKEEPING_QUEUE, **forged}
                    assert published(channel, "", RETURNS_QUEUE, b"[]", application_headers=headers)
        replies = raw_station.replies_to(*[raw_station.send(library.scan(library.request()[1][0])) for _ in range(4)])
        wait_until(lambda: len(letters_of(rabbitmq.url)) >= 3 * len(FORGED_HEADERS), "each message is a dead letter")
        log = deployment.log("returns")

    assert {reply["outcome"] for reply in replies} == {"returned"}
    assert "Connection to broker lost" not in log
    rows = [quarantine_row(letter) for letter in letters_of(rabbitmq.url)]
    assert {(row["queue"], row["detail"]) for row in rows} == {(RETURNS_QUEUE, "property_content_type")}
    assert len(rows) == 3 * len(FORGED_HEADERS)


def letters_of(url):
    """The dead letters, which stay in their queue."""
    with open_dead_letters(lambda: Connection(url)) as letters:
        return list(letters.peek(500))
