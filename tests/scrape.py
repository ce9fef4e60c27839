# SPDX-License-Identifier: Apache-2.0
"""Prometheus' part in the tests: the exporter as a process, and what it tells, read by Prometheus' own parser."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families


class Scraped:
    """What one scrape told."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))

    def value(self, name: str, **labels: str) -> float | None:
        """Value of one sample; `None` when it is not told."""
        found = [
            sample.value for family in self.families for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]  # fmt: skip
        assert len(found) < 2, (name, labels, found)
        return found[0] if found else None

    def names(self) -> set[str]:
        """Names of all samples, such as `bookdrop_queue_wait_seconds_bucket`."""
        return {sample.name for family in self.families for sample in family.samples}


class Exporter:
    """A `bookdrop metrics` that runs."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/metrics"

    def scrape(self) -> Scraped:
        """What it tells now."""
        with urllib.request.urlopen(self.url, timeout=20) as answer:
            return Scraped(answer.read().decode())

    def until(self, condition, patience: float = 30.0) -> Scraped:
        """Scrape until `condition` holds of what is told."""
        deadline = time.monotonic() + patience
        while True:
            told = self.scrape()
            if condition(told):
                return told
            assert time.monotonic() < deadline, told.text
            time.sleep(0.2)


@contextmanager
def exporter(broker_url: str, database_url: str) -> Iterator[Exporter]:
    """A real exporter process on a free port, ended by TERM."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOOKDROP_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.cli", "metrics", "--listen", f"127.0.0.1:{port}"],
        env={**clean, "BOOKDROP_BROKER_URL": broker_url, "BOOKDROP_DATABASE_URL": database_url},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert any(line.startswith("Metrics: ") for line in process.stderr), "the exporter does not come up"
        yield Exporter(port)
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0
