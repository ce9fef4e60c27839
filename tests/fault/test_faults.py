# SPDX-License-Identifier: Apache-2.0
"""A short, seeded part of the fault suite. `make faults` runs all of it."""

from dataclasses import replace

import pytest
from amqp.exceptions import ConnectionForced

from stations import transport
from tests.fault.cluster import ServerPool
from tests.fault.runner import Run, RunFailedError, execute
from tests.fault.scenarios import random_scenario, single_fault_scenarios
from tests.fault.servers import UnavailableError
from tests.polling import wait_until
from tests.proxy import Proxy
from tests.requirements import skip_or_fail

pytestmark = [pytest.mark.long]

SCENARIOS = {
    scenario.name: replace(scenario, max_reply_seconds=None)  # the time depends on the load; `make faults` judges it
    for scenario in single_fault_scenarios(long=False)
}


@pytest.fixture(scope="module")
def servers():
    """The servers of these tests."""
    with ServerPool() as servers:
        yield servers


def findings_of(servers, setup, scenario):
    """The findings of a run without violations; any violation fails the test."""
    try:
        return execute(servers, Run("a test", setup, scenario, ""))
    except UnavailableError as error:
        skip_or_fail(str(error))
    except RunFailedError as error:
        pytest.fail("\n".join([*error.violations, f"after {error.faults}; files of the run: {error.folder}"]))


@pytest.mark.parametrize(
    ("broker", "database", "name"),
    [
        ("valkey", "sqlite", "returns worker killed before the reply"),
        ("rabbitmq", "postgres", "returns worker killed inside the transaction"),
        ("valkey", "pgbouncer", "database restarted, or locked"),
    ],
)
def test_single_fault_violates_no_invariant(servers, broker, database, name):
    """Each scan has one effect and equal replies, each Return one slip, and no work is left."""
    scenario = SCENARIOS[name]

    assert findings_of(servers, scenario.setup(broker, database), scenario).events == 15


@pytest.mark.parametrize(("seed", "broker", "database"), [(6, "valkey", "postgres")])
def test_random_faults_violate_no_invariant(servers, seed, broker, database):
    """The same holds for several stations and several faults of a seed."""
    scenario = random_scenario(seed, broker, database)

    assert findings_of(servers, scenario.setup, scenario).events == scenario.setup.scans


@pytest.mark.thorough
def test_broken_deduplication_is_detected(servers):
    """Without deduplication an event has two effects or two replies, and the suite reports the violation."""
    scenario = SCENARIOS["returns worker killed after the reply"]
    setup = replace(scenario.setup("valkey", "sqlite"), mutation="inbox")

    with pytest.raises(RunFailedError) as failed:
        execute(servers, Run("a test", setup, scenario, ""))
    assert failed.value.findings.doubled


def test_dropped_rabbitmq_connection_ends_the_reply_consumer(servers, monkeypatch):
    """A connection that is dropped without closing, as by a firewall's restart, ends the consumer; a new one works."""
    monkeypatch.setattr(transport, "_HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(transport, "_TIMEOUT_SECONDS", 1)
    try:
        server = servers.broker("rabbitmq")
    except UnavailableError as error:
        skip_or_fail(str(error))
    with Proxy(lambda: server.port) as proxy:
        consumer = transport.ReplyConsumer(server.url(proxy.port), "main-desk-1", lambda _bodies: None)
        consumer.receive(0.1, gather=False)
        proxy.drop()
        with pytest.raises(ConnectionForced):
            wait_until(lambda: consumer.receive(0.1, gather=False), "the consumer ends")
        consumer.close()
        transport.ReplyConsumer(server.url(proxy.port), "main-desk-1", lambda _bodies: None).close()
