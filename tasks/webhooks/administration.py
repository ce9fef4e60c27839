# SPDX-License-Identifier: Apache-2.0
"""Administration of endpoints: add, rotate the secret, disable, enable, retry. Each change is recorded with its operator.

The caller commits. Every function raises `RefusedEndpointError` when the change is not possible.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from schemas.models import WebhookChange, WebhookDelivery, WebhookEndpoint
from tasks.operator import Operator
from tasks.stations.administration import format_utc
from tasks.stations.keys import previous_key_at
from tasks.unit_of_work import UnitOfWork
from tasks.webhooks.endpoint_url import RefusedUrlError, read_url
from tasks.webhooks.policy import MAX_ENDPOINTS, WebhookPolicy
from tasks.webhooks.queueing import newest_line


class RefusedEndpointError(Exception):
    """The change is not possible. The text contains the cause and the next step."""


def add_endpoint(
    uow: UnitOfWork, by: Operator, *, url: str, types: Sequence[str], plain_http: bool, secret: str
) -> int:
    """Register an endpoint, which receives the events from now on; return its number."""
    try:
        read_url(url, plain_http=plain_http)
    except RefusedUrlError as error:
        raise RefusedEndpointError(str(error)) from None
    session = uow.session
    if session.scalar(select(WebhookEndpoint.id).where(WebhookEndpoint.url == url)) is not None:
        raise RefusedEndpointError("There is an endpoint with this URL. 'bookdrop webhooks list' shows its number.")
    if (session.scalar(select(func.count()).select_from(WebhookEndpoint)) or 0) >= MAX_ENDPOINTS:
        raise RefusedEndpointError(f"There are {MAX_ENDPOINTS} endpoints, which is the limit.")
    endpoint = WebhookEndpoint(
        url=url,
        types=sorted(set(types)),
        plain_http=plain_http,
        secret=secret,
        secret_since=uow.now,
        created_at=uow.now,
        position=newest_line(session),
    )
    session.add(endpoint)
    session.flush()
    _record(session, endpoint.id, "added", by, uow.now)
    return endpoint.id


def rotate_secret(uow: UnitOfWork, by: Operator, number: int, secret: str, overlap: timedelta) -> datetime | None:
    """Give an endpoint a new secret; return the end of the previous one's validity, `None` if it ended now.

    Refused for an overlap while another is open: a message has two signatures at most.
    """
    endpoint = _lock(uow.session, number)
    if overlap and previous_key_at(uow.now, endpoint.previous_secret, endpoint.previous_secret_until) is not None:
        raise RefusedEndpointError(
            f"The previous secret of endpoint {number} is valid until {format_utc(endpoint.previous_secret_until)}, and"
            " a message has two signatures at most. Rotate after that; or with --now, which ends both."
        )
    until = uow.now + overlap if overlap else None
    endpoint.previous_secret, endpoint.previous_secret_until = (
        (endpoint.secret, until) if until is not None else (None, None)
    )
    endpoint.secret, endpoint.secret_since = secret, uow.now
    _record(uow.session, number, "secret_rotated", by, uow.now)
    return until


def disable(uow: UnitOfWork, by: Operator, number: int) -> bool:
    """Send nothing more to an endpoint; return True if that changed something. Its events stay in the history."""
    endpoint = _lock(uow.session, number)
    if not endpoint.active:
        return False
    endpoint.active, endpoint.disabled_because = False, "operator"
    _record(uow.session, number, "disabled", by, uow.now)
    return True


def enable(uow: UnitOfWork, by: Operator, number: int, policy: WebhookPolicy, *, skip: bool) -> int | None:
    """Send to an endpoint again; return the number of skipped pending deliveries, `None` if it was enabled already.

    It receives all events since it was disabled; with `skip` only those from now on.
    """
    endpoint = _lock(uow.session, number)
    if endpoint.active:
        return None
    endpoint.active, endpoint.disabled_because = True, None
    endpoint.failures, endpoint.retry_at, endpoint.trouble = 0, None, None
    pending = (WebhookDelivery.endpoint_id == number) & (WebhookDelivery.state == "pending")
    skipped = 0
    if skip:
        endpoint.position = max(endpoint.position, newest_line(uow.session))
        skipped = _change(
            uow.session, pending, state="failed", settled_at=uow.now, error="skipped when the endpoint was enabled"
        )
    else:
        _make_pending(uow, pending, policy)
    _record(uow.session, number, "enabled", by, uow.now)
    return skipped


def retry(uow: UnitOfWork, by: Operator, policy: WebhookPolicy, *, number: int, deliveries: Sequence[int] = ()) -> int:
    """Make failed and delayed deliveries of an endpoint due now, all or those given; return how many there are."""
    endpoint = _lock(uow.session, number)
    wanted: ColumnElement[bool] = (WebhookDelivery.endpoint_id == number) & WebhookDelivery.state.in_(
        ("failed", "pending")
    )
    if deliveries:
        wanted &= WebhookDelivery.id.in_(deliveries)
    count = _make_pending(uow, wanted, policy)
    if deliveries and count != len(set(deliveries)):
        raise RefusedEndpointError(
            f"{len(set(deliveries)) - count} of these deliveries are delivered already, or not of endpoint {number}."
            f" 'bookdrop webhooks deliveries {number}' lists them."
        )
    if count:
        endpoint.failures, endpoint.retry_at = 0, None
        _record(uow.session, number, "retried", by, uow.now)
    return count


def find_endpoint(session: Session, number: int) -> WebhookEndpoint:
    """Read an endpoint."""
    endpoint = session.get(WebhookEndpoint, number)
    if endpoint is None:
        raise RefusedEndpointError(f"There is no endpoint {number}. 'bookdrop webhooks list' shows the numbers.")
    return endpoint


def _lock(session: Session, number: int) -> WebhookEndpoint:
    endpoint = session.scalars(
        select(WebhookEndpoint).where(WebhookEndpoint.id == number).with_for_update()
    ).one_or_none()
    return endpoint or find_endpoint(session, number)


def _make_pending(uow: UnitOfWork, wanted: ColumnElement[bool], policy: WebhookPolicy) -> int:
    return _change(
        uow.session,
        wanted,
        state="pending",
        settled_at=None,
        attempts=0,
        next_attempt_at=uow.now,
        give_up_at=uow.now + policy.give_up_after,
    )


def _change(session: Session, wanted: ColumnElement[bool], **values: Any) -> int:
    changed = session.execute(
        update(WebhookDelivery)
        .where(wanted)
        .values(values)
        .returning(WebhookDelivery.id)
        .execution_options(synchronize_session=False)
    )
    return len(changed.all())


def _record(session: Session, number: int, action: str, by: Operator, now: datetime) -> None:
    session.add(
        WebhookChange(
            endpoint_id=number,
            at=now,
            action=action,
            actor=by.actor,
            identified_by=by.identified_by.value,
            account=by.account,
        )
    )
