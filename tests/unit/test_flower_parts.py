# SPDX-License-Identifier: Apache-2.0
"""The parts of the Flower pages that need no server: users, actions, saved searches, templates."""

import asyncio
import unicodedata
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flower.utils.search import QuerySyntaxError, TaskSearchEngine, parse_query
from hypothesis import given
from hypothesis import strategies as st
from tornado.options import OptionParser
from uuid6 import uuid7

from schemas.configuration import ConfigurationError
from schemas.print_jobs import IN_HAND, WAITING
from schemas.print_jobs import PrintState as State
from schemas.topology import ALL_TASKS, PRINT_SLIP, PROCESS_SCAN, RETRY_SLIP, SWEEP_PRINTS
from tasks.selection import Selection
from workers.flower.auth import PROXY_HEADER, Operators, basic_auth_name
from workers.flower.page import short_id, when
from workers.flower.saved_searches import SAVED_SEARCHES
from workers.flower.slip_actions import available_actions
from workers.flower.task_format import format_task
from workers.flower.task_table import HOUSEKEEPING_TASKS, without_housekeeping
from workers.flower.template_loader import TEMPLATES
from workers.flower.trouble import Trouble, TroubleCounter
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
    assert basic_auth_name(text, ["ann:x:y"]) is None
    assert basic_auth_name(f"Basic {text}", ["ann:x:y"]) in {None, "ann"}
    assert basic_auth_name(f"Basic {b64encode(b'ann:x:y').decode()}", ["zoë:ö", "ann:x:y"]) == "ann"


@given(st.text(min_size=1), st.text(min_size=1).filter(lambda name: ":" not in name), st.text())
def test_login_of_any_characters_is_verified_in_each_encoding(other, name, password):
    """UTF-8, Latin-1 where it has the characters, and decomposed accents are the same login; another one is none."""
    permitted = [f"{name}:{password}"]
    encoded = [permitted[0].encode(), unicodedata.normalize("NFD", permitted[0]).encode()]
    with suppress(UnicodeEncodeError):
        encoded.append(permitted[0].encode("latin-1"))

    names = [basic_auth_name(f"Basic {b64encode(each).decode()}", permitted) for each in encoded]
    wrong = basic_auth_name(f"Basic {b64encode((permitted[0] + other).encode()).decode()}", permitted)

    assert names == [name] * len(encoded)
    assert wrong is None


def test_name_and_secret_of_the_proxy_may_contain_any_characters():
    """Tornado decodes headers as Latin-1; bookdrop reads them as UTF-8 where that is valid."""
    operators = Operators(user_header="X-User", proxy_secret="schlüssel")
    name = "Zoë Łuk"

    def sent(text: str) -> str:
        return text.encode().decode("latin-1")

    assert operators.name_from_proxy({PROXY_HEADER: sent("schlüssel"), "X-User": sent(name)}) == name
    assert operators.name_from_proxy({PROXY_HEADER: "schl\xfcssel", "X-User": "Zo\xeb"}) == "Zoë"
    assert operators.name_from_proxy({PROXY_HEADER: "falsch", "X-User": sent(name)}) is None


def test_available_actions_follow_the_state():
    """A slip that may exist is never retried, an unsent one has no reprint, and a job in hand has no action."""
    names = {state: {action.name for action in available_actions(state)} for state in State}

    for state in State:
        if state in WAITING:
            assert names[state] == {"retry", "move", "cancel"}
        elif state in IN_HAND:
            assert names[state] == set()
        else:
            assert "retry" not in names[state]
            assert "reprint" in names[state]
    assert names[State.UNKNOWN] == {"printed", "reprint", "cancel"}
    assert {state for state in State if "cancel" in names[state]} == {*WAITING, State.UNKNOWN}
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


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", {PRINT_SLIP, "failed sweep"}),
        ("printing", {PRINT_SLIP, "failed sweep"}),
        ("state:SUCCESS", {PRINT_SLIP}),
        ("nothing-like-it", set()),
        ("name:print_slip OR result:nothing-like-it", {PRINT_SLIP}),
        ("sweep", {"sweep", "failed sweep"}),
        ("worker:housekeeping", {"sweep", "failed sweep"}),
        ("01a20aee-905b-70e3-bbdd-6f98a0bee5d1", {"sweep"}),
        (next(search.terms for search in SAVED_SEARCHES if "Housekeeping" in search.label), {"sweep", "failed sweep"}),
    ],
)
def test_sweeps_are_listed_only_if_a_search_asks_for_them(search, found):
    """Flower's own search engine with the restricted search: sweeps are hidden unless they failed or are asked for."""
    tasks = {
        "01a20aee-905b-70e3-bbdd-6f98a0bee5d1": ("sweep", SWEEP_PRINTS, "SUCCESS", "housekeeping@host"),
        "01a20aee-905b-70e3-bbdd-6f98a0bee5d2": ("failed sweep", SWEEP_PRINTS, "FAILURE", "housekeeping@host"),
        "01a20aee-905b-70e3-bbdd-6f98a0bee5d3": (PRINT_SLIP, PRINT_SLIP, "SUCCESS", "printing-main@host"),
    }
    engine = TaskSearchEngine()
    known = {
        task_id: SimpleNamespace(uuid=task_id, name=name, state=state, worker=worker, args="", kwargs="", result="")
        for task_id, (_, name, state, worker) in tasks.items()
    }
    engine.rebuild(known.items())

    page = engine.search(known, without_housekeeping(search))

    assert {tasks[task_id][0] for task_id in page.task_ids} == found
    assert page.total_count == 3


def test_invalid_search_stays_invalid():
    """The restriction does not hide an error of syntax from the user."""
    for search in ("NOT x", '"open', "ab", "-name:x"):
        with pytest.raises(QuerySyntaxError):
            parse_query(without_housekeeping(search))


def test_each_task_is_listed_or_belongs_to_housekeeping():
    """A new task that is not a sweep is listed by default."""
    restricted = without_housekeeping("")

    assert {name for name in ALL_TASKS if f"name:{name} " not in restricted} == HOUSEKEEPING_TASKS


def test_ids_are_shortened_from_their_random_end():
    """Ids of one second begin alike and are shown differently."""
    first, second = (str(uuid7()) for _ in range(2))

    assert first[:6] == second[:6]
    assert short_id(first) != short_id(second)
    assert first.endswith(short_id(first).removeprefix("…"))


def test_selection_of_slips_has_a_version_of_its_content():
    """Another slip, another order or another number gives another version."""
    one, two = uuid7(), uuid7()
    selections = [Selection((one, two), 2), Selection((two, one), 2), Selection((one,), 1), Selection((one, two), 3)]

    assert len({selection.version for selection in selections}) == len(selections)
    assert Selection((one, two), 2).version == selections[0].version


def test_count_is_reused_for_some_seconds_and_queried_once():
    """Requests at the same time share one query; a later one uses its result until it is too old."""
    now = 0.0
    queries = []

    async def use() -> list[Any]:
        counter = TroubleCounter(cast("Any", None), cast("Any", None), clock=lambda: now)

        def count() -> Trouble:
            queries.append(1)
            return Trouble(slips=len(queries), messages=0)

        counter._count = count  # type: ignore[method-assign]
        return [*await asyncio.gather(counter.latest(), counter.latest()), await counter.latest()]

    found = asyncio.run(use())

    assert (queries, {trouble.slips for trouble in found}) == ([1], {1})


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
