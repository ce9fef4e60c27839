# SPDX-License-Identifier: Apache-2.0
"""NOTICE lists the packages of an installation in the versions of requirements/run.txt."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def noticed():
    """Package and version of each line of the list."""
    _, _, listed = (ROOT / "NOTICE").read_text(encoding="utf-8").partition("\nPackage")
    lines = [re.split(r" {2,}", line) for line in listed.splitlines()[1:]]
    return {(canonical(name), version): licence for name, version, licence in lines}


def pinned():
    """Package and version of each pin, with its marker."""
    pins = re.findall(
        r"^([A-Za-z0-9._-]+)==(\S+)(?: ; ([^\\\n]+))?", (ROOT / "requirements/run.txt").read_text(), re.MULTILINE
    )
    return {(canonical(name), version): marker.strip() for name, version, marker in pins}


def test_notice_lists_the_pinned_packages():
    """Each package of the list is pinned in that version, and each pin that holds on every system is in the list."""
    pins = pinned()

    assert pins
    assert set(noticed()) - set(pins) == set()
    assert {pin for pin, marker in pins.items() if not marker} - set(noticed()) == set()


def test_every_package_has_a_licence():
    """A package without a licence may not be distributed."""
    assert [pin for pin, licence in noticed().items() if not licence or licence == "UNKNOWN"] == []
