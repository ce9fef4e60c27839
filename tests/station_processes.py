# SPDX-License-Identifier: Apache-2.0
"""`bookdrop-station` as a process: a command with its output, or a prompt on a pseudo terminal."""

import os
import pty
import select
import subprocess
import sys
import termios

from stations.settings import StationSettings
from tests.library import KEY
from tests.polling import wait_until
from tests.processes import clean_environment


def environment(settings: StationSettings, **more: str) -> dict[str, str]:
    """Environment variables of a station with `settings`, and `more`."""
    return clean_environment(
        **{
            "BOOKDROP_STATION_CODE": settings.code,
            "BOOKDROP_STATION_KEY": KEY,
            "BOOKDROP_STATION_JOURNAL": str(settings.journal_file),
            "BOOKDROP_STATION_RETRY_INTERVAL_SECONDS": f"{settings.retry_interval_seconds}",
            "BOOKDROP_BROKER_URL": settings.broker_url.get_secret_value(),
            "NO_COLOR": "1",
            **more,
        }
    )


def run_station(
    settings: StationSettings, *arguments: str, stdin: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a `bookdrop-station` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "stations.cli", *arguments],
        input=stdin, env=environment(settings, **more), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


class StationTerminal:
    """`bookdrop-station desk` on a pseudo terminal."""

    def __init__(self, settings: StationSettings, **more: str) -> None:
        self.master, self.slave = pty.openpty()
        self.attributes = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stations.cli", "desk"],
            stdin=self.slave, stdout=self.slave, stderr=self.slave, env=environment(settings, **more),
        )  # fmt: skip
        self.output = ""

    def type(self, keys: str) -> None:
        """Type keys."""
        os.write(self.master, keys.encode())

    def wait_for(self, text: str) -> None:
        """Wait until `text` is in the output."""
        wait_until(lambda: text in self._read(), lambda: f"{text!r} in {self.output!r}")

    def end(self) -> int:
        """Wait for the end of the process; return its exit code. The terminal's attributes must be restored."""
        wait_until(lambda: self._read() and self.process.poll() is not None, "the station ends")
        assert termios.tcgetattr(self.slave) == self.attributes
        return self.process.returncode

    def close(self) -> None:
        """Kill the process, if it still runs, and close the terminal."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def _read(self) -> str:
        while select.select([self.master], [], [], 0)[0]:
            self.output += os.read(self.master, 4096).decode(errors="replace")
        return self.output
