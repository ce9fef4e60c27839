# SPDX-License-Identifier: Apache-2.0
"""Asking all sources at a scrape, and saying it as Prometheus wants it. A source that is away is told as away."""

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import accumulate
from typing import Any, Final

import structlog
from kombu import Connection
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, select

from schemas.database import READ_ONLY
from schemas.models import Branch
from workers.metrics import broker, database
from workers.metrics.database import Buckets, Sample
from workers.metrics.definitions import METRICS, SOURCE_UP
from workers.metrics.heartbeats import ALIVE_SECONDS, ROLES, Listener

log = structlog.get_logger()

_Family: Final = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily}


class BookdropCollector(Collector):
    """All metrics of bookdrop, read anew at each scrape."""

    def __init__(
        self, engine: Engine, connect: Callable[[], Connection], listener: Listener | None, now: Callable[[], datetime]
    ) -> None:
        self._engine = engine
        self._connect = connect
        self._listener = listener
        self._now = now
        self._branches: list[str] = []
        self._one_at_a_time = threading.Lock()

    def describe(self) -> list[Metric]:
        """Nothing: registering must not ask anybody."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Ask everybody once."""
        with self._one_at_a_time:
            samples: list[Sample | Buckets] = []
            for source, ask in (("database", self._database), ("broker", self._broker), ("workers", self._workers)):
                try:
                    samples += ask()
                    is_up = True
                except Exception as error:  # noqa: BLE001 - whatever it raises, the others are told all the same
                    log.warning("metrics_source_failed", reason=source, error=type(error).__name__)
                    is_up = False
                samples.append(Sample(SOURCE_UP.name, int(is_up), (source,)))
        yield from _families(samples)

    def _database(self) -> list[Sample | Buckets]:
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            self._branches = list(connection.execute(select(Branch.code).order_by(Branch.code)).scalars())
        return database.read(self._engine, self._now())

    def _broker(self) -> list[Sample | Buckets]:
        with self._connect() as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
            found = broker.lengths(connection, broker.work_queues(self._branches))
            held = broker.unacknowledged(connection)
        samples: list[Sample | Buckets] = [
            Sample("bookdrop_queue_messages", number, (queue,)) for queue, number in found.items()
        ]
        if held is not None:
            samples.append(Sample("bookdrop_unacknowledged_messages", held[0]))
            samples.append(Sample("bookdrop_unacknowledged_oldest_seconds", held[1]))
        return samples

    def _workers(self) -> list[Sample | Buckets]:
        if self._listener is None or not self._listener.is_connected:
            raise ConnectionError("heartbeats are not listened to")
        heard = self._listener.heard()
        alive = dict.fromkeys(ROLES, 0)
        for each in heard:
            if each.age < ALIVE_SECONDS and each.role in alive:
                alive[each.role] += 1
        return [
            *(Sample("bookdrop_workers", number, (role,)) for role, number in alive.items()),
            *(Sample("bookdrop_worker_heartbeat_age_seconds", each.age, (each.role, each.worker)) for each in heard),
        ]


def _families(samples: list[Sample | Buckets]) -> Iterator[Metric]:
    for metric in METRICS:
        name = metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name
        family: Any = _Family[metric.kind](name, metric.words, labels=metric.labels)
        of_it = [
            each for each in samples if (each.metric.name if isinstance(each, Buckets) else each.name) == metric.name
        ]
        for each in of_it:
            if isinstance(each, Buckets):
                names = [*(f"{bound:g}" for bound in each.metric.bounds), "+Inf"]
                cumulated = list(zip(names, accumulate(each.numbers), strict=True))
                family.add_metric((each.label,) if metric.labels else (), cumulated, sum_value=each.seconds)
            else:
                family.add_metric(each.labels, each.value)
        if of_it:
            yield family
