# SPDX-License-Identifier: Apache-2.0
"""The invariants of a run, verified in the database, the journals, the spool and the messages on the wire.

Nothing that the program reports about itself is trusted: no log, no exit code, no metric.
"""

import json
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from schemas.models import (
    InboxEntry,
    Item,
    ItemBarcode,
    Loan,
    OutboxEntry,
    PrintAttempt,
    PrintJob,
    QuarantinedMessage,
    Request,
    RequestEvent,
)
from schemas.print_jobs import PrintState
from schemas.request_status import RequestStatus
from tests.fault.cluster import Cluster
from tests.slips import slip_id

TOLERANCE = timedelta(seconds=1)
_ACCEPTED_AHEAD = 120.0
"""Seconds by which a station's clock may be ahead for its times to be accepted."""


@dataclass
class Findings:
    """The result of a run: violations of the invariants, and figures."""

    events: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    slowest_reply: float = 0.0
    """Longest time from a scan to its reply in seconds, by the journals."""
    slowest_slip: float = 0.0
    """Longest time from a Return to its slip in seconds."""
    resent: int = 0
    """Number of scans that a station published more than once."""

    @property
    def violations(self) -> list[str]:
        """All violations."""
        return [*self.lost, *self.doubled, *self.wrong]


@dataclass(frozen=True)
class _JournalEntry:
    event_id: str
    subject: str
    payload: dict[str, Any]
    made_at: datetime
    answered_at: datetime | None
    reply: str | None
    attempts: int


def verify(cluster: Cluster) -> Findings:
    """Verify the invariants of the run of `cluster`."""
    findings = Findings()
    journals = {code: _journal(cluster.journal(code)) for code in cluster.codes}
    _check_journals(cluster, journals, findings)
    entries = {entry.event_id: entry for journal in journals.values() for entry in journal}
    findings.events = len(entries)
    with cluster.engine.connect() as connection:
        rows = {
            model: connection.execute(select(model.__table__)).mappings().all()
            for model in (InboxEntry, RequestEvent, PrintJob, PrintAttempt)
        }
        inbox = {str(row["event_id"]): row for row in rows[InboxEntry]}
        _check_replies(cluster, entries, inbox, findings)
        _check_effects(cluster, connection, entries, inbox, rows[RequestEvent], findings)
        _check_slips(cluster, rows[RequestEvent], rows[PrintJob], rows[PrintAttempt], findings)
        for model in (OutboxEntry, QuarantinedMessage):
            if count := connection.execute(select(func.count()).select_from(model)).scalar_one():
                findings.wrong.append(f"{count} rows left in {model.__tablename__}")
    return findings


def _journal(path: Path) -> list[_JournalEntry]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT event_id, subject, payload, made_at, answered_at, reply, attempts FROM events ORDER BY sequence"
        ).fetchall()
    return [
        _JournalEntry(
            event_id, subject, json.loads(payload), datetime.fromisoformat(made),
            datetime.fromisoformat(replied) if replied else None, reply, attempts,
        )
        for event_id, subject, payload, made, replied, reply, attempts in rows
    ]  # fmt: skip


def _check_journals(cluster: Cluster, journals: dict[str, list[_JournalEntry]], findings: Findings) -> None:
    """Every scan is in the journal once, in order, with its reply."""
    for workload in cluster.setup.workloads:
        entries = journals[workload.code]
        if [entry.subject for entry in entries] != list(workload.barcodes):
            findings.wrong.append(
                f"{workload.code}: the journal has {len(entries)} of {len(workload.barcodes)} scans, or others"
            )
        for entry in entries:
            if entry.answered_at is None:
                findings.lost.append(f"scan {entry.event_id} has no reply in the journal")
            else:
                seconds = (entry.answered_at - entry.made_at).total_seconds()
                findings.slowest_reply = max(findings.slowest_reply, seconds)
            findings.resent += entry.attempts > 1


def _check_replies(
    cluster: Cluster, entries: dict[str, _JournalEntry], inbox: dict[str, Any], findings: Findings
) -> None:
    """Each event has a reply, and all its replies are equal byte for byte: on the wire, in the journal, in the inbox."""
    findings.lost += [f"event {event_id} has no reply in the inbox" for event_id in entries.keys() - inbox.keys()]
    findings.wrong += [
        f"event {event_id} has a reply and was never scanned" for event_id in inbox.keys() - entries.keys()
    ]
    received: dict[str, set[str]] = defaultdict(set)
    for code in cluster.codes:
        for raw in (cluster.folder / f"{code}.received").read_text().splitlines():
            message = json.loads(raw)
            if message["type"].startswith("bookdrop.return-reply"):
                received[message["event_id"]].add(raw)
    for event_id, entry in entries.items():
        if not received[event_id]:
            findings.lost.append(f"no reply to event {event_id} was on the wire")
        stored = {inbox[event_id]["reply"]} if event_id in inbox else set()
        if len(different := received[event_id] | {entry.reply or ""} | stored) > 1:
            findings.doubled.append(f"replies to event {event_id} differ: {sorted(different)}")


def _check_effects(
    cluster: Cluster,
    connection: Any,
    entries: dict[str, _JournalEntry],
    inbox: dict[str, Any],
    history: Any,
    findings: Findings,
) -> None:
    """Each scanned item is returned once, by one of its scans, and discharged once, at a plausible time."""
    query = (
        select(ItemBarcode.barcode, Request.id, Request.status, Loan.id.label("loan"), Loan.discharged_at)
        .join(Item, Item.id == ItemBarcode.item_id)
        .join(Request, Request.id == Item.request_id)
        .outerjoin(Loan, Loan.item_id == Item.id)
    )
    items: dict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(query):
        items[row.barcode].append(row)
    returned = defaultdict(list)
    for row in history:
        returned[row["request_id"]].append(row)
    for barcode in {entry.subject for entry in entries.values()}:
        rows = items[barcode]
        of_request = returned.pop(rows[0].id, [])
        if not of_request or rows[0].status != RequestStatus.RETURNED_TO_PARTNER:
            findings.lost.append(f"item {barcode} was scanned and is {rows[0].status}")
            continue
        if len(of_request) != 1 or len(rows) != 1:
            findings.doubled.append(f"item {barcode} was returned {len(of_request)} times")
        outcomes = Counter(
            inbox[entry.event_id]["outcome"]
            for entry in entries.values()
            if entry.subject == barcode and entry.event_id in inbox
        )
        if outcomes["returned"] != 1 or set(outcomes) - {"returned", "already_returned"}:
            findings.doubled.append(f"scans of item {barcode} have the outcomes {dict(outcomes)}")
        _check_time(cluster, barcode, rows[0].discharged_at, entries.get(str(of_request[0]["event_id"])), findings)
    findings.wrong += [f"request {request} was returned and never scanned" for request in returned]


def _check_time(
    cluster: Cluster, barcode: str, at: datetime | None, event: _JournalEntry | None, findings: Findings
) -> None:
    """The discharge time is that of the scan, or the server's when the station's clock is too far ahead."""
    if event is None or at is None:
        findings.lost.append(f"the loan of item {barcode} is open")
        return
    ahead = next(
        workload.clock_off for workload in cluster.setup.workloads if workload.code == event.payload["station"]
    )
    if ahead > _ACCEPTED_AHEAD:
        if not cluster.started_at - TOLERANCE <= at <= datetime.now(at.tzinfo) + TOLERANCE:
            findings.wrong.append(f"the loan of item {barcode} ended {at}, which is a wrong clock's time")
    elif at != datetime.fromisoformat(event.payload["scanned_at"]):
        findings.wrong.append(f"the loan of item {barcode} ended {at}, not when it was scanned")


def _check_slips(cluster: Cluster, history: Any, jobs: Any, attempts: Any, findings: Findings) -> None:
    """Each Return has exactly one slip, which is not a copy, and is complete in the spool."""
    of_event = Counter(str(job["event_id"]) for job in jobs)
    for row in history:
        count = of_event.pop(str(row["event_id"]), 0)
        if count == 0:
            findings.lost.append(f"the return {row['event_id']} has no slip")
        elif count > 1:
            findings.doubled.append(f"the return {row['event_id']} has {count} slips")
    findings.doubled += [f"event {event_id} made a slip and no return" for event_id in of_event]
    findings.doubled += [f"slip {job['id']} is a copy" for job in jobs if job["copy_number"] != 1 or job["reprint_of"]]
    for job in jobs:
        if job["state"] != PrintState.DONE:
            findings.lost.append(f"slip {job['id']} is {job['state'].value}")
        findings.slowest_slip = max(
            findings.slowest_slip, (job["state_since"] - max(job["created_at"], cluster.started_at)).total_seconds()
        )
    done = Counter(row["job_id"] for row in attempts if row["outcome"] == PrintState.DONE)
    findings.doubled += [
        f"slip {job_id} was recorded as sent {count} times" for job_id, count in done.items() if count > 1
    ]
    wanted = {str(job["id"]) for job in jobs}
    found = [path for path in cluster.library.spool.rglob("*.pdf") if not path.name.startswith(".")]
    names = {slip_id(path) for path in found}
    findings.lost += [f"slip {name} is not in the spool" for name in wanted - names]
    findings.doubled += [f"slip {name} is in the spool without a print job" for name in names - wanted]
    findings.wrong += [
        f"slip {path.name} is truncated" for path in found if not path.read_bytes().rstrip().endswith(b"%%EOF")
    ]
