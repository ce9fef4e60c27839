# SPDX-License-Identifier: Apache-2.0
"""Write the metrics of a worker process to the database every few seconds."""

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from tasks.metrics.recorder import MetricsRecorder, upsert

log = structlog.get_logger()

FLUSH_SECONDS = 5.0
"""Interval between two writes, if there are records. A killed process loses the records of at most this long."""


class MetricsFlusher:
    """A recorder, and a thread that flushes it. The thread starts with the first record: a parent that forks has none."""

    def __init__(self, sessions: sessionmaker[Session], interval: float = FLUSH_SECONDS) -> None:
        self._sessions = sessions
        self._interval = interval
        self.recorder = MetricsRecorder(self._start)

    def _start(self) -> None:
        threading.Thread(target=self._run, name="bookdrop-metrics", daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._interval):
            flush(self._sessions, self.recorder)


def flush(sessions: sessionmaker[Session], recorder: MetricsRecorder) -> None:
    """Write all records. On a database error, log it and keep them for the next write: metrics never stop a worker."""
    batch = recorder.drain()
    if not batch:
        return
    try:
        with sessions.begin() as session:
            upsert(session.connection(), batch)
    except SQLAlchemyError as error:
        recorder.restore(batch)
        log.warning("metrics_flush_failed", error=type(error).__name__)
