"""The cache of jars: where it cannot be kept, one sentence says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrc.core.errors import MrcError
from mrc.sandbox import jars


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("java", "mvn"):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    in_the_way = tmp_path / "cache"
    in_the_way.write_text("a file where a folder should be")
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("MRC_CACHE", str(in_the_way))
    with pytest.raises(MrcError, match="MRC_CACHE") as refused:
        jars.fetch(lambda line: None)
    assert refused.value.code == "SANDBOX_FAILED"
    assert str(in_the_way) in refused.value.where
