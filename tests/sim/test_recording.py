"""Lag and throughput are measured while a move runs, whoever dies meanwhile, and say what could not be read."""

from __future__ import annotations

import pytest

from mrc.agent.archive import SETTLED_MS, kept
from mrc.agent.recording import AFTER_MS
from mrc.core.errors import MrcError
from mrc.core.failover.archive import TOPIC, decode_archive
from mrc.core.failover.execution import Run
from mrc.core.failover.measured import Measured
from mrc.core.failover.report import Report, decode_report
from mrc.core.failover.shown import report_of
from mrc.core.model import Known, Unknown
from mrc.core.views import FindingView
from mrc.sim.tree import Stored
from mrc.sim.world import EAST, WEST
from tests.sim.estate import Estate

NOTED = (FindingView("SOURCE_ALIVE", "warning", "it lives", "east"),)


class Recorded(Estate):
    """An estate in which every agent takes its samples, as its thread does."""

    def round(self) -> None:
        super().round()
        for agent in self.agents.values():
            if agent.alive:
                agent.coordinator.record_tick()

    def measured(self, run: Run) -> Measured:
        found = self.leader(run.plan.target).coordinator.estate.store.measured(run.plan.id)
        assert found is not None
        return found[0]

    def report(self, run: Run) -> Report:
        store = self.leader(run.plan.target).coordinator.estate.store
        now_ms = self.world.clock.now_ms()
        ledgers = tuple(ledger for ledger, _ in store.ledgers())
        return decode_report(report_of(kept(store, run.plan.id), Known(ledgers, now_ms), now_ms))


@pytest.fixture
def estate() -> Recorded:
    made = Recorded()
    made.settle(30)
    return made


def test_a_switchover_is_measured_from_before_its_beginning_until_after_its_end(estate: Recorded) -> None:
    now = str(estate.world.clock.now_ms())
    estate.leader(WEST).coordinator.recorder.note(now, NOTED)
    run = estate.move("switchover", WEST)
    estate.settle(80)
    found = estate.measured(run)
    times = [one.at_ms for one in found.samples]
    assert times[0] < run.started_at_ms
    assert run.ended_at_ms < times[-1] <= run.ended_at_ms + AFTER_MS
    assert found.findings == NOTED
    report = estate.report(run)
    assert isinstance(report.load, Known)
    before = [rate for rate in report.load.value.rates if rate.at_ms <= run.started_at_ms and not isinstance(rate.source, str)]
    after = [rate for rate in report.load.value.rates if rate.at_ms > run.ended_at_ms + 1_000]
    assert all(float(rate.source) > 0 for rate in before)
    assert before
    assert after
    assert all(float(rate.target) > 0 for rate in after)
    assert isinstance(report.rereads, Known)
    assert (report.rereads.value.groups, report.rereads.value.repeats_max, report.rereads.value.unknown) == (2, 0, 0)


def test_a_successor_goes_on_with_the_samples_behind_a_gap(estate: Recorded) -> None:
    estate.begin("switchover", WEST)
    estate.until("doing", "verifying")
    first = estate.leader(WEST)
    first.coordinator.record_tick()
    run = estate.run_of(WEST)
    assert run is not None
    written = estate.measured(run).samples
    estate.stop(first.name)
    other = "west-b" if first.name == "west-a" else "west-a"
    estate.asleep.add(other)
    estate.settle(30)
    estate.asleep.discard(other)
    run = estate.finish(WEST)
    estate.settle(20)
    found = estate.measured(run).samples
    assert found[: len(written)] == written
    assert len(found) > len(written)
    assert [one.gap for one in found].count(True) == 1


def test_of_a_dead_source_nothing_is_measured_and_that_is_said(estate: Recorded) -> None:
    estate.lose(EAST)
    estate.settle(20)
    run = estate.move("failover", WEST, attested=True)
    estate.settle(15)
    during = [one for one in estate.measured(run).samples if one.at_ms > run.started_at_ms]
    assert during
    assert {one.source_end for one in during} == {"cluster-unreachable"}
    assert {type(one.lag_s) for one in during} == {str}
    assert all(isinstance(one.target_end, float) for one in during)
    report = estate.report(run)
    assert report.objectives[0].at_least
    assert isinstance(report.divergence, Known)
    assert isinstance(report.divergence.value.records, Unknown)


def test_what_was_measured_is_archived_once_it_is_whole(estate: Recorded) -> None:
    run = estate.move("switchover", WEST)
    coordinator = estate.leader(EAST).coordinator
    coordinator.archive_tick()
    assert not estate.world.clusters[EAST].load(TOPIC)
    estate.settle(SETTLED_MS // 100 + 1)
    coordinator.archive_tick()
    archived, _ = decode_archive("orders", estate.world.clusters[EAST].load(TOPIC))
    assert archived[run.plan.id].measured == estate.measured(run)


def test_a_sample_that_cannot_be_written_is_left_out_and_the_move_goes_on(estate: Recorded) -> None:
    run = estate.move("switchover", WEST)
    nodes = estate.world.ensemble.nodes
    path = f"/groups/orders/executions/{run.plan.id}/measured"
    nodes[path] = Stored(b"garbled", nodes[path].version + 1)
    codes = []
    for _ in range(30):
        estate.world.clock.sleep(0.1)
        try:
            estate.leader(WEST).coordinator.record_tick()
        except MrcError as error:
            codes.append(error.code)
    assert codes[0] == "STALE_TERM"
    assert set(codes[1:]) == {"GARBLED_RECORD"}
    assert isinstance(estate.report(run).load, Unknown)
