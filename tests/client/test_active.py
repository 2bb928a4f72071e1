"""Following the record where ZooKeeper does not answer; with a real ensemble it is tried by the moves themselves."""

from __future__ import annotations

import threading
import time

import pytest

from mrc.client import ActiveRegion
from mrc.client.place import Sighting
from mrc.core.model import ActiveRecord, Region, RegionState, encode
from tests.client.conftest import EAST, WEST, place

NOBODY = "127.0.0.1:9"


@pytest.mark.parametrize(
    ("state", "opened", "coming"), [("open", place(WEST, 3), None), ("draining", None, None), ("closed", None, place(WEST, 3))]
)
def test_only_an_open_record_lets_applications_in(state: RegionState, opened: object, coming: object) -> None:
    sighting = Sighting(ActiveRecord(WEST, state, place(WEST, 3).epoch), 1)
    assert sighting.open_place == opened
    assert sighting.coming == coming
    assert Sighting().open_place is None


def test_without_zookeeper_nothing_is_guessed_and_the_trouble_has_a_date() -> None:
    with ActiveRegion(NOBODY, "orders", reread_s=0.05) as active:
        sighting = active.wait_beyond(0, 0.3)
        assert sighting.record is None
        assert sighting.failing_since_ms is not None
        first = sighting.failing_since_ms
        assert active.wait_beyond(0, 0.3).failing_since_ms == first


def test_closing_is_quick_and_wakes_whoever_waits() -> None:
    active = ActiveRegion(NOBODY, "orders")
    woken = threading.Event()

    def wait() -> None:
        active.wait_beyond(0, 30.0)
        woken.set()

    threading.Thread(target=wait, daemon=True).start()
    began_s = time.monotonic()
    active.close()
    active.close()
    assert woken.wait(2.0)
    assert time.monotonic() - began_s < 5.0


def test_an_older_or_garbled_record_changes_nothing() -> None:
    def as_json(region: Region, epoch: int) -> bytes:
        return encode(ActiveRecord(region, "open", place(region, epoch).epoch))

    with ActiveRegion(NOBODY, "orders") as active:
        active._succeeded(as_json(EAST, 1), 10)
        active._succeeded(as_json(WEST, 2), 20)
        active._succeeded(as_json(EAST, 1), 10)  # from a server that lags behind
        assert active.now().open_place == place(WEST, 2)
        active._succeeded(b"{}", 30)
        assert active.now().open_place == place(WEST, 2)
        assert active.now().number == 2
        assert "cannot be read" in active.now().trouble
