"""What tests on real servers share: one running sandbox per session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrc.sandbox.layout import Options
from mrc.sandbox.world import Sandbox

VARIANT = "exactly-once"
OPTIONS = Options(mm2_exactly_once=True)


@pytest.fixture(scope="session")
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A running sandbox: the one in ``MRC_SANDBOX_STATE``, else one of its own, which leaves its logs behind when a test failed."""
    running = os.environ.get("MRC_SANDBOX_STATE")
    if running:
        yield Sandbox(Path(running))
        return
    own = Sandbox(Path(__file__).parents[1] / "build" / "e2e" / VARIANT)
    own.down(wipe=True)
    own.up(OPTIONS)
    try:
        yield own
    finally:
        own.down(wipe=request.session.testsfailed == 0)
