"""The cache of jars: where they cannot be had or kept, one sentence says so; whoever breaks off leaves nothing half done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrc.core.errors import MrcError
from mrc.sandbox import jars


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MRC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tools(folder: Path, monkeypatch: pytest.MonkeyPatch, maven: str = "") -> None:
    """Put a Java that does nothing first on the PATH, and a Maven that does as told."""
    for name, does in {"java": "", "mvn": maven}.items():
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools(tmp_path, monkeypatch)
    cache.write_text("a file where a folder should be")
    with pytest.raises(MrcError, match="MRC_CACHE") as refused:
        jars.fetch(lambda line: None)
    assert refused.value.code == "SANDBOX_FAILED"
    assert str(cache) in refused.value.where


def test_what_maven_says_is_passed_on_with_what_to_do(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools(tmp_path, monkeypatch, "echo '[ERROR] Connection refused'; exit 1")
    with pytest.raises(MrcError, match=r"reaches its repository, and run this again: \[ERROR\] Connection refused") as failed:
        jars.fetch(lambda line: None)
    assert failed.value.retryable
    assert list((cache / "jars").iterdir()) == []


def test_breaking_off_shows_no_traceback_and_leaves_no_folder(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools(tmp_path, monkeypatch, "kill -s INT $PPID; exec sleep 60")
    command = ["env", "--default-signal=INT", sys.executable, "-m", "mrc.sandbox", "jars"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 130
    assert done.stderr.splitlines()[1:] == ["interrupted"]
    assert list((cache / "jars").iterdir()) == []
