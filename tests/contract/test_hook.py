"""The contract of `Hook`, on real commands."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from mrc.adapters.routing import CommandHook
from mrc.core.errors import MrcError
from tests.contract.waiting import eventually


def test_facts_arrive_as_json_on_standard_input_and_output_is_returned(tmp_path: Path) -> None:
    output = CommandHook(tmp_path).run([sys.executable, "-c", "import sys; print(sys.stdin.read())"], {"region": "west"}, 10)
    assert json.loads(output) == {"region": "west"}


def test_a_command_that_reads_nothing_is_fine(tmp_path: Path) -> None:
    assert CommandHook(tmp_path).run(["true"], {"region": "west" * 100_000}, 10) == ""


def test_a_failure_tells_the_last_line_of_standard_error(tmp_path: Path) -> None:
    with pytest.raises(MrcError, match="exit code 3: second") as raised:
        CommandHook(tmp_path).run(["sh", "-c", "echo first >&2; echo second >&2; exit 3"], {}, 10)
    assert raised.value.code == "HOOK_FAILED"


@pytest.mark.parametrize("argv", [[], ["./none"]])
def test_a_command_that_cannot_start_is_a_failure(tmp_path: Path, argv: list[str]) -> None:
    with pytest.raises(MrcError) as raised:
        CommandHook(tmp_path).run(argv, {}, 10)
    assert raised.value.code == "HOOK_FAILED"


def test_a_time_out_ends_the_command_and_its_children(tmp_path: Path) -> None:
    script = "sleep 60 & echo $! > child; wait"
    began_s = time.monotonic()
    with pytest.raises(MrcError) as raised:
        CommandHook(tmp_path).run(["sh", "-c", script], {}, 0.5)
    assert time.monotonic() - began_s < 5
    assert (raised.value.code, raised.value.retryable) == ("HOOK_FAILED", True)
    child = int((tmp_path / "child").read_text())
    # A killed child takes a moment to die, and is a zombie until its new parent collects it.
    state = Path(f"/proc/{child}/stat")
    eventually(lambda: None, lambda: not state.exists() or state.read_text().split()[2] == "Z", within_s=5)
