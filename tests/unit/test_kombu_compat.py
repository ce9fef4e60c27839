# SPDX-License-Identifier: Apache-2.0
"""The private kombu API of the atomic transport: every part in use has a digest, and the installed kombu matches it."""

import ast
import hashlib
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from workers.redis_transport import qos, transport
from workers.redis_transport.kombu_compat import PRIVATE_API

PACKAGE = Path(qos.__file__).parent
CLASSES = [
    qos.QoS,
    qos.AtomicMessage,
    transport.Poller,
    transport.Channel,
    transport.SentinelChannel,
    transport.Transport,
    transport.SentinelTransport,
    transport.Connection,
]
"""The classes of the transport that extend one of kombu's."""

KOMBU = (
    "kombu.transport.redis",
    "kombu.transport.virtual.base",
    "kombu.transport.base",
    "kombu.connection",
    "kombu.message",
)


def source(cls, name):
    """Source of a method, property or cached property."""
    part = inspect.getattr_static(cls, name)
    return inspect.getsource(getattr(part, "fget", None) or getattr(part, "func", None) or part)


def digests():
    """Each listed part as class, name and digest."""
    for path, listed in PRIVATE_API.items():
        module, name = path.split(":")
        for part, digest in listed.items():
            yield pytest.param(getattr(import_module(module), name), part, digest, id=f"{path}.{part}")


@pytest.mark.parametrize(("cls", "name", "digest"), list(digests()))
def test_listed_part_of_kombu_has_the_source_that_was_read(cls, name, digest):
    """A part that changed in kombu must be read again before its digest is updated."""
    assert hashlib.sha256(source(cls, name).encode()).hexdigest()[:12] == digest


@pytest.mark.parametrize("cls", CLASSES)
def test_overridden_method_of_kombu_is_listed(cls):
    """For each method that replaces one of kombu's, the nearest replaced one has a digest."""
    bases = [base for base in cls.__mro__ if base.__module__.startswith("kombu.")]
    own = {
        name
        for base in cls.__mro__
        if base.__module__.startswith("workers.")
        for name, part in vars(base).items()
        if inspect.isroutine(part) or hasattr(part, "fget") or hasattr(part, "func")
    }
    replaced = {(base, name) for name in own for base in [next((b for b in bases if name in vars(b)), None)] if base}

    unlisted = {
        f"{base.__module__}:{base.__qualname__}.{name}"
        for base, name in replaced
        if name not in PRIVATE_API.get(f"{base.__module__}:{base.__qualname__}", {})
    }

    assert bases
    assert unlisted == set()


def test_private_name_of_kombu_in_use_is_in_a_listed_part():
    """Each private attribute of kombu that the package reads or calls is listed, or part of a listed method."""
    theirs = "\n".join(inspect.getsource(import_module(module)) for module in KOMBU)
    listed = "\n".join(source(*parameters.values[:2]) for parameters in digests())
    used = {
        node.attr
        for path in PACKAGE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr)
    }

    of_kombu = {name for name in used if re.search(rf"(?:\.|def ){name}\b", theirs)}

    assert {"_delivered", "_brpop_start"} <= of_kombu
    assert {name for name in of_kombu if not re.search(rf"\b{name}\b", listed)} == set()
