# SPDX-License-Identifier: Apache-2.0
"""The quarantine in Flower, on both databases: messages with masked content, and an operator's decisions."""

import re
from urllib.parse import urlencode

import pytest
from sqlalchemy import insert, select

from schemas.models import QuarantinedMessage, table
from schemas.topology import PROCESS_RETURN, PROCESS_SCAN
from tasks.events.processing import process_in
from tasks.quarantine.rejection import Received
from tasks.returns.handler import RETURN_HANDLER
from tests.flower import FlowerClient, FlowerProcess, running
from tests.task_context import POLICY

pytestmark = pytest.mark.long

ANN, BEN = "ann:long-enough", "ben:long-too"
quarantine = table(QuarantinedMessage)


@pytest.fixture
def flower(deployment, library):
    """Flower with its own login; ann may act, ben may view."""
    flower = FlowerProcess(deployment, FLOWER_BASIC_AUTH=f"{ANN},{BEN}", BOOKDROP_FLOWER_OPERATORS="ann")
    with running(flower):
        yield flower


@pytest.fixture
def messages(library, context):
    """Scans of two unknown stations, and a Return with a note and a wrong signature; the numbers of the messages."""
    with context.unit_of_work() as uow:
        for payload, task in (
            (library.scan("31000000017", station="west-desk-1"), PROCESS_SCAN),
            (library.scan("31000000018", station="west-desk-2"), PROCESS_SCAN),
            (library.return_requested("BR-00001", note="for Canary Patron") | {"signature": "0" * 64}, PROCESS_RETURN),
        ):
            process_in(uow, [Received(payload, "reply.main-desk-1", task)], RETURN_HANDLER, POLICY)
    with library.engine.connect() as connection:
        return list(connection.scalars(select(quarantine.c.id).order_by(quarantine.c.id)))


def row(library, number):
    with library.engine.connect() as connection:
        return connection.execute(select(quarantine).where(quarantine.c.id == number)).one()


def version_in(page):
    """The version of the selection in a page's form, and the number that the page shows."""
    return re.findall(r'name="expected" value="([^"]+)"', page)[0], re.findall(r'id="selected">([^<]+)<', page)[0]


def choose(client, decision, numbers, **fields):
    """Submit a form with several messages."""
    [token] = re.findall(r'name="_xsrf" value="([^"]+)"', client.get("/quarantine")[1])[:1]
    form = [("_xsrf", token), ("do", decision), *(("message", str(number)) for number in numbers), *fields.items()]
    return client._request("/quarantine/decide", urlencode(form).encode(), {})


def test_messages_are_listed_and_shown_masked(flower, messages):
    """The list and its filters; a message with its cause; no note, barcode or request in any page, also for an operator."""
    ann = FlowerClient(flower.url, ANN)

    everything, filtered = ann.get("/quarantine")[1], ann.get("/quarantine", reason="unknown_station")[1]
    shown = ann.get(f"/quarantine/{messages[2]}")[1]

    assert [f'id="row-{number}"' in everything for number in messages] == [True] * 3
    assert [f'id="row-{number}"' in filtered for number in messages] == [True, True, False]
    assert f'id="row-{messages[0]}"' not in ann.get("/quarantine", station="west-desk-2")[1]
    assert "bad signature" in shown
    assert "(17 characters)" in shown
    for secret in ("Canary", "BR-00001", "31000000017"):
        assert secret not in everything + shown + ann.get(f"/quarantine/{messages[0]}")[1] + ann.get("/returns")[1]
    for unknown in ("99999", "9" * 19, "0"):
        assert ann.get(f"/quarantine/{unknown}")[0] == 404


def test_all_that_match_are_requeued_with_reason_and_operator(flower, messages, library, valkey):
    """Retry of a filter shows its number, requeues those messages, and records the login's name; the third one stays."""
    ann = FlowerClient(flower.url, ANN)
    version, number = version_in(ann.get("/quarantine/decide", do="retry", reason="unknown_station")[1])
    fields = {"do": "retry", "reason": "unknown_station", "expected": version}

    without_reason = ann.post("/quarantine/decide", why=" ", **fields)
    untouched = valkey.llen("returns")
    done = ann.post("/quarantine/decide", why="registered now", back="reason=unknown_station&next=//evil", **fields)

    assert (number, without_reason[0], untouched) == ("2", 400, 0)
    assert done == (302, "/quarantine?reason=unknown_station")
    assert "Retry: 2 of 2 messages." in ann.get("/quarantine")[1]
    assert valkey.llen("returns") == 2
    decided = [row(library, each) for each in messages]
    assert [each.state for each in decided] == ["retried", "retried", "kept"]
    assert {(each.decided_by, each.decided_identified_by, each.decision_reason) for each in decided[:2]} == {
        ("ann", "signed_in", "registered now")
    }


def test_changed_selection_is_not_decided(flower, messages, library, context):
    """A further message matches meanwhile: nothing is dropped. After a second look the content of all is erased."""
    ann = FlowerClient(flower.url, ANN)
    version, _ = version_in(ann.get("/quarantine/decide", do="drop")[1])
    with library.engine.begin() as connection:
        connection.execute(
            insert(quarantine).values(
                received_at=context.now(), queue="returns", reason="malformed", detail="", body="x", state="kept"
            )
        )

    refused = ann.post("/quarantine/decide", do="drop", why="a test program", expected=version)
    states = [row(library, number).state for number in messages]
    version, number = version_in(refused[1])
    done = ann.post("/quarantine/decide", do="drop", why="a test program", expected=version)

    assert (refused[0], "the page showed 3 messages, and now 4 match" in refused[1], states) == (
        409,
        True,
        ["kept"] * 3,
    )
    assert (number, done[0]) == ("4", 302)
    assert [(row(library, each).state, row(library, each).body) for each in messages] == [("dropped", "")] * 3
    assert "a test program" in ann.get(f"/quarantine/{messages[0]}")[1]


def test_chosen_messages_are_decided_and_others_are_left_alone(flower, messages, library):
    """Ticked rows only; one that cannot be requeued is reported with the cause; without a ticked row nothing changes."""
    ann = FlowerClient(flower.url, ANN)
    with library.engine.begin() as connection:
        connection.execute(quarantine.update().where(quarantine.c.id == messages[1]).values(whole=False))
    version, number = version_in(choose(ann, "retry", messages[:2])[1])

    done = choose(ann, "retry", messages[:2], expected=version, why="upgraded")

    assert (number, done[0]) == ("2", 302)
    assert "Retry: 1 of 2 messages. Not changed: 1. It was larger than" in ann.get("/quarantine")[1]
    assert [row(library, each).state for each in messages] == ["retried", "kept", "kept"]
    assert choose(ann, "drop", [], back="")[0] == 302
    assert "No message is chosen" in ann.get("/quarantine")[1]
    assert [choose(ann, "drop", [each])[0] for each in ("x", "1" * 30, "-1", "²")] == [404] * 4


def test_viewer_cannot_decide(flower, messages, library):
    """A viewer sees messages and numbers, and no form; a forged form, and one without its token, get 403."""
    ann, ben = FlowerClient(flower.url, ANN), FlowerClient(flower.url, BEN)
    version, _ = version_in(ann.get("/quarantine/decide", do="drop")[1])
    form = {"do": "drop", "why": "let me", "expected": version}

    pages = ben.get("/quarantine")[1] + ben.get("/quarantine/decide", do="drop")[1]

    assert f'id="row-{messages[0]}"' in pages
    assert 'id="act"' not in pages
    assert 'type="checkbox"' not in pages
    assert ben.post("/quarantine/decide", **form)[0] == 403
    assert ann.post("/quarantine/decide", token=None, **form)[0] == 403
    assert FlowerClient(flower.url).get("/quarantine")[0] == 401
    assert [row(library, each).state for each in messages] == ["kept"] * 3
