"""``mrc runbook``: files are listed, judged, and made into pages and drawings; what is wrong is named with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mrc.cli.exits import Exit
from mrc.core.failover import diagram
from tests.cli.running import run
from tests.config.example import write_example
from tests.docs.reading import ROOT

SWITCHOVER = ROOT / "runbooks" / "switchover.yaml"


@pytest.fixture
def config(tmp_path: Path) -> str:
    return str(write_example(tmp_path))


def changed(folder: Path, old: str, new: str) -> Path:
    text = SWITCHOVER.read_text()
    assert text.count(old) == 1
    path = folder / "mine.yaml"
    path.write_text(text.replace(old, new))
    return path


def line_of(path: Path, part: str) -> int:
    return 1 + next(n for n, line in enumerate(path.read_text().splitlines()) if part in line)


def test_the_runbooks_of_the_group_are_listed_and_have_no_fault(config: str) -> None:
    listed = json.loads(run("runbook", "list", "--config", config, "-o", "json").stdout)
    assert [row["runbook"] for row in listed] == ["failback", "failover", "fence", "rebuild", "switchover"]
    linted = run("runbook", "lint", "--config", config, "-o", "json")
    assert (linted.returncode, json.loads(linted.stdout)) == (Exit.OK, [])


def test_a_text_that_is_missing_is_a_fault_with_its_line(tmp_path: Path) -> None:
    path = changed(tmp_path, "    timeout_s: 120\n", "    timeout_s: 120\n    on_failure: go-on\n")
    path.write_text(
        path.read_text() + "  - {name: breathe, action: pause, parameters: {seconds: 5}, why: Why not., check: Look., risks: None.}\n"
    )
    linted = run("runbook", "lint", str(path), "-o", "json")
    assert linted.returncode == Exit.FINDINGS
    order, silent = json.loads(linted.stdout)
    assert order["where"] == f"{path}:{line_of(path, '- name: drain')} step drain"
    assert "stop-flow needs what drain gives" in order["message"]
    assert silent["where"] == f"{path}:{line_of(path, 'name: breathe')} step breathe"
    assert silent["message"] == "says nothing about by_hand"


def test_an_error_of_form_names_file_line_and_key(tmp_path: Path) -> None:
    path = changed(tmp_path, "    timeout_s: 120\n", "    timeout_s: 120\n    on_failure: retry\n")
    for command in ("lint", "render", "diagram", "show"):
        answer = run("runbook", command, str(path), "-o", "json")
        assert answer.returncode == Exit.USAGE
        error = json.loads(answer.stderr)["error"]
        assert (error["code"], error["where"]) == ("RUNBOOK_INVALID", f"{path}:{line_of(path, 'on_failure: retry')} steps[2].on_failure")


def test_a_page_is_made_of_a_name_or_a_file_on_stdout_or_in_a_file(config: str, tmp_path: Path) -> None:
    named = run("runbook", "render", "switchover", "--config", config)
    assert named.returncode == Exit.OK, named.stderr
    assert named.stdout.startswith("# Runbook switchover\n")
    assert "kafka-acls.sh" in named.stdout
    out = tmp_path / "page.md"
    written = run("runbook", "render", str(SWITCHOVER), "--out", str(out))
    assert (written.returncode, written.stdout) == (Exit.OK, "")
    assert out.read_text() == named.stdout
    assert json.loads(run("runbook", "render", str(SWITCHOVER), "-o", "json").stdout) == {"markdown": named.stdout}


def test_a_page_that_cannot_be_written_and_a_runbook_that_is_not_there_are_errors(config: str, tmp_path: Path) -> None:
    nowhere = run("runbook", "render", str(SWITCHOVER), "--out", str(tmp_path / "none" / "page.md"), "-o", "json")
    assert (nowhere.returncode, json.loads(nowhere.stderr)["error"]["code"]) == (Exit.USAGE, "BAD_REQUEST")
    unknown = run("runbook", "render", "rollback", "--config", config, "-o", "json")
    assert unknown.returncode == Exit.USAGE
    there_are = "there is no runbook 'rollback'; there are: failback, failover, fence, rebuild, switchover"
    assert there_are in json.loads(unknown.stderr)["error"]["message"]


def test_no_page_is_made_of_an_unsafe_order(tmp_path: Path) -> None:
    path = changed(tmp_path, "    action: drain\n", "    action: canary\n")
    for command in ("render", "diagram"):
        answer = run("runbook", command, str(path), "-o", "json")
        assert answer.returncode == Exit.USAGE
        assert json.loads(answer.stderr)["error"]["where"] == f"{path}:{line_of(path, '- name: drain')} step drain"


def test_a_runbook_or_the_machine_is_drawn_and_not_both(config: str) -> None:
    steps = run("runbook", "diagram", "failover", "--config", config)
    assert steps.stdout.startswith("flowchart TD\n")
    machine = run("runbook", "diagram", "--machine")
    assert machine.stdout == f"{diagram.machine()}\n"
    for words in ([], ["failover", "--machine"]):
        assert run("runbook", "diagram", *words).returncode == Exit.USAGE
