# SPDX-License-Identifier: Apache-2.0
"""A patron with an unmistakable name passes through every function; then every output is searched for the name."""

import base64
import json
import re
import urllib.parse
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pypdfium2
import pytest
from kombu import Connection
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import inspect, select, text, update
from sqlalchemy.orm import Session

from schemas.circulation_events import ItemLoaned, ItemsReceived, LoanDischarged, RequestCompleted, UndoRequested
from schemas.events import Override
from schemas.models import Patron, PrintJob, UndoPatronLink
from schemas.print_jobs import PrintState
from schemas.request_status import RequestStatus
from stations.client import PatronCardError, StationClient
from tasks.privacy.purge import purge
from tests.flower import FlowerProcess, list_tasks, running
from tests.polling import wait_until
from tests.processes import kill_group
from workers.flower.slip_list import FILTERS
from workers.metrics.collector import BookdropCollector

NAME, NUMBER = "Zyphora Unmistakable-Canaria", "CANARY4711007"
TELLTALES = (NAME, "Zyphora", "Canaria", NUMBER)

pytestmark = [pytest.mark.long, pytest.mark.databases("sqlite")]


@pytest.fixture
def flower(deployment):
    """The URL of a Flower whose API is open."""
    process = FlowerProcess(deployment, FLOWER_UNAUTHENTICATED_API="true")
    with running(process):
        yield process.url


def name_all_patrons(library):
    """Give every patron the canary's name; the first one the number as well."""
    with library.engine.begin() as connection:
        connection.execute(update(Patron).values(name=NAME))
        first = connection.execute(select(Patron.id).order_by(Patron.id).limit(1)).scalar_one()
        connection.execute(update(Patron).where(Patron.id == first).values(number=NUMBER))


def fetch(url, data=None):
    with urllib.request.urlopen(url, data=data, timeout=300) as page:
        return page.read().decode()


@pytest.mark.thorough
def test_no_output_names_the_patron(deployment, raw_station, valkey, library, flower):
    """No page, message, log or slip names the patron; after the undo window only the patron's own row does."""
    requests = {
        "loaned": library.request(),
        "note": library.request(RequestStatus.RECEIVED),
        "lost": library.request(RequestStatus.LOST),
        "claimed": library.request(loan={"claimed_returned": True}),
        "recalled": library.request(RequestStatus.RECALLED),
        "undone": library.request(),
        "discharged": library.request(),
        "confirmed": library.request(),
        "killed": library.request(),
        "sent": library.request(RequestStatus.REQUEST_SENT),
        "other": library.request(RequestStatus.CANCELED_BY_STAFF, on_loan=False),
    }
    name_all_patrons(library)
    in_the_way = library.spool / "main"
    in_the_way.write_text("no folder")  # the first slips fail, and are retried
    settings = deployment.station_settings("main-desk-2", patron_card_pattern=r"CANARY\d+")
    pages = []
    noisy = {"BOOKDROP_LOG_LEVEL": "debug", "BOOKDROP_LOG_FORMAT": "json"}
    deployment = replace(deployment, settings=noisy)
    doomed = deployment.start_worker("returns")

    with (
        deployment.worker("printing", "--branch", "main"),
        deployment.worker("housekeeping", BOOKDROP_SWEEP_INTERVAL_SECONDS="0.5"),
        StationClient(settings) as client,
    ):
        wait_until(lambda: "housekeeping" in fetch(f"{flower}/workers?json=1"), "Flower lists the workers")
        with pytest.raises(PatronCardError):
            client.scan(NUMBER)
        raw_station.replies_to(raw_station.send(library.scan(requests["loaned"][1][0])))
        killed = raw_station.send(library.scan(requests["killed"][1][0]))
        kill_group(doomed)
        with deployment.worker("returns"):
            raw_station.send(raw_station.sent[killed])
            [undo_me] = raw_station.replies_to(raw_station.send(library.scan(requests["undone"][1][0])))
            replies = [
                reply_to(client, send())  # in sequence, because events sent together may be processed in any order
                for send in (
                    lambda: client.request_return(requests["note"][0], note="came back wet", print_slip=True),
                    lambda: client.request_return(
                        requests["lost"][0], override=Override(reason="found", supervisor="A. Chief")
                    ),
                    lambda: client.request_return(requests["claimed"][0], resolution="found_by_library"),
                    lambda: client.scan(requests["recalled"][1][0]),
                    lambda: client.scan("NO-SUCH-BARCODE"),
                    lambda: client.send_event(UndoRequested, undoes=undo_me["event_id"]),
                    lambda: client.send_event(
                        LoanDischarged, barcode=client.read_barcode(requests["discharged"][1][0])
                    ),
                    lambda: client.send_event(ItemLoaned, barcode=client.read_barcode(requests["discharged"][1][0])),
                    lambda: client.send_event(RequestCompleted, request=requests["confirmed"][0]),
                    lambda: client.send_event(
                        ItemsReceived, request=requests["sent"][0], items=({"barcode": "NEW-1"},)
                    ),
                    lambda: client.send_event(ItemLoaned, barcode=client.read_barcode("NEW-1")),
                    lambda: client.scan(requests["undone"][1][0]),
                    lambda: client.scan(requests["discharged"][1][0]),
                    lambda: client.scan(requests["confirmed"][1][0]),
                    lambda: client.scan(requests["other"][1][0]),
                )
            ]
            raw_station.send(library.scan(requests["note"][1][0], key="a wrong key"))
            raw_station.replies_to(killed)
            # While slips fail: the content of the broker and of Flower's pages.
            raw_station.wait_until(lambda: any(b"failed_safe" in message for message in raw_station.bodies), 60)
            pages += [dump(valkey), list_tasks(flower)]
            in_the_way.unlink()
            wait_until(lambda: slips_are_out(library))
            pages += [dump(valkey), list_tasks(flower), *flower_pages(flower)]
    pages.append(metrics_of(library.engine, deployment.broker_url))

    outcomes = {reply.outcome.value for reply in replies}
    assert outcomes == {"returned", "refused", "done"}
    assert "returns.process_scan" in pages[1]
    assert "SUCCESS" in pages[3]
    assert "The book number" in "".join(pages[4:])
    slips = list(library.spool.rglob("*.pdf"))
    assert len(slips) >= 5
    assert "The book number" in text_of(slips[0])  # the search finds text that is there
    shown = [*pages, *(message.decode() for message in raw_station.bodies), *(r.model_dump_json() for r in replies)]
    for place in [*shown, *on_disk(deployment.folder), *map(text_of, slips)]:
        assert not [telltale for telltale in TELLTALES if telltale in place], place[:500]
    settle_everything(library)
    tables, links = rows_of(library.engine)
    assert NAME in tables.pop("patrons")
    for name, rows in tables.items():
        assert not [telltale for telltale in TELLTALES if telltale in rows], name
    assert links == {"requests": 0, "loans": 0, "set_aside_links": 0}


def reply_to(client, event_id):
    """The reply to an event, which must come."""
    reply = client.wait(event_id, 60)
    assert reply is not None
    return reply


def on_disk(folder):
    """The logs of all processes, the station's journal, and the slips, as they are on the disk."""
    logs = list(folder.glob("*.log"))
    assert {path.stem.partition("-")[0] for path in logs} == {"returns", "printing", "housekeeping", "flower"}
    for path in [*logs, *folder.glob("*.journal*"), *folder.rglob("*.pdf")]:
        yield path.read_bytes().decode(errors="replace")


def settle_everything(library):
    """Return the remaining items, settle fees, and let the undo window pass."""
    with library.engine.begin() as connection:
        connection.execute(
            text("UPDATE loans SET fee_open = FALSE, discharged_at = COALESCE(discharged_at, loaned_at)")
        )
        connection.execute(text("UPDATE requests SET status = 'returned_to_partner'"))
        assert connection.execute(select(UndoPatronLink.id)).all() != []
    with Session(library.engine) as session, session.begin():
        purge(session, library.now + timedelta(hours=1))


def slips_are_out(library):
    with library.engine.connect() as connection:
        states = connection.execute(select(PrintJob.state).where(PrintJob.voided_at.is_(None))).scalars().all()
    return states and set(states) == {PrintState.DONE}


def dump(valkey):
    """All keys of the broker with their values."""
    getters = {
        b"string": valkey.get,
        b"list": lambda key: valkey.lrange(key, 0, -1),
        b"hash": valkey.hgetall,
        b"set": valkey.smembers,
        b"zset": lambda key: valkey.zrange(key, 0, -1, withscores=True),
    }
    held = {}
    for key in valkey.scan_iter():
        kind = valkey.type(key)
        if kind in getters:
            held[key] = getters[kind](key)
    assert held
    return repr(held) + repr(decoded(held))


def decoded(held):
    """The bodies of the messages among the values: on Redis they are base64."""
    found = []
    for value in held.values():
        for each in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
            try:
                message = json.loads(each)
                envelope = message if isinstance(message, dict) else message[0]
                found.append(base64.b64decode(envelope["body"]).decode(errors="replace"))
            except (ValueError, TypeError, KeyError, IndexError):
                continue
    return found


def flower_pages(flower):
    tasks = json.loads(list_tasks(flower))["data"]
    workers = json.loads(fetch(f"{flower}/workers?json=1"))["data"]
    for kind in FILTERS:
        slips = fetch(f"{flower}/prints?show={kind}")
        yield slips
        for slip in set(re.findall(r'href="(/prints/[0-9a-f-]{36})', slips)):
            yield fetch(flower + slip)
    yield fetch(f"{flower}/returns")
    yield fetch(f"{flower}/workers")
    yield fetch(f"{flower}/broker")
    yield fetch(f"{flower}/metrics")
    yield fetch(f"{flower}/api/tasks?limit=500")
    yield fetch(f"{flower}/api/workers?refresh=1")
    for each in workers:
        yield fetch(f"{flower}/worker/{urllib.parse.quote(each['hostname'])}")
    for task in [each for each in tasks if each["name"] not in {"outbox.sweep", "printing.sweep"}][:40]:
        yield fetch(f"{flower}/task/{task['uuid']}")
        yield fetch(f"{flower}/api/task/info/{task['uuid']}")


def metrics_of(engine, broker_url):
    """The metrics for Prometheus."""
    registry = CollectorRegistry()
    registry.register(BookdropCollector(engine, lambda: Connection(broker_url), None, lambda: datetime.now(UTC)))
    text = generate_latest(registry).decode()
    assert 'bookdrop_answers_total{outcome="returned"}' in text
    return text


def text_of(slip):
    """The text of a slip."""
    pdf = pypdfium2.PdfDocument(slip)
    try:
        assert len(pdf) == 1
        return pdf[0].get_textpage().get_text_range()
    finally:
        pdf.close()


def rows_of(engine):
    """The rows of each table as text, and the number of its rows with a link to a patron."""
    tables, links = {}, {}
    with engine.connect() as connection:
        for name in inspect(engine).get_table_names():
            rows = connection.execute(text(f"SELECT * FROM {name}")).mappings().all()
            tables[name] = "\n".join(repr(dict(row)) for row in rows)
            if rows and "patron_id" in rows[0]:
                links[name] = sum(row["patron_id"] is not None for row in rows)
            elif name == "set_aside_links":
                links[name] = 0
    return tables, links
