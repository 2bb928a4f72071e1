"""Each port's stage, in memory and real; one sandbox for all real ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrc.sandbox.layout import Options
from mrc.sandbox.world import Sandbox
from tests.contract.cluster_stages import ClusterStage, FakeStage, RealStage
from tests.contract.replicator_stages import FakeFlow, FlowStage, RealFlow
from tests.contract.tree_stages import FakeEnsemble, RealEnsemble, TreeStage

BOTH = ("fake", pytest.param("real", marks=pytest.mark.server))

VARIANT = "exactly-once"
OPTIONS = Options(mm2_exactly_once=True)


@pytest.fixture(scope="package")
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A running sandbox: the one in ``MRC_SANDBOX_STATE``, else one of its own, which leaves its logs behind when a test failed."""
    running = os.environ.get("MRC_SANDBOX_STATE")
    if running:
        yield Sandbox(Path(running))
        return
    own = Sandbox(Path(__file__).parents[2] / "build" / "e2e" / VARIANT)
    own.down(wipe=True)
    own.up(OPTIONS)
    try:
        yield own
    finally:
        own.down(wipe=request.session.testsfailed == 0)


@pytest.fixture(params=BOTH)
def stage(request: pytest.FixtureRequest) -> Iterator[ClusterStage]:
    if request.param == "fake":
        yield FakeStage()
        return
    real = RealStage(request.getfixturevalue("sandbox"))
    yield real
    real.close()


@pytest.fixture(params=BOTH)
def flow(request: pytest.FixtureRequest) -> Iterator[FlowStage]:
    if request.param == "fake":
        yield FakeFlow()
        return
    real = RealFlow(request.getfixturevalue("sandbox"))
    yield real
    real.close()


@pytest.fixture(params=BOTH)
def ensemble(request: pytest.FixtureRequest) -> Iterator[TreeStage]:
    if request.param == "fake":
        yield FakeEnsemble()
        return
    real = RealEnsemble(request.getfixturevalue("sandbox"))
    yield real
    real.close()
