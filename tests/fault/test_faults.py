# SPDX-License-Identifier: Apache-2.0
"""A short, seeded part of the fault suite: `make faults` runs all of it, as often as one likes."""

from dataclasses import replace

import pytest
from amqp.exceptions import ConnectionForced

from stations import transport
from tests.fault.cases import directed, random_plan
from tests.fault.running import Refused, Trial, trial
from tests.fault.scene import Grounds
from tests.fault.servers import NotHereError
from tests.proxy import Proxy
from tests.requirements import skip_or_fail

pytestmark = [pytest.mark.long]

CASES = {case.name: case for case in directed(long=False)}


@pytest.fixture(scope="module")
def grounds():
    """Servers of these tests' own."""
    with Grounds() as grounds:
        yield grounds


def run(grounds, setup, what):
    """The verdict of a run in which nothing was lost and nothing came twice; anything else fails."""
    try:
        return trial(grounds, Trial("a test", setup, what, ""))
    except NotHereError as error:
        skip_or_fail(str(error))
    except Refused as refused:
        pytest.fail("\n".join([*refused.why, f"after {refused.blows}; what is left: {refused.folder}"]))


@pytest.mark.parametrize(
    ("broker", "database", "name"),
    [
        ("valkey", "sqlite", "returns worker killed before the reply"),
        ("rabbitmq", "postgres", "returns worker killed inside the transaction"),
    ],
)
def test_killed_at_a_point(grounds, broker, database, name):
    """A worker dies at that very point: each scan one effect and equal answers, each return one slip, nothing left."""
    case = CASES[name]

    assert run(grounds, case.setup(broker, database), case).events == 15


@pytest.mark.parametrize(("seed", "broker", "database"), [(6, "valkey", "postgres")])
def test_at_random(grounds, seed, broker, database):
    """Some scans, some stations, and several faults of a seed: the same holds."""
    plan = random_plan(seed, broker, database)

    assert run(grounds, plan.setup, plan).events == plan.setup.scans


@pytest.mark.thorough
def test_a_broken_promise_is_noticed(grounds):
    """Without the check of the inbox an event has two effects or two answers, and the suite says so."""
    case = CASES["returns worker killed after the reply"]
    setup = replace(case.setup("valkey", "sqlite"), sabotage="inbox")

    with pytest.raises(Refused) as refused:
        trial(grounds, Trial("a test", setup, case, ""))
    assert refused.value.verdict.doubled


def test_an_ear_notices_that_its_connection_is_lost(grounds, monkeypatch):
    """RabbitMQ: nothing comes and nothing says why, as after a firewall's restart; the ear ends, and another can be made."""
    monkeypatch.setattr(transport, "_HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(transport, "_TIMEOUT_SECONDS", 1)
    try:
        server = grounds.broker("rabbitmq")
    except NotHereError as error:
        skip_or_fail(str(error))
    with Proxy(lambda: server.port) as proxy:
        ear = transport.ReplyConsumer(server.url(proxy.port), "main-desk-1", lambda _bodies: None)
        ear.receive(0.1, gather=False)
        proxy.drop()
        with pytest.raises(ConnectionForced):
            for _ in range(100):
                ear.receive(0.1, gather=False)
        ear.close()
        transport.ReplyConsumer(server.url(proxy.port), "main-desk-1", lambda _bodies: None).close()
