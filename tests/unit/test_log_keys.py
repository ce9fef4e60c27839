# SPDX-License-Identifier: Apache-2.0
"""Every key that the product logs is in the allow-list, so that the formatter drops none of them."""

import ast
from collections.abc import Iterator
from pathlib import Path

from workers.logging import ALLOWED_KEYS

ROOT = Path(__file__).parents[2]

LOG_METHODS = frozenset({"debug", "info", "warning", "error", "exception", "critical", "bind", "bind_contextvars"})


def modules() -> Iterator[tuple[str, ast.Module]]:
    """The product's modules, with their paths."""
    for package in ("schemas", "tasks", "workers", "stations"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def is_logger(node: ast.expr, loggers: set[str]) -> bool:
    """Return True for the name of a logger, for `structlog.contextvars`, and for what `bind` returns."""
    match node:
        case ast.Name(id=name):
            return name in loggers
        case ast.Attribute(value=ast.Name(id="structlog"), attr="contextvars"):
            return True
        case ast.Call(func=ast.Attribute(value=value, attr="bind")):
            return is_logger(value, loggers)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="structlog"), attr="get_logger")):
            return True
    return False


def log_calls(tree: ast.Module) -> Iterator[ast.Call]:
    """The calls of methods of a logger."""
    loggers: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and is_logger(node.value, loggers):
            loggers |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr=method)) if method in LOG_METHODS:
                if is_logger(value, loggers):
                    yield node


def test_every_logged_key_is_allowed():
    """The log would lack a key outside the allow-list. `**keys` (None here) cannot be checked, and is not used."""
    keys = [
        (keyword.arg, f"{path}:{call.lineno}")
        for path, tree in modules()
        for call in log_calls(tree)
        for keyword in call.keywords
    ]

    assert len(keys) > 50
    assert [(key, where) for key, where in keys if key not in ALLOWED_KEYS] == []


def test_keys_are_found_in_each_form_of_a_call():
    """Loggers of a module, bound loggers and context variables are searched; methods of other objects are not."""
    tree = ast.parse(
        "log = structlog.get_logger()\n"
        "bound = log.bind(one=1)\n"
        "bound.info('x', two=2)\n"
        "log.bind(three=3).warning('x', four=4)\n"
        "structlog.contextvars.bind_contextvars(five=5)\n"
        "super().info(six=6)\n"
    )

    assert {keyword.arg for call in log_calls(tree) for keyword in call.keywords} == {
        "one", "two", "three", "four", "five",
    }  # fmt: skip
