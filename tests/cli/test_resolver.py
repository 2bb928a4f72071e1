"""``mrc resolver run``: what it needs is asked for before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrc.cli.main import run
from tests.config.example import write_example
from tests.config.test_resolvable import ACTIVE, RULES

NAMED = {"    groups": "    rules: conflicts.yaml\n    groups"}


@pytest.mark.parametrize(
    ("changes", "rules", "region", "said"),
    [
        (ACTIVE, RULES, "east", "replication group orders names no conflict rules"),
        (ACTIVE | NAMED, RULES, "north", "north is not a region of orders; there are east, west"),
        (ACTIVE | NAMED, RULES.replace("detection: causal", "detection: window"), "east", "conflicts.yaml:8"),
        (ACTIVE | NAMED, RULES.replace("last_update_wins", "local_wins"), "east", "local_wins says another thing in every region"),
        (NAMED, RULES, "east", "active-passive has one region that is written"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, str], rules: str, region: str, said: str
) -> None:
    (tmp_path / "conflicts.yaml").write_text(rules)
    path = write_example(tmp_path, changes)
    assert run(["--config", str(path), "resolver", "run", "--region", region]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / ".mrc-resolver").exists()
