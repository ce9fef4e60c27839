# SPDX-License-Identifier: Apache-2.0
"""The parts of our pages in Flower that need no server: who is there, what can be decided, what is searched and shown."""

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
from workers.flower.auth import PROXY_HEADER, People, named_in
from workers.flower.page import when
from workers.flower.saved_searches import SEARCHES
from workers.flower.slip_actions import open_to
from workers.flower.task_format import readable
from workers.flower.template_loader import OURS
from workers.settings import WorkerSettings

CONFIG = Path(__file__).parents[2] / "deploy" / "flower" / "flowerconfig.py"


def test_people_sign_in_with_their_own_password():
    """Each name has its password, which may hold a colon; nothing else fits, and an empty one never."""
    people = People.of(WorkerSettings(flower_users="ann:one:two\n\n ben : three \n"))

    assert people.is_theirs("ann", "one:two")
    assert people.is_theirs("ben", " three")
    assert not people.is_theirs("ann", "one")
    assert not people.is_theirs("ann", "")
    assert not people.is_theirs("cleo", "")


@pytest.mark.parametrize("text", ["ann", "ann:", ":secret", "ann:x\nben"])
def test_a_line_that_names_nobody_is_refused(text):
    """A typing error does not quietly leave somebody out."""
    with pytest.raises(ConfigurationError):
        People.of(WorkerSettings(flower_users=text))


def test_a_header_is_believed_from_the_proxy_alone():
    """The secret proves the proxy; a setting without the other is refused."""
    people = People.of(WorkerSettings(flower_user_header="X-Remote-User", flower_proxy_secret="s"))

    assert people.named_by_proxy({"X-Remote-User": " ann ", PROXY_HEADER: "s"}) == "ann"
    for headers in ({"X-Remote-User": "ann"}, {"X-Remote-User": "ann", PROXY_HEADER: "t"}, {PROXY_HEADER: "s"}):
        assert people.named_by_proxy(headers) is None
    for half in ({"flower_user_header": "X-Remote-User"}, {"flower_proxy_secret": "s"}):
        with pytest.raises(ConfigurationError):
            People.of(WorkerSettings.model_validate(half))


def test_only_those_named_may_act():
    """With names in the setting nobody else decides; without, everybody who is known."""
    assert People.of(WorkerSettings()).may_act("anybody")
    some = People.of(WorkerSettings(flower_operators="ann, ben"))
    assert [some.may_act(name) for name in ("ann", "ben", "cleo")] == [True, True, False]


@given(st.text())
def test_any_header_names_somebody_or_nobody(text):
    """Whatever a client sends as Authorization, it is a name or none, and no error."""
    assert named_in(text) is None or isinstance(named_in(text), str)
    assert named_in(f"Basic {b64encode(b'ann:x:y').decode()}") == "ann"


def test_what_can_be_decided_follows_the_rules():
    """What may be on paper is never tried again; what has not been sent gets no copy; what is in hand is left alone."""
    can = {state: {decision.name for decision in open_to(state)} for state in State}

    for state in State:
        if state in WAITING:
            assert can[state] == {"retry", "move"}
        elif state in IN_HAND:
            assert can[state] == set()
        else:
            assert "retry" not in can[state]
            assert "reprint" in can[state]
    assert can[State.UNKNOWN] == {"printed", "reprint"}
    assert open_to(State.HELD, voided=True) == ()


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
    task = readable(SimpleNamespace(name=name, args=args, kwargs=kwargs))

    assert (task.args, task.kwargs) == (shown, "")


def test_other_tasks_are_left_as_they_are():
    """A task that is not ours to name is shown as it is."""
    task = readable(SimpleNamespace(name="other.task", args="(1,)", kwargs="{}"))

    assert (task.args, task.kwargs) == ("(1,)", "{}")


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.words)
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
        for path in OURS.glob("*.html")
        for line in path.read_text(encoding="utf-8").replace("{% raw", "\n{% raw").splitlines()
        if "{% raw" in line
    }

    assert raw == {"when", "before", "list_end", "after"}
    assert not any("autoescape" in path.read_text(encoding="utf-8") for path in OURS.glob("*.html"))
