"""Metrics: what cannot be read has no value, neither 0 nor the one before."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from mrc.sim.world import EAST, WEST
from mrc.telemetry.metrics import ResolverCollector, StatusCollector
from tests.resolver.world import World
from tests.sim.estate import Estate
from tests.sim.test_service import service


def test_which_region_is_open_is_absent_while_the_record_cannot_be_read() -> None:
    estate = Estate()
    estate.settle()
    answers = service(estate, WEST)
    registry = CollectorRegistry()
    registry.register(StatusCollector(lambda: [answers.status("orders")], "west-a"))

    def opened() -> list[float | None]:
        return [registry.get_sample_value("mrc_region_open", {"group": "orders", "region": region}) for region in (EAST, WEST)]

    assert opened() == [1, 0]
    estate.world.ensemble.quorum = False
    assert opened() == [None, None]
    assert registry.get_sample_value("mrc_epoch", {"group": "orders"}) is None
    assert registry.get_sample_value("mrc_fence_proved", {"group": "orders", "region": WEST}) == 1
    estate.world.ensemble.quorum = True
    assert opened() == [1, 0]


def test_no_region_is_open_where_there_is_no_record() -> None:
    estate = Estate()
    estate.settle()
    answers = service(estate, WEST)
    estate.world.ensemble.nodes = {path: node for path, node in estate.world.ensemble.nodes.items() if not path.endswith("/record")}
    registry = CollectorRegistry()
    registry.register(StatusCollector(lambda: [answers.status("orders")], "west-a"))
    assert registry.get_sample_value("mrc_region_open", {"group": "orders", "region": EAST}) == 0


def test_a_resolver_tells_what_it_has_done_and_what_waits() -> None:
    world = World(3)
    region = world.regions[0]
    site = world.sites[region]
    for _ in range(6):
        world.write(region)
    for _ in range(4):
        site.tick()
    registry = CollectorRegistry()
    registry.register(ResolverCollector(lambda: site.resolvers.get("a"), region, "a"))
    place = {"region": region, "topic": "orders"}

    def waiting() -> float:
        return sum(registry.get_sample_value("mrc_resolver_pending_events", {**place, "partition": p}) or 0 for p in "01")

    def reached(origin: str) -> float | None:
        labels = {**place, "partition": "0", "origin": origin}
        return registry.get_sample_value("mrc_resolver_watermark_timestamp_seconds", labels)

    assert registry.get_sample_value("mrc_resolver_events_total", {"region": region}) == waiting() == 6
    assert reached(world.regions[1]) is None
    world.heal()
    assert waiting() == 0
    assert reached(world.regions[1]) is not None
    site.stop("a")
    assert registry.get_sample_value("mrc_resolver_events_total", {"region": region}) is None
