"""An estate that ran without mrc becomes mrc's and is given back: nothing lost, nothing copied twice, wherever the command is killed."""

from __future__ import annotations

import pytest

from mrc.agent import adopting
from mrc.agent.adopting import Leaving, Report
from mrc.agent.estate import Estate as Reached
from mrc.agent.leadership import AgentNode, Leadership
from mrc.agent.store import Store
from mrc.core.errors import MrcError
from mrc.core.failover.adoption import Addresses
from mrc.core.inventory import Position
from mrc.core.model import ActiveRecord, Offset, Region, TopicPartition, decode
from mrc.ports import Binding
from mrc.sim.agents import REPLICATION_GROUP, contents, unit
from mrc.sim.kills import Killed, KillSwitch
from mrc.sim.replicator import MM2
from mrc.sim.world import CONSUMER, EAST, PRODUCER, WEST, World
from tests.sim.estate import BILLING, Estate

ADDRESSES = {region: Addresses(f"{region}:9092", f"{region}:9093") for region in (EAST, WEST)}
OLD, OURS, BACK = "mm2", "mrc.orders.east-west", "mrc.orders.west-east"
RECORD = f"/groups/{REPLICATION_GROUP}/record"


class Before:
    """An estate without mrc: one connector, ``.*``, over the unit's two topics and somebody else's; traffic that never ends."""

    def __init__(self, *, exactly_once: bool = False, old: str = OLD, others: bool = True) -> None:
        self.world = World({"orders": 2, "payments": 2}, exactly_once=exactly_once)
        self.topics = ["orders", "payments"]
        if others:
            self.topics.append("invoices")
            for region in (EAST, WEST):
                self.world.clusters[region].make_topic("invoices", 2)
                allowed = Binding("topic", "invoices", "literal", PRODUCER if region == EAST else MM2, "write", "allow")
                self.world.clusters[region].add_bindings([allowed])
        for replicator in self.world.replicators.values():
            replicator.connectors.clear()
            replicator.stop_takes_s = 0.3
        self.into_west = self.world.replicators[WEST]
        self.into_west.add(old, self.world.clusters[EAST], "identity", self.topics)
        config = self.into_west.connectors[old].config
        config |= {
            "topics": ".*" if others else "orders,payments",
            "sync.topic.acls.enabled": "true",
            "source.cluster.bootstrap.servers": "east:9093",
            "target.cluster.bootstrap.servers": "west:9092",
        }
        self.settings = dict(config)
        self.bindings = {region: cluster.bindings() for region, cluster in self.world.clusters.items()}
        self.written = 0
        self.world.clock.meanwhile = self.turn
        for _ in range(3):
            self.turn()

    def turn(self) -> None:
        """Write, and let every connector copy some of it."""
        for topic in self.topics:
            for partition in range(2):
                value = f"event-{self.written}".encode()
                self.written += 1
                self.world.clusters[EAST].produce(PRODUCER, TopicPartition(topic, partition), value, value)
        for name in list(self.into_west.connectors):
            self.into_west.copy(name, 3, flush=False)

    def reached(self, switch: KillSwitch | None = None) -> Reached:
        """Wire the command, anew each time, as a person starts it."""
        watch = switch.watch if switch else (lambda port: port)
        tree = watch(self.world.tree())
        return Reached(
            unit=unit(self.world),
            region=EAST,
            clusters={region: watch(cluster) for region, cluster in self.world.clusters.items()},
            replicators={region: watch(replicator) for region, replicator in self.world.replicators.items()},
            store=Store(tree, REPLICATION_GROUP),
            leadership=Leadership(tree, EAST, AgentNode("init", "", "sim")),
            clock=self.world.clock,
            hook=self.world.hook,
            super_users={EAST: (), WEST: ()},
        )

    def init(self, switch: KillSwitch | None = None, region: Region = EAST) -> Report:
        reached = self.reached(switch)
        plan = adopting.plan(reached, region, ADDRESSES)
        assert plan.adoption is not None, plan.findings
        return adopting.adopt(reached, plan.adoption, ADDRESSES, lambda line: None)

    def unmanage(self, switch: KillSwitch | None = None, choice: Leaving | None = None) -> Report:
        reached = self.reached(switch)
        plan = adopting.release_plan(reached, choice or Leaving())
        assert plan.adoption is not None, plan.findings
        return adopting.release(reached, plan.adoption, choice or Leaving(), lambda line: None, last=True)

    def drained(self) -> None:
        """Every connector copies all there is; then west has exactly what east has, in its order."""
        for name in self.into_west.connectors:
            self.into_west.copy(name)
        for topic in self.topics:
            for partition in range(2):
                tp = TopicPartition(topic, partition)
                assert contents(self.world, WEST, tp) == contents(self.world, EAST, tp), tp

    def adopted(self) -> None:
        record = decode(self.world.ensemble.nodes[RECORD].data, ActiveRecord)
        assert (record.region, record.state, record.epoch) == (EAST, "open", 1)
        assert {name: one.state for name, one in self.into_west.connectors.items()} == {OLD: "RUNNING", OURS: "RUNNING"}
        assert self.world.replicators[EAST].connectors[BACK].state == "STOPPED"
        for topic in ("orders", "payments"):
            assert not self.world.clusters[WEST].acls.allows(PRODUCER, "write", "topic", topic)
            assert self.world.clusters[EAST].acls.allows(PRODUCER, "write", "topic", topic)
        assert not self.world.clusters[WEST].acls.allows(CONSUMER, "read", "group", BILLING)

    def given_back(self) -> None:
        assert RECORD not in self.world.ensemble.nodes
        assert {name: one.state for name, one in self.into_west.connectors.items()} == {OLD: "RUNNING"}
        assert self.into_west.connectors[OLD].config == self.settings
        assert self.world.replicators[EAST].connectors == {}
        assert {region: cluster.bindings() for region, cluster in self.world.clusters.items()} == self.bindings


def acts(run: str) -> int:
    """Return how many acts the command has on an estate that nobody disturbs."""
    before, switch = Before(), KillSwitch()
    if run == "unmanage":
        before.init()
    switch.armed = True
    before.init(switch) if run == "init" else before.unmanage(switch)
    return len(switch.acts)


def test_a_connector_that_copies_more_is_split_and_nothing_is_lost_or_copied_twice() -> None:
    before = Before()
    report = before.init()
    before.adopted()
    assert 0 < report.paused_ms < 10_000
    assert report.unproved == ()
    assert report.fence.startswith("4 partitions: 4 refuse")
    before.turn()
    before.drained()


def test_an_estate_is_given_back_as_it_was() -> None:
    before = Before()
    before.world.clusters[WEST].commit_positions(BILLING, {TopicPartition("orders", 0): Position(Offset(1), "theirs")})
    before.init()
    before.turn()
    before.unmanage(choice=Leaving(remove_topics=True, remove_nodes=True))
    before.given_back()
    before.turn()
    before.drained()
    assert before.world.clusters[WEST].positions(BILLING) == {TopicPartition("orders", 0): Position(Offset(1), "theirs")}
    assert [path for path in before.world.ensemble.nodes if path.startswith("/groups/orders")] == []


@pytest.mark.parametrize("exactly_once", [False, True])
@pytest.mark.parametrize("run", ["init", "unmanage"])
def test_killed_at_every_act_the_same_command_goes_on(run: str, exactly_once: bool) -> None:
    count = acts(run)
    assert count > 12
    for at in range(count):
        for after in (False, True):
            before, switch = Before(exactly_once=exactly_once), KillSwitch(at, after=after)
            if run == "unmanage":
                before.init()
            switch.armed = True
            with pytest.raises(Killed):
                before.init(switch) if run == "init" else before.unmanage(switch)
            before.turn()
            if run == "init":
                if (at, after) != (count - 1, True):
                    before.init()
                before.adopted()
            else:
                if (at, after) != (count - 1, True):
                    before.unmanage()
                before.given_back()
            before.turn()
            before.drained()


def test_what_a_killed_task_has_copied_beyond_its_stored_position_is_not_copied_again() -> None:
    before = Before()
    before.into_west.copy(OLD, flush=True)
    before.world.clock.meanwhile = lambda: None
    before.turn()
    before.into_west.crash(OLD)
    before.into_west.connectors[OLD].state = "STOPPED"
    report = before.init()
    assert report.unproved == ()
    for topic in ("orders", "payments"):
        for partition in range(2):
            tp = TopicPartition(topic, partition)
            before.into_west.copy(OURS)
            assert contents(before.world, WEST, tp) == contents(before.world, EAST, tp)


def test_a_connector_that_copies_the_unit_alone_is_kept() -> None:
    before = Before(old=OURS, others=False)
    report = before.init()
    assert report.paused_ms == -1
    assert before.into_west.connectors.keys() == {OURS}
    assert before.into_west.connectors[OURS].config["sync.topic.acls.enabled"] == "false"
    before.turn()
    before.drained()
    before.unmanage()
    assert before.into_west.connectors[OURS].config == before.settings


def test_what_is_adopted_can_be_moved_and_given_back() -> None:
    """With agents and traffic that were there before the record was."""
    moves = Estate()
    moves.settle(5)
    into_west = moves.world.replicators[WEST]
    into_west.connectors[OLD] = into_west.connectors.pop(OURS)
    into_west.connectors[OLD].config["topics"] = ".*"
    moves.world.replicators[EAST].connectors.clear()
    before = object.__new__(Before)
    before.world, before.into_west = moves.world, into_west
    meanwhile = moves.world.clock.meanwhile
    moves.world.clock.meanwhile = lambda: pumped(moves)
    moves.world.ensemble.nodes.pop(RECORD)
    for name, cluster in moves.world.clusters.items():
        cluster.remove_bindings([one for one in cluster.bindings() if one.permission == "deny"])
        moves.world.ensemble.nodes.pop(f"/groups/{REPLICATION_GROUP}/fences/{name}", None)
    assert before.init().unproved == ()
    moves.world.clock.meanwhile = meanwhile
    moves.settle(20)
    for region in (WEST, EAST):
        assert moves.move("switchover", region).phase == "succeeded"
        moves.settle()
    moves.drain()
    assert moves.wrong() == []
    moves.world.clock.meanwhile = lambda: pumped(moves)
    before.unmanage()
    assert [one.state for one in into_west.connectors.values()] == ["RUNNING"]
    tp = TopicPartition("orders", 0)
    moves.world.clusters[EAST].produce(PRODUCER, tp, b"last", b"last")
    into_west.copy(OLD)
    assert contents(moves.world, WEST, tp) == contents(moves.world, EAST, tp)
    assert not [one for cluster in moves.world.clusters.values() for one in cluster.bindings() if one.permission == "deny"]


def pumped(moves: Estate) -> None:
    """Agents run on while a person's command waits; applications have nothing to follow."""
    for agent in moves.agents.values():
        agent.pump(move=False)


def test_under_the_default_policy_both_flows_end_up_with_connectors_of_the_unit() -> None:
    before = Before(others=False)
    world = World({"orders": 2}, policy="default")
    into_west = world.replicators[WEST]
    into_west.connectors[OLD] = into_west.connectors.pop(OURS)
    into_west.connectors[OLD].config["topics"] = "orders,others"
    for cluster in world.clusters.values():
        cluster.make_topic("others", 1)
    world.replicators[EAST].connectors.clear()
    before.world, before.into_west, before.topics = world, into_west, ["orders"]
    world.clock.meanwhile = before.turn
    before.turn()
    report = before.init()
    assert report.fence.startswith("2 partitions: 2 refuse")
    before.turn()
    into_west.copy(OURS)
    for partition in range(2):
        tp = TopicPartition("orders", partition)
        assert contents(world, WEST, TopicPartition("east.orders", partition)) == contents(world, EAST, tp)
    assert world.replicators[EAST].connectors[BACK].config["source.cluster.alias"] == "west"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda b: b.into_west.connectors.clear(), "ADOPTION_REFUSED", "no MirrorSourceConnector"),
        (lambda b: b.into_west.add("too", b.world.clusters[EAST], "identity", ["orders"]), "ADOPTION_REFUSED", "all copy topics of"),
        (lambda b: b.into_west.add(OURS, b.world.clusters[EAST], "identity", ["x"]), "ADOPTION_REFUSED", f"there is a connector {OURS}"),
        (lambda b: b.into_west.connectors[OLD].config.update(topics="orders"), "ADOPTION_REFUSED", "does not copy payments"),
        (
            lambda b: b.world.replicators[EAST].add("loop", b.world.clusters[WEST], "identity", ["orders"]),
            "ADOPTION_REFUSED",
            "both together loop",
        ),
        (lambda b: b.world.clusters[WEST].contents.pop("orders"), "UNKNOWN_TOPIC", "orders does not exist in west"),
        (
            lambda b: b.into_west.connectors.update({"east->west.MirrorSourceConnector": b.into_west.connectors.pop(OLD)}),
            "MANAGED_BY_OTHERS",
            "Strimzi",
        ),
        (
            lambda b: (b.into_west.connectors.clear(), b.world.clusters[WEST].make_topic("mm2-configs.east.internal", 1)),
            "MANAGED_BY_OTHERS",
            "dedicated mode",
        ),
        (
            lambda b: (
                b.into_west.add("checks", b.world.clusters[EAST], "identity", []),
                b.into_west.connectors["checks"].config.update(
                    {"connector.class": "x.MirrorCheckpointConnector", "sync.group.offsets.enabled": "true", "groups": ".*"}
                ),
            ),
            "ADOPTION_REFUSED",
            "commits for billing, shipping too",
        ),
    ],
)
def test_what_cannot_be_adopted_is_refused_and_nothing_is_changed(change: object, code: str, words: str) -> None:
    before, switch = Before(), KillSwitch()
    assert callable(change)
    change(before)
    switch.armed = True
    plan = adopting.plan(before.reached(switch), EAST, ADDRESSES)
    assert plan.adoption is None
    assert [f for f in plan.findings if f.severity == "error" and f.code == code and words in f.message], plan.findings
    assert switch.acts == []


def test_a_pattern_that_only_java_understands_is_refused() -> None:
    before = Before()
    before.into_west.connectors[OLD].config["topics"] = r"\p{Alpha}+"
    with pytest.raises(MrcError, match="cannot tell what the pattern matches"):
        adopting.plan(before.reached(), EAST, ADDRESSES)


def test_a_second_adoption_is_refused() -> None:
    before = Before()
    before.init()
    with pytest.raises(MrcError) as raised:
        before.init()
    assert raised.value.code == "ALREADY_ADOPTED"


def test_an_estate_that_was_given_back_is_adopted_again_in_a_later_epoch() -> None:
    before = Before()
    before.init()
    before.unmanage()
    before.init()
    record = decode(before.world.ensemble.nodes[RECORD].data, ActiveRecord)
    assert record.epoch == 2
    before.turn()
    before.drained()
