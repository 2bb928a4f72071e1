"""Two regions made of librdkafka's own in-process broker, and a record that a test turns by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer

from mrc.client import Place, Sighting
from mrc.core.model import ActiveRecord, Epoch, Region, RegionState

EAST = Region("east")
WEST = Region("west")


class Record:
    """The active-region record of a test."""

    def __init__(self) -> None:
        self._sighting = Sighting()

    def put(self, region: Region, state: RegionState, epoch: int) -> None:
        record = ActiveRecord(region, state, Epoch(epoch))
        self._sighting = Sighting(record, self._sighting.number + 1)

    def now(self) -> Sighting:
        return self._sighting


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def regions() -> Iterator[dict[Region, dict[str, str]]]:
    """Connection settings per region; the brokers live as long as the test."""
    keepers = {region: Producer({"test.mock.num.brokers": 1, "log_level": 0}) for region in (EAST, WEST)}
    made = {}
    for region, keeper in keepers.items():
        described = keeper.list_topics("orders", timeout=10)  # which makes the topic
        made[region] = {"bootstrap.servers": ",".join(f"{each.host}:{each.port}" for each in described.brokers.values()), "log_level": "0"}
    yield made
    for keeper in keepers.values():
        keeper.close()


@pytest.fixture
def dead() -> dict[Region, dict[str, str]]:
    """Regions where nobody answers."""
    return {region: {"bootstrap.servers": "127.0.0.1:9", "log_level": "0"} for region in (EAST, WEST)}


def place(region: Region, epoch: int) -> Place:
    return Place(region, Epoch(epoch))


def until(done: Callable[[], bool], step: Callable[[], object], tries: int = 400) -> None:
    """Repeat ``step``, which waits for a short while itself, until ``done``."""
    for _ in range(tries):
        if done():
            return
        step()
    pytest.fail("it did not come about")
