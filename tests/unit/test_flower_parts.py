# SPDX-License-Identifier: Apache-2.0
"""The parts of the Flower pages that need no server: users, actions, saved searches, templates."""

from base64 import b64encode
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flower.utils.search import parse_query
from hypothesis import given
from hypothesis import strategies as st
from tornado.options import OptionParser

from schemas.configuration import ConfigurationError
from schemas.print_jobs import IN_HAND, WAITING
from schemas.print_jobs import PrintState as State
from schemas.topology import PRINT_SLIP, PROCESS_SCAN, RETRY_SLIP
from workers.flower.auth import PROXY_HEADER, Operators, basic_auth_name
from workers.flower.page import when
from workers.flower.saved_searches import SAVED_SEARCHES
from workers.flower.slip_actions import available_actions
from workers.flower.task_format import format_task
from workers.flower.template_loader import TEMPLATES
from workers.settings import WorkerSettings

CONFIG = Path(__file__).parents[2] / "deploy" / "flower" / "flowerconfig.py"


def test_user_header_is_accepted_with_the_proxys_secret_only():
    """Without the secret or with a wrong one there is no name; one of the two settings alone is an error."""
    operators = Operators.from_settings(WorkerSettings(flower_user_header="X-Remote-User", flower_proxy_secret="s"))

    assert operators.name_from_proxy({"X-Remote-User": " ann ", PROXY_HEADER: "s"}) == "ann"
    for headers in ({"X-Remote-User": "ann"}, {"X-Remote-User": "ann", PROXY_HEADER: "t"}, {PROXY_HEADER: "s"}):
        assert operators.name_from_proxy(headers) is None
    for half in ({"flower_user_header": "X-Remote-User"}, {"flower_proxy_secret": "s"}):
        with pytest.raises(ConfigurationError):
            Operators.from_settings(WorkerSettings.model_validate(half))


def test_operators_setting_limits_who_may_act():
    """With names in the setting only these users may act; without names, every identified user may."""
    assert Operators.from_settings(WorkerSettings()).includes("ann")
    some = Operators.from_settings(WorkerSettings(flower_operators="ann, ben"))
    assert [some.includes(name) for name in ("ann", "ben", "cleo")] == [True, True, False]


@given(st.text())
def test_any_authorization_header_gives_a_name_or_none(text):
    """A malformed Authorization header gives no name and raises no error."""
    assert basic_auth_name(text) is None or isinstance(basic_auth_name(text), str)
    assert basic_auth_name(f"Basic {b64encode(b'ann:x:y').decode()}") == "ann"


def test_available_actions_follow_the_state():
    """A slip that may exist is never retried, an unsent one has no reprint, and a job in hand has no action."""
    names = {state: {action.name for action in available_actions(state)} for state in State}

    for state in State:
        if state in WAITING:
            assert names[state] == {"retry", "move"}
        elif state in IN_HAND:
            assert names[state] == set()
        else:
            assert "retry" not in names[state]
            assert "reprint" in names[state]
    assert names[State.UNKNOWN] == {"printed", "reprint"}
    assert available_actions(State.HELD, voided=True) == ()


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "shown"),
    [
        (PRINT_SLIP, "({'job_id': '01a20aee-905b-70e3-bbdd-6f98a0bee5d1'},)", "{}", "slip 01a20aee-905b-70e3-bbdd-6f98a0bee5d1"),
        (PROCESS_SCAN, "('01a20aee-905b-70e3-bbdd-6f98a0bee5d1',)", "{}", "event 01a20aee-905b-70e3-bbdd-6f98a0bee5d1"),
        (RETRY_SLIP, "()", "{'slip': '01a20aee-905b-70e3-bbdd-6f98a0bee5d1', 'reason': 'for Mr Test Reader'}",
         "slip 01a20aee-905b-70e3-bbdd-6f98a0bee5d1"),
        (PRINT_SLIP, None, None, ""),
    ],
)  # fmt: skip
def test_task_arguments_are_shown_as_an_id(name, args, kwargs, shown):
    """Flower shows the slip or the event of a task, and no text that a person wrote."""
    task = format_task(SimpleNamespace(name=name, args=args, kwargs=kwargs))

    assert (task.args, task.kwargs) == (shown, "")


def test_arguments_of_other_tasks_are_unchanged():
    """A task of another application is shown as it is."""
    task = format_task(SimpleNamespace(name="other.task", args="(1,)", kwargs="{}"))

    assert (task.args, task.kwargs) == ("(1,)", "{}")


@pytest.mark.parametrize("search", SAVED_SEARCHES, ids=lambda search: search.label)
def test_saved_search_is_a_valid_query_of_flower(search):
    """Flower parses each query, and it needs no encoding in a URL."""
    parse_query(f"{search.field}:{search.terms}")

    assert " " not in search.query


def test_time_is_shown_relative_with_the_exact_time_as_title():
    """A missing time is shown as a dash."""
    assert 'title="2026-11-24 15:00:00 UTC"' in when("2026-11-24T15:00:00+00:00")
    assert "&mdash;" in when(None)


def test_configuration_file_has_only_options_of_flower():
    """Each name in deploy/flower/flowerconfig.py is an option of Flower, with a value of its type."""
    from flower import options as flower_options  # noqa: PLC0415

    known = flower_options.options.as_dict()
    values: dict[str, Any] = {}
    exec(compile(CONFIG.read_text(encoding="utf-8"), CONFIG, "exec"), values)
    configured = {name: value for name, value in values.items() if not name.startswith("__")}

    assert set(configured) <= set(known)
    parser = OptionParser()
    for name, value in configured.items():
        parser.define(name, type=type(value))
    parser.parse_config_file(str(CONFIG))
    assert parser.max_tasks == configured["max_tasks"]


def test_templates_write_only_their_own_html_unescaped():
    """Times and Flower's navigation are raw; everything else is escaped."""
    raw = {
        line.strip().partition("{% raw ")[2].partition("%}")[0].strip().partition("(")[0]
        for path in TEMPLATES.glob("*.html")
        for line in path.read_text(encoding="utf-8").replace("{% raw", "\n{% raw").splitlines()
        if "{% raw" in line
    }

    assert raw == {"when", "before", "list_end", "after"}
    assert not any("autoescape" in path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.html"))
