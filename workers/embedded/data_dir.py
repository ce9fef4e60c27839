# SPDX-License-Identifier: Apache-2.0
"""The data directory of the embedded default: configuration, lock, and the state of its processes."""

import fcntl
import getpass
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from schemas.private_files import private_folder, runtime_folder, touch_private

_BASIC_AUTH = "basic_auth = "
"""Start of the one line in Flower's configuration file."""

MAX_SOCKET_PATH = 90
"""Maximum length of the socket's path in the data directory. The kernel's limit is about 100 (104 on macOS); for a longer
path the socket is in a temporary folder."""


class AlreadyRunningError(Exception):
    """Another `bookdrop up` runs in this data directory."""

    def __init__(self, pid: int | None) -> None:
        self.pid = pid
        super().__init__(f"bookdrop is already running here{f' (process {pid})' if pid else ''}")


@dataclass
class ProcessState:
    """The processes of the last `bookdrop up`, for `down`, `status` and the next start."""

    pid: int = 0
    flower: str | None = None
    children: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Name to process id and start time as `ps` prints it. The time identifies a process id that was reused."""


class DataDirectory:
    """A folder, for example `.bookdrop`. `prepare` creates it."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @classmethod
    def default(cls) -> "DataDirectory":
        """Return `$BOOKDROP_HOME`, or `.bookdrop` in the working folder."""
        return cls(Path(os.environ.get("BOOKDROP_HOME", ".bookdrop")))

    @property
    def config(self) -> Path:
        """Settings file of the workers and of the first station."""
        return self.path / "bookdrop.toml"

    @property
    def database_url(self) -> str:
        """URL of the SQLite database."""
        return f"sqlite:///{self.path / 'bookdrop.db'}"

    @property
    def spool(self) -> Path:
        """Folder into which the demo's printers write slips."""
        return self.path / "slips"

    @property
    def logs(self) -> Path:
        """Folder with one log file per process."""
        return self.path / "logs"

    @property
    def socket(self) -> Path:
        """Socket of the Valkey server; in a temporary folder if the path here is too long."""
        inside = self.path / "valkey.sock"
        if len(str(inside)) <= MAX_SOCKET_PATH:
            return inside
        digest = hashlib.sha256(str(self.path).encode()).hexdigest()[:12]
        return runtime_folder() / f"{digest}.sock"

    @property
    def broker_url(self) -> str:
        """URL of the Valkey server, as kombu reads it."""
        return f"redis+socket://{self.socket}"

    def station_config(self, code: str) -> Path:
        """Settings file of one station."""
        return self.path / "stations" / f"{code}.toml"

    def prepare(self) -> None:
        """Create the folders with mode 0700. Raises `UnsafePathError` for one that another user owns."""
        for folder in (
            self.path,
            self.spool,
            self.logs,
            self.path / "valkey",
            self.path / "stations",
            self.socket.parent,
        ):
            private_folder(folder)

    def station_keys(self, codes: list[str]) -> dict[str, str]:
        """Return the key of each station. The first call generates it; later ones return the same."""
        path = self.path / "keys.json"
        keys: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        for code in codes:
            keys.setdefault(code, secrets.token_hex(32))
        _write_private(path, json.dumps(keys, indent=1))
        return {code: keys[code] for code in codes}

    def flower_login(self) -> tuple[str, str]:
        """Write Flower's configuration file with a basic authentication login, and return its name and password.

        The name is the login name of this process's user. The first start generates the password; later ones keep it.
        """
        try:
            name = getpass.getuser().replace(":", "_")  # RFC 7617 forbids the colon
        except (KeyError, OSError):  # the user id has no name
            name = "operator"
        password = self._stored_flower_password() or secrets.token_urlsafe(12)
        # Not as an option on the command line, which every user of the machine can read in `ps`.
        _write_private(self.flower_config, f"{_BASIC_AUTH}{json.dumps([f'{name}:{password}'])}\n")
        return name, password

    @property
    def flower_config(self) -> Path:
        """Flower's configuration file. It contains the password, and only its owner can read it."""
        return self.path / "flowerconfig.py"

    def _stored_flower_password(self) -> str:
        try:
            [login] = json.loads(self.flower_config.read_text(encoding="utf-8").removeprefix(_BASIC_AUTH))
        except (OSError, ValueError, TypeError):
            return ""
        return str(login).partition(":")[2]

    def write_config(self, keys: Mapping[str, str]) -> None:
        """Write the settings of the workers and of each station in `keys`. The first one is the default station."""
        workers = (
            f'[workers]\nbroker_url = "{self.broker_url}"\ndatabase_url = "{self.database_url}"\n'
            f'sweep_interval_seconds = 2\nprivacy_key = "{self._privacy_key()}"\n'
        )
        for number, (code, key) in enumerate(keys.items()):
            station = (
                f'[station]\ncode = "{code}"\nkey = "{key}"\nbroker_url = "{self.broker_url}"\n'
                f'journal = "{self.path / "stations" / code}.journal"\nrequire_signed_replies = true\n'
            )
            _write_private(self.station_config(code), station)
            if number == 0:
                _write_private(self.config, f"{workers}\n{station}")

    def _privacy_key(self) -> str:
        """Return the secret for keyed hashes. The first call generates it; later ones return the same."""
        path = self.path / "privacy-key"
        if not path.exists():
            _write_private(path, secrets.token_hex(32))
        return path.read_text(encoding="utf-8")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold an exclusive lock on the data directory. The kernel releases it when this process ends.

        Raises `AlreadyRunningError`.
        """
        with (self.path / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunningError(self.load_state().pid or None) from None
            yield

    def is_running(self) -> bool:
        """Return whether a `bookdrop up` holds the lock."""
        if not (self.path / "lock").exists():
            return False
        try:
            with self.lock():
                return False
        except AlreadyRunningError:
            return True

    def load_state(self) -> ProcessState:
        """Return the state that the last start stored; an empty one if there is none."""
        try:
            content = json.loads((self.path / "state.json").read_text())
            children = {name: (int(pid), str(since)) for name, (pid, since) in content["children"].items()}
            return ProcessState(int(content["pid"]), content["flower"], children)
        except (OSError, ValueError, KeyError, TypeError):
            return ProcessState()

    def save_state(self, state: ProcessState) -> None:
        """Replace the stored state atomically."""
        _write_private(self.path / "state.json", json.dumps(asdict(state)))


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    touch_private(temporary)
    temporary.write_text(text)
    temporary.replace(path)
