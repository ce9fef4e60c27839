# SPDX-License-Identifier: Apache-2.0
"""deploy/: whatever its files say to bookdrop, bookdrop understands; whatever they start is confined and has its time."""

import hashlib
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest
import yaml
from compose_spec import PyCompose

from schemas.configuration import NO_SETTING, PREFIX
from stations.cli import main as station
from stations.settings import StationSettings
from tests.conftest import missing
from tests.systemd import Unit, environment_file, seconds
from workers.app import celery_settings
from workers.cli import main as operations
from workers.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
INSTANCES = {
    "bookdrop-worker@.service": ("returns", "housekeeping", "printing"),
    "bookdrop-printing@.service": ("main",),
}
UNITS = [
    Unit(path, instance)
    for path in sorted(DEPLOY.glob("*/*.service"))
    for instance in INSTANCES.get(path.name, ("",))
]  # fmt: skip
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
TO_THE_END = {"migrate", "bookdrop"}
"""Services that do one thing and end: nobody asks for their health."""
EVERY = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file() and path.suffix != ".pyc"]


def documents():
    """Every Kubernetes object of deploy/kubernetes, with its file."""
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
                yield path, document


OBJECTS = list(documents())
PODS = [
    (f"{path.relative_to(KUBERNETES)}", document["spec"]["template"]["spec"])
    for path, document in OBJECTS
    if document["kind"] in {"Deployment", "StatefulSet", "Job"}
]
CONTAINERS = [(f"{where}:{each['name']}", pod, each) for where, pod in PODS for each in pod["containers"]]


def command_lines():
    """Every command line of bookdrop in deploy/, without the program's name, and where it stands."""
    for unit in UNITS:
        program, *arguments = unit.get("ExecStart").split()
        if program.endswith(("/bookdrop", "/bookdrop-station")):
            yield pytest.param(Path(program).name, arguments, id=unit.name)
    for name, service in SERVICES.items():
        if service["image"] == "bookdrop:local":
            yield pytest.param("bookdrop", service["command"], id=f"compose {name}")
        check = service.get("healthcheck", {}).get("test", [])
        if "bookdrop" in check[1:2]:
            yield pytest.param("bookdrop", check[2:], id=f"compose {name} health")
    for where, _, container in CONTAINERS:
        if container["image"] == "bookdrop":
            arguments = [each.replace("$(BRANCH)", "main") for each in container["args"]]
            yield pytest.param("bookdrop", arguments, id=f"kubernetes {where}")
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = container.get(kind, {}).get("exec", {}).get("command", [])
            if probe[:1] == ["bookdrop"]:
                yield pytest.param("bookdrop", probe[1:], id=f"kubernetes {where} {kind}")


@pytest.mark.parametrize(("program", "arguments"), list(command_lines()))
def test_every_command_line_is_understood(program, arguments):
    """Each command that deploy/ starts exists, and takes the options and arguments that it is given."""
    command: click.Command | None = operations if program == "bookdrop" else station
    left = list(arguments)
    while isinstance(command, click.Group) and left:
        name = left.pop(0)
        command = command.get_command(click.Context(command), name)

        assert command is not None, f"no command {name}"
    assert command is not None
    command.make_context(program, left)


@pytest.mark.parametrize("path", EVERY, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_variable_is_a_setting(path):
    """Each BOOKDROP_... in deploy/ is a setting of a side that bookdrop knows, itself or as a file."""
    known = set(NO_SETTING)
    for side in (WorkerSettings, StationSettings):
        names = {f"{side.model_config['env_prefix']}{field.upper()}" for field in side.model_fields}
        known |= names | {f"{name}_FILE" for name in names}

    used = set(re.findall(rf"{PREFIX}[A-Z_]*[A-Z]", path.read_text(encoding="utf-8")))

    assert used - known == set()


def test_the_settings_of_the_services_can_be_used(monkeypatch, tmp_path):
    """deploy/systemd/bookdrop.env and deploy/station/station.env are read without complaint."""
    secret = tmp_path / "secret"
    secret.write_text("redis://worker:x@127.0.0.1:6379/0\n")
    values = environment_file((DEPLOY / "systemd/bookdrop.env").read_text(encoding="utf-8"))
    values |= environment_file((DEPLOY / "station/station.env").read_text(encoding="utf-8"))
    for name, value in values.items():
        monkeypatch.setenv(name, str(secret) if name.endswith("_FILE") else value)

    assert WorkerSettings.load().database_url == "postgresql:///bookdrop?host=/run/postgresql"
    assert StationSettings.load(key="a key").code == "main-desk-1"


# Time to finish what is in hand


def times():
    for unit in UNITS:
        if "bookdrop worker" in unit.get("ExecStart"):
            yield pytest.param(seconds(unit.get("TimeoutStopSec")), id=unit.name)
    for name, service in SERVICES.items():
        if service.get("command", [""])[0] == "worker":
            yield pytest.param(seconds(service["stop_grace_period"]), id=f"compose {name}")
    for where, pod, container in CONTAINERS:
        if container.get("args", [""])[0] == "worker":
            yield pytest.param(pod["terminationGracePeriodSeconds"], id=f"kubernetes {where}")


@pytest.mark.parametrize("grace", list(times()))
def test_a_worker_has_time_to_finish(grace):
    """Whoever stops a worker waits for longer than its longest task takes before it is killed."""
    assert grace > celery_settings()["task_time_limit"]


# systemd


@pytest.fixture
def as_root(tmp_path):
    """A folder that stands for the root of a machine on which the units are installed, with empty programs."""
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze")
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    for path in [*DEPLOY.glob("*/*.service"), *DEPLOY.glob("*/*.t[ia][mr]*e[rt]")]:
        for instance in INSTANCES.get(path.name, ("",)):
            shutil.copy(path, folder / path.name.replace("@.", f"@{instance}."))
    for program in ("venv/bin/bookdrop", "venv/bin/bookdrop-station", "bin/back-up"):
        file = tmp_path / "opt/bookdrop" / program
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    return tmp_path


def analyze(*arguments):
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr + done.stdout


def test_systemd_takes_every_unit(as_root):
    """`systemd-analyze verify` has nothing to say: no unknown key, no missing program, no wrong value."""
    units = sorted((as_root / "etc/systemd/system").iterdir())

    code, said = analyze("verify", f"--root={as_root}", "--man=no", "--recursive-errors=no", *units)

    assert (code, said) == (0, "")
    assert len(units) > len(UNITS)


def test_every_service_is_confined(as_root):
    """`systemd-analyze security` rates each service at 2.0 or better, of 10 for one that may do everything."""
    for path in sorted((as_root / "etc/systemd/system").glob("*.service")):
        code, said = analyze("security", "--offline=yes", "--threshold=20", path)

        assert code == 0, said


def test_stopping_the_target_stops_every_service():
    """Each service goes with bookdrop.target; a worker gets TERM alone at its main process, and is watched."""
    for unit in UNITS:
        if unit.name in {"bookdrop-backup.service", "bookdrop-station.service"}:
            continue
        assert unit.all("PartOf", "Unit") == ["bookdrop.target"], unit.name
        assert unit.all("WantedBy", "Install") == ["bookdrop.target"], unit.name
        if "bookdrop worker" in unit.get("ExecStart"):
            kept = [unit.get(key) for key in ("Type", "KillMode", "KillSignal", "Restart")]
            assert kept == ["notify", "mixed", "SIGTERM", "always"], unit.name
            assert seconds(unit.get("WatchdogSec")) >= 30, unit.name


# Containers


def test_compose_takes_the_file():
    """compose.yaml is what the compose specification says, and names no network, secret or volume that is not there."""

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data):
            return True

    composed = PyCompose.from_yaml(yaml.dump(COMPOSE, Dumper=Plain))

    composed.validate()
    composed.validate_networks()
    composed.validate_secrets()
    composed.validate_volumes()


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined(name):
    """No root, no capability, nothing writable but what is named, bounds on all, a question for its health."""
    service = SERVICES[name]

    assert service["user"].split(":")[0] not in {"", "0", "root"}
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert seconds(service["stop_grace_period"]) > 0
    if name in TO_THE_END:
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["healthcheck"]["test"]


def test_only_the_proxy_is_open_to_the_network():
    """Every other port of the machine is on its loopback address."""
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert name == "proxy" or port.startswith("127.0.0.1:"), name


def test_every_secret_is_a_file_that_is_made(tmp_path):
    """make-secrets makes the files that compose.yaml wants, closed to others, fitting each other, and keeps them."""
    if shutil.which("openssl") is None:
        missing("openssl")
    made = tmp_path / "secrets"

    def run():
        subprocess.run([DEPLOY / "make-secrets", made], check=True, capture_output=True, timeout=60)
        return {path.name: path.read_text(encoding="utf-8") for path in made.iterdir()}

    first, second = run(), run()
    wanted = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    password = first["broker-url"].partition("worker:")[2].partition("@")[0]

    assert wanted <= set(first)
    assert first == second
    assert made.stat().st_mode & 0o077 == 0
    assert hashlib.sha256(password.encode()).hexdigest() in first["valkey-users.acl"]
    assert first["postgres-password"] in first["database-url"]
    assert first["flower-proxy"] in first["proxy-secret.conf"]
    assert len({password, first["postgres-password"], first["flower-proxy"]}) == 3


def test_files_that_are_mounted_are_there():
    """What compose.yaml mounts from beside it exists, and so does what it builds from."""
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]

    for path in [volume for volume in mounted if volume.startswith(".")]:
        assert (DEPLOY / path).is_file(), path
    assert (ROOT / SERVICES["returns"]["build"]["dockerfile"]).is_file()


def test_the_image_is_made_of_pinned_packages_and_runs_without_root():
    """Hashes are required, the last user is a number other than 0, every package of ours is in it."""
    file = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    user = re.findall(r"^USER (\d+):(\d+)$", file, re.MULTILINE)[-1]

    assert "pip install --require-hashes" in file
    assert user[0] == SERVICES["returns"]["user"].split(":")[0]
    assert int(user[0]) > 0
    assert re.search(r'^ENTRYPOINT \["bookdrop"\]$', file, re.MULTILINE)
    for name in packages["wheel"]["packages"]:
        assert f"COPY {name} /src/{name}\n" in file


def test_nginx_takes_its_settings(tmp_path):
    """`nginx -t` is content with the proxy's settings, with the secrets that make-secrets makes, on either upstream."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        missing("nginx")
    subprocess.run([DEPLOY / "make-secrets", tmp_path], check=True, capture_output=True, timeout=60)
    settings = (
        (DEPLOY / "nginx/bookdrop.conf").read_text(encoding="utf-8").replace("/etc/nginx/bookdrop/", f"{tmp_path}/")
    )
    (tmp_path / "bookdrop.conf").write_text(settings)
    for upstream in ("upstream-local.conf", "upstream-compose.conf"):
        servers = (DEPLOY / "nginx" / upstream).read_text(encoding="utf-8").replace("flower:", "127.0.0.1:")
        inside = f"access_log off; include {tmp_path}/bookdrop.conf;\n{servers}"
        places = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid; events {{}}\nhttp {{ {places} {inside} }}\n")

        done = subprocess.run(
            [nginx, "-t", "-e", str(tmp_path / "errors"), "-c", str(tmp_path / "nginx.conf")],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

        assert done.returncode == 0, done.stderr


# Kubernetes


@pytest.mark.parametrize(("where", "pod"), PODS)
def test_every_pod_is_nobody(where, pod):
    """No root, no token of the cluster's, the system calls of the runtime's default."""
    context = pod["securityContext"]

    assert pod["automountServiceAccountToken"] is False
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize(("where", "pod", "container"), CONTAINERS)
def test_every_container_of_a_pod_is_confined(where, pod, container):
    """Nothing writable, no capability, bounds on all; and what goes on and on is asked whether it lives."""
    context = container["securityContext"]

    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert pod.get("restartPolicy") == "OnFailure" or container["livenessProbe"]


def test_liveness_asks_no_broker():
    """Only readiness asks broker and database: an outage of theirs restarts nobody."""
    probes = [
        container["livenessProbe"] for _, _, container in CONTAINERS if container.get("args", [""])[0] == "worker"
    ]

    assert probes
    assert all(probe["exec"]["command"][:3] == ["bookdrop", "health", "live"] for probe in probes)


@pytest.mark.parametrize("path", sorted([*DEPLOY.rglob("kustomization.yaml")]), ids=lambda path: path.parent.name)
def test_kustomizations_name_what_is_there(path):
    """Every resource, component and file that a kustomization names exists."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    generated = [file for each in content.get("configMapGenerator", []) for file in each["files"]]

    for name in [*content.get("resources", []), *content.get("components", []), *generated]:
        assert (path.parent / name).exists(), name


def test_the_example_is_whole():
    """Rendered, each name is there once, and each settings map, service account and scaled thing that is named is there.

    Needs kubectl, which Debian has only in a version that is too old for components: skipped where it is not.
    """
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    done = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES / "example"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found = list(yaml.safe_load_all(done.stdout))
    names = [(each["kind"], each["metadata"]["name"]) for each in found]
    pods = [each["spec"]["template"]["spec"] for each in found if "template" in each.get("spec", {})]
    maps = {volume["configMap"]["name"] for pod in pods for volume in pod["volumes"] if "configMap" in volume}
    maps |= {
        ref["configMapRef"]["name"] for pod in pods for each in pod["containers"] for ref in each.get("envFrom", [])
    }
    scaled = [each["spec"]["scaleTargetRef"]["name"] for each in found if each["kind"] == "ScaledObject"]

    assert len(names) == len(set(names))
    assert {each["metadata"]["namespace"] for each in found} == {"bookdrop"}
    assert maps == {name for kind, name in names if kind == "ConfigMap"}
    assert {pod["serviceAccountName"] for pod in pods if "serviceAccountName" in pod} == {"bookdrop"}
    assert [("Deployment", name) in names for name in scaled] == [True]
    assert {("Deployment", f"bookdrop-printing-{branch}") for branch in ("main", "north")} <= set(names)


# Scripts


@pytest.mark.parametrize("script", ["make-secrets", "backup/back-up", "systemd/bookdrop"])
def test_scripts_can_be_run(script):
    """Each script is executable, and a shell of any kind reads it."""
    path = DEPLOY / script

    assert os.access(path, os.X_OK)
    subprocess.run(["sh", "-n", path], check=True, timeout=30)
