# SPDX-License-Identifier: Apache-2.0
"""Pure modules: a module whose docstring ends with "Pure." reaches no database, broker, socket or clock by import."""

import ast
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
IMPURE = (
    "celery", "kombu", "redis", "sqlalchemy", "socket", "subprocess", "time", "os", "random", "secrets", "structlog",
    "schemas.models", "schemas.database", "schemas.migration",
)  # fmt: skip


def declared_pure() -> list[str]:
    """The modules that declare purity in the first line of their docstring."""
    found = []
    for path in sorted(ROOT.glob("tasks/**/*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if docstring.partition("\n")[0].endswith("Pure.") and path.name != "__init__.py":
            found.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return found


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("schemas", "tasks", include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("module", declared_pure())
def test_pure_module_imports_nothing_impure(graph, module):
    """No chain of imports leads from the module to the database, the broker, the network, the clock or randomness."""
    chains = {impure: graph.find_shortest_chain(module, impure) for impure in IMPURE if impure in graph.modules}

    assert not {impure: chain for impure, chain in chains.items() if chain}


@pytest.mark.parametrize("module", declared_pure())
def test_pure_module_reads_no_clock(module):
    """The module calls no `now()`, `today()` or `utcnow()`: times are parameters."""
    tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8"))
    calls = {
        node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }

    assert not calls & {"now", "today", "utcnow"}


@pytest.mark.parametrize(
    "module",
    [
        "tasks.returns.transition", "tasks.returns.undo_rule", "tasks.returns.replies", "tasks.circulation.rules",
        "tasks.requests.barcode_lookup", "tasks.requests.discharge_time", "tasks.events.validation",
        "tasks.printing.state_machine",
    ],
)  # fmt: skip
def test_rules_declare_purity(module):
    """The rules stay pure: their docstrings declare it, so the tests above apply."""
    assert module in declared_pure()
