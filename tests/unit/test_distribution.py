# SPDX-License-Identifier: Apache-2.0
"""The installed distribution: our flat package names are ours alone, and its commands are there."""

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
def test_a_top_level_name_belongs_to_bookdrop_alone(name):
    """No other installed distribution brings a package or module of that name.

    An editable installation lists no files of its own, so bookdrop itself may or may not be named.
    """
    owners = set(packages_distributions().get(name, []))

    assert owners <= {"bookdrop"}


@pytest.mark.parametrize("name", NAMES)
def test_a_top_level_name_is_found_here(name):
    """What Python imports under the name is this project's package, whatever else is on its path."""
    spec = find_spec(name)

    assert spec is not None
    assert Path(str(spec.origin)).resolve().parent == ROOT / name


@pytest.mark.parametrize("name", NAMES)
def test_only_one_place_on_the_path_has_the_name(name):
    """No second package of the name waits further down the path, as a namespace or a stray file would."""
    places = {Path(entry or ".").resolve() for entry in sys.path}

    having = {place for place in places if (place / name).is_dir() or (place / f"{name}.py").is_file()}

    assert having == {ROOT}


def test_bookdrop_is_installed_once():
    """There is one distribution called bookdrop, so its commands are not another version's."""
    found = [each for each in distributions() if each.name == "bookdrop"]

    assert len({str(each.locate_file("")) for each in found}) == 1


def test_the_commands_run_this_code():
    """An editable installation points at this folder, so `bookdrop` runs what is tested here."""
    origin = json.loads(distribution("bookdrop").read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        pytest.skip("installed from a built package, not from this folder")

    installed_from = Path(unquote(urlsplit(origin["url"]).path))

    assert installed_from.resolve() == ROOT


@pytest.mark.parametrize(
    ("command", "target"), [("bookdrop", "workers.cli:main"), ("bookdrop-station", "stations.cli:main")]
)
def test_commands_are_installed(command, target):
    """The console scripts lead where they should."""
    scripts = {
        entry.name: entry.value for entry in distribution("bookdrop").entry_points.select(group="console_scripts")
    }

    assert scripts[command] == target


def test_a_built_package_brings_what_is_no_python(tmp_path):
    """Templates, styles, fonts and whatever else lies in the packages is in the wheel."""
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
def test_a_package_tells_that_it_is_typed(name):
    """Type checkers of whoever imports a package read its annotations (PEP 561)."""
    package = importlib.import_module(name)

    assert (Path(str(package.__file__)).parent / "py.typed").is_file()
