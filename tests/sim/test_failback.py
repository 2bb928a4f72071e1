"""Going home after a failover: every divergent record is exported once and has one fate, wherever an agent is killed."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mrc.core.errors import MrcError
from mrc.core.failover.execution import AbortAsked, Approved, Run
from mrc.core.failover.ledger import Ledger
from mrc.core.inventory import Recovery
from mrc.core.model import Flow, Offset, Region, TopicPartition
from mrc.ports import Emitted
from mrc.sim.agents import contents
from mrc.sim.emitter import FakeEmitter
from mrc.sim.log import Record as Stored
from mrc.sim.world import EAST, PRODUCER, WEST, other
from tests.sim.estate import BILLING, SHIPPING, Estate
from tests.sim.test_accidents import start
from tests.sim.test_service import service

ORDERS = TopicPartition("orders", 0)


def fail_over_from(estate: Estate, region: Region) -> None:
    """A region dies with a record on each partition that the other one never gets."""
    estate.settle()
    estate.producing = estate.replicating = False
    for tp in estate.world.tps():
        estate.world.clusters[region].produce(PRODUCER, tp, b"k", f"only in {region}: {tp}".encode())
    estate.lose(region)
    assert estate.move("failover", other(region), attested=True).phase == "succeeded"
    estate.producing = estate.replicating = True


def failed_over(policy: str = "quarantine", old_log: str = "keep", *, exactly_once: bool = False, rate: int = 5_000) -> Estate:
    """East dies with records that west never gets, two of them of one key; west takes writes, one of them of that key."""
    estate = Estate(exactly_once=exactly_once, recovery=Recovery(policy, {}, old_log, rate))
    estate.settle()
    estate.replicating = False
    estate.round()
    for value in (b"old", b"older"):
        estate.world.clusters[EAST].produce(PRODUCER, ORDERS, b"overlap", value)
    estate.producing = False
    estate.lose(EAST)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    estate.world.clusters[WEST].produce(PRODUCER, ORDERS, b"overlap", b"new")
    estate.replicating = estate.producing = True
    estate.settle()
    return estate


def only_in(estate: Estate) -> dict[TopicPartition, list[bytes]]:
    """What east alone holds, by the logs themselves; call it before anything is recovered."""
    estate.world.clusters[EAST].reachable = True
    return {
        tp: [value for value in contents(estate.world, EAST, tp) if value not in set(contents(estate.world, WEST, tp))]
        for tp in estate.world.tps()
    }


def recovered(estate: Estate) -> dict[TopicPartition, list[bytes]]:
    """What stands in the recovered topics."""
    west = estate.world.clusters[WEST]
    return {
        tp: contents(estate.world, WEST, TopicPartition(name, tp.partition))
        for tp in estate.world.tps()
        if (name := f"mrc.recovered.{tp.topic}") in west.contents
    }


def ledger_of(estate: Estate) -> Ledger:
    agent = next(agent for agent in estate.agents.values() if agent.alive)
    ((found, _),) = agent.coordinator.estate.store.ledgers()
    return found


def go_home(estate: Estate) -> Run:
    estate.settle(5)
    run = estate.move("failback", EAST)
    assert run.phase == "succeeded", run.waiting
    return run


@pytest.mark.parametrize(
    ("policy", "old_log", "exactly_once"),
    [("quarantine", "keep", False), ("append", "recreate", True), ("untouched", "keep", True), ("untouched", "recreate", False)],
)
def test_every_divergent_record_has_the_fate_that_its_policy_says(policy: str, old_log: str, exactly_once: bool) -> None:
    estate = failed_over(policy, old_log, exactly_once=exactly_once)
    tail = only_in(estate)
    assert sum(map(len, tail.values())) > 5
    estate.regain(EAST)
    go_home(estate)
    estate.settle()
    estate.drain()

    ledger = ledger_of(estate)
    for account in ledger.accounts:
        assert account.unexplained == 0
        assert len(account.superseded_by) == account.superseded
        for one in account.superseded_by:
            stands = estate.world.clusters[WEST].records(TopicPartition(account.topic, one.by_partition), Offset(one.by_offset), 1)
            assert (stands[0].offset, stands[0].key, stands[0].value) == (one.by_offset, b"overlap", b"new")
    assert {tp: values for tp, values in recovered(estate).items() if values} == {tp: values for tp, values in tail.items() if values}
    again = {tp: [value for value in contents(estate.world, WEST, tp) if value in set(tail[tp]) - {b"new"}] for tp in estate.world.tps()}
    untouched = {tp: [value for value in values if value not in (b"old", b"older")] for tp, values in tail.items()}
    assert again == {"quarantine": {tp: [] for tp in tail}, "append": tail, "untouched": untouched}[policy]
    sums = {TopicPartition(a.topic, a.partition): (a.divergent, a.emitted, a.superseded, a.quarantined) for a in ledger.accounts}
    for tp, values in tail.items():
        if values:
            emitted = len(again[tp])
            superseded = 2 if policy == "untouched" and tp == ORDERS else 0
            assert sums[tp] == (len(values), emitted, superseded, len(values) - emitted - superseded)
    # Home: east holds all that west has, in its order, and its old tail in front or not at all.
    for tp in estate.world.tps():
        west, east = contents(estate.world, WEST, tp), contents(estate.world, EAST, tp)
        if old_log == "recreate":
            assert east == west
        else:
            behind = list(east)
            for value in tail[tp]:
                behind.remove(value)  # the first one: the tail's own
            assert sorted(behind) == sorted(west)
        for group, processed in estate.applications.processed.items():
            assert set(west) <= set(processed), f"{group} skipped"
    assert ledger.state == ("renewed" if old_log == "recreate" and ledger.divergent else "listed")
    if policy == "quarantine":
        # The group that was past the divergence point in east is not led back in front of the tail.
        assert all(estate.applications.processed[BILLING].count(value) <= 1 for values in tail.values() for value in values)


def anchors_in_the_east(estate: Estate) -> list[tuple[int, int]]:
    capture = estate.leader(EAST).coordinator.capture
    return [anchor for pair in capture._alignment.pairs.values() for anchor in pair.known.anchors]


def test_a_map_forgets_where_a_tail_was_as_soon_as_the_ledger_does() -> None:
    estate = failed_over()
    estate.regain(EAST)
    estate.settle(40)
    assert anchors_in_the_east(estate)
    leader = estate.leader(EAST)
    ((ledger, version),) = leader.coordinator.estate.store.ledgers()
    leader.coordinator.estate.store.put_ledger(leader.leadership.check, replace(ledger, state="renewed"), version)
    estate.settle(40)
    assert anchors_in_the_east(estate) == []


def test_what_an_earlier_failover_to_a_region_noted_of_its_log_is_closed_when_that_is_made_anew() -> None:
    estate = Estate(recovery=Recovery("append", {}, "recreate"))
    estate.settle()
    assert estate.move("switchover", WEST).phase == "succeeded"
    fail_over_from(estate, WEST)  # its ledger's places are in the east's log, which goes when the unit goes home
    estate.regain(WEST)
    estate.settle(40)
    fail_over_from(estate, EAST)
    estate.producing = False
    for tp in estate.world.tps():  # so that the east's new log is much shorter than its old one
        log = estate.world.clusters[WEST].log(tp)
        log.trim(log.end - 2)
    estate.regain(EAST)
    estate.settle(40)
    store = estate.leader(EAST).coordinator.estate.store
    assert [(ledger.region, ledger.state) for ledger, _ in store.ledgers()] == [(WEST, "listed"), (EAST, "listed")]
    go_home(estate)
    estate.settle()
    estate.drain()
    assert [ledger.state for ledger, _ in store.ledgers()] == ["copied", "renewed"]
    for tp in estate.world.tps():
        west = contents(estate.world, WEST, tp)
        assert contents(estate.world, EAST, tp) == west
        for group, processed in estate.applications.processed.items():
            assert set(west) <= set(processed), f"{group} skipped"


def about_to_go_home(tailed: tuple[str, ...] = ("orders", "payments"), *, flow_hangs: bool = False) -> Estate:
    """East comes back with tails on one partition of each of these topics; nothing else goes on meanwhile.

    A flow into it that hangs has tasks that do not end, so nobody can set it.
    """
    estate = Estate(recovery=Recovery("append", {}, "recreate"))
    estate.settle()
    estate.producing = False
    estate.settle(5)
    estate.replicating = False
    for n in range(8):
        estate.world.clusters[EAST].produce(PRODUCER, TopicPartition(tailed[n % len(tailed)], 1), b"k", f"tail-{n}".encode())
    estate.lose(EAST)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    estate.world.clusters[WEST].produce(PRODUCER, ORDERS, b"k", b"new")
    if flow_hangs:
        estate.world.replicators[EAST].connectors["mrc.orders.west-east"].tasks_until_s = float("inf")
    estate.replicating = not flow_hangs
    estate.regain(EAST)
    estate.settle(30)
    return estate


def acts_before_the_fence(estate: Estate) -> list[str]:
    """Begin a failback, and return its acts up to the fence."""
    switch = estate.leader(EAST).switch
    switch.armed = True
    estate.begin("failback", EAST)
    for _ in range(400):
        estate.round()
        run = estate.run_of(EAST)
        if run is not None and run.phase == "doing" and run.step.name == "fence-source":
            return switch.acts
    raise AssertionError("never came to the fence")


ACTS = acts_before_the_fence(about_to_go_home())
FIRST = ACTS.index("ensure_topic")
"""Before it is only the journal: that is killed where switchovers are."""


def test_the_recovery_acts_on_the_world_in_every_way_that_is_killed_below() -> None:
    assert {"emitter", "send", "commit", "delete_topic", "make_topic_like", "ensure_topic", "set_positions"} <= set(ACTS)


@pytest.mark.parametrize("at", range(FIRST, len(ACTS)), ids=[f"{n}-{name}" for n, name in enumerate(ACTS)][FIRST:])
def test_the_agent_may_be_killed_after_any_act_of_the_recovery(at: int) -> None:
    estate = about_to_go_home()
    tail = only_in(estate)
    leader = estate.leader(EAST)
    leader.switch.die_at(at, after=True)
    estate.begin("failback", EAST)
    run = estate.finish(EAST)
    assert run.phase == "succeeded", run.waiting
    assert not leader.alive
    assert {tp: values for tp, values in recovered(estate).items() if values} == {tp: values for tp, values in tail.items() if values}
    ledger = ledger_of(estate)
    assert all(one.balanced for one in ledger.accounts)
    for tp, values in tail.items():
        assert [value for value in contents(estate.world, WEST, tp) if value in values] == values
        assert contents(estate.world, EAST, tp)[: len(contents(estate.world, WEST, tp))] == contents(estate.world, WEST, tp)


def test_what_is_not_made_anew_is_copied_from_its_recorded_ends_though_the_flow_was_never_set_to_them() -> None:
    estate = about_to_go_home(("orders",), flow_hangs=True)
    estate.begin("failback", EAST, patience_s=20.0)
    estate.until("waiting", target=EAST)
    store, connector = estate.leader(EAST).coordinator.estate.store, estate.world.replicators[EAST].connectors["mrc.orders.west-east"]
    found = store.flow_start(Flow(WEST, EAST))
    assert found is not None
    assert found[0].held
    assert connector.stored == {}
    connector.tasks_until_s = float("-inf")
    estate.replicating = True
    estate.leader(EAST).coordinator.mover.ask(Approved("test"))
    run = estate.finish(EAST)
    assert run.phase == "succeeded", run.waiting
    for tp in estate.world.tps():
        assert contents(estate.world, EAST, tp) == contents(estate.world, WEST, tp)


@pytest.mark.parametrize("in_a_transaction", [False, True])
def test_a_region_that_returns_shorter_than_its_mirror_is_refused_and_nothing_is_copied(in_a_transaction: bool) -> None:
    estate = failed_over()
    estate.world.clusters[EAST].reachable = True
    west_before = {tp: contents(estate.world, WEST, tp) for tp in estate.world.tps()}
    log = estate.world.clusters[EAST].log(ORDERS)
    log.cut(log.end // 2)
    if in_a_transaction:  # whose end is among what was cut
        log.append(Stored(b"k", b"half", 0), estate.world.clusters[EAST].begin())
    estate.regain(EAST)
    estate.settle(30)
    estate.begin("failback", EAST)
    run = estate.until("waiting", target=EAST)
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("list-divergence", "LOG_SHORTER")
    assert ledger_of(estate).state == "open"
    assert estate.world.replicators[EAST].status("mrc.orders.west-east").state == "STOPPED"
    estate.leader(EAST).coordinator.mover.ask(AbortAsked("test"))
    assert estate.finish(EAST).phase == "aborted"
    assert (estate.applications.record().region, estate.applications.record().state) == (WEST, "open")
    for tp, before in west_before.items():
        assert contents(estate.world, WEST, tp)[: len(before)] == before


def test_a_region_that_returns_with_a_topic_made_anew_is_refused_though_it_looks_like_an_empty_one() -> None:
    estate = failed_over()
    estate.world.clusters[EAST].reachable = True
    fresh = estate.world.clusters[EAST]
    copy = [entry.record for entry in fresh.log(ORDERS).entries if entry.record is not None]
    fresh.make_topic("orders", 3)
    for record in copy:  # even with the same records in it
        fresh.log(ORDERS).append(record)
    estate.regain(EAST)
    estate.settle(30)
    estate.begin("failback", EAST)
    run = estate.until("waiting", target=EAST)
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("list-divergence", "TOPIC_RECREATED")
    assert "orders" in run.waiting.message


def test_the_place_is_exact_where_identical_records_follow_one_another() -> None:
    estate = Estate()
    estate.producing = False
    estate.settle(10)
    east = estate.world.clusters[EAST]
    for n in range(40):
        east.produce(PRODUCER, ORDERS, b"k", f"unlike {n}".encode(), timestamp_ms=n)
    for _ in range(3):
        east.produce(PRODUCER, ORDERS, b"k", b"same", timestamp_ms=7)
    estate.settle(10)
    capture = estate.leader(WEST).coordinator.capture
    estate.replicating = False
    for _ in range(2):
        east.produce(PRODUCER, ORDERS, b"k", b"same", timestamp_ms=7)
    estate.lose(EAST)
    known = capture.last_mirrored

    def trailing() -> dict[TopicPartition, int]:
        return {tp: max(0, offset - 10) for tp, offset in known().items()}

    capture.last_mirrored = trailing  # type: ignore[method-assign] # what is known of the source trails, as without exactly-once
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    estate.replicating = True
    estate.regain(EAST)
    estate.settle(40)
    (tail,) = [tail for tail in ledger_of(estate).tails if (tail.topic, tail.partition) == ("orders", 0)]
    assert (tail.begin, tail.end, tail.records) == (43, 45, 2)


def test_the_export_is_rate_limited_and_says_how_far_it_has_come() -> None:
    estate = failed_over(rate=10)
    records = sum(map(len, only_in(estate).values()))
    estate.regain(EAST)
    estate.settle(40)
    began_s = estate.world.clock.monotonic_s()
    told = list(service(estate, EAST).recover("orders", ledger_of(estate).execution, "export"))
    assert estate.world.clock.monotonic_s() - began_s >= records / 10
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert (told[-1].done, told[-1].total) == (records, records)


def test_commands_recover_bit_by_bit_and_a_failback_goes_on_from_there() -> None:
    estate = failed_over("append")
    tail = only_in(estate)
    estate.regain(EAST)
    estate.settle(40)
    execution = ledger_of(estate).execution
    answers = service(estate, EAST)
    with pytest.raises(MrcError) as refused:
        list(answers.recover("orders", execution, "resolve"))
    assert refused.value.code == "NOT_EXPORTED"
    stream = answers.recover("orders", execution, "export")
    next(stream)
    next(stream)
    stream.close()  # type: ignore[attr-defined] # the client is gone in the middle
    list(answers.recover("orders", execution, "export"))
    list(answers.recover("orders", execution, "export"))
    assert {tp: values for tp, values in recovered(estate).items() if values} == {tp: values for tp, values in tail.items() if values}
    list(answers.recover("orders", execution, "resolve"))
    list(answers.recover("orders", execution, "resolve"))
    (view,) = answers.recoveries("orders")
    assert view.accounted
    assert sum(one.emitted for one in view.partitions) == sum(map(len, tail.values()))
    go_home(estate)
    assert {tp: values for tp, values in recovered(estate).items() if values} == {tp: values for tp, values in tail.items() if values}


def test_an_agent_that_wakes_writes_nothing_after_another_has_taken_over() -> None:
    estate = failed_over("append")
    estate.regain(EAST)
    estate.settle(40)
    west = estate.world.clusters[WEST]
    sleeper = west.emitter("mrc.recovery.orders.x")
    west.emitter("mrc.recovery.orders.x")
    with pytest.raises(MrcError) as refused:
        sleeper.send([])
    assert refused.value.code == "STALE_TERM"


def test_where_mirrormaker_would_copy_the_recovered_topics_nothing_is_exported() -> None:
    estate = failed_over()
    estate.regain(EAST)
    estate.settle(40)
    connector = estate.world.replicators[EAST].connectors["mrc.orders.west-east"]
    connector.config["topics"] = "orders,payments,mrc.*"
    with pytest.raises(MrcError) as refused:
        list(service(estate, EAST).recover("orders", ledger_of(estate).execution, "export"))
    assert refused.value.code == "RECOVERED_COPIED"
    assert recovered(estate) == {}


def test_sums_that_do_not_match_stop_the_failback() -> None:
    estate = failed_over("append")
    estate.regain(EAST)
    estate.settle(40)
    answers = service(estate, EAST)
    list(answers.recover("orders", ledger_of(estate).execution, "export"))
    west = estate.world.clusters[WEST]
    log = next(log for log in west.contents["mrc.recovered.orders"].logs if log.entries)
    log.append(next(entry.record for entry in log.entries if entry.record is not None))  # somebody copies a record of it once more
    estate.begin("failback", EAST)
    run = estate.until("waiting", target=EAST)
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("account-divergence", "SUMS_DIFFER")
    assert (estate.applications.record().region, estate.applications.record().state) == (WEST, "open")


def test_a_plan_names_what_is_recovered_and_whoever_would_read_the_tail() -> None:
    estate = failed_over("untouched")
    divergent = sum(map(len, only_in(estate).values()))
    estate.regain(EAST)
    estate.settle(40)
    found = {one.code: one for one in service(estate, EAST).plan("orders", "failback", EAST, False, False).findings}
    assert f"{divergent} records" in found["DIVERGENCE_WAITS"].message
    assert "untouched" in found["DIVERGENCE_WAITS"].message
    assert str(divergent) in found["TAIL_IN_LOG"].message
    planned = {one.code: one for one in service(estate, EAST).plan("orders", "switchover", EAST, False, False).findings}
    assert planned["DIVERGENCE_WAITS"].severity == "warning"


def test_under_the_default_policy_nothing_diverges_and_a_failback_says_so() -> None:
    estate = Estate(policy="default")
    estate.settle()
    estate.replicating = False
    estate.round()
    estate.lose(EAST)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    estate.replicating = True
    estate.regain(EAST)
    estate.settle(40)
    late = ledger_of(estate)
    assert (late.state, late.divergent > 0) == ("copied", True)
    answers = service(estate, EAST)
    plan = answers.plan("orders", "failback", EAST, False, False)
    assert [one.code for one in plan.findings if one.severity == "error"] == ["NOTHING_DIVERGES"]
    with pytest.raises(MrcError) as refused:
        list(answers.recover("orders", late.execution, "export"))
    assert refused.value.code == "NOTHING_DIVERGES"
    (told,) = answers.recoveries("orders")
    assert (told.state, told.accounted, told.partitions) == ("copied", True, ())


# ---------------------------------------------------------------- the old log


def standing(estate: Estate, region: Region, tp: TopicPartition) -> dict[bytes | None, bytes | None]:
    """The last value of each key, as whoever reads the log from its beginning to its end finds it."""
    log = estate.world.clusters[region].log(tp)
    return {entry.record.key: entry.record.value for entry in log.visible(log.start, log.end) if entry.record is not None}


PAYMENTS = TopicPartition("payments", 0)


def with_tails_of_entities(policy: str = "quarantine") -> Estate:
    """East, whose payments are the state of their keys, comes back with a tail of some: west has them as they were, anew, never, or not."""
    estate = Estate(recovery=Recovery(policy, {}, "keep", 5_000, {"payments": "supersede"}))
    for cluster in estate.world.clusters.values():
        cluster.contents["payments"].config["cleanup.policy"] = "compact"
    estate.settle()
    estate.producing = False
    east, west = estate.world.clusters[EAST], estate.world.clusters[WEST]
    for key in (b"as it was", b"written since", b"deleted since"):
        east.produce(PRODUCER, PAYMENTS, key, b"before", headers=(("app", b"1"),))
    estate.settle(5)
    estate.replicating = False
    for key in (b"as it was", b"written since", b"only in the tail", b"deleted since"):
        for n in range(2):
            east.produce(PRODUCER, PAYMENTS, key, b"tail %d" % n)
    estate.lose(EAST)
    assert estate.move("failover", WEST, attested=True).phase == "succeeded"
    west.produce(PRODUCER, PAYMENTS, b"written since", b"after")
    west.produce(PRODUCER, PAYMENTS, b"deleted since", None)
    estate.replicating = True
    estate.regain(EAST)
    estate.settle(30)
    return estate


def test_behind_a_tail_of_entities_it_is_written_again_what_stands_of_them_in_the_open_region() -> None:
    estate = with_tails_of_entities()
    found = {one.code: one for one in service(estate, EAST).plan("orders", "failback", EAST, False, False).findings}
    assert "8 records" in found["TAIL_SUPERSEDED"].message
    assert standing(estate, EAST, PAYMENTS)[b"as it was"] == b"tail 1"
    go_home(estate)
    stands = {b"as it was": b"before", b"written since": b"after", b"deleted since": None}
    east = standing(estate, EAST, PAYMENTS)
    assert east == {**standing(estate, WEST, PAYMENTS), b"only in the tail": None}
    assert stands.items() <= east.items()
    log = estate.world.clusters[EAST].log(PAYMENTS)
    ours = [
        entry.record
        for entry in log.entries
        if entry.record is not None and any(name == "mrc-standing" for name, _ in entry.record.headers)
    ]
    assert {record.key: record.value for record in ours} == {b"as it was": b"before", b"only in the tail": None}
    assert [record.headers[0] for record in ours if record.value] == [("app", b"1")]
    log.compact()
    assert standing(estate, EAST, PAYMENTS) == east
    # What was written behind the tail is in the east alone, and stays there: it is neither copied back nor in the way of positions.
    estate.settle()
    assert contents(estate.world, WEST, PAYMENTS).count(b"before") == 3
    estate.producing = True
    estate.settle()
    assert estate.move("switchover", WEST).phase == "succeeded"
    estate.drain()
    for tp in estate.world.tps():
        for group, processed in estate.applications.processed.items():
            assert set(contents(estate.world, WEST, tp)) <= set(processed), f"{group} skipped"


def test_what_was_written_behind_a_tail_is_no_copy_when_the_unit_comes_back_by_another_failover() -> None:
    estate = with_tails_of_entities()
    estate.begin("failback", EAST)
    while (run := estate.run_of(EAST)) is None or run.step.name != "fence-source":
        estate.round()
    estate.leader(EAST).coordinator.mover.ask(AbortAsked("test"))
    assert estate.finish(EAST).phase == "aborted"
    estate.settle(20)
    estate.replicating = False
    estate.world.clusters[WEST].produce(PRODUCER, PAYMENTS, b"written since", b"only in the west")
    estate.lose(WEST)
    assert estate.move("failover", EAST, attested=True).phase == "succeeded"
    estate.replicating = True
    estate.regain(WEST)
    estate.settle(60)
    left = next(one for one, _ in estate.leader(WEST).coordinator.estate.store.ledgers() if one.region == WEST)
    assert left.state == "listed"
    assert [(tail.topic, tail.partition, tail.records) for tail in left.tails if tail.records] == [("payments", 0, 1)]


def test_a_copy_whose_headers_an_application_has_passed_on_is_a_copy() -> None:
    estate = with_tails_of_entities()
    said = b'{"offset":1,"partition":0,"region":"west","timestamp_ms":1,"topic":"orders"}'
    estate.world.clusters[WEST].produce(PRODUCER, PAYMENTS, b"derived", b"copied", headers=(("mrc-standing", said),))
    estate.settle(10)
    assert contents(estate.world, EAST, PAYMENTS)[-1] == b"copied"
    fail_over_from(estate, WEST)
    estate.regain(WEST)
    estate.settle(60)
    left = next(one for one, _ in estate.leader(WEST).coordinator.estate.store.ledgers() if one.region == WEST)
    assert left.state == "listed"
    assert [tail.records for tail in left.tails if (tail.topic, tail.partition) == ("payments", 0)] == [1]


def acts_that_settle() -> dict[int, str]:
    """The acts of a failback by their numbers, from the first in the old log, which stops the flow, on to the last before the fence."""
    acts = acts_before_the_fence(with_tails_of_entities())
    return dict(list(enumerate(acts))[acts.index("stop") :])


SETTLING = acts_that_settle()


def test_settling_acts_in_every_way_that_is_killed_below() -> None:
    assert {"stop", "emitter", "send", "commit", "set_positions"} <= set(SETTLING.values())


@pytest.mark.parametrize("at", SETTLING, ids=[f"{n}-{name}" for n, name in SETTLING.items()])
def test_the_agent_may_be_killed_after_any_act_in_the_old_log(at: int) -> None:
    estate = with_tails_of_entities()
    leader = estate.leader(EAST)
    leader.switch.die_at(at, after=True)
    estate.begin("failback", EAST)
    run = estate.finish(EAST)
    assert run.phase == "succeeded", run.waiting
    assert not leader.alive
    assert standing(estate, EAST, PAYMENTS) == {**standing(estate, WEST, PAYMENTS), b"only in the tail": None}


def written_uncommitted(estate: Estate) -> FakeEmitter:
    """Write behind a tail, as an agent does that falls asleep before it commits."""
    sleeper = estate.world.clusters[EAST].emitter("mrc.recovery.orders.old-log")
    sleeper.send([Emitted(PAYMENTS, b"written since", b"before", 0)])
    return sleeper


@pytest.mark.parametrize("how", ["aborted", "failover"])
def test_an_agent_that_wakes_writes_nothing_behind_what_the_flow_or_applications_have_written_since(how: str) -> None:
    estate = with_tails_of_entities()
    leader = estate.leader(EAST)
    leader.switch.at = next(number for number, name in SETTLING.items() if name == "send")
    leader.switch.armed = True
    beside = next(name for name in ("east-a", "east-b") if name != leader.name)
    estate.asleep.add(beside)
    estate.begin("failback", EAST)
    while leader.alive:
        estate.round()
    held = estate.leader(WEST).coordinator.estate.store.flow_start(Flow(WEST, EAST))
    assert held is not None
    assert held[0].held
    estate.asleep.remove(beside)
    store = estate.agents[beside].coordinator.estate.store

    def over() -> bool:
        """Whether somebody else may soon write in the old log again."""
        now, run = store.flow_start(Flow(WEST, EAST)), estate.run_of(EAST)
        return (now is not None and not now[0].held) or (run is not None and "flow-stopped" in run.given)

    if how == "failover":
        estate.lose(WEST)
        estate.settle(80)
        sleeper = written_uncommitted(estate)
        start(estate, EAST, allow_data_loss=True)
    else:
        estate.world.clusters[WEST].reachable = False
        estate.settle(20)
        sleeper = written_uncommitted(estate)
        estate.world.clusters[WEST].reachable = True
        estate.leader(EAST).coordinator.mover.ask(AbortAsked("test"))
    while not over():
        estate.round()
    with pytest.raises(MrcError) as refused:
        sleeper.commit()
    assert refused.value.code == "STALE_TERM"
    assert estate.finish(EAST).phase == ("aborted" if how == "aborted" else "succeeded")
    assert standing(estate, EAST, PAYMENTS)[b"written since"] == b"after"


def test_a_purged_log_begins_behind_its_tail_and_no_group_misses_anything() -> None:
    estate = failed_over("quarantine", "purge")
    tail = only_in(estate)
    estate.regain(EAST)
    estate.settle(40)
    found = {one.code: one for one in service(estate, EAST).plan("orders", "failback", EAST, False, False).findings}
    assert found["TAIL_PURGED"].severity == "warning"
    assert not {"TAIL_IN_LOG", "TAIL_READ", "TAIL_UNREAD"} & found.keys()
    go_home(estate)
    estate.settle()
    estate.drain()
    ends = {TopicPartition(one.topic, one.partition): one for one in ledger_of(estate).tails}
    for tp, values in tail.items():
        log = estate.world.clusters[EAST].log(tp)
        west = contents(estate.world, WEST, tp)
        if values:
            assert log.start == ends[tp].end
            since = [
                e.record.value for e in estate.world.clusters[WEST].log(tp).visible(ends[tp].mirror_end, 1 << 40) if e.record is not None
            ]
            assert contents(estate.world, EAST, tp) == since
        else:
            assert log.start == 0
        for group, processed in estate.applications.processed.items():
            assert set(west) <= set(processed), f"{group} skipped"
    later = service(estate, WEST).plan("orders", "switchover", WEST, False, False).findings
    assert not [one for one in later if one.severity == "error"]


def test_nothing_is_purged_by_the_places_of_a_log_that_somebody_has_made_anew_since() -> None:
    estate = failed_over("quarantine", "purge")
    estate.regain(EAST)
    estate.settle(40)
    estate.producing = False
    assert next(tail.records for tail in ledger_of(estate).tails if tail.topic == "orders" and tail.partition == 0)
    execution = ledger_of(estate).execution
    for doing in ("export", "resolve"):
        list(service(estate, EAST).recover("orders", execution, doing))
    east = estate.world.clusters[EAST]
    entries = list(east.log(ORDERS).entries)
    east.make_topic("orders", 3)
    for entry in entries * 2:
        east.log(ORDERS).append(entry.record)
    estate.restart(EAST)
    estate.settle(40)
    found = service(estate, EAST).plan("orders", "failback", EAST, False, False).findings
    assert not [one for one in found if one.code == "TAIL_PURGED" and one.message.startswith("orders")]


def test_a_purge_waits_for_the_group_that_has_not_read_what_it_would_delete() -> None:
    estate = Estate(recovery=Recovery("quarantine", {}, "purge"))
    estate.settle()
    estate.consuming = {BILLING: 1_000, SHIPPING: 0}
    fail_over_from(estate, EAST)
    estate.regain(EAST)
    estate.settle(40)
    found = {one.code: one for one in service(estate, EAST).plan("orders", "failback", EAST, False, False).findings}
    assert "shipping" in found["TAIL_UNREAD"].message
    assert "billing" not in found["TAIL_UNREAD"].message
    estate.begin("failback", EAST, patience_s=20.0)
    run = estate.until("waiting", target=EAST)
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("settle-old-log", "TAIL_UNREAD")
    assert all(estate.world.clusters[EAST].log(tp).start == 0 for tp in estate.world.tps())
    estate.consuming = {BILLING: 1_000, SHIPPING: 1_000}
    assert estate.finish(EAST).phase == "succeeded"
    assert all(estate.world.clusters[EAST].log(tp).start > 0 for tp in estate.world.tps())
    estate.drain()
    for tp in estate.world.tps():
        assert set(contents(estate.world, WEST, tp)) <= set(estate.applications.processed[SHIPPING])


@pytest.mark.parametrize(("policy", "cleanup"), [("supersede", "delete"), ("purge", "compact"), ("purge", "compact,delete")])
def test_a_policy_that_cannot_be_right_for_a_topic_is_refused_before_anything_is_done(policy: str, cleanup: str) -> None:
    estate = Estate(recovery=Recovery("quarantine", {}, "keep", 5_000, {"payments": policy}))
    for cluster in estate.world.clusters.values():
        cluster.contents["payments"].config["cleanup.policy"] = cleanup
    fail_over_from(estate, EAST)
    estate.regain(EAST)
    estate.settle(40)
    plan = service(estate, EAST).plan("orders", "failback", EAST, False, False)
    assert [(one.code, one.where) for one in plan.findings if one.severity == "error"] == [("OLD_LOG_REFUSED", "payments")]
    before = {tp: contents(estate.world, EAST, tp) for tp in estate.world.tps()}
    estate.begin("failback", EAST)
    run = estate.until("waiting", target=EAST)
    assert run.waiting is not None
    assert (run.step.name, run.waiting.code) == ("settle-old-log", "OLD_LOG_REFUSED")
    for tp, values in before.items():
        assert contents(estate.world, EAST, tp)[: len(values)] == values
    assert estate.world.replicators[EAST].status("mrc.orders.west-east").state == "RUNNING"


def test_records_are_not_resolved_by_what_another_topic_of_the_open_region_holds() -> None:
    estate = failed_over("untouched")
    estate.regain(EAST)
    estate.settle(40)
    execution = ledger_of(estate).execution
    answers = service(estate, EAST)
    list(answers.recover("orders", execution, "export"))
    estate.world.clusters[WEST].make_topic("orders", 3)
    with pytest.raises(MrcError) as refused:
        list(answers.recover("orders", execution, "resolve"))
    assert refused.value.code == "TOPIC_RECREATED"
    assert "orders of west" in refused.value.message
