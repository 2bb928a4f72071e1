"""A replication group that has become active-active: the record that is left of before names one region, and nothing is done by it."""

from __future__ import annotations

import pytest

from mrc.agent import adopting
from mrc.agent.adopting import Leaving
from mrc.core.errors import MrcError
from mrc.core.failover.findings import findings
from mrc.core.model import Region, TopicPartition
from mrc.sim.world import EAST, PRODUCER, WEST
from tests.sim.estate import Estate
from tests.sim.test_service import service

ORDERS = TopicPartition("orders", 0)


def become_active_active(estate: Estate) -> None:
    """Change the configuration, and start all agents by it."""
    estate.world.mode = "active-active"
    for region in (EAST, WEST):
        estate.restart(region)


def denies(estate: Estate, region: Region) -> int:
    return sum(one.permission == "deny" for one in estate.world.clusters[region].acls.bindings)


def write(estate: Estate, region: Region) -> None:
    estate.world.clusters[region].produce(PRODUCER, ORDERS, b"key", b"value")


def remove_denies(estate: Estate) -> None:
    for cluster in estate.world.clusters.values():
        cluster.acls.bindings = {one for one in cluster.acls.bindings if one.permission == "allow"}


@pytest.fixture
def estate() -> Estate:
    """East is open, and west refused its writers."""
    made = Estate(policy="default")
    made.settle()
    assert (denies(made, EAST), denies(made, WEST) > 0) == (0, True)
    return made


def test_agents_refuse_nobody_by_a_record_of_before_and_say_that_it_is_there(estate: Estate) -> None:
    become_active_active(estate)
    remove_denies(estate)
    estate.settle(200)
    for region in (EAST, WEST):
        assert denies(estate, region) == 0
        write(estate, region)
        found = [one for one in service(estate, region).status("orders").findings if one.code == "MODE_CHANGED"]
        assert [one.severity for one in found] == ["error"]
        assert "east" in found[0].message


def test_what_the_earlier_mode_has_refused_stays_until_the_group_is_given_back_and_then_both_regions_are_written(estate: Estate) -> None:
    before = denies(estate, WEST)
    become_active_active(estate)
    estate.settle(50)
    assert denies(estate, WEST) == before
    reached = estate.leader(EAST).coordinator.estate
    choice = Leaving(keep_connectors=True)
    plan = adopting.release_plan(reached, choice)
    assert plan.adoption is not None, plan.findings
    estate.world.clock.meanwhile = lambda: None  # applications of the simulation follow the record, which goes
    adopting.release(reached, plan.adoption, choice, lambda line: None, last=True)
    for _ in range(20):
        estate.world.clock.sleep(0.1)
        for agent in estate.agents.values():
            agent.pump()
    for region in (EAST, WEST):
        assert denies(estate, region) == 0
        write(estate, region)
        status = service(estate, region).status("orders")
        assert [one.code for one in status.findings if one.severity == "error"] == []
        assert {one.role for one in status.regions} == {"active"}


def test_a_move_that_was_under_way_goes_no_further(estate: Estate) -> None:
    estate.begin("switchover", WEST)
    estate.settle(2)
    become_active_active(estate)
    estate.settle(1)
    store = estate.leader(WEST).coordinator.estate.store
    execution, _ = store.current()
    assert execution
    before = (estate.end_state(), len(store.entries(execution)))
    estate.settle(300)
    assert (estate.end_state(), len(store.entries(execution))) == before


def test_nothing_is_committed_or_planned_by_it(estate: Estate) -> None:
    become_active_active(estate)
    estate.settle()
    with pytest.raises(MrcError) as refused:
        service(estate, WEST).apply_offsets("orders", "billing", dry_run=False)
    assert refused.value.code == "MODE_CHANGED"
    inventory = estate.leader(WEST).coordinator.observer.inventory()
    assert "MODE_NOT_SUPPORTED" in [one.code for one in findings(inventory, "switchover", WEST, attested=False)]
