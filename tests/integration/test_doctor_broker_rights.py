# SPDX-License-Identifier: Apache-2.0
"""`bookdrop doctor` reports a user of the broker with more rights than a role needs, and a missing exchange."""

import pytest
from kombu import Connection

from schemas.events_exchange import declare_events_exchange
from tests.network import free_port
from tests.secured_rabbitmq import secured_rabbitmq
from tests.secured_redis import SERVERS, secured_redis
from workers.doctor.broker_rights import rabbitmq_user, redis_user

pytestmark = [pytest.mark.long]


@pytest.mark.parametrize("server", SERVERS)
def test_redis_user_with_every_command_is_reported(server, tmp_path):
    """The administrator gets a note with the next step; the users of parts get none."""
    with secured_redis(server, tmp_path) as secured:
        findings = {}
        for name in ("administrator", "operations", "worker", "metrics"):
            with secured.client(name) as client:
                [findings[name]] = redis_user(client)

    assert findings["administrator"].message == "user administrator may run every command"
    assert "bookdrop acl redis" in findings["administrator"].advice
    assert findings["operations"].message == "user operations, without administrative commands"
    assert findings["worker"].message.startswith("rights not checked")
    assert {findings[name].advice for name in ("operations", "worker", "metrics")} == {""}


def test_redis_without_users_is_reported(start_valkey):
    """The user `default` of a new server has no password and every command."""
    server = start_valkey(port=free_port())

    [finding] = redis_user(server.client)

    assert finding.message == "user default may run every command without a password"
    assert finding.advice


def test_rabbitmq_user_and_exchange_are_reported(tmp_path):
    """A user of all rights gets a note, one of a role none; the exchange is missing until a worker has declared it."""
    with secured_rabbitmq(tmp_path) as secured:
        with Connection(secured.host.url) as connection:
            before = list(rabbitmq_user(connection))
            declare_events_exchange(connection.default_channel)
        with Connection(secured.urls["operations"]) as connection:
            after = list(rabbitmq_user(connection))

    assert [finding.message for finding in before[:2]] == [
        "the exchange bookdrop.events is missing",
        "user guest may create and delete every queue and exchange",
    ]
    assert all(finding.advice for finding in before[:2])
    assert after[0].message == "the exchange bookdrop.events is declared"
    assert after[1].message.endswith("limited to named queues and exchanges")
    assert [finding.advice for finding in after] == ["", "", ""]
