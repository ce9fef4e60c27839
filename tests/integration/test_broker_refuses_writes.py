# SPDX-License-Identifier: Apache-2.0
"""`bookdrop health ready` and `doctor` while the broker responds but refuses messages."""

import json

import pytest

from tests.fault.servers import RabbitMQ, UnavailableError
from tests.network import free_port
from tests.polling import wait_until
from tests.processes import Deployment
from tests.requirements import skip_or_fail
from tests.secured_rabbitmq import secured_rabbitmq
from tests.secured_redis import secured_redis
from tests.valkey import ValkeyServer

pytestmark = [pytest.mark.databases("sqlite"), pytest.mark.long]


def readiness(deployment):
    """Exit code of `health ready`, and the messages of its failed checks."""
    done = deployment.bookdrop("health", "ready", "--json")
    failed = [each["message"] for each in json.loads(done.stdout)["findings"] if not each["ok"]]
    return done.returncode, " ".join(failed)


@pytest.fixture
def valkey(tmp_path_factory):
    """A separate Valkey server."""
    server = ValkeyServer(tmp_path_factory.mktemp("v"), "--appendonly", "no")
    yield server
    server.close()


def test_not_ready_while_redis_is_a_replica(valkey, sqlite_url, library, tmp_path):
    """A replica refuses writes: not ready until it is the master again; the check leaves no key."""
    deployment = Deployment(valkey.url, sqlite_url, tmp_path)

    before = readiness(deployment)
    valkey.client.replicaof("127.0.0.1", free_port())
    during = readiness(deployment)
    valkey.client.replicaof("NO", "ONE")
    after = readiness(deployment)

    assert (before, after) == ((0, ""), (0, ""))
    assert during[0] == 1
    assert "refuses writes" in during[1]
    assert "read only" in during[1].lower() or "readonly" in during[1].lower()
    assert valkey.client.keys("*readiness*") == []


def test_not_ready_while_redis_is_out_of_memory(valkey, sqlite_url, library, tmp_path):
    """With a full memory and no eviction Redis refuses messages: not ready until memory is available."""
    deployment = Deployment(valkey.url, sqlite_url, tmp_path)

    valkey.client.config_set("maxmemory", "1kb")
    during = readiness(deployment)
    diagnosis = deployment.bookdrop("doctor", "--json")
    valkey.client.config_set("maxmemory", "0")
    after = readiness(deployment)

    assert during[0] == 1
    assert "maxmemory" in during[1]
    assert diagnosis.returncode == 1
    assert any("refuses writes" in each["message"] for each in json.loads(diagnosis.stdout))
    assert after == (0, "")


@pytest.fixture
def rabbitmq():
    """A separate RabbitMQ node: an alarm of the shared one would stop every other test."""
    try:
        server = RabbitMQ()
    except UnavailableError as error:
        skip_or_fail(str(error))
    yield server
    server.close()


@pytest.mark.parametrize("alarm", ["set_disk_free_limit", "set_vm_memory_high_watermark"])
def test_not_ready_during_an_alarm_of_rabbitmq(rabbitmq, sqlite_url, library, tmp_path, alarm):
    """With a disk or memory alarm RabbitMQ blocks messages: not ready until the alarm ends."""
    deployment = Deployment(rabbitmq.url(rabbitmq.port), sqlite_url, tmp_path)
    on, off = (["1000GB"], ["1MB"]) if "disk" in alarm else (["absolute", "1"], ["0.8"])

    before = readiness(deployment)
    rabbitmq.control(alarm, *on)
    during = wait_until(lambda: found if (found := readiness(deployment))[0] else None, "it is not ready")
    rabbitmq.control(alarm, *off)
    after = wait_until(lambda: readiness(deployment)[0] == 0, "it is ready again")

    assert before == (0, "")
    assert "does not confirm a message" in during[1]
    assert after


USERS = ("worker", "returns", "printing", "housekeeping", "operations", "flower", "metrics")


def test_users_of_redis_are_ready(sqlite_url, library, tmp_path):
    """Each user that `bookdrop acl redis` prints has the right to the check, or the check skips it: none fails."""
    with secured_redis("valkey", tmp_path) as server:
        found = {user: readiness(Deployment(server.urls[user], sqlite_url, tmp_path)) for user in USERS}
        keys = server.client("administrator").keys("*readiness*")

    assert found == dict.fromkeys(USERS, (0, ""))
    assert keys == []


def test_users_of_rabbitmq_are_ready(sqlite_url, library, tmp_path):
    """The same for the users that `bookdrop acl rabbitmq` prints."""
    with secured_rabbitmq(tmp_path) as server:
        found = {user: readiness(Deployment(server.urls[user], sqlite_url, tmp_path)) for user in USERS}

    assert found == dict.fromkeys(USERS, (0, ""))
