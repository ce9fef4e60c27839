# SPDX-License-Identifier: Apache-2.0
"""The numbers in trouble, which each page shows in its navigation: slips, and messages in quarantine."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from schemas.database import READ_ONLY
from tasks.printing import queries as printing
from tasks.quarantine import queries as quarantine
from workers.flower.slip_list import slip_filter

log = structlog.get_logger()

MAX_COUNTED: Final = 1000
"""Limit of the counts. Above it the page shows `1,000+`."""

MAX_AGE_SECONDS: Final = 5.0
"""Age up to which a count is shown without another query."""
LONGEST_WAIT_SECONDS: Final = 0.5
"""Longest time for which a page waits for a new count. After that it shows the previous one."""


@dataclass(frozen=True)
class Trouble:
    """The numbers of slips and messages that need an operator."""

    slips: int
    """Slips that failed, are held or unknown, or wait behind a printer that is on hold or unavailable."""
    messages: int
    """Messages in quarantine without a decision."""


def read_trouble(connection: Connection) -> Trouble:
    """Count what is in trouble, up to one more than `MAX_COUNTED`."""
    return Trouble(
        slips=printing.count(connection, slip_filter("trouble", "", "", limit=MAX_COUNTED + 1)),
        messages=quarantine.count_open(connection, MAX_COUNTED + 1),
    )


def counted(number: int) -> str:
    """A count for the page."""
    return f"{MAX_COUNTED:,}+" if number > MAX_COUNTED else f"{number:,}"


class TroubleCounter:
    """The latest count, one for all pages. At most one query runs at a time; only the event loop's thread uses it."""

    def __init__(self, engine: Engine, executor: Executor, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._executor = executor
        self._clock = clock
        self._counted_at = -float("inf")
        self._latest: Trouble | None = None
        self._running: asyncio.Future[Trouble | None] | None = None

    async def latest(self) -> Trouble | None:
        """Return the count, at most some seconds old; `None` while the database is unavailable."""
        if self._clock() - self._counted_at > MAX_AGE_SECONDS:
            if self._running is None:
                self._running = asyncio.get_running_loop().run_in_executor(self._executor, self._count)
                self._running.add_done_callback(self._store)
            await asyncio.wait({self._running}, timeout=LONGEST_WAIT_SECONDS)
        return self._latest

    def _store(self, counted_trouble: "asyncio.Future[Trouble | None]") -> None:
        self._running = None
        failed = counted_trouble.cancelled() or counted_trouble.exception() is not None
        self._latest = None if failed else counted_trouble.result()
        self._counted_at = self._clock()

    def _count(self) -> Trouble | None:
        try:
            with self._engine.connect().execution_options(**READ_ONLY) as connection:
                return read_trouble(connection)
        except SQLAlchemyError as error:
            log.warning("trouble_not_counted", error=type(error).__name__)
            return None
