"""``mrc config init`` on an estate that is there: what it sees is written, and loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mrc.cli.exits import Exit
from mrc.config import Settings, load
from mrc.sandbox.world import Sandbox
from tests.cli.running import run

pytestmark = pytest.mark.server


@pytest.fixture
def estate(sandbox: Sandbox) -> Settings:
    return load(sandbox.state.folder / "mrc.yaml")


def login(settings: Settings, password_file: Path | None = None) -> list[str]:
    security = settings.regions["east"].kafka.security
    assert security.mechanism is not None
    assert security.username is not None
    file = str(password_file or security.password_file)
    return ["--protocol", security.protocol, "--mechanism", security.mechanism, "--username", security.username, "--password-file", file]


def places(settings: Settings) -> list[str]:
    kafka = [f"--kafka={name}={region.kafka.bootstrap}" for name, region in settings.regions.items()]
    return kafka + [f"--connect={name}={region.connect.url}" for name, region in settings.regions.items()]


def test_what_an_existing_estate_shows_is_written_and_loads(estate: Settings, tmp_path: Path) -> None:
    path = tmp_path / "guessed.yaml"
    answer = run("config", "init", str(path), "-o", "json", *places(estate), *login(estate), "--zookeeper", estate.zookeeper.connect)
    assert answer.returncode == Exit.OK, answer.stderr
    assert json.loads(answer.stdout)["problems"] == []
    guessed, real = load(path).replication_group(), estate.replication_group()
    assert sorted(guessed.topics) == sorted(real.topics)
    assert guessed.policy == real.policy
    assert set(guessed.flows) == set(real.flows)
    assert guessed.principals.replicators == real.principals.replicators == ("User:mm2",)
    assert set(real.principals.writers) <= set(guessed.principals.writers)


def test_a_wrong_password_is_said_to_be_one(estate: Settings, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    answer = run("config", "init", str(tmp_path / "guessed.yaml"), *places(estate), *login(estate, wrong), "--timeout", "5")
    assert answer.returncode == Exit.WORLD
    assert "code: AUTHENTICATION_FAILED" in answer.stderr
