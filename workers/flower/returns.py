# SPDX-License-Identifier: Apache-2.0
"""The page Returns: the last answers with their times, what is in quarantine, and how the stations do."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import structlog
import tornado.web
from kombu import Connection as Broker
from sqlalchemy import Connection

from schemas.replies import Outcome
from schemas.topology import RETURNS_QUEUE, reply_queue
from tasks.returns import queries
from tasks.returns.queries import Asked
from workers import bootstrap
from workers.flower.page import Page
from workers.metrics.broker import lengths as lengths_of

log = structlog.get_logger()

KINDS: Final[Mapping[str, tuple[str, tuple[Outcome, ...]]]] = {
    "all": ("All", ()),
    "returned": ("Returned", (Outcome.RETURNED,)),
    "already": ("Already returned", (Outcome.ALREADY_RETURNED,)),
    "refused": ("Refused", (Outcome.REFUSED,)),
}


LOOKED_BACK: Final = timedelta(days=7)
"""How old an answer may be that is shown."""


class ReturnsPage(Page):
    """What the desks were told."""

    @tornado.web.authenticated
    async def get(self) -> None:
        """Show the answers that the address asks for, the quarantine, and the stations."""
        kind = self.get_query_argument("show", "all")
        if kind not in KINDS:
            raise tornado.web.HTTPError(404, "There is no such list of Returns.")
        station = self.get_query_argument("station", "") or None
        now = self.parts.here.now()
        asked = Asked(outcomes=KINDS[kind][1], station=station, since=now - LOOKED_BACK)

        def look(connection: Connection) -> tuple[Any, Any, Any]:
            return (
                queries.answers(connection, asked),
                queries.quarantined(connection),
                queries.stations(connection, now),
            )

        answers, quarantine, stations = await self.ask(look)
        queues = [RETURNS_QUEUE, *(reply_queue(each["station"]) for each in stations)]
        lengths = await self.application.io_loop.run_in_executor(
            self.application.executor, lambda: self._lengths(queues)
        )
        self.show(
            "returns.html",
            kind=kind,
            kinds={name: words for name, (words, _) in KINDS.items()},
            station=station,
            answers=answers,
            quarantine=quarantine,
            stations=stations,
            unread={each["station"]: lengths.get(reply_queue(each["station"])) for each in stations},
            scans_waiting=lengths.get(RETURNS_QUEUE),
            seen_by_flower=self.application.events.state.tasks,
        )

    def _lengths(self, queues: Sequence[str]) -> dict[str, int]:
        """How much waits in each of the queues; nothing, when the broker does not tell."""
        connection: Broker = bootstrap.connect(self.parts.settings)
        try:
            return lengths_of(connection, queues)
        except Exception as error:  # noqa: BLE001 - whatever the transport raises: the page shows the rest
            log.warning("queues_not_counted", error=type(error).__name__)
            return {}
        finally:
            connection.release()
