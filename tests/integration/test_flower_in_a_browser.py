# SPDX-License-Identifier: Apache-2.0
"""Flower in a browser, with a print worker and a printer that is stopped and started."""

import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from playwright.sync_api import Browser, HttpCredentials, expect
from sqlalchemy import update

from schemas.models import Printer
from schemas.print_jobs import PrintState as State
from tests.browser import chromium, take_screenshot
from tests.flower import (
    FlowerProcess,
    decisions_about,
    print_state,
    published_print_job,
    running,
    set_print_job,
)
from tests.network import free_port
from tests.polling import wait_until
from tests.printers import FaultyConnection, LabelPrinter
from tests.raw_station import RawStation
from workers.flower.trouble import read_trouble

pytestmark = [pytest.mark.long, pytest.mark.thorough]

NAME, PASSWORD = "ann", "a password: of ann"
BOOKS = ("The Left Hand of Darkness", "Война и мир", "Silent Spring")


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
    """Flower with basic authentication, a read-only one, and one without a login; and workers."""
    login: dict[str, Any] = {"FLOWER_BASIC_AUTH": f"{NAME}:{PASSWORD}"}
    usual, read_only, without_login = (
        FlowerProcess(module_deployment, **login),
        FlowerProcess(module_deployment, "--read_only", **login),
        FlowerProcess(module_deployment),
    )
    with (
        module_deployment.worker("returns", "--concurrency", "1"),
        module_deployment.worker("printing", "--branch", "main"),
        running(usual, read_only, without_login),
    ):
        yield usual, read_only, without_login


@pytest.fixture
def raw_station(module_deployment):
    """The station main-desk-1, in plain kombu."""
    with closing(RawStation(module_deployment.broker_url)) as station:
        yield station


@pytest.fixture(scope="module")
def browser():
    """Chromium."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser):
    """Open a page in a new browser profile, with a login unless `password` is `None`; its scripts raise no error."""
    contexts, errors = [], []

    def make(url, password=PASSWORD):
        login = None if password is None else HttpCredentials(username=NAME, password=password)
        contexts.append(browser.new_context(viewport={"width": 1200, "height": 800}, http_credentials=login))
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield make
    for each in contexts:
        each.close()
    assert errors == []


def set_main_printer(library, **columns):
    """Set columns of the printer main-slips."""
    with library.engine.begin() as connection:
        connection.execute(update(Printer).values(**columns).where(Printer.code == "main-slips"))


def mark_unavailable(library):
    """Set the printer's backoff to minutes, as after many failures."""
    set_main_printer(library, failures=7, retry_at=datetime.now(UTC) + timedelta(minutes=5))


def slip_in(reply):
    return UUID(reply["slip"])


def test_retry_prints_the_slips_of_a_restarted_printer(flowers, library, raw_station, open_page):
    """Its slips show the cause; Retry with a reason prints each once, on the live page; the history names the user."""
    flower, *_ = flowers
    port = free_port()
    set_main_printer(library, uri=f"socket://127.0.0.1:{port}")
    books = [library.request(title=book)[1][0] for book in BOOKS]
    scans = [raw_station.send(library.scan(barcode)) for barcode in (*books, books[0], "31999999999")]
    slips = [slip_in(reply) for reply in raw_station.replies_to(*scans)[:3]]
    wait_until(lambda: "failed_safe" in map(partial(print_state, library), slips), "a slip failed")
    first = next(slip for slip in slips if print_state(library, slip) == "failed_safe")
    mark_unavailable(library)

    page = open_page(f"{flower.url}/prints")
    expect(page.locator("#user")).to_have_text(NAME)
    for slip in slips:
        expect(page.locator(f"#slip-{slip}")).to_be_visible()
    expect(page.locator(f"#slip-{first}")).to_contain_text("Slip will be tried again, the Return stands")
    expect(page.locator("#live")).to_contain_text("unavailable")
    take_screenshot(page, "flower-prints")
    with closing(LabelPrinter(port=port)) as printer:
        page.locator(f"#retry-{first}").click()
        page.get_by_label("Reason").fill("Paper was out, it is in again")
        take_screenshot(page, "flower-retry")
        page.get_by_role("button", name="Retry").click()

        expect(page.locator("#flash")).to_contain_text("Retried")
        expect(page.locator("#none")).to_contain_text("No slip is in trouble")  # without a reload: the page is live
        expect(page.locator("#events")).to_contain_text("slip-done")
        expect(page.locator("#show-unconfirmed")).to_contain_text("3")
        assert len(printer.documents()) == 3
    assert [print_state(library, slip) for slip in slips] == ["done"] * 3
    page.goto(f"{flower.url}/prints/{first}")
    expect(page.locator("#state")).to_contain_text("Slip sent to the printer main-slips")
    expect(page.locator("#actions")).to_contain_text(NAME)
    expect(page.locator("#actions")).to_contain_text("Paper was out")
    assert decisions_about(library, first) == [("slip_retried", NAME, "Paper was out, it is in again")]


def test_returns_page_shows_a_workers_replies(flowers, library, raw_station, open_page):
    """A return, its repetition and a refusal: each with its time and the task's link, and without a patron."""
    flower, *_ = flowers
    _, [barcode] = library.request(title="The Origin of Species")
    scans = [raw_station.send(library.scan(each)) for each in (barcode, barcode, "31888888888")]
    raw_station.replies_to(*scans)

    page = open_page(f"{flower.url}/returns")

    for scan, outcome in zip(scans, ("returned", "already returned", "refused"), strict=True):
        row = page.locator(f"#event-{scan}")
        expect(row).to_contain_text(outcome)
        expect(row.get_by_role("link", name="task")).to_be_visible()
        expect(row).to_contain_text(re.compile(r"\d (ms|s)"))
    take_screenshot(page, "flower-returns")
    assert "31888888888" not in page.content()
    assert "Test Patron" not in page.content()


def test_ticked_rows_survive_an_update_and_are_cancelled(flowers, library, context, open_page):
    """Two of three rows are ticked, the page updates itself, and these two are cancelled after their number is shown."""
    flower, *_ = flowers
    set_main_printer(library, on_hold=True)
    slips = [published_print_job(library, context, title=title) for title in BOOKS]

    page = open_page(f"{flower.url}/prints")
    for slip in slips[:2]:
        page.locator(f"#choose-{slip}").check()
    expect(page.locator("#chosen-count")).to_have_text("Chosen: 2")
    added = published_print_job(library, context)
    expect(page.locator(f"#slip-{added}")).to_be_visible()  # without a reload: the page is live
    for slip, is_ticked in zip((*slips, added), (True, True, False, False), strict=True):
        expect(page.locator(f"#choose-{slip}")).to_be_checked(checked=is_ticked)
    take_screenshot(page, "flower-chosen")
    page.locator("#cancel-chosen").click()
    expect(page.locator("#selected")).to_have_text("2")
    expect(page.locator("#sample tbody tr")).to_have_count(2)
    page.get_by_label("Reason").fill("written by hand")
    take_screenshot(page, "flower-batch")
    page.get_by_role("button", name="Cancel slip: 2").click()

    expect(page.locator("#flash")).to_contain_text("Cancel slip: 2 of 2 slips.")
    assert [print_state(library, slip) for slip in slips[:2]] == ["cancelled"] * 2
    assert "cancelled" not in {print_state(library, slip) for slip in (slips[2], added)}
    assert decisions_about(library, slips[0]) == [("slip_cancelled", NAME, "written by hand")]
    set_main_printer(library, on_hold=False)


def test_flowers_own_pages_show_the_number_in_trouble(flowers, library, context, open_page):
    """The number in the navigation of Flower's page Workers grows without a reload, and the slip has a picture."""
    flower, *_ = flowers
    page = open_page(f"{flower.url}/workers")
    slip = published_print_job(library, context, station="north-desk-1")
    with library.engine.connect() as connection:
        before = read_trouble(connection).slips
    wait_until(lambda: trouble_on(page) == before, "the page shows the number")
    set_print_job(library, slip, state=State.UNKNOWN)

    wait_until(lambda: trouble_on(page) == before + 1, "the number grows")
    page.goto(f"{flower.url}/prints/{slip}")
    preview = page.locator("#preview")
    expect(preview).to_be_visible()
    wait_until(
        lambda: preview.evaluate("image => image.complete && image.naturalWidth") == 812, "the picture is loaded"
    )
    take_screenshot(page, "flower-slip")


def trouble_on(page):
    return int(page.locator("#trouble-slips").text_content())


def submit_by_script(page, path, token):
    """Submit a form that no page showed; return the status."""
    return page.evaluate(
        """async ([path, token]) => {
            const form = new URLSearchParams({do: "retry", reason: "let me", _xsrf: token});
            return (await fetch(path, {method: "POST", body: form, redirect: "manual"})).status;
        }""",
        [path, token],
    )


def token_of(page):
    return next(each["value"] for each in page.context.cookies() if each["name"] == "_xsrf")


def test_without_a_login_pages_have_no_buttons(flowers, library, context, open_page):
    """A Flower without a login shows the slip and no button; a forged form gets 403."""
    *_, flower = flowers
    slip = published_print_job(library, context, station="north-desk-1")
    set_print_job(library, slip, state=State.HELD)
    button = f"#retry-{slip}"

    page = open_page(f"{flower.url}/prints", password=None)
    expect(page.locator(f"#slip-{slip}")).to_be_visible()
    expect(page.locator("#denial")).to_contain_text("has no login")
    expect(page.locator(button)).to_have_count(0)
    assert submit_by_script(page, f"/prints/{slip}", token_of(page)) == 403

    assert decisions_about(library, slip) == []


def test_basic_auth_rejects_wrong_password_and_wrong_token(flowers, library, context, open_page):
    """A wrong password shows no page; with the right one the button appears, and a form with a wrong token gets 403."""
    flower, *_ = flowers
    slip = published_print_job(library, context, station="north-desk-1")
    set_print_job(library, slip, state=State.HELD)

    refused = open_page(f"{flower.url}/prints", password="a wrong one")
    expect(refused.locator(f"#slip-{slip}")).to_have_count(0)
    page = open_page(f"{flower.url}/prints")
    expect(page.locator(f"#retry-{slip}")).to_be_visible()
    assert submit_by_script(page, f"/prints/{slip}", "2|00000000|00000000000000000000000000000000|0") == 403

    assert decisions_about(library, slip) == []


def test_read_only_flower_has_no_buttons(flowers, library, context, open_page):
    """With --read_only an identified user sees no buttons either, and every form gets 403."""
    _, flower, _ = flowers
    slip = published_print_job(library, context, station="north-desk-1")
    set_print_job(library, slip, state=State.HELD)

    page = open_page(f"{flower.url}/prints")
    expect(page.locator("#user")).to_have_text(NAME)
    expect(page.locator("#denial")).to_contain_text("read-only")
    expect(page.locator(f"#retry-{slip}")).to_have_count(0)
    page.goto(f"{flower.url}/prints/{slip}?do=retry")
    expect(page.locator("#act")).to_have_count(0)

    assert submit_by_script(page, f"/prints/{slip}", token_of(page)) == 403
    assert decisions_about(library, slip) == []


def test_tasks_page_shows_a_slip_that_is_being_sent(flowers, library, context, open_page):
    """While a printer does not read, Flower's tasks page shows the task as SLIP-SENDING, with the slip."""
    flower, *_ = flowers
    with closing(FaultyConnection("hang", 0)) as line:
        set_main_printer(library, uri=f"socket://127.0.0.1:{line.port}", failures=0, retry_at=None)
        slip = published_print_job(library, context)

        page = open_page(f"{flower.url}/prints?show=waiting")
        expect(page.locator("#events")).to_contain_text("slip-sending")
        page.get_by_role("button", name="Searches").click()
        page.get_by_role("link", name="Slips being sent now").click()

        row = page.locator("#tasks-table tbody tr")
        expect(row).to_contain_text("SLIP-SENDING")
        expect(row).to_contain_text(f"slip {slip}")
        expect(row).to_contain_text("printing-main@")
        take_screenshot(page, "flower-tasks")
