# SPDX-License-Identifier: Apache-2.0
"""Files of deploy/: command lines and variables exist, services are confined and have time to stop."""

import re
import tomllib
from pathlib import Path

import click
import pytest
import yaml
from compose_spec import PyCompose

from docs.generate import broker_users
from schemas.configuration import PATH_VARIABLES, PREFIX
from stations.cli import main as station
from stations.settings import StationSettings
from tests.deploy_files import COMPOSE, DEPLOY, KUBERNETES, ROOT, UNITS
from tests.systemd import environment_file, seconds
from workers.app import celery_settings
from workers.cli import main as operations
from workers.settings import WorkerSettings

SERVICES = COMPOSE["services"]
ONE_SHOT = {"migrate", "bookdrop", "station"}
"""Services that run once and exit; compose polls no health of theirs."""

SIDES = (WorkerSettings, StationSettings)
VARIABLE = re.compile(rf"{PREFIX}[A-Z_]*[A-Z]")
OBJECTS = [
    (path, document)
    for path in sorted(KUBERNETES.rglob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
"""Every Kubernetes object of deploy/kubernetes, with its file."""

PODS = [
    (f"{path.relative_to(KUBERNETES)}", document["spec"]["template"]["spec"])
    for path, document in OBJECTS
    if document["kind"] in {"Deployment", "StatefulSet", "Job"}
]
CONTAINERS = [(f"{where}:{each['name']}", pod, each) for where, pod in PODS for each in pod["containers"]]


def command_lines():
    """Every command line of bookdrop in deploy/ without the program's name, and its place."""
    for unit in UNITS:
        program, *arguments = unit.get("ExecStart").split()
        if program.endswith(("/bookdrop", "/bookdrop-station")):
            yield pytest.param(Path(program).name, arguments, id=unit.name)
    for name, service in SERVICES.items():
        if service["image"] == "bookdrop:local":
            program = service.get("entrypoint", ["bookdrop"])[0]
            yield pytest.param(program, service["command"], id=f"compose {name}")
        check = service.get("healthcheck", {}).get("test", [])
        if "bookdrop" in check[1:2]:
            yield pytest.param("bookdrop", check[2:], id=f"compose {name} health")
    for where, _, container in CONTAINERS:
        if container["image"] == "bookdrop":
            arguments = [each.replace("$(BRANCH)", "main") for each in container["args"]]
            program = container.get("command", ["bookdrop"])[0]
            yield pytest.param(program, arguments, id=f"kubernetes {where}")
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = container.get(kind, {}).get("exec", {}).get("command", [])
            if probe[:1] == ["bookdrop"]:
                yield pytest.param("bookdrop", probe[1:], id=f"kubernetes {where} {kind}")


@pytest.mark.parametrize(("program", "arguments"), list(command_lines()))
def test_command_line_names_a_command_and_its_options(program, arguments):
    """Each command that deploy/ starts exists and takes its options and arguments."""
    command: click.Command | None = operations if program == "bookdrop" else station
    left = list(arguments)
    while isinstance(command, click.Group) and left:
        name = left.pop(0)
        command = command.get_command(click.Context(command), name)

        assert command is not None, f"no command {name}"
    assert command is not None
    command.make_context(program, left)


def variables():
    """The BOOKDROP_... variables of each file in deploy/ that has one."""
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            used = set(VARIABLE.findall(path.read_text(encoding="utf-8")))
            if used:
                yield pytest.param(used, id=str(path.relative_to(DEPLOY)))


@pytest.mark.parametrize("used", list(variables()))
def test_variable_in_deploy_names_a_setting(used):
    """Each BOOKDROP_... in deploy/ is a setting of the workers or the stations, as a value or as a file."""
    settings = {f"{side.model_config['env_prefix']}{field.upper()}" for side in SIDES for field in side.model_fields}

    assert used <= settings | {f"{name}_FILE" for name in settings} | set(PATH_VARIABLES)


def test_environment_files_load_as_settings(monkeypatch, tmp_path):
    """Both sides load deploy/systemd/bookdrop.env and deploy/station/station.env without an error."""
    secret = tmp_path / "secret"
    secret.write_text("redis://worker:x@127.0.0.1:6379/0\n")
    values = environment_file((DEPLOY / "systemd/bookdrop.env").read_text(encoding="utf-8"))
    values |= environment_file((DEPLOY / "station/station.env").read_text(encoding="utf-8"))
    for name, value in values.items():
        monkeypatch.setenv(name, str(secret) if name.endswith("_FILE") else value)

    assert WorkerSettings.load().database_url == "postgresql:///bookdrop?host=/run/postgresql"
    assert StationSettings.load(key="a key").code == "main-desk-1"


def stop_timeouts():
    """Seconds between TERM and KILL of each worker in deploy/."""
    for unit in UNITS:
        if "bookdrop worker" in unit.get("ExecStart"):
            yield pytest.param(seconds(unit.get("TimeoutStopSec")), id=unit.name)
    for name, service in SERVICES.items():
        if service.get("command", [])[:1] == ["worker"]:
            yield pytest.param(seconds(service["stop_grace_period"]), id=f"compose {name}")
    for where, pod, container in CONTAINERS:
        if container.get("args", [""])[0] == "worker":
            yield pytest.param(pod["terminationGracePeriodSeconds"], id=f"kubernetes {where}")


@pytest.mark.parametrize("timeout", list(stop_timeouts()))
def test_stop_timeout_exceeds_the_longest_task(timeout):
    """A stopped worker is killed only after its longest task has ended."""
    assert timeout > celery_settings()["task_time_limit"]


# Users of the broker

BROKER_USERS = {
    "returns": "returns",
    "printing": "printing",
    "housekeeping": "housekeeping",
    "flower": "flower",
    "metrics": "metrics",
    "migrate": "metrics",
    "bookdrop": "operations",
    "station": "station-main-desk-1",
}
"""The broker's user of each part. Migrations connect to no broker, so they have the user with the fewest rights."""


def test_template_of_users_is_made_from_the_code():
    """deploy/redis/users.acl.template has the users of `bookdrop acl redis`."""
    assert (ROOT / broker_users.PAGE).read_text(encoding="utf-8") == broker_users.page()


def test_each_compose_service_has_the_broker_user_of_its_part():
    """No service but `bookdrop`, which an operator starts, gets the URL of another part, or several URLs."""
    found = {}
    for name, service in SERVICES.items():
        for secret in service.get("secrets", []):
            if isinstance(secret, dict) and secret["target"] == "broker-url":
                found[name] = Path(COMPOSE["secrets"][secret["source"]]["file"]).stem
        assert not [each for each in service.get("secrets", []) if isinstance(each, str) and "broker" in each]

    assert found == BROKER_USERS


def test_each_systemd_service_has_the_broker_user_of_its_part():
    """Systemd loads one URL for each service, and no file of settings overrides it."""
    found = {}
    for unit in UNITS:
        for line in unit.all("LoadCredential"):
            name, _, path = line.partition(":")
            if name == "broker-url" and unit.name != "bookdrop-station.service":
                found[unit.name] = Path(path).stem
                assert unit.get("ExecStart").split()[1] in {"worker", "flower", "metrics"}
    started = [unit.name for unit in UNITS if re.search(r"bookdrop (worker|flower|metrics)", unit.get("ExecStart"))]

    assert sorted(found) == sorted(started)
    assert all(user in re.split(r"[-@.]", name) for name, user in found.items())
    assert "BROKER_URL" not in "".join(environment_file((DEPLOY / "systemd/bookdrop.env").read_text(encoding="utf-8")))


def test_each_pod_has_the_broker_user_of_its_part():
    """A pod mounts the items that it needs, never a whole secret; only housekeeping has the operators' URL as well."""
    found = {}
    for path, document in OBJECTS:
        if document["kind"] not in {"Deployment", "Job"}:
            continue
        component = document["metadata"]["labels"]["app.kubernetes.io/component"]
        for volume in document["spec"]["template"]["spec"]["volumes"]:
            assert volume.get("secret", {}).get("secretName") not in {"bookdrop", "bookdrop-broker"}, path
            for source in volume.get("projected", {}).get("sources", []):
                if source["secret"]["name"] == "bookdrop-broker":
                    found[component] = {item["path"]: item["key"] for item in source["secret"]["items"]}

    operators = found["housekeeping"].pop("operations-broker-url")
    assert operators == "operations.url"
    assert found == {
        part: {"broker-url": f"{user}.url"}
        for part, user in BROKER_USERS.items()
        if part not in {"bookdrop", "station"}
    }


@pytest.mark.parametrize(("where", "pod", "container"), [each for each in CONTAINERS if each[2]["image"] == "bookdrop"])
def test_each_secret_file_that_a_pod_reads_is_mounted(where, pod, container):
    """Every file below /run/secrets that a setting names is an item of the pod's volume."""
    settings = [each["value"] for each in container.get("env", []) if "value" in each]
    if "envFrom" in container:
        settings += ["/run/secrets/broker-url", "/run/secrets/database-url"]  # of settings.yaml
    [volume] = [each for each in pod["volumes"] if each["name"] == "secrets"]
    items = {item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}

    assert {Path(value).name for value in settings if value.startswith("/run/secrets/")} <= items


# systemd


def test_every_service_belongs_to_the_target():
    """Stopping bookdrop.target stops each service. A worker gets TERM at its main process, and has a watchdog."""
    units = [unit for unit in UNITS if unit.name not in {"bookdrop-backup.service", "bookdrop-station.service"}]

    for unit in units:
        assert unit.all("PartOf", "Unit") == ["bookdrop.target"], unit.name
        assert unit.all("WantedBy", "Install") == ["bookdrop.target"], unit.name
    workers = [unit for unit in units if "bookdrop worker" in unit.get("ExecStart")]
    assert workers
    for unit in workers:
        values = [unit.get(key) for key in ("Type", "KillMode", "KillSignal", "Restart")]
        assert values == ["notify", "mixed", "SIGTERM", "always"], unit.name
        assert seconds(unit.get("WatchdogSec")) >= 30, unit.name


# Containers


def test_compose_file_follows_the_specification():
    """compose.yaml is valid, and each network, secret and volume that a service names is declared."""

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data):
            return True

    compose = PyCompose.from_yaml(yaml.dump(COMPOSE, Dumper=Plain))

    compose.validate()
    compose.validate_networks()
    compose.validate_secrets()
    compose.validate_volumes()


@pytest.mark.parametrize("name", SERVICES)
def test_compose_service_is_confined(name):
    """No root, no capability, a read-only root, limits on all resources, and a health check."""
    service = SERVICES[name]

    assert service["user"].split(":")[0] not in {"", "0", "root"}
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert seconds(service["stop_grace_period"]) > 0
    if name in ONE_SHOT:
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["healthcheck"]["test"]


def test_only_the_proxy_listens_on_the_network():
    """Every other published port is bound to the loopback address."""
    ports = [(name, port) for name, service in SERVICES.items() for port in service.get("ports", [])]

    assert "proxy" in {name for name, _ in ports}
    assert [port for name, port in ports if name != "proxy" and not port.startswith("127.0.0.1:")] == []


def test_mounted_and_built_files_exist():
    """Each file that compose.yaml mounts from its folder exists, and so does the Containerfile."""
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    files = [path for path in mounted if path.startswith(".")]

    assert files
    assert [path for path in files if not (DEPLOY / path).is_file()] == []
    assert (ROOT / SERVICES["returns"]["build"]["dockerfile"]).is_file()


def test_image_has_pinned_packages_and_no_root():
    """Hashes are required, the last user is a number other than 0, and every package of ours is copied."""
    file = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    user = re.findall(r"^USER (\d+):(\d+)$", file, re.MULTILINE)[-1]

    assert "pip install --require-hashes" in file
    assert user[0] == SERVICES["returns"]["user"].split(":")[0]
    assert int(user[0]) > 0
    assert re.search(r'^ENTRYPOINT \["bookdrop"\]$', file, re.MULTILINE)
    for name in targets["wheel"]["packages"]:
        assert f"COPY {name} /src/{name}\n" in file


# Kubernetes


@pytest.mark.parametrize(("where", "pod"), PODS)
def test_pod_has_no_root_and_no_token(where, pod):
    """A pod runs without root and without a token of the cluster, with the runtime's default system calls."""
    context = pod["securityContext"]

    assert pod["automountServiceAccountToken"] is False
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize(("where", "pod"), PODS)
def test_pod_meets_the_standard_that_its_namespace_enforces(where, pod):
    """The rules of the Pod Security Standard `restricted` that other tests here do not cover."""
    [namespace] = [document for _, document in OBJECTS if document["kind"] == "Namespace"]
    levels = {value for name, value in namespace["metadata"]["labels"].items() if name.startswith("pod-security")}

    assert levels == {"restricted"}
    assert not set(pod) & {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"}
    assert not {"sysctls", "seLinuxOptions", "windowsOptions", "appArmorProfile"} & set(pod["securityContext"])
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert {kind for volume in pod["volumes"] for kind in volume} - {"name"} <= allowed
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context.get("runAsUser") != 0
        assert context.get("runAsNonRoot", True) is True
        assert not {"privileged", "procMount", "seLinuxOptions", "seccompProfile"} & set(context)
        assert not any("hostPort" in port for port in container.get("ports", []))


POLICIES = [document for _, document in OBJECTS if document["kind"] == "NetworkPolicy"]


def egress_of(component):
    """The allowed egress of a pod of bookdrop: pairs of port and destinations."""
    labels = {"app.kubernetes.io/name": "bookdrop", "app.kubernetes.io/component": component}
    for policy in POLICIES:
        selector = policy["spec"]["podSelector"]
        matches = selector.get("matchLabels", {}).items() <= labels.items() and all(
            labels[each["key"]] not in each["values"] for each in selector.get("matchExpressions", [])
        )
        if matches and "Egress" in policy["spec"]["policyTypes"]:
            for rule in policy["spec"].get("egress", []):
                yield from ((port["port"], rule.get("to")) for port in rule["ports"])


@pytest.mark.parametrize(
    ("component", "ports"),
    [
        ("migrate", {53, 5432}),
        ("returns", {53, 5432, 6379, 5671, 5672}),
        ("housekeeping", {53, 5432, 6379, 5671, 5672}),
        ("printing", {53, 5432, 6379, 5671, 5672, 631, 9100}),
        ("flower", {53, 5432, 6379, 5671, 5672}),
        ("metrics", {53, 5432, 6379, 5671, 5672}),
        ("station", {53, 6379, 5671, 5672}),
    ],
)
def test_pod_connects_to_named_destinations_only(component, ports):
    """Each role reaches the ports that it needs, and each rule names its destinations; first nothing is allowed."""
    allowed = list(egress_of(component))

    assert {port for port, _ in allowed} == ports
    assert all(destinations for _, destinations in allowed)
    denied = next(policy for policy in POLICIES if policy["metadata"]["name"] == "bookdrop-default-deny")
    assert denied["spec"] == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "bookdrop"}},
        "policyTypes": ["Ingress", "Egress"],
    }


@pytest.mark.parametrize(("where", "pod", "container"), CONTAINERS)
def test_kubernetes_container_is_confined(where, pod, container):
    """Read-only root, no capability, limits on all resources, and a liveness probe where the container keeps running."""
    context = container["securityContext"]

    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert pod.get("restartPolicy") in {"OnFailure", "Never"} or container["livenessProbe"]


def test_liveness_probe_needs_no_broker():
    """Only the readiness probe polls broker and database, so that their outage restarts no pod."""
    probes = [
        container["livenessProbe"] for _, _, container in CONTAINERS if container.get("args", [""])[0] == "worker"
    ]

    assert probes
    assert all(probe["exec"]["command"][:3] == ["bookdrop", "health", "live"] for probe in probes)


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("kustomization.yaml")), ids=lambda path: path.parent.name)
def test_kustomization_names_existing_files(path):
    """Every resource, component and generated file of a kustomization exists."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    generated = [file for each in content.get("configMapGenerator", []) for file in each["files"]]
    names = [*content.get("resources", []), *content.get("components", []), *generated]

    assert names
    assert [name for name in names if not (path.parent / name).exists()] == []
