"""Each port's stage, in memory and real."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.cluster_stages import ClusterStage, FakeStage, RealStage
from tests.contract.replicator_stages import FakeFlow, FlowStage, RealFlow
from tests.contract.tree_stages import FakeEnsemble, RealEnsemble, TreeStage

BOTH = ("fake", pytest.param("real", marks=pytest.mark.server))


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
