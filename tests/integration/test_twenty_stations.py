# SPDX-License-Identifier: Apache-2.0
"""Twenty stations with two thousand scans, repeats included: real workers, a real broker, real slips."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from schemas.models import InboxEntry, Loan, OutboxEntry, PrintJob, Request, RequestEvent
from schemas.print_jobs import PrintState
from schemas.request_status import RequestStatus
from stations.client import StationClient
from tests.library import Library
from tests.requirements import is_thorough

STATIONS = tuple(f"main-desk-{n}" for n in range(1, 21))
SCANS = 2000
ITEMS_IN_CI, ITEMS_LOCALLY = 1200, 300
"""Their slips take most of the time; all other scans are repeats."""
TIMEOUT = 900

pytestmark = [pytest.mark.long, pytest.mark.databases("sqlite"), pytest.mark.timeout(2 * TIMEOUT)]


def test_two_thousand_scans_get_replies_and_return_each_item_once(deployment, engine, request):
    """Each scan gets a reply, each item is returned once, and each Return has one slip."""
    items = ITEMS_IN_CI if is_thorough(request.config) else ITEMS_LOCALLY
    library = Library(engine, deployment.folder / "spool").open(STATIONS)
    barcodes = library.loaned_items(items)
    random_numbers = random.Random(20)
    scans = barcodes + random_numbers.choices(barcodes, k=SCANS - items)
    random_numbers.shuffle(scans)

    def scan_share(number):
        """Scan a station's share as fast as possible, then wait for every reply."""
        with StationClient(deployment.station_settings(STATIONS[number])) as client:
            events = [client.scan(barcode) for barcode in scans[number :: len(STATIONS)]]
            return [client.wait(event, TIMEOUT) for event in events]

    with (
        deployment.worker("returns"),
        deployment.worker("printing", "--branch", "main"),
        deployment.worker("housekeeping"),
    ):
        with ThreadPoolExecutor(len(STATIONS)) as stations:
            replies = [reply for shift in stations.map(scan_share, range(len(STATIONS))) for reply in shift]
        outcomes = Counter(reply.outcome.value for reply in replies if reply is not None)
        slips = library.wait_for_slips(items, TIMEOUT)

    assert outcomes == {"returned": items, "already_returned": SCANS - items}
    assert len(set(slips)) == len(slips) == items
    with engine.connect() as connection:

        def count(model, *where):
            return connection.execute(select(func.count()).select_from(model).where(*where)).scalar_one()

        assert count(Request, Request.status == RequestStatus.RETURNED_TO_PARTNER) == items
        assert count(Loan, Loan.discharged_at.is_(None)) == 0
        assert count(RequestEvent, RequestEvent.kind == "returned") == items
        assert count(PrintJob, PrintJob.state == PrintState.DONE) == count(PrintJob) == items
        assert count(InboxEntry) == SCANS
        assert count(OutboxEntry) == 0
