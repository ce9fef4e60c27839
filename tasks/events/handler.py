# SPDX-License-Identifier: Apache-2.0
"""An event handler as a value: the event types it accepts, and the function that handles them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from schemas.events import StationEvent
from tasks.events.model import AnEvent, HandlerResult, VerifiedEvent
from tasks.events.policy import LibraryPolicy
from tasks.unit_of_work import UnitOfWork


@dataclass(frozen=True)
class EventHandler(Generic[AnEvent]):
    """Handles verified, new events in an open transaction and returns their replies. It calls nothing back."""

    accepts: Mapping[str, type[AnEvent]]
    """The event types, by their versioned names (`accepting`)."""
    handle: Callable[[Sequence[VerifiedEvent[AnEvent]], UnitOfWork, LibraryPolicy], HandlerResult]
    """Returns one reply for each event, in order. Raises only errors that make the transaction worth a retry, or bugs."""


def accepting(*types: type[StationEvent]) -> Mapping[str, type[Any]]:
    """The event types by the versioned name that each carries in its field `type`."""
    return {each.model_fields["type"].default: each for each in types}
