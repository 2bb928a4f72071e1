"""The report says what the journal, the samples and the ledger hold, and that the rest is not known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mrc.core.errors import MrcError
from mrc.core.failover.archive import Archived
from mrc.core.failover.execution import AbortAsked, Approved, Did, Entry, Event, Failed, Resumed, Started, Verified
from mrc.core.failover.ledger import Account, SupersededRecord
from mrc.core.failover.measured import Sample
from mrc.core.failover.plan import PlanStep
from mrc.core.failover.report import Objective, Report, Sums, decode_report, encode_report
from mrc.core.model import Known, Unknown
from tests.core import reported

GOLDEN = Path(__file__).parent / "first_report.json"

FAILOVER = ("preflight", "attest", "close-source", "stop-flow", "record-ends", "move-positions", "open-target", "route", "canary")


def objective(report: Report, name: str) -> Objective:
    return next(one for one in report.objectives if one.name == name)


def test_the_first_version_is_made_and_read_as_ever() -> None:
    report = reported.report(reported.archived())
    assert encode_report(report) == GOLDEN.read_bytes()
    assert decode_report(GOLDEN.read_bytes()) == report


def test_a_report_of_another_version_is_refused() -> None:
    other = json.dumps({**json.loads(GOLDEN.read_bytes()), "version": 2})
    with pytest.raises(MrcError) as told:
        decode_report(other)
    assert told.value.code == "VERSION_MISMATCH"


@pytest.mark.parametrize(("rto_s", "verdict"), [(15.0, "met"), (3.0, "missed"), (None, "not-set")])
def test_the_time_that_a_move_took_is_held_to_its_objective(rto_s: float | None, verdict: str) -> None:
    one = reported.archived()
    assert one.measured is not None
    found = objective(reported.report(msgspec.structs.replace(one, measured=msgspec.structs.replace(one.measured, rto_s=rto_s))), "rto")
    assert (found.seconds, found.verdict) == (Known(3.1, one.entries[-1].at_ms), verdict)


def test_without_samples_everything_that_they_would_tell_is_unknown() -> None:
    report = reported.report(msgspec.structs.replace(reported.archived(), measured=None))
    assert isinstance(report.load, Unknown)
    assert isinstance(report.findings, Unknown)
    assert [one.verdict for one in report.objectives] == ["not-set", "not-set"]


def test_rates_are_unknown_across_gaps_and_where_an_end_was_not_read_and_where_a_log_was_made_anew() -> None:
    one = reported.archived()
    assert one.measured is not None
    samples = (
        Sample(1_000, 0.0, 0.0, 100.0, 50.0),
        Sample(2_000, 0.0, 0.0, 300.0, 50.0),
        Sample(3_000, 0.0, 0.0, "cluster-unreachable", 60.0),
        Sample(4_000, 0.0, 0.0, 500.0, 10.0),
        Sample(9_000, 0.0, 0.0, 900.0, 90.0, gap=True),
    )
    report = reported.report(msgspec.structs.replace(one, measured=msgspec.structs.replace(one.measured, samples=samples)))
    assert isinstance(report.load, Known)
    assert [(rate.source, rate.target) for rate in report.load.value.rates] == [
        ("no-sample-before", "no-sample-before"),
        (200.0, 0.0),
        ("cluster-unreachable", 10.0),
        ("cluster-unreachable", "log-shorter-than-before"),
        ("gap", "gap"),
    ]


# ---------------------------------------------------------------- failovers


def failover(*events: Event, samples: tuple[Sample, ...] = ()) -> Archived:
    """A failover that began at 100 s, with one event a second, and did these things after the last step that it is told of."""
    one = reported.archived()
    steps = tuple(PlanStep(name, name, {}, 60.0, 0) for name in FAILOVER)
    plan = msgspec.structs.replace(one.plan, kind="failover", steps=steps, attested=True)
    entries = tuple(Entry(number, 100_000 + number * 1_000, "west-a", 1, event) for number, event in enumerate(events))
    assert one.measured is not None
    return Archived(plan, entries, msgspec.structs.replace(one.measured, samples=samples))


def done(*names: str) -> list[Event]:
    return [event for number, name in enumerate(names, 1) for event in (Did(name, number * 100), Verified(name, number * 100, "seen"))]


ALL = (Started(), *done(*FAILOVER))
LAG = (Sample(90_000, 40.0, 1.5, 1.0, 1.0), Sample(95_000, "cluster-unreachable", "cluster-unreachable", "cluster-unreachable", 1.0))


def test_a_failovers_loss_is_what_was_read_last_and_no_promise_beyond_that() -> None:
    found = objective(reported.report(failover(*ALL, samples=LAG)), "rpo")
    assert (found.seconds, found.at_least, found.verdict) == (Known(1.5, 90_000), True, "not-exceeded")
    assert "10.0 s before the move began" in found.detail
    late = (Sample(90_000, 40.0, 7.5, 1.0, 1.0), *LAG[1:])
    assert objective(reported.report(failover(*ALL, samples=late)), "rpo").verdict == "missed"


def test_a_lag_that_was_read_after_the_opening_says_nothing_of_the_loss() -> None:
    after = (Sample(200_000, 0.0, 0.0, 1.0, 1.0),)
    found = objective(reported.report(failover(*ALL, samples=after)), "rpo")
    assert (isinstance(found.seconds, Unknown), found.verdict) == (True, "unknown")


def test_what_was_left_behind_is_summed_once_all_of_it_is_known() -> None:
    report = reported.report(failover(*ALL, samples=LAG), reported.ledger(3, 0, 4))
    assert isinstance(report.divergence, Known)
    assert report.divergence.value.records == Known(7, 1)
    assert [one.begin for one in report.divergence.value.partitions] == [Known(500, 1)] * 3
    some = reported.report(failover(*ALL, samples=LAG), reported.ledger(3, -1, state="open"))
    assert isinstance(some.divergence, Known)
    assert isinstance(some.divergence.value.records, Unknown)
    assert some.divergence.value.partitions[0].records == Known(3, 1)


SETTLED = (
    Account("orders", 0, 3, 3, 1, 1, 1, 1, 0, (SupersededRecord(501, 0, 777),)),
    Account("orders", 1, 4, 4, 4, 0, 0, 4),
)


def failback() -> Archived:
    """A failback that has listed what the failover left behind."""
    one = failover(*ALL)
    names = ("preflight", "await-region", "list-divergence")
    plan = msgspec.structs.replace(one.plan, id="2", kind="failback", steps=tuple(PlanStep(name, name, {}, 60.0, 0) for name in names))
    events = (Started(), *done(*names[:2]), Did(names[2], 300, {"recovers": reported.FAILOVER}))
    return Archived(plan, tuple(Entry(number, 100_000, "east-a", 1, event) for number, event in enumerate(events)), None)


def test_the_sums_of_what_was_left_behind_are_told_per_partition_by_the_failovers_report_and_by_the_failbacks() -> None:
    ledger = reported.ledger(3, 4, accounts=SETTLED)
    own = reported.report(failover(*ALL, samples=LAG), ledger)
    assert isinstance(own.divergence, Known)
    home = reported.report(failback(), ledger)
    assert isinstance(home.recovered, Known)
    assert own.recovered is None
    (entry,) = home.recovered.value
    assert entry == own.divergence.value
    sums = [one.sums for one in entry.partitions]
    assert sums[0] == Sums(3, 1, 1, 1, 0, 0, (SupersededRecord(501, 0, 777),))
    for of, one in zip(entry.partitions, sums, strict=True):
        assert one is not None
        assert of.records == Known(one.emitted + one.superseded + one.quarantined, 1)
    assert decode_report(encode_report(home)) == home


def test_sums_that_do_not_match_are_told_as_what_is_unexplained() -> None:
    short = msgspec.structs.replace(SETTLED[1], emitted=3)
    found = reported.report(failback(), reported.ledger(3, 4, accounts=(SETTLED[0], short))).recovered
    assert isinstance(found, Known)
    assert [one.sums and one.sums.unexplained for one in found.value[0].partitions] == [0, 1]


def test_a_source_that_returned_with_nothing_left_behind_makes_the_loss_zero() -> None:
    found = objective(reported.report(failover(*ALL, samples=LAG), reported.ledger(0, 0)), "rpo")
    assert (found.seconds, found.at_least, found.verdict) == (Known(0.0, 118_000), False, "met")


def test_waiting_for_people_failures_and_takeovers_are_told_with_their_times() -> None:
    events: tuple[Event, ...] = (
        Started(),
        Failed("preflight", 100, "NOT_ATTESTED", "nobody has said so"),
        Resumed(),
        Approved("ann", "it burns"),
        Did("preflight", 200),
    )
    report = reported.report(failover(*events), now_ms=110_000)
    (wait,) = report.waits
    assert (wait.step, wait.began_at_ms, wait.ended_at_ms, wait.code) == ("preflight", 101_000, 103_000, "NOT_ATTESTED")
    assert report.waited_s == 2.0
    assert [(one.what, one.at_ms) for one in report.happenings] == [("failed", 101_000), ("taken over", 102_000), ("approved", 103_000)]
    assert (report.steps[0].failures, report.steps[0].ended_at_ms, report.ended_at_ms) == (1, None, None)


def still_running() -> Archived:
    return failover(Started(), *done(*FAILOVER[:2]))


def undone() -> Archived:
    return failover(Started(), Failed("preflight", 100, "NOT_ATTESTED", "no"), AbortAsked("ann"))


@pytest.mark.parametrize(("made", "verdict"), [(still_running, "missed"), (undone, "unknown")])
def test_a_move_that_has_not_ended_is_over_its_time_when_it_is_and_one_that_was_undone_has_none(
    made: Callable[[], Archived], verdict: str
) -> None:
    report = reported.report(made(), now_ms=120_000)
    assert objective(report, "rto").verdict == verdict
    assert objective(report, "rpo").verdict == "unknown"
    assert isinstance(report.write_block_s, Unknown)
