# SPDX-License-Identifier: Apache-2.0
"""systemd units, parsed as systemd parses them and started as plain processes: the same lines, with other paths."""

import ctypes
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

PR_SET_NO_NEW_PRIVS, PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 38, 65, 1
SECONDS = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Seconds of a time as units write it, for example `75`, `2min`, `6h` or `infinity`."""
    if text == "infinity":
        return float("inf")
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
    return float(number) * SECONDS[text[len(number) :].strip()]


def environment_file(text: str) -> dict[str, str]:
    """Variables of an EnvironmentFile, without comments and quotes."""
    lines = (line for line in text.splitlines() if line and not line.startswith(("#", ";")))
    return {name: "".join(shlex.split(value)) for name, _, value in (line.partition("=") for line in lines)}


class Unit:
    """A unit file, or an instance of a template. Every key keeps all its values, in order."""

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
                section.setdefault(key, []).append(self._expand(value))

    def _expand(self, value: str) -> str:
        for specifier, text in self._specifiers.items():
            value = value.replace(specifier, text)
        return value

    def all(self, key: str, section: str = "Service") -> list[str]:
        """All values of a key."""
        return self.sections.get(section, {}).get(key, [])

    def set(self, key: str, value: str) -> None:
        """Set a key of [Service] to one value."""
        self.sections["Service"][key] = [value]

    def get(self, key: str, default: str = "") -> str:
        """The last value of a key in [Service]."""
        return self.all(key)[-1] if self.all(key) else default


def _confine(unit: Unit) -> None:
    """Apply those limits of a unit that a process can set for itself, where the kernel supports them."""
    os.umask(int(unit.get("UMask", "0022"), 8))
    if sys.platform == "linux":
        control = ctypes.CDLL(None).prctl
        if unit.get("NoNewPrivileges") == "yes":
            control(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if unit.get("MemoryDenyWriteExecute") == "yes":
            control(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)


class Machine:
    """A folder as the root of a machine, on which units are started."""

    def __init__(self, root: Path, programs: Path) -> None:
        self.root = root
        self._paths = {"/opt/bookdrop/venv/bin": str(programs), "/opt/bookdrop/bin": str(root / "bin")}
        self._paths |= {path: f"{root}{path}" for path in ("/etc/bookdrop", "/var/", "/run/bookdrop", "/run/cred")}
        self._path = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, self._paths))})")
        self.running: dict[str, tuple[Unit, subprocess.Popen[bytes]]] = {}
        for folder in ("etc/bookdrop", "var/spool/bookdrop", "var/backups/bookdrop", "var/log", "run", "bin"):
            (root / folder).mkdir(parents=True)

    def relocate(self, text: str) -> str:
        """The text with the machine's paths instead of the real ones. Applying it twice changes nothing more."""
        return self._path.sub(lambda found: self._paths[found[0]], text)

    def environment(self, unit: Unit) -> dict[str, str]:
        """The environment of the unit's process: systemd's defaults, the EnvironmentFiles, the Environment lines."""
        found = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self.root), "USER": unit.get("User")}
        for file in unit.all("EnvironmentFile"):
            found |= environment_file(Path(self.relocate(file)).read_text(encoding="utf-8"))
        for line in unit.all("Environment"):
            found |= dict(setting.split("=", 1) for setting in shlex.split(line))
        return {name: self.relocate(value) for name, value in found.items()}

    def start(self, unit: Unit, timeout: float = 90.0) -> int | None:
        """Start a unit. Wait for READY=1 of a `notify` unit, and for the end of a `oneshot` unit, whose code is returned."""
        for key, above in (("StateDirectory", "/var/lib"), ("RuntimeDirectory", "/run")):
            for name in unit.all(key):
                Path(self.relocate(f"{above}/{name}")).mkdir(parents=True, exist_ok=True)
        for line in unit.all("LoadCredential"):
            name, source = line.split(":", 1)
            copy = Path(self.relocate(f"/run/credentials/{unit.name}/{name}"))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(Path(self.relocate(source)).read_bytes())
        environment = self.environment(unit)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
            if unit.get("Type") == "notify":
                address = f"bookdrop-{uuid.uuid4().hex}"
                environment["NOTIFY_SOCKET"] = f"@{address}"
                notifications.bind(f"\0{address}")
            with (self.root / "var/log" / f"{unit.name}.log").open("ab") as log:
                process = subprocess.Popen(
                    shlex.split(self.relocate(unit.get("ExecStart"))),
                    env=environment,
                    cwd=self.relocate(unit.get("WorkingDirectory", str(self.root))),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=lambda: _confine(unit),  # noqa: PLW1509 - no thread runs here
                )
            if unit.get("Type") == "oneshot":
                return process.wait(timeout)
            self.running[unit.name] = (unit, process)
            if unit.get("Type") == "notify":
                notifications.settimeout(timeout)
                while b"READY=1" not in notifications.recv(4096):
                    pass
        return None

    def stop(self) -> dict[str, int]:
        """Stop all units as systemd does: signal each main process, wait for its stop timeout, kill the rest of its group.

        Returns the exit codes of the main processes. Raises `subprocess.TimeoutExpired` when a main process exceeds its timeout.
        """
        for unit, process in self.running.values():
            assert unit.get("KillMode") == "mixed"
            process.send_signal(signal.Signals[unit.get("KillSignal", "SIGTERM")])
        codes = {}
        for name, (unit, process) in self.running.items():
            codes[name] = process.wait(seconds(unit.get("TimeoutStopSec", "90")))
            self._kill_group(process)
        self.running.clear()
        return codes

    def close(self) -> None:
        """Kill all processes that are still running."""
        for _, process in self.running.values():
            self._kill_group(process)
            process.wait(10)

    @staticmethod
    def _kill_group(process: "subprocess.Popen[bytes]") -> None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def log(self, name: str) -> str:
        """The output of a unit."""
        return (self.root / "var/log" / f"{name}.log").read_text(encoding="utf-8")
