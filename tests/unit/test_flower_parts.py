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


def test_what_can_be_decided_follows_the_rules():
    """What may be on paper is never tried again; what has not been sent gets no copy; what is in hand is left alone."""
    can = {state: {action.name for action in available_actions(state)} for state in State}

    for state in State:
        if state in WAITING:
            assert can[state] == {"retry", "move"}
        elif state in IN_HAND:
            assert can[state] == set()
        else:
            assert "retry" not in can[state]
            assert "reprint" in can[state]
    assert can[State.UNKNOWN] == {"printed", "reprint"}
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
def test_arguments_are_shown_as_an_id(name, args, kwargs, shown):
    """Of our tasks Flower shows which slip or event it is about, and nothing that somebody wrote."""
    task = format_task(SimpleNamespace(name=name, args=args, kwargs=kwargs))

    assert (task.args, task.kwargs) == (shown, "")


def test_other_tasks_are_left_as_they_are():
    """A task that is not ours to name is shown as it is."""
    task = format_task(SimpleNamespace(name="other.task", args="(1,)", kwargs="{}"))

    assert (task.args, task.kwargs) == ("(1,)", "{}")


@pytest.mark.parametrize("search", SAVED_SEARCHES, ids=lambda search: search.label)
def test_searches_are_ones_that_flower_understands(search):
    """Each is in Flower's own language, and fits into an address."""
    parse_query(f"{search.field}:{search.terms}")

    assert " " not in search.query


def test_a_time_is_shown_with_its_exact_moment():
    """How long ago, and in full for whoever points at it."""
    assert 'title="2026-11-24 15:00:00 UTC"' in when("2026-11-24T15:00:00+00:00")
    assert "&mdash;" in when(None)


def test_the_configuration_file_is_one_that_flower_takes():
    """Every name in deploy/flower/flowerconfig.py is an option of Flower, of the right type."""
    from flower import options as flowers  # noqa: PLC0415

    known = flowers.options.as_dict()
    wanted: dict[str, Any] = {}
    exec(compile(CONFIG.read_text(encoding="utf-8"), CONFIG, "exec"), wanted)
    set_there = {name: value for name, value in wanted.items() if not name.startswith("__")}

    assert set(set_there) <= set(known)
    parser = OptionParser()
    for name, value in set_there.items():
        parser.define(name, type=type(value))
    parser.parse_config_file(str(CONFIG))
    assert parser.max_tasks == set_there["max_tasks"]


def test_no_template_writes_unescaped_what_others_wrote():
    """Only our own HTML goes in raw: times, and Flower's navigation."""
    raw = {
        line.strip().partition("{% raw ")[2].partition("%}")[0].strip().partition("(")[0]
        for path in TEMPLATES.glob("*.html")
        for line in path.read_text(encoding="utf-8").replace("{% raw", "\n{% raw").splitlines()
        if "{% raw" in line
    }

    assert raw == {"when", "before", "list_end", "after"}
    assert not any("autoescape" in path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.html"))
