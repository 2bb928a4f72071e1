"""What runs of the simulation rest on: virtual time, brokers that are late, logs that come back shorter, and judges that see."""

from __future__ import annotations

import pytest

from mrc.core.model import TopicPartition
from mrc.ports import Binding
from mrc.sim import checkers
from mrc.sim.clock import FakeClock
from mrc.sim.cluster import FakeCluster
from mrc.sim.kills import Killed
from mrc.sim.log import PartitionLog, Record
from mrc.sim.run import Simulation
from mrc.sim.scheduling import Process, Scheduler

DENY = Binding("topic", "orders", "literal", "User:probe", "write", "deny")
ALLOW = Binding("topic", "orders", "literal", "User:probe", "write", "allow")


def test_whoever_waits_lets_the_others_go_on_in_the_order_of_their_times() -> None:
    scheduler, seen = Scheduler(), list[tuple[float, str]]()

    def waits(name: str, seconds: float) -> None:
        for _ in range(2):
            scheduler.sleep(seconds)
            seen.append((scheduler.now_s, name))

    scheduler.at(0.0, lambda: waits("slow", 2.0))
    scheduler.at(0.5, lambda: waits("quick", 1.0))
    scheduler.at(2.0, lambda: seen.append((scheduler.now_s, "between")))
    scheduler.run(10.0)
    scheduler.close()
    assert seen == [(1.5, "quick"), (2.0, "between"), (2.0, "slow"), (2.5, "quick"), (4.0, "slow")]
    assert scheduler.now_s == 10.0


def test_a_paused_process_goes_on_later_and_a_dead_one_never() -> None:
    scheduler, seen = Scheduler(), list[str]()
    paused, dead = Process("paused"), Process("dead")

    def dies() -> None:
        try:
            scheduler.sleep(1.0, dead)
        except Killed:
            seen.append("killed")
            raise

    scheduler.at(0.0, dies, dead)
    scheduler.at(0.5, lambda: setattr(dead, "dead", True))
    scheduler.at(0.5, lambda: setattr(paused, "paused_until_s", 3.0))
    scheduler.at(1.0, lambda: seen.append(f"paused at {scheduler.now_s}"), paused)
    scheduler.run(5.0)
    scheduler.close()
    assert seen == ["killed", "paused at 3.0"]


def test_what_goes_wrong_in_an_act_ends_the_run() -> None:
    scheduler = Scheduler()
    scheduler.at(0.0, lambda: scheduler.sleep(5.0))

    def fails() -> None:
        raise ValueError

    scheduler.at(1.0, fails)
    with pytest.raises(ValueError, match=r"^$"):
        scheduler.run(10.0)
    scheduler.close()


def test_a_late_broker_learns_of_acls_in_their_order_and_unlearns_none() -> None:
    clock = FakeClock()
    cluster = FakeCluster("east", clock)
    cluster.make_topic("orders", 2)
    cluster.add_bindings({ALLOW})
    prompt, late = TopicPartition("orders", 0), TopicPartition("orders", 1)
    cluster.late_s[1] = 5.0
    cluster.add_bindings({DENY})
    assert cluster.probe([prompt, late]) == {prompt: "refused", late: "writable"}
    assert not cluster.up_to_date()
    clock.sleep(3.0)
    cluster.remove_bindings({DENY})
    assert cluster.probe([prompt, late]) == {prompt: "writable", late: "writable"}
    clock.sleep(3.0)
    assert cluster.probe([prompt, late]) == {prompt: "writable", late: "refused"}, "it has learned of the first change only"
    clock.sleep(3.0)
    assert cluster.probe([late]) == {late: "writable"}
    assert cluster.up_to_date()


def test_a_log_that_is_cut_ends_earlier_and_goes_on_from_there() -> None:
    log = PartitionLog()
    for n in range(5):
        log.append(Record(None, b"%d" % n, n))
    log.append(Record(None, b"open", 5), transaction=7)
    log.cut(3)
    assert (log.end, log.stable_end()) == (3, 3)
    assert not log.holds(3, b"3")
    assert log.append(Record(None, b"new", 9)) == 3
    assert checkers.values(log) == [b"0", b"1", b"2", b"new"]


@pytest.fixture
def simulation() -> Simulation:
    made = Simulation(3)
    assert made.run().violations == ()
    made.close()
    return made


def codes(simulation: Simulation) -> set[str]:
    evidence = simulation.evidence
    return {one.code for one in [*checkers.at_rest(evidence, list(simulation.consumers), 0.0), *checkers.order(evidence)]}


def test_the_judges_see_what_is_lost_skipped_and_not_as_the_record_wants_it(simulation: Simulation) -> None:
    active = simulation.record().region
    tp = simulation.world.tps()[0]
    log = simulation.world.clusters[active].log(tp)
    assert codes(simulation) == set()
    log.append(Record(None, b"nobody has read it", 1))
    assert codes(simulation) == {"SKIPPED", "NOT_AS_RECORDED"}
    log.cut(log.end - 2)
    assert codes(simulation) == {"LOST"}


def test_the_judges_see_a_fence_that_is_gone_and_two_open_regions(simulation: Simulation) -> None:
    evidence = simulation.evidence
    standby = next(region for region in simulation.world.clusters if region != simulation.record().region)
    simulation.world.clusters[standby].acls.bindings.clear()
    assert codes(simulation) == {"NOT_AS_RECORDED"}
    last = evidence.openings[-1]
    evidence.openings.append(checkers.Opening(10**9, 0.0, standby, "open", last.epoch, ""))
    assert "TWO_OPEN" in codes(simulation)
