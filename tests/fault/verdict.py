# SPDX-License-Identifier: Apache-2.0
"""What a run left behind, read from the database, the journals, the spool and the wire; nothing the program says of itself."""

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
from tests.fault.scene import Scene

TOLERANCE = timedelta(seconds=1)
_BELIEVED_AHEAD = 120.0
"""How far ahead, in seconds, a station's clock is still believed."""


@dataclass
class Verdict:
    """What came of a run."""

    events: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    slowest_answer: float = 0.0
    """Longest time from a scan to its answer, by the journals, in seconds."""
    slowest_slip: float = 0.0
    """Longest time from a Return to its slip, in seconds."""
    resent: int = 0
    """How many scans were said more than once."""

    @property
    def broken(self) -> list[str]:
        """All that must not be."""
        return [*self.lost, *self.doubled, *self.wrong]


@dataclass(frozen=True)
class _Line:
    event_id: str
    subject: str
    payload: dict[str, Any]
    made_at: datetime
    answered_at: datetime | None
    reply: str | None
    attempts: int


def judge(scene: Scene) -> Verdict:
    """Look at everything that the run of `scene` left."""
    verdict = Verdict()
    journals = {code: _journal(scene.journal(code)) for code in scene.codes}
    _check_journals(scene, journals, verdict)
    lines = {line.event_id: line for each in journals.values() for line in each}
    verdict.events = len(lines)
    with scene.engine.connect() as connection:
        rows = {
            model: connection.execute(select(model.__table__)).mappings().all()
            for model in (InboxEntry, RequestEvent, PrintJob, PrintAttempt)
        }
        inbox = {str(row["event_id"]): row for row in rows[InboxEntry]}
        _check_replies(scene, lines, inbox, verdict)
        _check_effects(scene, connection, lines, inbox, rows[RequestEvent], verdict)
        _check_slips(scene, rows[RequestEvent], rows[PrintJob], rows[PrintAttempt], verdict)
        for model in (OutboxEntry, QuarantinedMessage):
            if count := connection.execute(select(func.count()).select_from(model)).scalar_one():
                verdict.wrong.append(f"{count} rows left in {model.__tablename__}")
    return verdict


def _journal(path: Path) -> list[_Line]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT event_id, subject, payload, made_at, answered_at, reply, attempts FROM events ORDER BY sequence"
        ).fetchall()
    return [
        _Line(
            event_id, subject, json.loads(payload), datetime.fromisoformat(made),
            datetime.fromisoformat(answered) if answered else None, reply, attempts,
        )
        for event_id, subject, payload, made, answered, reply, attempts in rows
    ]  # fmt: skip


def _check_journals(scene: Scene, journals: dict[str, list[_Line]], verdict: Verdict) -> None:
    """Every scan taken once, in order, and answered."""
    for shift in scene.setup.shifts:
        lines = journals[shift.code]
        if [line.subject for line in lines] != list(shift.barcodes):
            verdict.wrong.append(
                f"{shift.code}: the journal has {len(lines)} of {len(shift.barcodes)} scans, or others"
            )
        for line in lines:
            if line.answered_at is None:
                verdict.lost.append(f"scan {line.event_id} has no answer in the journal")
            else:
                waited = (line.answered_at - line.made_at).total_seconds()
                verdict.slowest_answer = max(verdict.slowest_answer, waited)
            verdict.resent += line.attempts > 1


def _check_replies(scene: Scene, lines: dict[str, _Line], inbox: dict[str, Any], verdict: Verdict) -> None:
    """At least one reply to each event, and all of them equal, byte for byte: on the wire, in the journal, in the inbox."""
    verdict.lost += [f"event {event_id} was never answered" for event_id in lines.keys() - inbox.keys()]
    verdict.wrong += [f"event {event_id} was answered and never scanned" for event_id in inbox.keys() - lines.keys()]
    heard: dict[str, set[str]] = defaultdict(set)
    for code in scene.codes:
        for raw in (scene.folder / f"{code}.heard").read_text().splitlines():
            message = json.loads(raw)
            if message["type"].startswith("bookdrop.return-reply"):
                heard[message["event_id"]].add(raw)
    for event_id, line in lines.items():
        if not heard[event_id]:
            verdict.lost.append(f"no reply to event {event_id} came over the wire")
        stored = {inbox[event_id]["reply"]} if event_id in inbox else set()
        if len(different := heard[event_id] | {line.reply or ""} | stored) > 1:
            verdict.doubled.append(f"replies to event {event_id} differ: {sorted(different)}")


def _check_effects(
    scene: Scene, connection: Any, lines: dict[str, _Line], inbox: dict[str, Any], history: Any, verdict: Verdict
) -> None:
    """Each scanned item returned once, by one of its scans, and discharged once, at a time that can be believed."""
    query = (
        select(ItemBarcode.barcode, Request.id, Request.status, Loan.id.label("loan"), Loan.discharged_at)
        .join(Item, Item.id == ItemBarcode.item_id)
        .join(Request, Request.id == Item.request_id)
        .outerjoin(Loan, Loan.item_id == Item.id)
    )
    shelf: dict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(query):
        shelf[row.barcode].append(row)
    returned = defaultdict(list)
    for row in history:
        returned[row["request_id"]].append(row)
    for barcode in {line.subject for line in lines.values()}:
        rows = shelf[barcode]
        of_request = returned.pop(rows[0].id, [])
        if not of_request or rows[0].status != RequestStatus.RETURNED_TO_PARTNER:
            verdict.lost.append(f"item {barcode} was scanned and is {rows[0].status}")
            continue
        if len(of_request) != 1 or len(rows) != 1:
            verdict.doubled.append(f"item {barcode} was returned {len(of_request)} times")
        outcomes = Counter(
            inbox[line.event_id]["outcome"]
            for line in lines.values()
            if line.subject == barcode and line.event_id in inbox
        )
        if outcomes["returned"] != 1 or set(outcomes) - {"returned", "already_returned"}:
            verdict.doubled.append(f"scans of item {barcode} were answered {dict(outcomes)}")
        _check_time(scene, barcode, rows[0].discharged_at, lines.get(str(of_request[0]["event_id"])), verdict)
    verdict.wrong += [f"request {request} was returned and never scanned" for request in returned]


def _check_time(scene: Scene, barcode: str, at: datetime | None, event: _Line | None, verdict: Verdict) -> None:
    """Discharged when it was scanned; at the server's time when the station's clock is too far ahead."""
    if event is None or at is None:
        verdict.lost.append(f"the loan of item {barcode} is open")
        return
    ahead = next(shift.clock_off for shift in scene.setup.shifts if shift.code == event.payload["station"])
    if ahead > _BELIEVED_AHEAD:
        if not scene.began - TOLERANCE <= at <= datetime.now(at.tzinfo) + TOLERANCE:
            verdict.wrong.append(f"the loan of item {barcode} ended {at}, by a wrong clock")
    elif at != datetime.fromisoformat(event.payload["scanned_at"]):
        verdict.wrong.append(f"the loan of item {barcode} ended {at}, not when it was scanned")


def _check_slips(scene: Scene, history: Any, jobs: Any, attempts: Any, verdict: Verdict) -> None:
    """Each return exactly one slip, which is no copy, and lies in the spool."""
    of_event = Counter(str(job["event_id"]) for job in jobs)
    for row in history:
        count = of_event.pop(str(row["event_id"]), 0)
        if count == 0:
            verdict.lost.append(f"the return {row['event_id']} has no slip")
        elif count > 1:
            verdict.doubled.append(f"the return {row['event_id']} has {count} slips")
    verdict.doubled += [f"event {event_id} made a slip and no return" for event_id in of_event]
    verdict.doubled += [f"slip {job['id']} is a copy" for job in jobs if job["copy_number"] != 1 or job["reprint_of"]]
    for job in jobs:
        if job["state"] != PrintState.DONE:
            verdict.lost.append(f"slip {job['id']} is {job['state'].value}")
        verdict.slowest_slip = max(
            verdict.slowest_slip, (job["state_since"] - max(job["created_at"], scene.began)).total_seconds()
        )
    done = Counter(row["job_id"] for row in attempts if row["outcome"] == PrintState.DONE)
    verdict.doubled += [
        f"slip {job_id} was recorded as sent {count} times" for job_id, count in done.items() if count > 1
    ]
    wanted = {f"{job['id']}.pdf" for job in jobs}
    found = [path for path in scene.library.spool.rglob("*.pdf") if not path.name.startswith(".")]
    names = {path.name for path in found}
    verdict.lost += [f"slip {name} is not in the spool" for name in wanted - names]
    verdict.doubled += [f"slip {name} is in the spool and nobody wanted it" for name in names - wanted]
    verdict.wrong += [
        f"slip {path.name} is cut off" for path in found if not path.read_bytes().rstrip().endswith(b"%%EOF")
    ]
