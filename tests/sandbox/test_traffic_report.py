"""What `mrc sandbox traffic report` shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from mrc.cli.traffic import read_moves, verdict_table
from mrc.core.errors import MrcError
from mrc.sandbox.judge import Move
from tests.sandbox.test_judge import planned


def test_the_table_has_a_row_per_move_and_one_for_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=200).print(verdict_table(planned().verdict()))
    shown = capsys.readouterr().out
    assert "switchover east to west" in shown
    assert "since then" in shown


def test_moves_are_read_as_they_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "moves.json"
    path.write_text('[{"kind": "failover", "from": "east", "to": "west", "accepted_at_ms": 5, "captured": {"billing": {"orders-0": 7}}}]')
    assert read_moves(path) == [Move("failover", "east", "west", 5, {"billing": {"orders-0": 7}})]
    assert read_moves(None) == []


def test_a_file_of_anything_else_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "moves.json"
    path.write_text('[{"kind": "failover"}]')
    with pytest.raises(MrcError) as refused:
        read_moves(path)
    assert (refused.value.code, refused.value.where) == ("BAD_REQUEST", str(path))
