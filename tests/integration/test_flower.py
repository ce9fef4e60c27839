# SPDX-License-Identifier: Apache-2.0
"""Flower with bookdrop's pages over HTTP: the content of each page, the effect of each action, and who may not act."""

import re
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from sqlalchemy import insert, update

from schemas.models import Printer, QuarantinedMessage
from schemas.print_jobs import PrintState as State
from schemas.request_status import RequestStatus
from tests.flower import (
    FlowerClient,
    FlowerProcess,
    decisions_about,
    identifications_about,
    print_state,
    process_scan,
    published_print_job,
    running,
    set_print_job,
)
from workers.cli import main

pytestmark = pytest.mark.long

ANN, BEN = "ann:long-enough", "ben:long-too"
SECRET = "only-the-proxy-knows"


@pytest.fixture(scope="module")
def library(module_library):
    """The library of all tests in this module."""
    return module_library


@pytest.fixture(scope="module")
def context(module_context):
    """The context of all tests in this module."""
    return module_context


@pytest.fixture(scope="module")
def flowers(module_deployment, library):
    """One with Flower's own login, one that is read-only, one behind a proxy."""
    by_name = {
        "own login": FlowerProcess(
            module_deployment, FLOWER_BASIC_AUTH=f"{ANN},{BEN}", BOOKDROP_FLOWER_OPERATORS="ann"
        ),
        "read-only": FlowerProcess(module_deployment, "--read-only", f"--basic_auth={ANN}"),
        "behind a proxy": FlowerProcess(
            module_deployment,
            "--url_prefix=ops",
            BOOKDROP_FLOWER_USER_HEADER="X-Remote-User",
            BOOKDROP_FLOWER_PROXY_SECRET=SECRET,
        ),
    }
    with running(*by_name.values()):
        yield by_name


@pytest.fixture
def slip(library, context):
    """A print job that waits for its printer."""
    return published_print_job(library, context)


@pytest.fixture
def operator_client(flowers):
    """The client of a user who may act."""
    return FlowerClient(flowers["own login"].url, ANN)


def test_every_page_links_to_prints_and_returns(flowers, operator_client):
    """Every page of Flower links to Prints and Returns, also below a URL prefix, and all share Flower's layout."""
    behind = FlowerClient(flowers["behind a proxy"].url, X_Remote_User="ann", X_Bookdrop_Proxy=SECRET)
    for visitor, prefix in ((operator_client, ""), (behind, "/ops")):
        for path in ("/workers", "/tasks", "/broker", "/prints", "/returns"):
            status, text = visitor.get(path)

            assert status == 200, path
            assert f'href="{prefix}/prints"' in text
            assert f'href="{prefix}/returns"' in text
            assert f'href="{prefix}/tasks"' in text
            assert "theme-toggle" in text
            assert "</html>" in text
        assert visitor.get("/bookdrop/bookdrop.css")[0] == 200


def test_prints_page_lists_troubled_slips_by_branch(operator_client, library, context):
    """Failed, held and unknown slips with cause and time, also those of a printer on hold; filters narrow the list."""
    by_state = {
        state: published_print_job(library, context) for state in (State.FAILED_SAFE, State.HELD, State.UNKNOWN)
    }
    for state, each in by_state.items():
        set_print_job(library, each, state=state, last_error=f"because it is {state.value}")
    north = published_print_job(library, context, station="north-desk-1")
    with library.engine.begin() as connection:
        connection.execute(update(Printer).where(Printer.code == "north-slips").values(on_hold=True))

    everything = operator_client.get("/prints")[1]
    of_main = operator_client.get("/prints", branch="main")[1]
    held = operator_client.get("/prints", show="held")[1]
    done = operator_client.get("/prints", show="unconfirmed")[1]

    for state, each in by_state.items():
        assert f"slip-{each}" in everything
        assert f"because it is {state.value}" in everything
        assert f"slip-{each}" in of_main
    assert f"slip-{north}" in everything
    assert "on hold" in everything
    assert f"slip-{north}" not in of_main
    assert (f"slip-{north}" in held, f"slip-{by_state[State.HELD]}" in held) == (True, True)
    assert f"slip-{by_state[State.UNKNOWN]}" not in held
    assert f"slip-{by_state[State.UNKNOWN]}" in done
    [unconfirmed] = re.findall(r'id="show-unconfirmed"[^>]*>Unconfirmed (\d+)<', everything)
    assert done.count('<tr id="slip-') == int(unconfirmed)
    assert operator_client.get("/prints", show="nonsense")[0] == 404
    assert "Test Patron" not in everything


@pytest.mark.parametrize(
    ("what", "state", "after", "kind"),
    [
        ("retry", State.HELD, "held", "slip_retried"),
        ("move", State.FAILED_SAFE, "failed_safe", "slip_moved"),
        ("printed", State.UNKNOWN, "done", "slip_seen"),
        ("reprint", State.UNKNOWN, "cancelled", "slip_reprinted"),
    ],
)
def test_action_is_performed_and_recorded(operator_client, library, slip, what, state, after, kind):
    """The form performs its action, returns to its list, and the history names user and reason."""
    set_print_job(library, slip, state=state)
    form = operator_client.get(f"/prints/{slip}", do=what)[1]

    done = operator_client.post(
        f"/prints/{slip}", do=what, reason="seen to it", to="north-slips", back="show=held&branch=main"
    )

    assert 'id="act"' in form
    assert done == (302, "/prints?show=held&branch=main")
    assert 'id="flash"' in operator_client.get("/prints")[1]
    assert 'id="flash"' not in operator_client.get("/prints")[1]
    assert print_state(library, slip) == after
    assert decisions_about(library, slip) == [(kind, "ann", "seen to it")]
    assert "seen to it" in operator_client.get(f"/prints/{slip}")[1]


@pytest.mark.parametrize("reason", ["", "  \t "])
def test_action_without_a_reason_is_rejected(operator_client, library, slip, reason):
    """An empty reason is rejected by the server, and the form is shown again."""
    set_print_job(library, slip, state=State.HELD)

    status, text = operator_client.post(f"/prints/{slip}", do="retry", reason=reason)

    assert (status, "Enter a reason" in text, 'id="act"' in text) == (400, True, True)
    assert decisions_about(library, slip) == []


def test_impossible_action_shows_the_refusal(operator_client, library, slip):
    """When another user acted first, the page shows the refusal, and nothing is changed."""
    set_print_job(library, slip, state=State.DONE)

    status, text = operator_client.post(f"/prints/{slip}", do="retry", reason="impatient")

    assert (status, "order a copy (reprint). Nothing was changed." in text) == (409, True)
    assert decisions_about(library, slip) == []


@pytest.mark.parametrize(
    ("flower", "login", "headers"),
    [
        ("own login", None, {}),
        ("own login", "ann:wrong", {}),
        ("own login", BEN, {}),
        ("read-only", ANN, {}),
        ("behind a proxy", None, {}),
        ("behind a proxy", None, {"X_Remote_User": "ann"}),
        ("behind a proxy", None, {"X_Remote_User": "ann", "X_Bookdrop_Proxy": "guessed"}),
    ],
)
def test_users_without_permission_cannot_act(flowers, library, slip, flower, login, headers):
    """No login, wrong password, no operator, read-only, unverified header: no buttons, and every form is rejected."""
    set_print_job(library, slip, state=State.HELD)
    visitor = FlowerClient(flowers[flower].url, login, **headers)

    _, list_of_slips = visitor.get("/prints")
    statuses = [visitor.post(f"/prints/{slip}", do="retry", reason="let me")[0] for _ in range(2)]
    statuses += [visitor.post("/prints/batch", do="retry", show="held", expected="1-0", reason="let me")[0]]

    assert f"retry-{slip}" not in list_of_slips
    assert set(statuses) <= {401, 403}
    assert decisions_about(library, slip) == []


def test_proxy_header_names_the_user(flowers, library, slip):
    """With the proxy's secret the user that it names can act, and is named in the history."""
    set_print_job(library, slip, state=State.HELD)
    cleo = FlowerClient(flowers["behind a proxy"].url, X_Remote_User="cleo@example.org", X_Bookdrop_Proxy=SECRET)

    assert cleo.post(f"/prints/{slip}", do="retry", reason="paper in")[0] == 302
    assert decisions_about(library, slip) == [("slip_retried", "cleo@example.org", "paper in")]
    assert identifications_about(library, slip) == [("cleo@example.org", "proxy")]
    assert "cleo@example.org (signed in at the proxy)" in cleo.get(f"/prints/{slip}")[1]


def test_form_without_its_xsrf_token_is_rejected(operator_client, library, slip):
    """Without the XSRF token, with a wrong one, or from another site, nothing is changed, even with a login."""
    set_print_job(library, slip, state=State.HELD)
    fields = {"do": "retry", "reason": "trick"}
    operator_client.get("/prints")

    assert operator_client.post(f"/prints/{slip}", token=None, **fields)[0] == 403
    assert operator_client.post(f"/prints/{slip}", token="2|00000000|00|0", **fields)[0] == 403
    assert operator_client.post(f"/prints/{slip}", headers={"Sec-Fetch-Site": "cross-site"}, **fields)[0] == 403
    assert operator_client.post(f"/prints/{slip}", headers={"Origin": "https://elsewhere.example"}, **fields)[0] == 403
    assert decisions_about(library, slip) == []


def test_form_redirects_to_the_list_only(operator_client, library, slip):
    """The return address of a form is a filter at most: it cannot redirect to another site."""
    set_print_job(library, slip, state=State.HELD)

    done = operator_client.post(
        f"/prints/{slip}", do="retry", reason="x", back="https://elsewhere.example/?next=//evil&show=held"
    )

    assert done[0] == 302
    assert done[1] in {"/prints", "/prints?show=held"}


def test_markup_in_texts_is_escaped(operator_client, library, context):
    """A title, a reason and an error with markup are shown as text."""
    slip = published_print_job(library, context, title="<script>title</script>")
    set_print_job(library, slip, state=State.HELD, last_error="<b>trouble</b>")
    operator_client.post(f"/prints/{slip}", do="retry", reason='<img src=x onerror="alert(1)">')

    for page in (
        operator_client.get("/prints")[1],
        operator_client.get(f"/prints/{slip}")[1],
        operator_client.get("/returns")[1],
    ):
        assert "<script>title" not in page
        assert "<b>trouble" not in page
        assert "<img src=x" not in page
    assert "&lt;script&gt;title" in operator_client.get("/prints")[1]
    assert decisions_about(library, slip)[0][2] == '<img src=x onerror="alert(1)">'


def test_unknown_slip_returns_404(operator_client):
    """An invalid id, and an unknown one."""
    assert operator_client.get("/prints/01a20aee-905b-70e3-bbdd-6f98a0bee5d1")[0] == 404
    assert operator_client.get("/prints/------------------------------------")[0] == 404


def test_returns_page_lists_returns_with_their_times(operator_client, library, context):
    """Returns with title and time to the reply; a refused scan without its code, which could be a patron card."""
    published_print_job(library, context, station="main-desk-2", title="A book that went home", external_id="BR-HOME")
    _, [gone] = library.request(RequestStatus.COMPLETED)
    for barcode in ("P4711007", gone):
        process_scan(library, context, barcode, station="main-desk-2")

    text = operator_client.get("/returns", station="main-desk-2")[1]
    refused = operator_client.get("/returns", station="main-desk-2", show="refused")[1]

    assert "A book that went home" in text
    assert "request BR-HOME" in text
    assert text.count(" ms</td>") + text.count(" s</td>") == 3
    assert "unknown barcode" in refused
    assert "A book that went home" not in refused
    assert gone in refused
    assert "P4711007" not in text + refused
    assert "Test Patron" not in text
    [row] = [part for part in text.split("<tr") if 'id="station-main-desk-2"' in part]
    assert [part.strip() for part in row.split("<td")[4:6]] == [">3</td>", ">2</td>"]  # replies, refusals


def test_returns_page_counts_undelivered_replies(operator_client, library, context):
    """A station that is offline leaves replies in its queue: the page shows their number."""
    published_print_job(library, context, station="north-desk-1")

    text = operator_client.get("/returns")[1]

    [row] = [part for part in text.split("<tr") if 'id="station-north-desk-1"' in part]
    assert "bookdrop-warn" in row


def test_quarantine_shows_open_messages_without_their_content(operator_client, library):
    """Reason, station and detail of a message without a final decision; never its content, and no dropped message."""
    message = {"received_at": datetime.now(UTC), "queue": "returns", "reason": "bad_signature", "detail": ""}
    with library.engine.begin() as connection:
        for station, state in (("<i>forged</i>", "kept"), ("dropped-station", "dropped")):
            connection.execute(
                insert(QuarantinedMessage).values(**message, station=station, state=state, body="SECRET-BODY")
            )

    text = operator_client.get("/returns")[1]

    assert "bad signature" in text
    assert "&lt;i&gt;forged&lt;/i&gt;" in text
    assert "dropped-station" not in text
    assert re.search(r'id="in-quarantine">1<', text)
    assert "SECRET-BODY" not in text


def test_unknown_flower_option_is_rejected():
    """An option that Flower does not know ends the command."""
    done = CliRunner().invoke(main, ["flower", "--raed_only"])

    assert (done.exit_code, "Flower has no option --raed_only" in done.output) == (2, True)
