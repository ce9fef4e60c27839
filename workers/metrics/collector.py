# SPDX-License-Identifier: Apache-2.0
"""Read all sources at a scrape and convert their samples. A source that is unavailable is reported as such."""

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
from workers.metrics.database import HistogramSample, Sample
from workers.metrics.definitions import METRICS, SOURCE_UP
from workers.metrics.heartbeats import ALIVE_SECONDS, ROLES, HeartbeatReceiver

log = structlog.get_logger()

_Family: Final = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily}


class BookdropCollector(Collector):
    """All metrics of bookdrop, read at each scrape. `receiver`: `None` if heartbeats are not received."""

    def __init__(
        self,
        engine: Engine,
        connect: Callable[[], Connection],
        receiver: HeartbeatReceiver | None,
        now: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._connect = connect
        self._receiver = receiver
        self._now = now
        self._branches: list[str] = []
        self._scrape_lock = threading.Lock()

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering the collector reads no source."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read each source once."""
        with self._scrape_lock:
            samples: list[Sample | HistogramSample] = []
            for source, read in (("database", self._database), ("broker", self._broker), ("workers", self._workers)):
                try:
                    samples += read()
                    is_up = True
                except Exception as error:  # noqa: BLE001 - any error of one source: the others are still served
                    log.warning("metrics_source_failed", reason=source, error=type(error).__name__)
                    is_up = False
                samples.append(Sample(SOURCE_UP.name, int(is_up), (source,)))
        yield from _families(samples)

    def _database(self) -> list[Sample | HistogramSample]:
        with self._engine.connect().execution_options(**READ_ONLY) as connection:
            self._branches = list(connection.execute(select(Branch.code).order_by(Branch.code)).scalars())
        return database.read(self._engine, self._now())

    def _broker(self) -> list[Sample | HistogramSample]:
        with self._connect() as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
            lengths = broker.lengths(connection, broker.work_queues(self._branches))
            unacknowledged = broker.unacknowledged(connection)
        samples: list[Sample | HistogramSample] = [
            Sample("bookdrop_queue_messages", number, (queue,)) for queue, number in lengths.items()
        ]
        if unacknowledged is not None:
            samples.append(Sample("bookdrop_unacknowledged_messages", unacknowledged[0]))
            samples.append(Sample("bookdrop_unacknowledged_oldest_seconds", unacknowledged[1]))
        return samples

    def _workers(self) -> list[Sample | HistogramSample]:
        if self._receiver is None or not self._receiver.is_connected:
            raise ConnectionError("The exporter is not connected to the broker for heartbeats.")
        heartbeats = self._receiver.heartbeats()
        alive = dict.fromkeys(ROLES, 0)
        for heartbeat in heartbeats:
            if heartbeat.age < ALIVE_SECONDS and heartbeat.role in alive:
                alive[heartbeat.role] += 1
        return [
            *(Sample("bookdrop_workers", number, (role,)) for role, number in alive.items()),
            *(
                Sample("bookdrop_worker_heartbeat_age_seconds", heartbeat.age, (heartbeat.role, heartbeat.worker))
                for heartbeat in heartbeats
            ),
        ]


def _families(samples: list[Sample | HistogramSample]) -> Iterator[Metric]:
    for metric in METRICS:
        name = metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name
        family: Any = _Family[metric.kind](name, metric.description, labels=metric.labels)
        of_metric = [
            sample
            for sample in samples
            if (sample.metric.name if isinstance(sample, HistogramSample) else sample.name) == metric.name
        ]
        for sample in of_metric:
            if isinstance(sample, HistogramSample):
                bounds = [*(f"{bound:g}" for bound in sample.metric.bounds), "+Inf"]
                buckets = list(zip(bounds, accumulate(sample.counts), strict=True))
                family.add_metric((sample.label,) if metric.labels else (), buckets, sum_value=sample.seconds)
            else:
                family.add_metric(sample.labels, sample.value)
        if of_metric:
            yield family
