# SPDX-License-Identifier: Apache-2.0
"""Flower's actions on several slips, its search and its numbers in trouble, over HTTP and on both databases."""

import io
import json
import re
import urllib.request
from base64 import b64encode
from urllib.parse import urlencode

import pytest
from celery.events.event import get_exchange
from kombu import Connection
from PIL import Image
from sqlalchemy import insert, select, text, update
from uuid6 import uuid7

from schemas.database import open_engine
from schemas.models import Partner, Printer, PrintJob, QuarantinedMessage, Request
from schemas.print_jobs import PrintState as State
from schemas.print_jobs import SlipContent
from schemas.slip_codes import short_code, slip_code
from schemas.topology import PRINT_SLIP, SWEEP_PRINTS
from tasks.returns.queries import ReplyFilter, replies
from tests.flower import (
    FlowerClient,
    FlowerProcess,
    decisions_about,
    print_state,
    process_scan,
    published_print_job,
    running,
    set_print_job,
)
from tests.polling import wait_until
from tests.slip_images import decode_barcodes

pytestmark = pytest.mark.long

ANN, BEN = "ann:long-enough", "ben:long-too"
PAGES = ("/workers", "/tasks", "/broker", "/prints", "/returns")


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def module_database(request):
    """Each database."""
    return request.param


@pytest.fixture(scope="module")
def library(module_library):
    """The library of all tests in this module."""
    return module_library


@pytest.fixture(scope="module")
def context(module_context):
    """The context of all tests in this module."""
    return module_context


@pytest.fixture(scope="module")
def flower(module_deployment, library):
    """Flower with its own login; ann may act, ben may view."""
    flower = FlowerProcess(module_deployment, FLOWER_BASIC_AUTH=f"{ANN},{BEN}", BOOKDROP_FLOWER_OPERATORS="ann")
    with running(flower):
        yield flower


@pytest.fixture
def ann(flower):
    """The client of a user who may act."""
    return FlowerClient(flower.url, ANN)


@pytest.fixture(autouse=True)
def settled(library):
    """Slips and messages of earlier tests are settled, and printers are ready."""
    with library.engine.begin() as connection:
        connection.execute(update(PrintJob).values(state=State.CONFIRMED))
        connection.execute(update(Printer).values(on_hold=False, failures=0))
        connection.execute(update(QuarantinedMessage).values(state="dropped"))


def held_slips(library, context, number, **request):
    slips = [published_print_job(library, context, **request) for _ in range(number)]
    for slip in slips:
        set_print_job(library, slip, state=State.HELD)
    return slips


def printer_of(library, slip):
    with library.engine.connect() as connection:
        return connection.execute(
            select(Printer.code).join(PrintJob, PrintJob.printer_id == Printer.id).where(PrintJob.id == slip)
        ).scalar_one()


def version_in(page):
    """The version of the selection in a page's form, and the number that the page shows."""
    return re.findall(r'name="expected" value="([^"]+)"', page)[0], re.findall(r'id="selected">([^<]+)<', page)[0]


def token(client):
    return re.findall(r'name="_xsrf" value="([^"]+)"', client.get("/prints")[1])[0]


def submit_rows(client, action, slips, **fields):
    """Submit a form with several rows."""
    form = [("_xsrf", token(client)), ("do", action), *(("slip", str(slip)) for slip in slips), *fields.items()]
    return client._request("/prints/batch", urlencode(form).encode(), {})


def test_move_all_moves_the_shown_slips(ann, library, context):
    """The page shows the number and a sample and changes nothing; the form moves these slips, with reason and operator."""
    slips = held_slips(library, context, 3)
    north = held_slips(library, context, 1, station="north-desk-1")

    status, page = ann.get("/prints/batch", do="move", show="all", printer="main-slips")
    version, number = version_in(page)
    untouched = [decisions_about(library, slip) for slip in slips]
    done = ann.post(
        "/prints/batch", do="move", show="all", printer="main-slips", to="north-slips", reason="toner", expected=version,
        back="show=held",
    )  # fmt: skip

    assert (status, number, untouched) == (200, "3", [[], [], []])
    assert all(str(slip) in page for slip in slips)
    assert done == (302, "/prints?show=held")
    assert "Move: 3 of 3 slips." in ann.get("/prints")[1]
    assert [printer_of(library, slip) for slip in slips] == ["north-slips"] * 3
    assert [decisions_about(library, slip) for slip in slips] == [[("slip_moved", "ann", "toner")]] * 3
    assert decisions_about(library, north[0]) == []


def test_changed_selection_is_not_acted_on(ann, library, context):
    """Another slip matches meanwhile, or another one in place of one: nothing is changed, and the new number is shown."""
    slips = held_slips(library, context, 2)
    version, _ = version_in(ann.get("/prints/batch", do="cancel", show="held")[1])
    fields = {"do": "cancel", "show": "held", "reason": "by hand"}
    added = held_slips(library, context, 1)

    one_more = ann.post("/prints/batch", expected=version, **fields)
    set_print_job(library, slips[0], state=State.DONE)
    one_exchanged = ann.post("/prints/batch", expected=version, **fields)
    set_print_job(library, slips[0], state=State.HELD)
    version, number = version_in(one_more[1])
    confirmed = ann.post("/prints/batch", expected=version, **fields)

    assert (one_more[0], "the page showed 2 slips, and now 3 match. Nothing was changed" in one_more[1]) == (409, True)
    assert (one_exchanged[0], "Nothing was changed" in one_exchanged[1]) == (409, True)
    assert (number, confirmed[0]) == ("3", 302)
    assert [print_state(library, slip) for slip in (*slips, *added)] == ["cancelled"] * 3
    assert [len(decisions_about(library, slip)) for slip in (*slips, *added)] == [1, 1, 1]


def test_chosen_rows_are_counted_and_others_are_left_alone(ann, library, context):
    """Ticked rows go to a page with their number; a row whose state forbids the action is left out, and named as a number."""
    slips = held_slips(library, context, 4)
    set_print_job(library, slips[2], state=State.DONE)

    status, page = submit_rows(ann, "cancel", slips[:3])
    version, number = version_in(page)
    done = submit_rows(ann, "cancel", slips[:3], expected=version, reason="lost")

    assert (status, number) == (200, "2")
    assert re.search(r'id="left-out">1 of the chosen', page)
    assert done[0] == 302
    assert [print_state(library, slip) for slip in slips] == ["cancelled", "cancelled", "done", "held"]


def test_submit_without_a_ticked_row_changes_nothing(ann, library, context):
    """The list is shown again, with the reason. A row's id that is not one gives 404."""
    held_slips(library, context, 1)

    assert submit_rows(ann, "cancel", [], back="show=held") == (302, "/prints?show=held")
    assert "No slip is chosen" in ann.get("/prints")[1]
    assert submit_rows(ann, "cancel", ["x"])[0] == 404


def test_refused_slips_are_reported_with_their_reason(ann, library, context):
    """Slips of a printer on hold refuse a retry: the page names the reason, and those of the other printer are retried."""
    main, north = held_slips(library, context, 1)[0], held_slips(library, context, 1, station="north-desk-1")[0]
    with library.engine.begin() as connection:
        connection.execute(update(Printer).where(Printer.code == "north-slips").values(on_hold=True))
    version, _ = version_in(ann.get("/prints/batch", do="retry", show="held")[1])

    done = ann.post("/prints/batch", do="retry", show="held", reason="paper in", expected=version)
    flash = ann.get("/prints")[1]

    assert done[0] == 302
    assert "Retry: 1 of 2 slips. Not changed: 1. Printer north-slips is on hold" in flash
    assert (len(decisions_about(library, main)), decisions_about(library, north)) == (1, [])


def test_action_that_every_slip_refuses_is_an_error(ann, library, context):
    """A move to a printer that does not exist changes nothing, and says so."""
    slip = held_slips(library, context, 1)[0]
    version, _ = version_in(ann.get("/prints/batch", do="move", show="held")[1])

    status, page = ann.post("/prints/batch", do="move", show="held", to="nowhere", reason="x", expected=version)

    assert (status, "There is no printer nowhere" in page, "Nothing was changed" in page) == (409, True, True)
    assert decisions_about(library, slip) == []


@pytest.mark.parametrize("reason", ["", " \t "])
def test_batch_without_a_reason_is_rejected(ann, library, context, reason):
    """The form is shown again."""
    slip = held_slips(library, context, 1)[0]
    version, _ = version_in(ann.get("/prints/batch", do="cancel", show="held")[1])

    status, page = ann.post("/prints/batch", do="cancel", show="held", reason=reason, expected=version)

    assert (status, "Enter a reason" in page, decisions_about(library, slip)) == (400, True, [])


def test_viewer_sees_the_number_and_cannot_act(flower, library, context, ann):
    """A user who may not act sees no form, no boxes and no buttons; a forged form gets 403, also without the XSRF token."""
    slip = held_slips(library, context, 1)[0]
    ben = FlowerClient(flower.url, BEN)
    version, _ = version_in(ann.get("/prints/batch", do="cancel", show="held")[1])
    form = {"do": "cancel", "show": "held", "reason": "let me", "expected": version}

    listed, page = ben.get("/prints")[1], ben.get("/prints/batch", do="cancel", show="held")[1]

    assert 'id="selected">1<' in page
    assert 'id="act"' not in page
    assert 'type="checkbox"' not in listed
    assert "cancel-all" not in listed
    assert ben.post("/prints/batch", **form)[0] == 403
    assert ann.post("/prints/batch", token=None, **form)[0] == 403
    assert decisions_about(library, slip) == []


def test_unknown_actions_and_lists_are_refused(ann):
    """Reprint is not an action on several slips."""
    assert ann.get("/prints/batch", do="reprint")[0] == 400
    assert ann.get("/prints/batch", do="cancel", show="nonsense")[0] == 404
    assert "There is no such action." in ann.get("/prints/batch", do="reprint")[1]


def test_cancel_ends_one_slip(ann, library, context):
    """The page of a slip offers the action for a slip that was not sent, and for an unknown one."""
    slip = held_slips(library, context, 1)[0]

    assert f'id="cancel-{slip}"' in ann.get("/prints")[1]
    assert ann.post(f"/prints/{slip}", do="cancel", reason="the item is lost")[0] == 302
    assert (print_state(library, slip), decisions_about(library, slip)) == (
        "cancelled", [("slip_cancelled", "ann", "the item is lost")],
    )  # fmt: skip


def test_hold_and_resume_change_the_printer(ann, flower, library, context):
    """The list offers Hold, then Resume; each form states the number that waits. A viewer's form gets 403."""
    held_slips(library, context, 2)

    assert 'id="hold-main-slips"' in ann.get("/prints")[1]
    assert "2 slips wait for this printer" in ann.get("/prints/printer/main-slips", do="hold")[1]
    assert FlowerClient(flower.url, BEN).post("/prints/printer/main-slips", do="hold")[0] == 403
    assert ann.post("/prints/printer/main-slips", token=None, do="hold")[0] == 403
    assert not is_on_hold(library, "main-slips")
    assert ann.post("/prints/printer/main-slips", do="hold", back="show=held") == (302, "/prints?show=held")
    assert is_on_hold(library, "main-slips")
    assert 'id="resume-main-slips"' in ann.get("/prints")[1]
    assert ann.post("/prints/printer/main-slips", do="resume")[0] == 302
    assert not is_on_hold(library, "main-slips")
    assert ann.get("/prints/printer/nowhere", do="hold")[0] == 404
    assert ann.post("/prints/printer/nowhere", do="hold")[0] == 404
    assert ann.get("/prints/printer/main-slips", do="melt")[0] == 400


def is_on_hold(library, printer):
    with library.engine.connect() as connection:
        return connection.execute(select(Printer.on_hold).where(Printer.code == printer)).scalar_one()


def test_preview_is_the_slip(ann, flower, library, context):
    """A picture of the stored slip, whose codes can be read; without a login there is none."""
    slip = published_print_job(library, context, title="A book with a picture")
    with library.engine.connect() as connection:
        content = SlipContent.model_validate(
            connection.execute(select(PrintJob.content).where(PrintJob.id == slip)).scalar_one()
        )
    address = f"{flower.url}/prints/{slip}/preview.png"

    request = urllib.request.Request(address, headers={"Authorization": "Basic " + b64encode(ANN.encode()).decode()})
    with urllib.request.urlopen(request, timeout=60) as response:
        kind, picture = response.headers["Content-Type"], Image.open(io.BytesIO(response.read()))

    assert kind == "image/png"
    assert set(decode_barcodes(picture.convert("L"))) == {content.barcode, content.code}
    assert f"/prints/{slip}/preview.png" in ann.get(f"/prints/{slip}")[1]
    assert FlowerClient(flower.url).get(f"/prints/{slip}/preview.png")[0] == 401
    assert ann.get("/prints/01a20aee-905b-70e3-bbdd-6f98a0bee5d1/preview.png")[0] == 404


def searched(client, words, **query):
    """The ids of the slips that a search lists."""
    status, page = client.get("/prints", q=words, **query)
    assert status == 200
    return set(re.findall(r'<tr id="slip-([0-9a-f-]{36})"', page))


def test_search_finds_slips_in_every_way(ann, library, context):
    """By barcode, request, slip code, id, title words and partner; a search lists all states, and can be narrowed."""
    slip = published_print_job(library, context, title="Zettels Traum: Faksimile", external_id="BR-SEARCH")
    other = published_print_job(library, context, title="Zauberberg", external_id="BR-OTHER")
    set_print_job(library, slip, state=State.DONE)
    with library.engine.connect() as connection:
        content = connection.execute(select(PrintJob.content).where(PrintJob.id == slip)).scalar_one()
        partner = connection.execute(
            select(Partner.code, Partner.name)
            .join(Request, Request.partner_id == Partner.id)
            .where(Request.external_id == "BR-SEARCH")
        ).one()

    found = {str(slip)}
    for words in (
        content["barcode"],
        f" {content['barcode']} ",
        "BR-SEARCH",
        f"BD:{slip}",
        slip_code(slip),
        short_code(slip),
        f"…{str(slip)[-8:]}",
        str(slip),
        "zettel FAKSIMILE",
    ):
        assert searched(ann, words) == found, words
    for words in (partner.code.upper(), partner.name):
        assert {str(slip), str(other)} <= searched(ann, words)
    assert searched(ann, "BR-SEARCH", show="unknown") == set()
    assert searched(ann, "BR-SEARCH", show="unconfirmed") == found
    for words in ("no such thing", "%", "_", "' OR 1=1 --", "BD:", "\\x00", "()", '"'):
        assert searched(ann, words) == set(), words


def test_search_selects_the_slips_of_an_action(ann, library, context):
    """`All that match` of a search acts on the slips that the search lists."""
    slip, other = held_slips(library, context, 1, title="Nachtzug nach Lissabon")[0], held_slips(library, context, 1)[0]

    page = ann.get("/prints", q="nachtzug")[1]
    assert "q=nachtzug" in page
    version, number = version_in(ann.get("/prints/batch", do="cancel", show="all", q="nachtzug")[1])
    assert ann.post("/prints/batch", do="cancel", show="all", q="nachtzug", expected=version, reason="x")[0] == 302

    assert (number, print_state(library, slip), print_state(library, other)) == ("1", "cancelled", "held")


def test_search_of_returns_finds_every_reply_about_an_item(ann, library, context):
    """Return and repetition of an item, by barcode, request and title; a scanned text that was refused finds nothing."""
    published_print_job(library, context, title="Die Blechtrommel", external_id="BR-TROMMEL")
    published_print_job(library, context, title="Another book", external_id="BR-ANOTHER")
    with library.engine.connect() as connection:
        barcode = connection.execute(
            select(PrintJob.content)
            .join(Request, Request.id == PrintJob.request_id)
            .where(Request.external_id == "BR-TROMMEL")
        ).scalar_one()["barcode"]
    process_scan(library, context, barcode)
    process_scan(library, context, "P4711999")

    for words in (barcode, "BR-TROMMEL", "blechtrommel"):
        page = ann.get("/returns", q=words)[1]
        assert page.count('<tr id="event-') == 2, words
        assert "Another book" not in page
    assert ann.get("/returns", q="P4711999")[1].count('<tr id="event-') == 0


def test_search_of_returns_finds_a_return_by_its_history(library, context, monkeypatch):
    """A Return behind the replies whose text is searched is found; its repetition, which no history has, is not."""
    published_print_job(library, context, title="Das Schloss", external_id="BR-SCHLOSS")
    with library.engine.connect() as connection:
        [(request, barcode)] = [
            (row.request_id, row.content["barcode"])
            for row in connection.execute(select(PrintJob.request_id, PrintJob.content))
            if row.content["external_id"] == "BR-SCHLOSS"
        ]
    process_scan(library, context, barcode)
    process_scan(library, context, "31777777777")
    wanted = ReplyFilter(requests={request: "BR-SCHLOSS"})

    def outcomes():
        with library.engine.connect() as connection:
            return [reply["outcome"] for reply in replies(connection, wanted)]

    everything = outcomes()
    monkeypatch.setattr("tasks.returns.queries.MAX_COMPARED", 1)

    assert everything == ["already_returned", "returned"]
    assert outcomes() == ["returned"]


def badges(page):
    """The numbers of the navigation; hidden ones are left out."""
    found = re.findall(r'id="trouble-(\w+)"([^>]*)>([^<]*)<', page)
    return {kind: number for kind, attributes, number in found if " hidden" not in attributes}


def test_every_page_shows_the_numbers_in_trouble(ann, library, context, flower):
    """Slips and quarantined messages, also on Flower's own pages, and as JSON; a page without a login shows none."""
    held_slips(library, context, 2)
    message = {"queue": "returns", "reason": "bad_signature", "detail": "", "state": "kept", "body": "x"}
    with library.engine.begin() as connection:
        connection.execute(insert(QuarantinedMessage).values(received_at=context.now(), **message))

    def data():
        return json.loads(ann.get("/trouble")[1])

    wait_until(lambda: data() == {"slips": "2", "messages": "1"}, "the count is current")

    for page in PAGES:
        assert badges(ann.get(page)[1]) == {"slips": "2", "messages": "1"}, page
    anonymous = FlowerClient(flower.url)
    assert badges(anonymous.get("/no-such-page")[1]) == {}
    assert anonymous.get("/trouble")[0] == 401


def test_failure_is_a_page_with_navigation(ann, library, context, module_deployment, flower):
    """While a table is missing: status 503, the cause and the next step, the navigation, and `?` in place of the number."""
    engine = open_engine(module_deployment.database_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE printers RENAME TO printers_away"))
    try:
        wait_until(lambda: json.loads(ann.get("/trouble")[1])["slips"] is None, "the count fails")
        status, page = ann.get("/prints")
        workers = ann.get("/workers")
    finally:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE printers_away RENAME TO printers"))
        engine.dispose()

    assert (status, "The database is unavailable" in page, 'href="/returns"' in page) == (503, True, True)
    assert (workers[0], badges(workers[1])["slips"]) == (200, "?")
    assert ann.get("/prints")[0] == 200


def send_task_events(deployment, *names):
    """Send the event of a task with each name, as workers do."""
    with Connection(deployment.broker_url) as connection:
        exchange = get_exchange(connection)
        producer = connection.Producer()
        for name in names:
            event = {
                "type": "task-received", "hostname": "housekeeping@here", "timestamp": 1_800_000_000.0,
                "local_received": 1_800_000_000.0, "clock": 1, "pid": 1, "utcoffset": 0, "uuid": str(uuid7()), "name": name,
            }  # fmt: skip
            producer.publish(
                event, exchange=exchange, declare=[exchange], routing_key="task.received", serializer="json"
            )


def test_task_list_leaves_sweeps_out(ann, module_deployment):
    """Flower's list has a print task and no sweep; a search for sweeps has them; the total counts both."""

    def listed(search):
        table = {"draw": "1", "start": "0", "length": "50", "search[value]": search, "order[0][column]": "0"}
        found = json.loads(ann.get("/tasks/datatable", **table)[1])
        return {task["name"] for task in found["data"]}, found["recordsTotal"]

    def is_received():
        send_task_events(module_deployment, SWEEP_PRINTS, PRINT_SLIP)
        return listed("sweep")[0] == {SWEEP_PRINTS}

    wait_until(is_received, "Flower has received the events")

    names, total = listed("")
    assert names == {PRINT_SLIP}
    assert total >= 2
    assert listed("name:print_slip")[0] == {PRINT_SLIP}
    assert ann.get("/tasks/datatable", draw="1", start="0", length="5")[0] == 400
