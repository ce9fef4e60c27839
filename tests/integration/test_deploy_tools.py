# SPDX-License-Identifier: Apache-2.0
"""Files of deploy/ under the programs that read them: systemd-analyze, nginx, kubectl, the shell."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import redis
import yaml

from schemas.broker_url import password_of
from tests.deploy_files import COMPOSE, DEPLOY, INSTANCES, KUBERNETES, UNITS
from tests.network import free_port
from tests.polling import wait_until
from tests.requirements import skip_or_fail
from tests.secured_redis import SERVERS, binary


@pytest.fixture
def root(tmp_path):
    """A folder that stands for `/` of a machine with the units installed; their programs are empty scripts."""
    if shutil.which("systemd-analyze") is None:
        skip_or_fail("systemd-analyze")
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
    """Exit code and output of systemd-analyze."""
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stderr + done.stdout


def test_systemd_verifies_every_unit_without_a_finding(root):
    """`systemd-analyze verify` reports no unknown key, no missing program and no wrong value."""
    units = sorted((root / "etc/systemd/system").iterdir())

    code, output = analyze("verify", f"--root={root}", "--man=no", "--recursive-errors=no", *units)

    assert (code, output) == (0, "")
    assert len(units) > len(UNITS)


def test_systemd_rates_every_service_as_confined(root):
    """`systemd-analyze security` rates each service at 2.0 or better; an unconfined one has 10."""
    services = sorted((root / "etc/systemd/system").glob("*.service"))

    assert services
    for path in services:
        code, output = analyze("security", "--offline=yes", "--threshold=20", path)

        assert code == 0, output


@pytest.fixture
def make_secrets(tmp_path):
    """Run deploy/make-secrets in a folder; return the files by their paths in it."""
    if shutil.which("openssl") is None:
        skip_or_fail("openssl")
    folder = tmp_path / "secrets"

    def run(stations=""):
        environment = {**os.environ, "STATIONS": stations}
        subprocess.run([DEPLOY / "make-secrets", folder], env=environment, check=True, capture_output=True, timeout=300)
        return {
            str(path.relative_to(folder)): path.read_text(encoding="utf-8")
            for path in folder.rglob("*")
            if path.is_file()
        }

    return run


def passwords(files):
    """The password of each user of the broker."""
    return {
        Path(name).stem: password_of(text.strip()) for name, text in files.items() if name.startswith("broker-users/")
    }


def test_make_secrets_writes_every_secret_of_compose_once(make_secrets, tmp_path):
    """The files fit each other and are closed to other users; a second run changes none of them."""
    first, second = make_secrets("main-desk-1"), make_secrets("main-desk-1")
    expected = {secret["file"].removeprefix("secrets/") for secret in COMPOSE["secrets"].values()}
    expected.remove("station-key")  # printed by `bookdrop stations add`
    users = passwords(first)

    assert expected <= set(first)
    assert first == second
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    for password in users.values():
        assert hashlib.sha256(password.encode()).hexdigest() in first["valkey-users.acl"]
    assert first["postgres-password"] in first["database-url"]
    assert first["flower-proxy"] in first["proxy-secret.conf"]
    assert first["valkey-password"] == users["metrics"]
    assert len({*users.values(), first["postgres-password"], first["flower-proxy"]}) == len(users) + 2


def test_make_secrets_adds_a_station_and_keeps_the_others(make_secrets):
    """A second run with another station adds its user; every existing line of the ACL file stays."""
    first, second = make_secrets("main-desk-1"), make_secrets("north-desk-1")

    lines, more = (files["valkey-users.acl"].splitlines() for files in (first, second))
    assert set(lines) < set(more)
    assert [line.split()[1] for line in set(more) - set(lines)] == ["station-north-desk-1"]
    assert "station-main-desk-1" in passwords(second)


@pytest.mark.parametrize("stations", ["../x", "a/b", "A", "a;b", "-a", "a--b", "*"])
def test_make_secrets_refuses_an_invalid_station_code(make_secrets, stations):
    """A code that no station can have is refused before a file is written for it."""
    with pytest.raises(subprocess.CalledProcessError):
        make_secrets(stations)


def test_make_secrets_keeps_the_user_of_an_earlier_release(make_secrets, tmp_path):
    """The URL of the one user of an earlier release becomes that of the user `worker`, with the same password."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/broker-url").write_text("redis://worker:of-an-earlier-release@valkey:6379/0")

    files = make_secrets()

    assert hashlib.sha256(b"of-an-earlier-release").hexdigest() in files["valkey-users.acl"]


@pytest.mark.parametrize("server", SERVERS)
def test_servers_load_the_users_of_make_secrets(make_secrets, tmp_path, server):
    """Redis 7.0 and Valkey start with the file; a station counts `returns` and nothing else; an autoscaler's script runs."""
    urls = passwords(make_secrets("main-desk-1"))
    port = free_port()
    process = subprocess.Popen(
        [binary(server), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
         "--aclfile", tmp_path / "secrets/valkey-users.acl"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip

    def client(user):
        return redis.Redis(port=port, username=user, password=urls[user])

    try:
        wait_until(lambda: client("administrator").ping(), "the server responds", ignore=(redis.ConnectionError,))
        station, metrics = client("station-main-desk-1"), client("metrics")

        assert station.llen("returns") == 0
        with pytest.raises(redis.exceptions.NoPermissionError):
            station.llen("printing.main")
        script = "local kind = redis.call('type', KEYS[1]).ok; return redis.call('llen', KEYS[1])"
        assert metrics.eval(script, 1, "returns") == 0
        with pytest.raises(redis.ResponseError, match=r"(?i)permission|can't run this command"):
            metrics.eval("return redis.call('rpop', KEYS[1])", 1, "returns")
        with pytest.raises(redis.RedisError):
            redis.Redis(port=port).ping()
        assert {line.split()[1] for line in client("administrator").acl_list()} == {*urls, "default"}
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("upstream", ["upstream-local.conf", "upstream-compose.conf"])
def test_nginx_accepts_the_proxy_settings(upstream, tmp_path):
    """`nginx -t` accepts the settings with the secrets of make-secrets, on either upstream."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        skip_or_fail("nginx")
    subprocess.run([DEPLOY / "make-secrets", tmp_path], check=True, capture_output=True, timeout=300)
    settings = (
        (DEPLOY / "nginx/bookdrop.conf").read_text(encoding="utf-8").replace("/etc/nginx/bookdrop/", f"{tmp_path}/")
    )
    (tmp_path / "bookdrop.conf").write_text(settings)
    servers = (DEPLOY / "nginx" / upstream).read_text(encoding="utf-8").replace("flower:", "127.0.0.1:")
    inside = f"access_log off; include {tmp_path}/bookdrop.conf;\n{servers}"
    folders = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid; events {{}}\nhttp {{ {folders} {inside} }}\n")

    done = subprocess.run(
        [nginx, "-t", "-e", str(tmp_path / "errors"), "-c", str(tmp_path / "nginx.conf")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def test_kubectl_renders_a_complete_example():
    """Each name is there once; each settings map, service account and scaled object that is referenced exists.

    kubectl of Debian is too old for components, so the test is skipped where no other one is installed.
    """
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    done = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES / "example"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    objects = list(yaml.safe_load_all(done.stdout))
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    pods = [each["spec"]["template"]["spec"] for each in objects if "template" in each.get("spec", {})]
    maps = {volume["configMap"]["name"] for pod in pods for volume in pod["volumes"] if "configMap" in volume}
    maps |= {
        ref["configMapRef"]["name"] for pod in pods for each in pod["containers"] for ref in each.get("envFrom", [])
    }
    scaled = [each["spec"]["scaleTargetRef"]["name"] for each in objects if each["kind"] == "ScaledObject"]

    assert len(names) == len(set(names))
    assert {each["metadata"]["namespace"] for each in objects} == {"bookdrop"}
    assert maps == {name for kind, name in names if kind == "ConfigMap"}
    assert {pod["serviceAccountName"] for pod in pods if "serviceAccountName" in pod} == {"bookdrop"}
    assert [("Deployment", name) in names for name in scaled] == [True]
    assert {("Deployment", f"bookdrop-printing-{branch}") for branch in ("main", "north")} <= set(names)


@pytest.fixture
def pin_images(tmp_path):
    """Run deploy/pin-images in a copy of deploy/; return exit code and output. Its attribute `folder` is the copy."""
    folder = tmp_path / "deploy"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("secrets"))

    def run(*arguments):
        done = subprocess.run(
            [folder / "pin-images", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout + done.stderr

    run.folder = folder  # type: ignore[attr-defined]
    return run


def contents(folder):
    return {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*")) if path.is_file()}


def test_images_are_pinned_by_digest(pin_images, tmp_path):
    """Every image that is not built here gets its digest; a second run replaces the digests and changes no more."""
    code, listed = pin_images("--list")
    images = listed.split()
    used = {service["image"] for service in COMPOSE["services"].values()} - {"bookdrop:local"}
    for number in (1, 2):
        lines = "".join(f"{image} sha256:{number}{position:063x}\n" for position, image in enumerate(images))
        (tmp_path / "digests").write_text(lines)

        assert pin_images("digests") == (0, "")
        texts = contents(pin_images.folder)
        pinned = "".join(texts.values())
        for position, image in enumerate(images):
            assert f"{image}@sha256:{number}{position:063x}" in pinned
            assert not re.search(rf"(image: *|PYTHON=){re.escape(image)}\s*$", pinned, re.MULTILINE)
        assert pin_images("digests") == (0, "")
        assert contents(pin_images.folder) == texts
    yaml.safe_load((pin_images.folder / "compose.yaml").read_text(encoding="utf-8"))
    assert code == 0
    assert used < set(images)
    assert pin_images("--list") == (0, listed)


@pytest.mark.parametrize("line", ["", "postgres:17-alpine sha256:short\n", "postgres:17-alpine latest\n"])
def test_incomplete_digests_change_no_file(pin_images, tmp_path, line):
    """A missing or malformed digest is refused before the first change."""
    before = contents(pin_images.folder)
    (tmp_path / "digests").write_text(line)

    code, output = pin_images("digests")

    assert code == 1
    assert "Nothing was changed" in output
    assert contents(pin_images.folder) == before


@pytest.mark.parametrize("script", ["make-secrets", "pin-images", "backup/back-up", "systemd/bookdrop"])
def test_script_is_executable_and_parsed_by_a_posix_shell(script):
    """`sh -n` parses each script without an error."""
    path = DEPLOY / script

    assert os.access(path, os.X_OK)
    subprocess.run(["sh", "-n", path], check=True, timeout=300)
