# SPDX-License-Identifier: Apache-2.0
"""The metrics exporter as a process, and its metrics, parsed by Prometheus' client library."""

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families

from tests.network import free_port
from tests.polling import wait_until
from tests.processes import Deployment


class Scrape:
    """The metrics of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one sample; `None` when it is missing."""
        found = [
            sample.value for family in self.families for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]  # fmt: skip
        assert len(found) < 2, (name, labels, found)
        return found[0] if found else None

    def names(self) -> set[str]:
        """Names of all samples, for example `bookdrop_queue_wait_seconds_bucket`."""
        return {sample.name for family in self.families for sample in family.samples}


class Exporter:
    """A running `bookdrop metrics`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/metrics"

    def scrape(self) -> Scrape:
        """The metrics now."""
        with urllib.request.urlopen(self.url, timeout=300) as response:
            return Scrape(response.read().decode())

    def scrape_until(self, condition: Callable[[Scrape], object]) -> Scrape:
        """Scrape until `condition` is true of a scrape; return that scrape."""
        last = self.scrape()

        def holds() -> Scrape | None:
            nonlocal last
            last = self.scrape()
            return last if condition(last) else None

        return wait_until(holds, lambda: last.text, interval=0.2)


@contextmanager
def exporter(deployment: Deployment) -> Iterator[Exporter]:
    """An exporter process on a free port, ended by TERM."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.cli", "metrics", "--listen", f"127.0.0.1:{port}"],
        env=deployment.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert any(line.startswith("Metrics: ") for line in process.stderr), "the exporter does not start"
        yield Exporter(port)
    finally:
        process.terminate()
        process.communicate(timeout=300)
    assert process.returncode == 0
