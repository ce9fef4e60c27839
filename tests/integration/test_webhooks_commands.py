# SPDX-License-Identifier: Apache-2.0
"""`bookdrop webhooks` on both databases: endpoints, secrets, history, test messages, deliveries, retries."""

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from click.testing import CliRunner
from sqlalchemy import update

from schemas.models import WebhookChange, WebhookDelivery, WebhookEndpoint
from tasks.returns.handler import RETURN_HANDLER
from tasks.webhooks.delivery import deliver
from tasks.webhooks.maintenance import maintain
from tasks.webhooks.queueing import queue_deliveries
from tests.webhook_receiver import running, status, verify
from workers.cli import main
from workers.doctor import backlog
from workers.metrics import database


@pytest.fixture
def run(library, database_url, monkeypatch, tmp_path):
    """Run `bookdrop webhooks ...`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_DATABASE_URL", database_url)
    return lambda *arguments: CliRunner().invoke(main, ["webhooks", *map(str, arguments)])


@pytest.fixture
def receiver():
    with running() as receiver:
        yield receiver


def read(result, code=0):
    """The JSON that a command printed."""
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def added(run, receiver):
    """An endpoint with a token in its URL; its secret."""
    report = read(run("add", f"{receiver.url}?token=s3cret", "--allow-http", "--actor", "ann", "--json"))
    assert report["endpoint"] == 1
    return report["secret"]


@pytest.fixture
def fail_one(added, library, handle, context, receiver):
    """A message that the endpoint refused with 500."""
    receiver.respond = status(500)
    _, [barcode] = library.request()
    handle(RETURN_HANDLER, library.scan(barcode))
    queue_deliveries(context)
    deliver(context, 1, uuid4())


def test_added_endpoint_acknowledges_a_signed_test_message(run, added, receiver):
    """The secret that `add` printed verifies the test message."""
    assert read(run("test", 1, "--json")) == {"endpoint": 1, "acknowledged": True, "status": 204, "error": None}

    [message] = receiver.received
    assert message.path == "/hook?token=s3cret"
    assert message.json["type"] == "webhook.test"
    assert verify(added, message.headers, message.body, datetime.now(UTC).timestamp())


def test_refused_test_message_has_code_three(run, added, receiver):
    """The response is named, and nothing is stored."""
    receiver.respond = status(401)

    result = run("test", 1)

    assert result.exit_code == 3
    assert "responds with HTTP 401" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["add", "http://ils.example.org/"], 1, "--allow-http"), (["add", "https://ann:s3cret@host/"], 1, "a password"),
        (["add", "https://host/", "--event", "loan.renewed"], 2, "request.returned"), (["show", 9], 1, "no endpoint 9"),
        (["test", 9], 1, "no endpoint 9"), (["disable", 9], 1, "no endpoint 9"), (["retry", 9], 1, "no endpoint 9"),
        (["rotate-secret", 9], 1, "no endpoint 9"), (["enable", 9], 1, "no endpoint 9"), (["show", "x"], 2, "NUMBER"),
        (["rotate-secret", 1, "--now", "--overlap", "3d"], 2, "one of"),
    ],
)  # fmt: skip
@pytest.mark.databases("sqlite")
def test_refusal_changes_nothing_and_names_the_cause(run, rows, arguments, code, text):
    """Code 1 for a refusal, 2 for wrong usage; no password is repeated."""
    result = run(*arguments)

    assert result.exit_code == code
    assert text in result.output
    assert "s3cret" not in result.output
    assert rows(WebhookEndpoint) == rows(WebhookChange) == []


def test_no_command_shows_a_secret_or_a_token(run, added, receiver, fail_one, engine):
    """Lists, the history, the doctor and the database's metrics contain neither secret nor query."""
    outputs = [
        run(*arguments, *form).output
        for arguments in (["list"], ["show", 1], ["deliveries", 1], ["test", 1])
        for form in ([], ["--json"])
    ]
    with engine.connect() as connection:
        outputs.append(str(list(backlog.in_database(connection, datetime.now(UTC)))))

    assert all("127.0.0.1" in output for output in (outputs[0], outputs[2], outputs[-1]))
    for output in outputs:
        assert added not in output
        assert "s3cret" not in output


def test_second_endpoint_with_the_same_url_is_refused(run, added, receiver):
    """A forgotten endpoint would receive every event twice."""
    result = run("add", f"{receiver.url}?token=s3cret", "--allow-http")

    assert result.exit_code == 1
    assert "Nothing was changed" in result.output


def test_history_names_the_operators(run, added):
    """Each change has its operator, and how the operator was identified; names are erased after their retention."""
    run("disable", 1, "--actor", "ben")
    run("enable", 1)
    run("rotate-secret", 1, "--now", "--actor", "eve")

    history = read(run("show", 1, "--json"))["history"]

    assert [line["action"] for line in history] == ["added", "disabled", "enabled", "secret_rotated"]
    assert history[0]["by"].startswith("ann (name typed, account ")
    assert history[2]["by"].endswith("(account of the computer)")


def test_names_of_operators_are_erased_after_their_retention(run, added, context, clock):
    """The change stays."""
    clock.now += timedelta(days=366)
    maintain(context)

    [line] = read(run("show", 1, "--json"))["history"]
    assert (line["action"], line["by"]) == ("added", "a person whose name is no longer stored")


def test_disabled_and_enabled_endpoint_reports_its_state(run, added):
    """A second time changes nothing."""
    assert read(run("disable", 1, "--json"))["changed"] is True
    assert read(run("disable", 1, "--json"))["changed"] is False
    assert read(run("list", "--json"))["endpoints"][0]["enabled"] is False
    assert read(run("enable", 1, "--json")) == {"endpoint": 1, "enabled": True, "changed": True, "skipped": 0}
    assert read(run("enable", 1, "--json"))["changed"] is False


def test_rotation_prints_a_new_secret_and_its_end(run, added, receiver):
    """The test message has two signatures; with --now one."""
    report = read(run("rotate-secret", 1, "--json"))
    assert report["secret"] != added
    assert datetime.fromisoformat(report["previous_secret_valid_until"]) > datetime.now(UTC) + timedelta(hours=71)
    run("test", 1)
    assert run("rotate-secret", 1).exit_code == 1
    assert read(run("rotate-secret", 1, "--now", "--json"))["previous_secret_valid_until"] is None
    run("test", 1)

    assert [len(each.headers["webhook-signature"].split()) for each in receiver.received] == [2, 1]
    assert verify(added, receiver.received[0].headers, receiver.received[0].body, datetime.now(UTC).timestamp())


def test_failed_delivery_is_listed_and_retried(run, fail_one, context, receiver, engine):
    """By its number, or with all others; the housekeeping worker sends it."""
    with engine.begin() as connection:
        connection.execute(update(WebhookDelivery).values(state="failed"))
    [delivery] = read(run("deliveries", 1, "--state", "failed", "--json"))["deliveries"]
    assert (delivery["attempts"], delivery["status"], delivery["type"]) == (1, 500, "request.returned")
    assert read(run("deliveries", 1, "--state", "pending", "--json"))["deliveries"] == []

    assert run("retry", 1, 4711).exit_code == 1
    assert read(run("retry", 1, delivery["delivery"], "--json"))["retried"] == 1
    receiver.respond = status(200)
    context.now.now = datetime.now(UTC)
    assert deliver(context, 1, uuid4()) == 1
    assert read(run("retry", 1, "--json"))["retried"] == 0


def test_doctor_and_metrics_show_what_waits(run, fail_one, engine):
    """A young failure is no fault; an old one, and an endpoint that is gone, are. Without endpoints there is no line."""

    def finding(after):
        with engine.connect() as connection:
            found = backlog.in_database(connection, datetime.now(UTC) + after)
            return next(each for each in found if each.part == "webhooks")

    def samples(after=timedelta(0)):
        return {
            sample.name: sample.value
            for sample in database.read(engine, datetime.now(UTC) + after)
            if isinstance(sample, database.Sample)
        }

    assert finding(timedelta(0)).ok
    late = finding(timedelta(hours=2))
    assert (late.ok, "HTTP 500" in late.message) == (False, True)
    assert samples(timedelta(hours=2))["bookdrop_webhooks_oldest_pending_seconds"] > 7000
    assert (samples()["bookdrop_webhooks_pending"], samples()["bookdrop_webhooks_failed"]) == (1, 0)

    run("disable", 1)
    assert finding(timedelta(hours=2)).ok, "an operator disabled it on purpose"
    assert samples(timedelta(hours=2))["bookdrop_webhooks_oldest_pending_seconds"] == 0
    with engine.begin() as connection:
        connection.execute(update(WebhookEndpoint).values(disabled_because="gone"))
    assert not finding(timedelta(0)).ok
    assert samples(timedelta(hours=2))["bookdrop_webhooks_oldest_pending_seconds"] > 7000


def test_list_without_endpoints_names_the_next_step(run):
    """An empty list is no error."""
    result = run("list")

    assert result.exit_code == 0
    assert "bookdrop webhooks add" in result.output
