# SPDX-License-Identifier: Apache-2.0
"""Checks of the rights of this connection's user of the broker, and of the stations' exchange on RabbitMQ."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import redis
from kombu import Connection

from schemas.external_text import one_line
from schemas.topology import EVENTS_EXCHANGE
from workers.doctor.finding import Finding


def redis_user(client: "redis.Redis") -> Iterator[Finding]:
    """Yield a finding on the user of `client`: a note if it may run every command."""
    try:
        name = one_line(str(client.acl_whoami()), 100)
    except redis.ResponseError:
        yield Finding("broker", ok=True, message="rights not checked: this user may not run ACL WHOAMI")
        return
    try:
        rights = client.acl_getuser(name)
    except redis.ResponseError:  # only a user with administrative commands may read rights
        yield Finding("broker", ok=True, message=f"user {name}, without administrative commands")
        return
    yield _redis_finding(name, rights if isinstance(rights, dict) else {})


def _redis_finding(name: str, rights: dict[str, Any]) -> Finding:
    rules = [*map(str, rights.get("categories", ())), *map(str, rights.get("commands", ()))]
    if "+@all" not in rules or any(rule.startswith("-") for rule in rules):
        return Finding("broker", ok=True, message=f"user {name}, with a part of the commands")
    without = " without a password" if "nopass" in rights.get("flags", ()) else ""
    return Finding(
        "broker",
        ok=True,
        message=f"user {name} may run every command{without}",
        advice="Print a user for each part with 'bookdrop acl redis --generate FOLDER', load the file into the server, and"
        " give each part its URL.",
    )


def rabbitmq_user(connection: Connection) -> Iterator[Finding]:
    """Yield findings on the stations' exchange, and on a user with more rights than each role needs.

    The test of the rights deletes an exchange that does not exist: the server checks the permission first.
    """
    yield _events_exchange(connection)
    name = connection.userid or "guest"
    with connection.channel() as opened:
        channel: Any = opened
        try:
            channel.exchange_delete(f"bookdrop.doctor.{uuid4()}")
        except connection.channel_errors:
            yield Finding("broker", ok=True, message=f"user {name}, limited to named queues and exchanges")
        else:
            yield Finding(
                "broker",
                ok=True,
                message=f"user {name} may create and delete every queue and exchange",
                advice="Print a user for each part with 'bookdrop acl rabbitmq --generate FOLDER', run the script, and give"
                " each part its URL.",
            )
    yield Finding(
        "broker",
        ok=True,
        message="limits of the queues not checked: AMQP does not show policies, 'rabbitmqctl list_policies' does",
    )


def _events_exchange(connection: Connection) -> Finding:
    with connection.channel() as opened:
        channel: Any = opened
        try:
            channel.exchange_declare(EVENTS_EXCHANGE, "headers", passive=True)
        except connection.channel_errors:
            return Finding(
                "broker",
                ok=True,
                message=f"the exchange {EVENTS_EXCHANGE} is missing",
                advice="Stations with separate users hold their scans until it exists. Start a returns worker; if one"
                " runs, its log has the event events_exchange_not_declared: run the script of 'bookdrop acl rabbitmq'"
                " again, which permits it.",
            )
    return Finding("broker", ok=True, message=f"the exchange {EVENTS_EXCHANGE} is declared")
