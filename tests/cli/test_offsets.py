"""``mrc offsets``: what is asked of the agents, what is shown, what is asked before anything is changed, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mrc.cli.exits import Exit
from mrc.cli.translating import LINE_BYTES_MAX, portions
from mrc.core.translation.positions import Place
from tests.cli.running import run
from tests.control.estate import Estate


def offsets(estate: Estate, *arguments: str, output: str = "json") -> subprocess.CompletedProcess[str]:
    return run("-o", output, "--config", str(estate.path), "offsets", *arguments)


def said(answer: subprocess.CompletedProcess[str]) -> Any:
    assert answer.stdout, answer.stderr
    return json.loads(answer.stdout)


def refused(answer: subprocess.CompletedProcess[str]) -> str:
    code: str = json.loads(answer.stderr[answer.stderr.index("{") :])["error"]["code"]
    return code


def typed(estate: Estate, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that asks, and type an answer."""
    return subprocess.run(
        [sys.executable, "-m", "mrc", "--config", str(estate.path), "offsets", *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        check=False,
    )


def calls(estate: Estate, begin: str) -> list[str]:
    return [call for agent in estate.agents.values() for call in agent.calls if call.startswith(begin)]


# ---------------------------------------------------------------- looking


def test_a_group_is_shown_with_every_partition_and_what_is_not_known_of_it(estate: Estate) -> None:
    rows = said(offsets(estate, "show", "billing"))
    assert [(row["partition"], row["safe_offset"]["type"]) for row in rows] == [(0, "known"), (99, "unknown")]
    shown = offsets(estate, "show", "billing", output="table").stdout.splitlines()
    assert shown[2].split() == ["orders-0", "east->west", "1234", "1240", "exact", "0.5", "1240"]
    assert shown[3].split() == ["orders-99", "east->west", "-", "?", "unknown:", "no-checkpoint", "0.5", "1240"]


def test_an_unknown_group_is_refused_with_its_code(estate: Estate) -> None:
    for arguments in (("show", "nobody"), ("explain", "nobody"), ("diff", "--group", "nobody"), ("apply", "--group", "nobody", "--yes")):
        answer = offsets(estate, *arguments)
        assert (refused(answer), answer.returncode) == ("UNKNOWN_GROUP", Exit.USAGE)


def test_an_explanation_sets_the_records_side_by_side_and_tells_mirrormakers_answer(estate: Estate) -> None:
    (one,) = said(offsets(estate, "explain", "billing"))
    assert one["mm2"]["rereads"]["value"] == 233
    shown = offsets(estate, "explain", "billing", "--topic", "orders", "--partition", "0", output="table").stdout
    for line in (
        "billing on orders-0: east 1240 -> west 1240, 0.5 s old",
        "MirrorMaker would answer 1007 by its sync 1000->1006, one of the 5 that it keeps: 233 records would be read again",
        "offset syncs (7 in mm2-offset-syncs.east.internal in west): at or below 1000->1006; above none",
    ):
        assert line in shown
    assert "the same record" in shown
    assert "trace=abc" in shown
    assert said(offsets(estate, "explain", "billing", "--partition", "7")) == []


@pytest.mark.parametrize(("committed", "verdict", "exit_code"), [(1240, "agrees", 0), (1000, "behind", 0), (1300, "beyond", 3)])
def test_a_position_beyond_the_answer_is_a_finding(estate: Estate, committed: int, verdict: str, exit_code: int) -> None:
    estate.world.committed["billing", "orders", 0] = committed
    answer = offsets(estate, "diff", "--group", "billing")
    (row,) = said(answer)
    assert (row["verdict"], answer.returncode) == (verdict, exit_code)
    shown = offsets(estate, "diff", output="table")
    assert shown.returncode == exit_code
    assert "1007 (for 1200)" in shown.stdout


def test_what_cannot_be_moved_is_a_list_and_no_judgement(estate: Estate) -> None:
    answer = offsets(estate, "unmovable")
    assert ([row["kind"] for row in said(answer)], answer.returncode) == (["not-configured"], Exit.OK)
    assert offsets(estate, "unmovable", output="table").stdout.splitlines()[2].split()[:3] == ["not-configured", "reports", "orders"]


# ---------------------------------------------------------------- translate


def lines(path: Path, *places: dict[str, object]) -> str:
    path.write_text("".join(f"{json.dumps(place)}\n" for place in places))
    return str(path)


def test_a_file_of_positions_is_answered_line_by_line_in_its_order(estate: Estate, tmp_path: Path) -> None:
    places = [{"region": "east", "topic": "orders", "partition": n % 3, "offset": n} for n in range(2500)]
    answer = offsets(estate, "translate", "--file", lines(tmp_path / "in.jsonl", *places))
    found = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [(one["partition"], one["offset"], one["translation"]["offset"]) for one in found] == [(n % 3, n, n + 6) for n in range(2500)]
    assert (answer.returncode, answer.stderr) == (Exit.OK, "")
    assert calls(estate, "translate") == ["translate 1000", "translate 1000", "translate 500"]


def test_a_position_without_an_answer_is_a_finding_and_the_others_are_answered(estate: Estate, tmp_path: Path) -> None:
    path = lines(
        tmp_path / "in.jsonl",
        {"region": "east", "topic": "orders", "partition": 0, "offset": 20_000},
        {"region": "east", "topic": "orders", "partition": 0, "offset": 7},
    )
    answer = offsets(estate, "translate", "--file", path, output="table")
    assert answer.returncode == Exit.FINDINGS
    assert "1 of 2 positions have no answer" in answer.stderr
    rows = [line.split() for line in answer.stdout.splitlines()[2:]]
    assert [row[2:4] for row in rows] == [["20000", "?"], ["7", "13"]]
    assert [one["offset"] for one in yaml.safe_load(offsets(estate, "translate", "--file", path, output="yaml").stdout)] == [
        20_000,
        7,
    ]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        '{"region": "east", "topic": "orders", "partition": 0}',
        '{"region": "east", "topic": "orders", "partition": 0, "offset": -1}',
        '{"region": "east", "topic": "orders", "partition": 0, "offset": 1.5}',
        '{"region": "east", "topic": "orders", "partition": 0, "offset": 1, "colour": 1}',
        '{"region": "east", "topic": "or\\u0000ders", "partition": 0, "offset": 1}',
        '{"region": "east", "topic": "", "partition": 0, "offset": 1}',
        "x" * LINE_BYTES_MAX,
    ],
)
def test_a_line_that_is_no_position_is_named_before_anything_is_asked(estate: Estate, tmp_path: Path, line: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"region": "east", "topic": "orders", "partition": 0, "offset": 1}\n\n' + line + "\n")
    answer = offsets(estate, "translate", "--file", str(path))
    assert (refused(answer), answer.returncode, answer.stdout) == ("BAD_REQUEST", Exit.USAGE, "")
    assert f"{path}:3" in answer.stderr
    assert calls(estate, "translate") == []


def test_one_offset_or_a_file_and_not_both_or_half_of_it(estate: Estate, tmp_path: Path) -> None:
    path = lines(tmp_path / "in.jsonl")
    assert said(offsets(estate, "translate", "--from", "east", "--topic", "orders", "--partition", "0", "--offset", "7"))["offset"] == 13
    for arguments in ((), ("--from", "east", "--topic", "orders"), ("--file", path, "--offset", "0"), ("--file", str(tmp_path / "none"))):
        assert offsets(estate, "translate", *arguments).returncode == Exit.USAGE
    assert offsets(estate, "translate", "--file", path).stdout == ""


def test_portions_fit_into_a_request_and_lose_nothing() -> None:
    places = [Place("east", "t" * 249 if n % 3 else "t", n, n) for n in range(5_000)]
    batches = list(portions(places))
    assert [place for batch in batches for place in batch] == places
    assert max(map(len, batches)) <= 1000
    assert max(sum(len(p.region) + len(p.topic) + 24 for p in batch) for batch in batches) < 64 * 1024
    assert list(portions([])) == []


# ---------------------------------------------------------------- export, import


@pytest.fixture
def exported(estate: Estate, tmp_path: Path) -> Path:
    path = tmp_path / "positions.json"
    answer = offsets(estate, "export", str(path))
    assert answer.returncode == Exit.FINDINGS  # a partition without an answer is left out
    assert answer.stderr.splitlines() == ["left out: billing orders-99: no-position", "left out: shipping payments-99: no-position"]
    assert said(answer)["positions"] == {"billing": 1, "shipping": 1}
    return path


def test_a_file_holds_the_positions_with_epoch_source_target_and_metadata(exported: Path) -> None:
    file = json.loads(exported.read_text())
    assert (file["version"], file["source"], file["target"], file["epoch"], file["via"]) == (1, "east", "west", 3, "agents")
    assert file["positions"][0] | {"age_s": 0} == {
        "group": "billing",
        "topic": "orders",
        "partition": 0,
        "offset": 1240,
        "metadata": "meta",
        "source_topic": "orders",
        "source_offset": 1234,
        "evidence": "exact",
        "repeats_max": 0,
        "age_s": 0,
    }
    assert [path.name for path in exported.parent.glob(".positions*")] == []


def test_a_file_that_is_there_is_not_overwritten_unasked(estate: Estate, exported: Path) -> None:
    before = exported.read_bytes()
    assert offsets(estate, "export", str(exported)).returncode == Exit.USAGE
    assert exported.read_bytes() == before
    answer = offsets(estate, "export", "--csv", "--force", "--group", "billing", str(exported))
    assert said(answer)["positions"] == {"billing": 1}
    assert exported.read_text() == "billing,orders,0,1240\n"
    nowhere = offsets(estate, "export", str(exported.parent / "none" / "file"))
    assert (refused(nowhere), nowhere.returncode) == ("BAD_REQUEST", Exit.USAGE)


def test_reading_directly_needs_the_region_named(estate: Estate, tmp_path: Path) -> None:
    for arguments in (("--direct",), ("--region", "west")):
        assert offsets(estate, "export", *arguments, str(tmp_path / "f")).returncode == Exit.USAGE
    answer = offsets(estate, "export", "--direct", "--region", "north", str(tmp_path / "f"))
    assert (refused(answer), answer.returncode) == ("UNKNOWN_REGION", Exit.USAGE)


def test_an_import_shows_before_and_after_and_commits_when_the_regions_name_is_typed(estate: Estate, exported: Path) -> None:
    answer = typed(estate, "west\n", "import", str(exported))
    assert answer.returncode == Exit.OK, answer.stderr
    assert "type west to commit 2 positions in west" in answer.stderr
    first, second = (answer.stdout.splitlines()[index].split() for index in (2, 6))
    assert first == ["billing", "orders-0", "1200", "1240", "+40", "-", "-"]
    assert second == ["billing", "orders-0", "1200", "1240", "+40", "1240", "-"]
    assert estate.world.committed == {("billing", "orders", 0): 1240, ("shipping", "payments", 3): 1240}


def test_another_name_changes_nothing(estate: Estate, exported: Path) -> None:
    answer = typed(estate, "east\n", "import", str(exported))
    assert answer.returncode == Exit.USAGE
    assert "nothing was changed" in answer.stderr
    assert (estate.world.committed, calls(estate, "commit billing 1 False")) == ({}, [])


def test_a_dry_run_shows_and_changes_nothing(estate: Estate, exported: Path) -> None:
    rows = said(offsets(estate, "import", "--dry-run", str(exported)))
    assert {row["after"]["reason"] for row in rows} == {"not-committed"}
    assert said(offsets(estate, "apply", "--group", "billing", "--dry-run"))[0]["wanted"]["value"] == 1240
    assert estate.world.committed == {}


def test_one_group_with_members_keeps_the_others_from_being_committed_too(estate: Estate, exported: Path) -> None:
    estate.world.with_members.add("shipping")
    answer = offsets(estate, "import", "--yes", str(exported))
    assert (refused(answer), answer.returncode) == ("GROUP_HAS_MEMBERS", Exit.WORLD)
    assert estate.world.committed == {}
    assert offsets(estate, "import", "--yes", "--group", "billing", str(exported)).returncode == Exit.OK
    assert estate.world.committed == {("billing", "orders", 0): 1240}


@pytest.mark.parametrize(
    ("change", "arguments", "code", "exit_code"),
    [
        ({"epoch": 2}, (), "POSITIONS_STALE", Exit.USAGE),
        ({"replication_group": "others"}, (), "POSITIONS_INVALID", Exit.USAGE),
        ({"positions": []}, (), "POSITIONS_INVALID", Exit.USAGE),
        ({"version": 9}, (), "POSITIONS_INVALID", Exit.USAGE),
        ({}, ("--region", "east"), "POSITIONS_INVALID", Exit.USAGE),
        ({}, ("--group", "nobody"), "UNKNOWN_GROUP", Exit.USAGE),
        ({"target": "north"}, (), "UNKNOWN_REGION", Exit.USAGE),
    ],
)
def test_a_file_that_cannot_be_right_is_refused_and_nothing_is_committed(
    estate: Estate, exported: Path, change: dict[str, object], arguments: tuple[str, ...], code: str, exit_code: int
) -> None:
    exported.write_text(json.dumps({**json.loads(exported.read_text()), **change}))
    answer = offsets(estate, "import", "--yes", *arguments, str(exported))
    assert (refused(answer), answer.returncode) == (code, exit_code)
    assert estate.world.committed == {}


def test_many_positions_with_metadata_are_committed_in_portions(estate: Estate, exported: Path) -> None:
    file = json.loads(exported.read_text())
    one = next(row for row in file["positions"] if row["group"] == "billing")
    file["positions"] = [{**one, "partition": n, "metadata": "m" * 2000} for n in range(60)]
    exported.write_text(json.dumps(file))
    answer = offsets(estate, "import", "--yes", str(exported))
    assert answer.returncode == Exit.OK, answer.stderr
    assert [row["partition"] for row in said(answer)] == list(range(60))
    assert len(calls(estate, "commit billing")) > 4


# ---------------------------------------------------------------- apply, forget


def test_answers_are_applied_once_they_were_shown_and_agreed_to(estate: Estate) -> None:
    answer = typed(estate, "west\n", "apply", "--group", "billing")
    assert answer.returncode == Exit.OK, answer.stderr
    assert estate.world.committed == {("billing", "orders", 0): 1240}
    assert typed(estate, "\n", "apply", "--group", "billing").returncode == Exit.USAGE
    estate.world.with_members.add("billing")
    answer = offsets(estate, "apply", "--group", "billing", "--yes")
    assert (refused(answer), answer.returncode) == ("GROUP_HAS_MEMBERS", Exit.WORLD)


def test_checkpoints_are_forgotten_once_the_groups_name_is_typed(estate: Estate) -> None:
    asked = typed(estate, "billing\n", "forget", "--group", "shipping")
    assert asked.returncode == Exit.USAGE
    assert calls(estate, "forget") == ["forget True"]
    done = typed(estate, "shipping\n", "forget", "--group", "shipping")
    assert done.returncode == Exit.OK, done.stderr
    assert "type shipping to delete its 1 checkpoints in west" in done.stderr
    assert calls(estate, "forget") == ["forget True", "forget True", "forget False"]
    assert said(offsets(estate, "forget", "--group", "shipping", "--dry-run"))[0]["forgotten"] is False


def test_a_group_that_still_has_positions_is_not_forgotten(estate: Estate) -> None:
    answer = offsets(estate, "forget", "--group", "billing", "--yes")
    assert (refused(answer), answer.returncode) == ("GROUP_HAS_POSITIONS", Exit.USAGE)
