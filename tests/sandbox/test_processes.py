"""Nothing that belongs to the sandbox escapes, nothing else is touched."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrc.core.errors import MrcError
from mrc.sandbox import processes

SLEEP = ["/bin/sleep", "300"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    processes.end(tmp_path, grace_s=0)


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def until_said(log: Path, word: str) -> None:
    deadline = time.monotonic() + 10
    while word not in log.read_text():
        assert time.monotonic() < deadline, f"{log} never said {word}"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_part_is_found_by_its_name_and_ends_by_it(folder: Path) -> None:
    one = processes.spawn(folder, "one", SLEEP, folder / "one.log")
    two = processes.spawn(folder, "two", SLEEP, folder / "two.log")
    assert {name: process.pid for name, process in processes.running(folder).items()} == {"one": one, "two": two}
    assert [ended.pid for ended in processes.end(folder, ["one"], grace_s=5)] == [one]
    assert (alive(one), alive(two)) == (False, True)


def test_what_a_part_prints_goes_to_its_log(folder: Path) -> None:
    log = folder / "logs" / "talker.log"
    processes.spawn(folder, "talker", shell("echo out; echo err >&2"), log)
    until_said(log, "out\nerr\n")


def test_a_lock_that_whoever_called_holds_is_not_handed_down(folder: Path) -> None:
    lock = folder / "lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        os.set_inheritable(held.fileno(), True)
        log = folder / "one.log"
        processes.spawn(folder, "one", shell("ls -l /proc/self/fd; echo listed; exec sleep 300"), log)
        until_said(log, "listed")
    assert str(lock) not in log.read_text()
    assert str(log) in log.read_text()
    with lock.open("w") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_who_ignores_the_request_is_killed_after_the_grace(folder: Path) -> None:
    log = folder / "deaf.log"
    pid = processes.spawn(folder, "deaf", shell("trap '' TERM; echo deaf; while :; do sleep 0.1; done"), log)
    until_said(log, "deaf")
    began = time.monotonic()
    processes.end(folder, ["deaf"], grace_s=0.3)
    assert not alive(pid)
    assert 0.3 <= time.monotonic() - began < 5


def test_children_end_with_their_part_and_are_not_taken_for_it(folder: Path) -> None:
    log = folder / "parent.log"
    parent = processes.spawn(folder, "parent", shell("sleep 300 & echo $!; wait"), log)
    until_said(log, "\n")
    child = int(log.read_text())
    assert processes.running(folder)["parent"].pid == parent
    processes.end(folder, ["parent"], grace_s=0)
    assert not alive(parent)
    assert not alive(child)


def test_a_pid_that_was_given_to_somebody_else_is_left_alone(folder: Path) -> None:
    stranger = subprocess.Popen(SLEEP)
    try:
        remembered = processes.Process("east-broker-1", stranger.pid, leads=True, rss_mb=0)
        assert processes._hold(remembered, folder) is None
        processes.end(folder, grace_s=0)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_another_sandboxs_part_of_the_same_name_is_left_alone(folder: Path, tmp_path: Path) -> None:
    neighbour = tmp_path / "neighbour"
    neighbour.mkdir()
    pid = processes.spawn(neighbour, "one", SLEEP, neighbour / "one.log")
    try:
        assert processes.end(folder, ["one"], grace_s=0) == []
        assert alive(pid)
    finally:
        processes.end(neighbour, grace_s=0)


def test_parts_outlive_whoever_started_them_and_are_found_all_the_same(folder: Path) -> None:
    starter = f"""
import os, signal
from pathlib import Path
from mrc.sandbox import processes
folder = Path({str(folder)!r})
processes.spawn(folder, "orphan", {SLEEP!r}, folder / "orphan.log")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", starter], env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=False)
    orphan = processes.running(folder)["orphan"].pid
    processes.end(folder, grace_s=5)
    assert not alive(orphan)


def test_a_program_that_is_not_there_is_an_error_with_its_part(folder: Path) -> None:
    with pytest.raises(MrcError, match="cannot start /nowhere/java") as refused:
        processes.spawn(folder, "east-broker-1", ["/nowhere/java"], folder / "x.log")
    assert refused.value.where == "east-broker-1"


def test_ending_what_does_not_run_is_harmless(folder: Path) -> None:
    assert processes.end(folder, ["one"], grace_s=5) == []
