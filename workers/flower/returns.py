# SPDX-License-Identifier: Apache-2.0
"""The page Returns: the latest replies with their times, the quarantine, and the stations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import structlog
import tornado.web
from kombu import Connection as Broker
from sqlalchemy import Connection

from schemas.replies import Outcome
from schemas.topology import RETURNS_QUEUE, reply_queue
from tasks.printing.slip_search import find_external_ids
from tasks.returns import queries
from tasks.returns.queries import ReplyFilter
from workers import bootstrap
from workers.flower.page import Page
from workers.flower.slip_list import MAX_SEARCH
from workers.metrics.broker import lengths as queue_lengths

log = structlog.get_logger()

FILTERS: Final[Mapping[str, tuple[str, tuple[Outcome, ...]]]] = {
    "all": ("All", ()),
    "returned": ("Returned", (Outcome.RETURNED,)),
    "already": ("Already returned", (Outcome.ALREADY_RETURNED,)),
    "refused": ("Refused", (Outcome.REFUSED,)),
}
"""Value of `show` in the address to the label of the tab and the outcomes."""

MAX_AGE: Final = timedelta(days=7)
"""Maximum age of a reply on the page."""

MAX_REQUESTS: Final = 10
"""Requests whose replies a search lists, the newest."""


class ReturnsPage(Page):
    """The replies to the stations."""

    @tornado.web.authenticated
    async def get(self) -> None:
        """Show the replies that the address selects, the quarantine and the stations."""
        chosen = self.get_query_argument("show", "all")
        if chosen not in FILTERS:
            raise tornado.web.HTTPError(404, "There is no such list of Returns.")
        station = self.get_query_argument("station", "") or None
        words = self.get_query_argument("q", "")[:MAX_SEARCH]
        now = self.resources.context.now()
        wanted = ReplyFilter(outcomes=FILTERS[chosen][1], station=station, since=now - MAX_AGE)

        def read(connection: Connection) -> tuple[Any, Any, Any]:
            requests = find_external_ids(connection, words, MAX_REQUESTS) if words.strip() else None
            return (
                queries.replies(connection, replace(wanted, requests=requests)),
                queries.quarantined(connection),
                queries.stations(connection, now),
            )

        replies, quarantine, stations = await self.query(read)
        queues = [RETURNS_QUEUE, *(reply_queue(row["station"]) for row in stations)]
        lengths = await self.application.io_loop.run_in_executor(
            self.application.executor, lambda: self._lengths(queues)
        )
        self.render_page(
            "returns.html",
            chosen=chosen,
            filters={name: label for name, (label, _) in FILTERS.items()},
            station=station,
            words=words,
            replies=replies,
            quarantine=quarantine,
            stations=stations,
            unread={row["station"]: lengths.get(reply_queue(row["station"])) for row in stations},
            waiting_events=lengths.get(RETURNS_QUEUE),
            flower_tasks=self.application.events.state.tasks,
        )

    def _lengths(self, queues: Sequence[str]) -> dict[str, int]:
        """Return the length of each queue; an empty mapping if the broker is unavailable."""
        connection: Broker = bootstrap.connect(self.resources.settings)
        try:
            return queue_lengths(connection, queues)
        except Exception as error:  # noqa: BLE001 - any error of the transport: the page shows the rest
            log.warning("queues_not_counted", error=type(error).__name__)
            return {}
        finally:
            connection.release()
