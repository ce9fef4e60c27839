# SPDX-License-Identifier: Apache-2.0
"""Adding up what the worker processes count: each process writes its notes to the database every few seconds."""

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from tasks.metrics.recorder import MetricsRecorder, add

log = structlog.get_logger()

WRITE_SECONDS = 5.0
"""How often notes are written, if there are any. So much is lost when a process is killed."""


class MetricsFlusher:
    """A tally that is written now and then, by a thread that starts with the first note: forking needs none."""

    def __init__(self, sessions: sessionmaker[Session], every: float = WRITE_SECONDS) -> None:
        self._sessions = sessions
        self._every = every
        self.tally = MetricsRecorder(self._start)

    def _start(self) -> None:
        threading.Thread(target=self._write_now_and_then, name="bookdrop-tally", daemon=True).start()

    def _write_now_and_then(self) -> None:
        pause = threading.Event()
        while not pause.wait(self._every):
            write(self._sessions, self.tally)


def write(sessions: sessionmaker[Session], tally: MetricsRecorder) -> None:
    """Write what was noted. What cannot be written is kept for the next time; monitoring stops nobody."""
    notes = tally.drain()
    if not notes:
        return
    try:
        with sessions.begin() as session:
            add(session.connection(), notes)
    except SQLAlchemyError as error:
        tally.restore(notes)
        log.warning("metrics_flush_failed", error=type(error).__name__)
