# SPDX-License-Identifier: Apache-2.0
"""Flower after a restart of its broker: every page and every action responds at the first click."""

import json

import pytest

from schemas.print_jobs import PrintState as State
from tests.flower import (
    FlowerClient,
    FlowerProcess,
    context_of,
    decisions_about,
    published_print_job,
    running,
    set_print_job,
)
from tests.network import free_port
from tests.polling import wait_until
from tests.processes import Deployment
from tests.proxy import Proxy

pytestmark = [pytest.mark.long, pytest.mark.databases("sqlite")]

ANN = "ann:long-enough"
PAGES = (
    "/workers",
    "/tasks",
    "/broker",
    "/prints",
    "/returns",
    "/tasks/datatable?draw=1&start=0&length=9&order[0][column]=0",
)


@pytest.fixture(params=["redis", "rabbitmq"])
def proxied_broker(request, start_valkey):
    """A broker behind a proxy: the proxy, and the broker's URL through it."""
    if request.param == "redis":
        port = free_port()
        start_valkey(port=port)
        with Proxy(lambda: port) as proxy:
            yield proxy, f"redis://127.0.0.1:{proxy.port}"
    else:
        host = request.getfixturevalue("rabbitmq")
        with Proxy(lambda: host.port) as proxy:
            yield proxy, host.url_through(proxy.port)


def known_worker(client):
    """The name of the worker, once Flower has inspected it."""

    def names():
        status, text = client.get("/api/workers", refresh="1")
        return list(json.loads(text)) if status == 200 else []

    wait_until(names, "Flower lists the worker")
    return names()[0]


def test_first_click_after_a_broker_restart_works(proxied_broker, database_url, library, tmp_path):
    """All connections are lost, and the broker is back: each page and an action respond as before, at the first request."""
    proxy, url = proxied_broker
    deployment = Deployment(url, database_url, tmp_path)
    flower = FlowerProcess(deployment, FLOWER_BASIC_AUTH=ANN)
    with context_of(deployment, library) as context, deployment.worker("returns"), running(flower):
        client = FlowerClient(flower.url, ANN)
        worker = known_worker(client)
        pages = (*PAGES, f"/worker/{worker}")
        slips = [published_print_job(library, context) for _ in range(3)]
        for slip in slips:
            set_print_job(library, slip, state=State.HELD)
        before = [client.get(page)[0] for page in pages]
        assert client.post(f"/prints/{slips[0]}", do="retry", reason="before")[0] == 302

        proxy.refuse()
        during = [client.get(page)[0] for page in pages]
        during_action = client.post(f"/prints/{slips[1]}", do="retry", reason="during")
        proxy.resume()
        after_action = client.post(f"/prints/{slips[2]}", do="retry", reason="after")
        after = [client.get(page)[0] for page in pages]

    assert before == during == after == [200] * len(pages), flower.log.read_text()
    assert (during_action[0], after_action[0]) == (302, 302)
    assert [decisions_about(library, slip)[0][2] for slip in slips] == ["before", "during", "after"]
