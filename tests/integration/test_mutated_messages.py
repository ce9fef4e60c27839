# SPDX-License-Identifier: Apache-2.0
"""A mutated golden message is refused with a known reason, or does exactly what the golden message does."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import serialization
from sqlalchemy import func, select

from schemas import signing
from schemas.models import InboxEntry, Loan, QuarantinedMessage, RequestEvent
from schemas.reasons import RejectionReason
from schemas.task_message import call_defect, envelope_defect, kept_headers
from schemas.topology import PROCESS_SCAN, RETURNS_QUEUE
from tasks.events.processing import process_in
from tasks.handlers import BATCH_HANDLERS
from tasks.quarantine.rejection import Received
from tests.fuzz.mutations import Golden, Sample, message, mutants
from tests.library import KEY
from tests.task_context import POLICY

pytestmark = [pytest.mark.databases("sqlite")]

PARTS = (InboxEntry, RequestEvent, QuarantinedMessage)


class _RollbackError(Exception):
    """Ends a transaction without an effect."""


@dataclass(frozen=True)
class Effect:
    """All that a message did: reply, rows, published messages."""

    outcome: str
    reason: str
    rows: tuple[int, ...]
    open_loans: int
    queues: tuple[str, ...]
    fingerprint: str


def refusal_or_event(sample: Sample) -> tuple[str | None, Any]:
    """The defect for which a worker rejects the message, or its event: the checks of the consumer."""
    properties = {
        "content_type": sample.content_type, "content_encoding": sample.content_encoding, **sample.properties,
    }  # fmt: skip
    defect = envelope_defect(RETURNS_QUEUE, properties, sample.headers, sample.body)
    if defect is not None:
        return defect, None
    assert "x-death" not in kept_headers(sample.headers)
    try:
        payload = serialization.loads(
            sample.body, sample.content_type, sample.content_encoding, accept={"application/json"}
        )
    except Exception as error:  # noqa: BLE001 - as in the consumer
        return type(error).__name__, None
    return call_defect(RETURNS_QUEUE, sample.headers["id"], payload), payload


def effect(sample: Sample, payload: Any, context: Any) -> Effect | str:
    """Process the event in a transaction that is rolled back; return its effect, or the reason of its rejection."""
    found: list[Effect | str] = []
    task = sample.headers["task"]
    received = Received(payload[0][0], sample.properties.get("reply_to"), task, sample.headers["id"])
    with pytest.raises(_RollbackError), context.unit_of_work() as uow:
        batch = process_in(uow, [received], BATCH_HANDLERS[task], POLICY)
        uow.session.flush()
        counts = tuple(uow.session.execute(select(func.count()).select_from(part)).scalar_one() for part in PARTS)
        if batch.rejected:
            assert counts == (0, 0, 1)
            found.append(batch.rejected[0].reason.value)
        else:
            [processed] = batch.processed
            reply: Any = processed.reply
            loans = uow.session.execute(
                select(func.count()).select_from(Loan).where(Loan.discharged_at.is_(None))
            ).scalar_one()
            queues = tuple(each.queue for each in uow._enqueued)
            found.append(Effect(reply.outcome.value, reply.reason, counts, loans, queues, processed.event.fingerprint))
        raise _RollbackError
    return found[0]


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(random=st.randoms(use_true_random=False))
def test_mutation_is_refused_or_does_what_the_golden_message_does(random, library, context, golden_scan):
    """Whatever is mutated around or in a signed scan: refused with a known reason, or the same and only effect."""
    scan, expected = golden_scan
    name, sample = next(mutants(random, lambda: Golden(PROCESS_SCAN, scan), KEY, with_entries=False))

    defect, payload = refusal_or_event(sample)
    result = defect if defect is not None else effect(sample, payload, context)

    if defect is not None:
        assert isinstance(defect, str)
        assert defect
    elif isinstance(result, str):
        assert result in set(RejectionReason)
    elif result.fingerprint == expected.fingerprint:
        same = result if sample.properties.get("reply_to") == "reply.main-desk-1" else None
        assert same == expected or _without_reply(result) == _without_reply(expected)
    else:
        assert name == "signed_event"
        assert sample.signed is not None
        assert result.fingerprint == signing.fingerprint(sample.signed)


def _without_reply(done: Effect) -> tuple[Any, ...]:
    """The effect of a message whose reply address names another queue: it gets no reply."""
    return (done.outcome, done.reason, done.rows, done.open_loans, tuple(q for q in done.queues if "reply" not in q))


@pytest.fixture
def golden_scan(library, context):
    """A signed scan of a loaned item, and its effect."""
    scan = library.scan(library.request()[1][0])
    sample = message(Golden(PROCESS_SCAN, scan))
    defect, payload = refusal_or_event(sample)
    assert defect is None
    expected = effect(sample, payload, context)
    assert isinstance(expected, Effect)
    assert (expected.outcome, expected.reason, expected.rows) == ("returned", "loaned", (1, 1, 0))
    assert json.loads(sample.body)[0][0] == scan
    return scan, expected
