"""``mrc config check``: every error at once, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from mrc.cli.exits import Exit
from tests.cli.running import run
from tests.config.example import line_of, write_example


def test_a_good_file_is_said_to_be_good(tmp_path: Path) -> None:
    answer = run("config", "check", str(write_example(tmp_path)))
    assert (answer.returncode, answer.stderr) == (Exit.OK, "")
    assert "no errors" in answer.stdout


def test_every_error_is_listed_with_its_line(tmp_path: Path) -> None:
    path = write_example(tmp_path, {"polic": "polik", "rpo_s: 5": "rpo_s: x"})
    answer = run("config", "check", "-o", "json", str(path))
    checked = json.loads(answer.stdout)
    assert answer.returncode == Exit.FINDINGS
    assert not checked["ok"]
    assert [problem["line"] for problem in checked["problems"]][-2:] == [line_of("poliky", path), line_of("rpo_s", path)]
    table = run("config", "check", str(path), environment={"COLUMNS": "500"})
    assert table.returncode == Exit.FINDINGS
    for problem in checked["problems"]:
        assert problem["message"] in table.stdout
    assert yaml.safe_load(run("config", "check", "-o", "yaml", str(path)).stdout) == checked


def test_the_configuration_is_found_where_it_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / ".mrc-sandbox").mkdir()
    write_example(tmp_path / ".mrc-sandbox")
    assert ".mrc-sandbox/mrc.yaml" in run("config", "check", cwd=tmp_path).stdout
    write_example(tmp_path)
    assert run("config", "check", cwd=tmp_path).stdout == "mrc.yaml: no errors\n"
    other = tmp_path / "other"
    other.mkdir()
    elsewhere = write_example(other)
    assert str(elsewhere) in run("config", "check", cwd=tmp_path, environment={"MRC_CONFIG": str(elsewhere)}).stdout
    assert run("-c", "none.yaml", "config", "check", cwd=tmp_path, environment={"MRC_CONFIG": str(elsewhere)}).returncode == Exit.USAGE
