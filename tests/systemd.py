# SPDX-License-Identifier: Apache-2.0
"""Units of systemd, read as it reads them and started as plain processes: their exact lines, at other places."""

import ctypes
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

PR_SET_NO_NEW_PRIVS, PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 38, 65, 1
SECONDS = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """A time as units write it, such as `75`, `2min`, `6h` or `infinity`."""
    if text == "infinity":
        return float("inf")
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
    return float(number) * SECONDS[text[len(number) :].strip()]


def environment_file(text: str) -> dict[str, str]:
    """What an EnvironmentFile sets: comments skipped, quotes taken off."""
    lines = (line for line in text.splitlines() if line and not line.startswith(("#", ";")))
    return {name: "".join(shlex.split(value)) for name, _, value in (line.partition("=") for line in lines)}


class Unit:
    """A unit file, of an instance if its name has one; every key keeps all its values, in order."""

    def __init__(self, path: Path, instance: str = "") -> None:
        self.name = path.name.replace("@.", f"@{instance}.")
        self.sections: dict[str, dict[str, list[str]]] = {}
        self._specifiers = {"%i": instance, "%t": "/run", "%S": "/var/lib", "%d": f"/run/credentials/{self.name}"}
        section: dict[str, list[str]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("["):
                section = self.sections.setdefault(line.strip("[]"), {})
            elif line and not line.startswith(("#", ";")):
                key, _, value = line.partition("=")
                section.setdefault(key, []).append(self._meant(value))

    def _meant(self, value: str) -> str:
        for specifier, text in self._specifiers.items():
            value = value.replace(specifier, text)
        return value

    def all(self, key: str, section: str = "Service") -> list[str]:
        """Every value of a key."""
        return self.sections.get(section, {}).get(key, [])

    def put(self, key: str, value: str) -> None:
        """Set a key of [Service] to one value."""
        self.sections["Service"][key] = [value]

    def get(self, key: str, default: str = "") -> str:
        """The last value of a key in [Service]."""
        return self.all(key)[-1] if self.all(key) else default


def _confine(unit: Unit) -> None:
    """What of a unit's bounds a process can take on by itself; where the kernel knows them."""
    os.umask(int(unit.get("UMask", "0022"), 8))
    if sys.platform == "linux":
        control = ctypes.CDLL(None).prctl
        if unit.get("NoNewPrivileges") == "yes":
            control(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if unit.get("MemoryDenyWriteExecute") == "yes":
            control(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)


class Machine:
    """A folder that stands for the root of a machine, on which units are started."""

    def __init__(self, root: Path, programs: Path) -> None:
        self.root = root
        self._places = {"/opt/bookdrop/venv/bin": str(programs), "/opt/bookdrop/bin": str(root / "bin")}
        self._places |= {place: f"{root}{place}" for place in ("/etc/bookdrop", "/var/", "/run/bookdrop", "/run/cred")}
        self._place = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, self._places))})")
        self.running: dict[str, tuple[Unit, subprocess.Popen[bytes]]] = {}
        for folder in ("etc/bookdrop", "var/spool/bookdrop", "var/backups/bookdrop", "var/log", "run", "bin"):
            (root / folder).mkdir(parents=True)

    def placed(self, text: str) -> str:
        """The text with the machine's places instead of the real ones; twice is as once."""
        return self._place.sub(lambda found: self._places[found[0]], text)

    def environment(self, unit: Unit) -> dict[str, str]:
        """What the unit's process finds set: what systemd gives to all, the files, the unit's own lines."""
        found = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self.root), "USER": unit.get("User")}
        for file in unit.all("EnvironmentFile"):
            found |= environment_file(Path(self.placed(file)).read_text(encoding="utf-8"))
        for line in unit.all("Environment"):
            found |= dict(each.split("=", 1) for each in shlex.split(line))
        return {name: self.placed(value) for name, value in found.items()}

    def start(self, unit: Unit, patience: float = 60.0) -> int | None:
        """Start a unit; wait until it says that it is up, if it says so, or until it ended, if it is to end.

        Gives the exit code of one that ended.
        """
        for key, above in (("StateDirectory", "/var/lib"), ("RuntimeDirectory", "/run")):
            for name in unit.all(key):
                Path(self.placed(f"{above}/{name}")).mkdir(parents=True, exist_ok=True)
        for line in unit.all("LoadCredential"):
            name, source = line.split(":", 1)
            kept = Path(self.placed(f"/run/credentials/{unit.name}/{name}"))
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(Path(self.placed(source)).read_bytes())
        environment = self.environment(unit)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
            if unit.get("Type") == "notify":
                address = f"bookdrop-{uuid.uuid4().hex}"
                environment["NOTIFY_SOCKET"] = f"@{address}"
                ear.bind(f"\0{address}")
            with (self.root / "var/log" / f"{unit.name}.log").open("ab") as log:
                process = subprocess.Popen(
                    shlex.split(self.placed(unit.get("ExecStart"))),
                    env=environment,
                    cwd=self.placed(unit.get("WorkingDirectory", str(self.root))),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=lambda: _confine(unit),  # noqa: PLW1509 - no thread runs here
                )
            if unit.get("Type") == "oneshot":
                return process.wait(patience)
            self.running[unit.name] = (unit, process)
            if unit.get("Type") == "notify":
                ear.settimeout(patience)
                while b"READY=1" not in ear.recv(4096):
                    pass
        return None

    def stop(self) -> dict[str, int]:
        """Stop all units as systemd does: its signal to each main process, and what is left after its time is killed.

        Gives the exit codes of the main processes. Raises `subprocess.TimeoutExpired` for one that had to be killed.
        """
        for unit, process in self.running.values():
            assert unit.get("KillMode") == "mixed"
            process.send_signal(signal.Signals[unit.get("KillSignal", "SIGTERM")])
        codes = {}
        for name, (unit, process) in self.running.items():
            codes[name] = process.wait(seconds(unit.get("TimeoutStopSec", "90")))
            self._sweep(process)
        self.running.clear()
        return codes

    def close(self) -> None:
        """End what still runs."""
        for _, process in self.running.values():
            self._sweep(process)
            process.wait(10)

    @staticmethod
    def _sweep(process: "subprocess.Popen[bytes]") -> None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def log(self, name: str) -> str:
        """What a unit wrote."""
        return (self.root / "var/log" / f"{name}.log").read_text(encoding="utf-8")


def wait_for(condition: Callable[[], object], patience: float = 30.0) -> object:
    """Wait until `condition()` gives something true; give it."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
    return found
