"""``mrc config init``: writes once, asks politely, and leaves nothing behind where it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrc.cli.exits import Exit
from tests.cli.running import run

NOBODY = ["--kafka", "east=127.0.0.1:1", "--connect", "east=http://127.0.0.1:1"]
NOBODY_EITHER = ["--kafka", "west=127.0.0.1:1", "--connect", "west=http://127.0.0.1:1"]


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mrc.yaml"
    path.write_text("mine")
    answer = run("config", "init", str(path), *NOBODY, *NOBODY_EITHER)
    assert answer.returncode == Exit.USAGE
    assert "not overwritten" in answer.stderr
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    "arguments", [NOBODY, [*NOBODY, "--kafka", "west=127.0.0.1:1"], ["--kafka", "east", "--connect", "east=x"], ["--kafka", "east=x"]]
)
def test_regions_that_do_not_match_are_refused(arguments: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mrc.yaml"
    assert run("config", "init", str(path), *arguments).returncode == Exit.USAGE
    assert not path.exists()


def test_an_unreachable_cluster_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "mrc.yaml"
    answer = run("config", "init", str(path), *NOBODY, *NOBODY_EITHER, "--timeout", "1")
    assert answer.returncode == Exit.WORLD
    assert "code: CLUSTER_UNREACHABLE" in answer.stderr
    assert "where: east" in answer.stderr
    assert not path.exists()
