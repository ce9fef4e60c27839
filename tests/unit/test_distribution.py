# SPDX-License-Identifier: Apache-2.0
"""The installed distribution: no other one has its top-level packages, and its commands exist."""

import importlib
import json
import sys
from importlib.metadata import distribution, distributions, packages_distributions
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit
from zipfile import ZipFile

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("schemas", "tasks", "workers", "stations")


@pytest.mark.parametrize("name", NAMES)
def test_top_level_package_has_one_owner(name):
    """No other installed distribution has a package or module of that name.

    An editable installation lists no files, so bookdrop itself may be named or not.
    """
    owners = set(packages_distributions().get(name, []))

    assert owners <= {"bookdrop"}


@pytest.mark.parametrize("name", NAMES)
def test_top_level_package_is_imported_from_this_folder(name):
    """Python imports this project's package under the name, whatever else is on its path."""
    spec = find_spec(name)

    assert spec is not None
    assert Path(str(spec.origin)).resolve().parent == ROOT / name


@pytest.mark.parametrize("name", NAMES)
def test_top_level_package_is_once_on_the_path(name):
    """No second package of the name is further down the path, as a namespace package or a stray file."""
    places = {Path(entry or ".").resolve() for entry in sys.path}

    having = {place for place in places if (place / name).is_dir() or (place / f"{name}.py").is_file()}

    assert having == {ROOT}


def test_bookdrop_is_installed_once():
    """One distribution is called bookdrop, so its commands are not those of another version."""
    found = [each for each in distributions() if each.name == "bookdrop"]

    assert len({str(each.locate_file("")) for each in found}) == 1


def test_commands_run_this_code():
    """An editable installation refers to this folder, so `bookdrop` runs the tested code."""
    origin = json.loads(distribution("bookdrop").read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        pytest.skip("installed from a built package, not from this folder")

    installed_from = Path(unquote(urlsplit(origin["url"]).path))

    assert installed_from.resolve() == ROOT


@pytest.mark.parametrize(
    ("command", "target"), [("bookdrop", "workers.cli:main"), ("bookdrop-station", "stations.cli:main")]
)
def test_commands_are_installed(command, target):
    """Each console script has its entry point."""
    scripts = {
        entry.name: entry.value for entry in distribution("bookdrop").entry_points.select(group="console_scripts")
    }

    assert scripts[command] == target


def test_wheel_contains_every_file_of_the_packages(tmp_path):
    """Templates, styles, fonts and all other files in the packages are in the wheel."""
    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with ZipFile(wheel) as built:
        brought = set(built.namelist())
    there = {
        str(path.relative_to(ROOT))
        for name in NAMES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert there - brought == set()
    assert "workers/flower/templates/prints.html" in brought


@pytest.mark.parametrize("name", NAMES)
def test_package_is_marked_as_typed(name):
    """Type checkers read the annotations of a package with `py.typed` (PEP 561)."""
    package = importlib.import_module(name)

    assert (Path(str(package.__file__)).parent / "py.typed").is_file()


def test_workers_has_few_modules_at_its_top():
    """A newcomer finds a module at the first guess where a folder has at most 20."""
    modules = [path for path in (ROOT / "workers").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]

    assert len(modules) - 1 <= 20  # without `__init__.py`
