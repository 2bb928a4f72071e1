"""What others' failovers have fallen into, and settings under which a fence holds nobody: refused, or found in the middle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mrc.core.errors import MrcError
from mrc.core.failover.flows import FlowStart
from mrc.core.inventory import Binding
from mrc.core.model import Epoch, Flow, TopicPartition
from mrc.sim.cluster import FakeCluster
from mrc.sim.kills import Killed
from mrc.sim.world import EAST, PRODUCER, WEST
from tests.sim.estate import RUNBOOKS, Estate, settled
from tests.sim.test_service import service

ORDERS = TopicPartition("orders", 0)
FORWARD, BACK = "mrc.orders.east-west", "mrc.orders.west-east"


def _everyone(estate: Estate) -> None:
    estate.world.clusters[EAST].settings["allow.everyone.if.no.acl.found"] = "true"


def _no_authorizer(estate: Estate) -> None:
    del estate.world.clusters[EAST].settings["authorizer.class.name"]


def _super_user(estate: Estate) -> None:
    estate.world.clusters[EAST].settings["super.users"] = f"User:admin;{PRODUCER}"


def _wildcard(estate: Estate) -> None:
    estate.world.clusters[EAST].add_bindings([Binding("topic", "orders", "literal", "User:*", "write", "allow")])


def _acl_sync(estate: Estate) -> None:
    estate.world.replicators[WEST].connectors[FORWARD].config["sync.topic.acls.enabled"] = "true"


def _acl_sync_by_default(estate: Estate) -> None:
    del estate.world.replicators[WEST].connectors[FORWARD].config["sync.topic.acls.enabled"]


def _no_right_in_the_target(estate: Estate) -> None:
    cluster = estate.world.clusters[WEST]
    cluster.remove_bindings([Binding("topic", "orders", "literal", PRODUCER, "write", "allow")])


def _failed(estate: Estate) -> None:
    estate.world.replicators[WEST].connectors[FORWARD].trace = "org.apache.kafka.common.errors.RecordTooLargeException: 2000000 bytes"


def _any_time(estate: Estate) -> None:
    estate.world.clusters[EAST].contents["orders"].config["message.timestamp.type"] = "LogAppendTime"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_everyone, "EVERYONE_ALLOWED"),
        (_no_authorizer, "NO_AUTHORIZER"),
        (_super_user, "SUPER_USER"),
        (_wildcard, "WILDCARD_PRINCIPAL"),
        (_acl_sync, "ACL_SYNC_ON"),
        (_acl_sync_by_default, "ACL_SYNC_ON"),
        (_no_right_in_the_target, "WRITER_NOT_ALLOWED"),
        (_failed, "FLOW_NOT_RUNNING"),
        (_any_time, "PROBE_IMPOSSIBLE"),
    ],
)
def test_no_region_is_left_while_a_fence_would_not_hold_or_nobody_could_write_in_the_other(
    change: Callable[[Estate], None], code: str
) -> None:
    estate = settled()
    change(estate)
    estate.settle(3)
    before = denies(estate)
    answers = service(estate, WEST)
    found = answers.plan("orders", "switchover", WEST, attested=False, allow_data_loss=False).findings
    assert code in {one.code for one in found if one.severity == "error"}
    with pytest.raises(MrcError, match=code):
        answers.start("orders", "switchover", WEST, "token", "somebody", "", attested=False, allow_data_loss=False)
    estate.settle(3)
    assert (estate.applications.record().region, estate.applications.record().state) == (EAST, "open")
    assert denies(estate) == before


def test_a_flow_that_an_execution_has_left_held_is_named_with_the_execution_and_the_way_on() -> None:
    estate = settled()
    leader = estate.leader(WEST)
    flow, store = Flow(EAST, WEST), leader.coordinator.estate.store
    found = store.flow_start(flow)
    held = FlowStart(epoch=Epoch(1), positions={}, held=True, execution="1700000000017")
    store.put_flow_start(leader.leadership.check, flow, held, found[1] if found else None)
    estate.settle(20)
    plan = service(estate, WEST).plan("orders", "switchover", WEST, attested=False, allow_data_loss=False)
    (told,) = [one for one in plan.findings if one.code == "FLOW_NOT_RUNNING"]
    assert "execution 1700000000017 holds the flow" in told.message
    assert "a failback or a rebuild lets the flow go" in told.message


def denies(estate: Estate) -> set[Binding]:
    """Every refusal in both regions, but those of the fence at rest that a wildcard adds."""
    bindings = {one for cluster in estate.world.clusters.values() for one in cluster.acls.bindings}
    return {one for one in bindings if one.permission == "deny" and one.principal != "User:*"}


def test_with_everyone_allowed_the_first_refusal_on_a_topic_would_stop_mirrormaker_too() -> None:
    """Why that setting forbids a move."""
    cluster = FakeCluster("east", settled().world.clock)
    cluster.make_topic("orders", 1)
    cluster.acls.everyone_if_none = True
    assert cluster.lets_write("User:mm2", ORDERS)
    cluster.add_bindings([Binding("topic", "orders", "literal", PRODUCER, "write", "deny")])
    assert not cluster.lets_write("User:mm2", ORDERS)


def test_an_application_that_lost_its_right_in_the_middle_of_a_move_is_named_before_the_target_opens() -> None:
    estate = settled()
    right = Binding("topic", "orders", "literal", PRODUCER, "write", "allow")
    estate.begin("switchover", WEST)
    estate.until_step("release-groups")
    estate.world.clusters[WEST].remove_bindings([right])
    run = estate.until("waiting")
    assert run.waiting is not None
    assert (run.waiting.step, run.waiting.code) == ("open-target", "NOT_VERIFIED")
    assert f"{PRODUCER} on orders" in run.waiting.message
    assert (estate.applications.record().region, estate.applications.record().state) == (WEST, "closed")
    estate.world.clusters[WEST].add_bindings([right])
    assert estate.finish(WEST).phase == "succeeded"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_hook_whose_agent_dies_at_it_is_run_by_the_next_leader(tmp_path: Path, after: bool) -> None:
    file = tmp_path / "switchover.yaml"
    told = "  - {name: tell, action: command, parameters: {argv: [tell]}, timeout_s: 5, retries: 0}\n"
    file.write_text((RUNBOOKS / "switchover.yaml").read_text() + told)
    estate = settled()
    leader = estate.leader(WEST)
    leader.switch.armed = True
    estate.begin("switchover", WEST, runbook=file)
    estate.until_step("canary")
    died_at: list[str] = []
    act = leader.switch.act

    def die_at_run(name: str, do: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        if name == "run" and not died_at:
            died_at.append(name)
            if after:
                do(*args, **kwargs)
            leader.switch.dead = True
            raise Killed(name)
        return act(name, do, args, kwargs)

    leader.switch.act = die_at_run  # type: ignore[method-assign]
    run = estate.finish(WEST)
    assert run.phase == "succeeded"
    assert died_at == ["run"]
    assert not leader.alive
    assert len(estate.world.hook.runs) == 1 + after


def test_a_flow_that_would_begin_beyond_its_sources_end_is_not_started() -> None:
    """Connect would answer 200, and MirrorMaker copy everything again."""
    estate = settled()
    estate.lose(EAST)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    estate.producing = False
    store = estate.leader(WEST).coordinator.estate.store
    flow = estate.leader(WEST).coordinator.estate.inbound(EAST)
    found = store.flow_start(flow)
    assert found is not None
    start, version = found
    beyond = msgspec.structs.replace(start, positions={topic: tuple(p + 1_000 for p in at) for topic, at in start.positions.items()})
    store.put_flow_start(estate.leader(WEST).leadership.check, flow, beyond, version)
    before = estate.world.clusters[EAST].contents["orders"].logs[0].end
    estate.regain(EAST)
    estate.settle(60)
    assert estate.world.replicators[EAST].status(BACK).state == "STOPPED"
    assert estate.world.clusters[EAST].contents["orders"].logs[0].end == before
    coordinator = estate.leader(EAST).coordinator
    with pytest.raises(MrcError, match="beyond the end"):
        coordinator.flow_tick()
