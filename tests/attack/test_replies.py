# SPDX-License-Identifier: Apache-2.0
"""A sender that may write to a station's reply queue: it shows nothing, closes no scan, and stops no reply."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from kombu import Connection, Producer
from pydantic import SecretStr
from sqlalchemy import func, select, update
from uuid6 import uuid7

from schemas.models import RequestEvent, Station
from schemas.reply_signature import ReplyKeys, sign_reply
from schemas.topology import reply_queue
from stations.client import StationClient
from stations.journal.events import Journal
from stations.journal.rejected_messages import RejectedMessages, rejected_messages
from stations.settings import StationSettings
from stations.transport import queue_declaration
from tests.library import KEY, LENDER, Library
from tests.polling import wait_until
from tests.processes import Deployment

pytestmark = [pytest.mark.long, pytest.mark.databases("sqlite"), pytest.mark.brokers("redis", "rabbitmq")]

CODE = "main-desk-1"
NEW_KEY = "a-newer-key-of-the-tests"


@pytest.fixture
def settings(station_settings: StationSettings) -> StationSettings:
    """Settings of a station that requires signed replies and resends soon."""
    return station_settings.model_copy(update={"require_signed_replies": True, "retry_interval_seconds": 0.5})


@pytest.fixture
def forge(broker_url: str) -> Iterator[Callable[..., None]]:
    """Publish bodies to the station's reply queue."""
    with Connection(broker_url) as connection:
        channel: Any = connection.default_channel
        queue_declaration(reply_queue(CODE)).bind(channel).queue_declare()

        def publish(*bodies: str) -> None:
            for body in bodies:
                Producer(channel).publish(
                    body, exchange="", routing_key=reply_queue(CODE), content_type="application/json",
                    content_encoding="utf-8",
                )  # fmt: skip

        yield publish


def reply(event_id: object, **fields: Any) -> dict[str, Any]:
    """A Return with a destination that the attacker chose."""
    return {
        "type": "bookdrop.return-reply.v1", "event_id": str(event_id), "outcome": "returned", "reason": "loaned",
        "message": "The item's destination is ELSEWHERE", "destination": {"name": "ELSEWHERE", "code": "XX-EVIL"},
        **fields,
    }  # fmt: skip


def notice(event_id: object) -> dict[str, Any]:
    """A notice about a slip, in the attacker's words."""
    return {
        "type": "bookdrop.slip-notice.v1", "event_id": str(event_id), "job_id": str(uuid7()), "state": "done",
        "message": "ELSEWHERE", "at": datetime.now(UTC).isoformat(),
    }  # fmt: skip


def signed(message: dict[str, Any], key: str, station: str = CODE) -> str:
    return sign_reply(json.dumps(message), ReplyKeys(station, key))


def forgeries(event_id: UUID) -> dict[str, str]:
    """Messages of a sender that knows the event id and another station's key, and has read replies of the queue."""
    fields = {"type": "bookdrop.return-reply.v1", "outcome": "returned", "reason": "loaned"}
    earlier = {**fields, "event_id": str(uuid7()), "message": f"The item's destination is {LENDER}"}
    honest = json.loads(signed(earlier, KEY))
    own = json.loads(signed({**earlier, "event_id": str(event_id)}, KEY))
    changed = {**own, "destination": {"name": "ELSEWHERE", "code": "XX-EVIL"}}
    return {
        "unsigned": json.dumps(reply(event_id)),
        "unsigned refusal": json.dumps(reply(event_id, outcome="refused", reason="bad_signature")),
        "unsigned final refusal": json.dumps(reply(event_id, outcome="refused", reason="unknown_barcode")),
        "empty signature": json.dumps(reply(event_id, station=CODE, signature="")),
        "no hash": json.dumps(reply(event_id, station=CODE, signature="é" * 64, second_signature=["x"])),
        "another station's key": signed(reply(event_id), "the-key-of-another-station"),
        "another station's key and code": signed(reply(event_id), "the-key-of-another-station", "main-desk-2"),
        "another station with the same key": signed(reply(event_id), KEY, "main-desk-2"),
        "event id of another reply": json.dumps({**honest, "event_id": str(event_id)}),
        "changed destination": json.dumps(changed),
        "changed destination before the signed one": json.dumps(changed)[:-1] + ',"destination":null}',
        "another type": json.dumps({**honest, "type": "bookdrop.action-reply.v1", "event_id": str(event_id)}),
        "slip notice": json.dumps(notice(event_id)),
        "slip notice with another key": signed(notice(event_id), "the-key-of-another-station"),
        "signed event in place of a reply": json.dumps({**own, "type": "bookdrop.barcode-scanned.v1"}),
        "depth": "[" * 100_000,
        "large": json.dumps(reply(event_id, title="x" * 2_000_000)),
        "not an object": "[]",
        "not JSON": "\x00\x1b[2J",
    }


@contextmanager
def rejected(settings: StationSettings) -> Iterator[Callable[[], RejectedMessages]]:
    """The number of messages that the station ignored, read from its journal."""
    with closing(Journal(settings.journal_file, CODE)) as journal:
        yield lambda: rejected_messages(journal)


def rotate(library: Library, overlap: timedelta) -> None:
    """Give the station a new key, with an overlap from now."""
    with library.engine.begin() as connection:
        connection.execute(
            update(Station)
            .where(Station.code == CODE)
            .values(key=NEW_KEY, previous_key=KEY, previous_key_until=datetime.now(UTC) + overlap)
        )


def count_returns(library: Library) -> int:
    with library.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(RequestEvent)).scalar_one()


def test_forged_messages_are_ignored_and_the_honest_reply_is_shown(
    deployment: Deployment, library: Library, settings: StationSettings, forge: Callable[..., None]
) -> None:
    """Before and behind each forgery nothing is reported; each is counted, and the worker's reply is reported once."""
    shown: list[str] = []
    with (
        StationClient(
            settings,
            on_reply=lambda _entry, reply: shown.append(reply.message),
            on_slip=lambda entry: shown.append(str(entry.slip_message)),
        ) as client,
        rejected(settings) as ignored,
    ):
        event_id = client.scan(library.request()[1][0])
        rogue = forgeries(event_id)
        forge(*rogue.values())
        wait_until(lambda: ignored().count == len(rogue), lambda: f"{ignored()} of {len(rogue)} are counted")
        entry = client.journal.entry(str(event_id))
        before = list(shown)
        with deployment.worker("returns"):
            honest = client.wait(event_id, 60)
            wait_until(lambda: shown)
        forge(*rogue.values())
        wait_until(lambda: ignored().count == 2 * len(rogue))
        stored = client.journal.entry(str(event_id))

    assert before == []
    assert entry is not None
    assert (entry.reply, entry.slip_state, entry.answered_at) == (None, None, None)
    assert honest is not None
    assert shown == [honest.message] == [f"The item's destination is {LENDER}"]
    assert stored is not None
    assert (stored.slip_state, "ELSEWHERE" in (stored.reply or "")) == (None, False)


def test_reply_to_another_scan_of_the_station_closes_that_scan_only(
    deployment: Deployment, library: Library, settings: StationSettings, forge: Callable[..., None]
) -> None:
    """A true reply that is replayed belongs to its own event: the next scan waits for the worker."""
    with StationClient(settings) as client:
        with deployment.worker("returns"):
            first = client.scan(library.request()[1][0])
            assert client.wait(first, 60) is not None
        earlier = client.journal.entry(str(first))
        second = client.scan(library.request()[1][0])
        assert earlier is not None
        forge(*[str(earlier.reply)] * 3)
        with rejected(settings) as ignored:
            forge(json.dumps({**json.loads(str(earlier.reply)), "event_id": str(second)}))
            wait_until(lambda: ignored().count == 1)
        waiting = client.journal.entry(str(second))

    assert waiting is not None
    assert waiting.reply is None


def test_event_of_a_rotated_key_is_performed_in_the_overlap(
    deployment: Deployment, library: Library, settings: StationSettings
) -> None:
    """A scan signed before the rotation is performed after it, and the station with its former key accepts the reply."""
    with StationClient(settings) as client:
        event_id = client.scan(library.request()[1][0])
        rotate(library, timedelta(hours=1))
        with deployment.worker("returns"):
            honest = client.wait(event_id, 60)

    assert honest is not None
    assert honest.outcome == "returned"


@pytest.mark.parametrize("is_performed", [False, True], ids=["not performed", "reply lost"])
def test_event_of_an_ended_key_waits_for_the_new_key(
    deployment: Deployment, library: Library, settings: StationSettings, is_performed: bool
) -> None:
    """After the overlap the scan is refused and stays in the journal; with the new key it gets its reply, once performed.

    A stolen former key does not help: the refusal that it causes closes nothing.
    """
    with StationClient(settings) as client:
        event_id = client.scan(library.request()[1][0])
        if is_performed:
            with deployment.worker("returns"):
                assert client.wait(event_id, 60) is not None
    if is_performed:  # a crash before the reply was on disk
        with closing(Journal(settings.journal_file, CODE)) as journal, journal.writing("") as connection:
            connection.execute("UPDATE events SET reply = NULL, answered_at = NULL, next_resend_at = made_at")
    rotate(library, timedelta(0))

    with deployment.worker("returns"):
        with StationClient(settings) as client, rejected(settings) as ignored:
            wait_until(lambda: ignored().last_defect == "unsigned_refusal")
            entry = client.journal.entry(str(event_id))
        with StationClient(settings.model_copy(update={"key": SecretStr(NEW_KEY)})) as client:
            honest = client.wait(event_id, 60)

    assert entry is not None
    assert entry.reply is None
    assert honest is not None
    assert honest.outcome == "returned"
    assert count_returns(library) == 1
