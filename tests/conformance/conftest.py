"""One run per variant; both write what came of them to build/conformance.json, of which the documentation's table is made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mrc.sandbox.world import Sandbox
from tests.conformance.case import VARIANTS, Variant
from tests.conformance.report import keep
from tests.conformance.running import Run, run
from tests.e2e.running import state


@pytest.fixture(scope="module")
def done(request: pytest.FixtureRequest) -> Iterator[Run]:
    """A variant's run; its sandbox lives until its last test is over."""
    variant: Variant = request.param
    sandbox = Sandbox(state(f"conformance-{variant}"))
    try:
        finished = run(variant, sandbox)
        keep(finished)
        yield finished
    finally:
        sandbox.down()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let all tests of one variant run before those of the next, so that each sandbox is made once."""
    at = [n for n, item in enumerate(items) if "done" in getattr(item, "fixturenames", ())]
    chosen = sorted((items[n] for n in at), key=lambda item: VARIANTS.index(item.callspec.params["done"]))  # type: ignore[attr-defined]
    for n, item in zip(at, chosen, strict=True):
        items[n] = item
