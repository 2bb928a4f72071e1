"""The example of the configuration is one, whole, and the runbook's beside it has the shape that it explains."""

from __future__ import annotations

from pathlib import Path

import msgspec
import yaml

from mrc.config import check
from mrc.config.settings import ReplicationGroup, Settings
from mrc.core.failover.runbook import Runbook
from tests.docs.reading import ROOT, blocks

FILES = ("secrets/mrc", "secrets/probe", "ca.pem", "tls/agent.pem", "tls/agent.key", "tls/ca.pem", "redirect.sh")


def examples() -> list[str]:
    return [block.text for block in blocks((ROOT / "docs" / "configuration.md").read_text()) if block.language == "yaml"]


def test_the_example_has_no_error(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o700)
    (tmp_path / "runbooks").mkdir()
    path = tmp_path / "mrc.yaml"
    path.write_text(examples()[0])
    assert check(path)[1] == ()


def test_the_example_names_every_key() -> None:
    written = yaml.safe_load(examples()[0])
    assert set(Settings.__struct_fields__) - {"base"} == set(written)
    assert set(ReplicationGroup.__struct_fields__) == set(written["replication_groups"][0])


def test_the_runbooks_example_has_the_right_shape() -> None:
    book = msgspec.convert(yaml.safe_load(examples()[1]), Runbook)
    assert [step.approval for step in book.steps] == [False, True]
