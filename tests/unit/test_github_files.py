# SPDX-License-Identifier: Apache-2.0
"""Files of .github/: structure, pinned actions, supported Pythons and existing targets."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yaml"
JOBS = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
STEPS = [(name, step) for name, job in JOBS.items() for step in job["steps"]]
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def test_workflow_reads_contents_only():
    """The token of a run may read the repository and nothing else."""
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))

    assert workflow["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in JOBS.values())


def test_workflow_runs_on_push_and_pull_request():
    """YAML 1.1 reads the key `on` as true; GitHub reads it as a string."""
    triggers = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))[True]

    assert set(triggers) == {"push", "pull_request", "workflow_dispatch"}


@pytest.mark.parametrize("job", JOBS)
def test_job_has_a_runner_and_a_time_limit(job):
    """A job without a time limit runs for up to six hours."""
    assert JOBS[job]["runs-on"] == "ubuntu-latest"
    assert 0 < JOBS[job]["timeout-minutes"] <= 90


@pytest.mark.parametrize(("job", "step"), STEPS)
def test_step_runs_a_command_or_uses_an_action(job, step):
    """Each step has exactly one of `run` and `uses`, as GitHub requires."""
    assert len({"run", "uses"} & set(step)) == 1, job


def test_actions_are_pinned_by_commit():
    """A tag can be moved; a full commit SHA cannot. The comment names the version for Dependabot."""
    lines = [line.strip() for line in WORKFLOW.read_text(encoding="utf-8").splitlines() if "uses:" in line]

    assert lines
    assert [line for line in lines if not PINNED.search(line)] == []


def test_matrix_has_the_supported_pythons():
    """The tested versions are those of the classifiers in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    supported = [text.rsplit(" ", 1)[1] for text in project["classifiers"] if text.startswith("Programming Language")]

    assert JOBS["python"]["strategy"]["matrix"]["python"] == supported


def test_commands_of_steps_exist():
    """A step runs a target of the Makefile or a script of the repository."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = [step["run"].split() for _, step in STEPS if "run" in step]

    assert {words[-1] for words in commands if words[0] == "make"} == {"audit", "lint", "test"} <= targets
    assert all((ROOT / words[1]).is_file() for words in commands if words[0] == "bash")


def test_dependency_updates_are_weekly_and_grouped():
    """Each ecosystem has one grouped update a week, and its folders exist."""
    config = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))

    assert config["version"] == 2
    assert {update["package-ecosystem"] for update in config["updates"]} == {"pip", "github-actions"}
    for update in config["updates"]:
        folders = update.get("directories", [update.get("directory")])
        assert all((ROOT / folder.strip("/")).is_dir() for folder in folders)
        assert update["schedule"] == {"interval": "weekly"}
        assert len(update["groups"]) == 1
