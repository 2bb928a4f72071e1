"""What is measured beside the journal while an execution runs: few numbers, bounded, and honest about what was not read.

A reading is a number, or the word for why there is none; never 0 for "unknown". Samples lie `Measured.every_ms` apart; when there are
more than `SAMPLES_MAX`, two become one and the distance doubles, so that an execution of any length fits in one small node. What is
left of two says the worst of both: an unknown reading, a gap and a peak never vanish.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from mrc.core.model import GroupId, Written
from mrc.core.views import FindingView

SAMPLES_MAX = 120
EVERY_MS = 1_000
GAP_FACTOR = 2.5
"""Samples further apart than this many distances have a gap between them."""

FINDINGS_MAX = 40
FINDING_CHARACTERS_MAX = 500
GROUPS_MAX = 20
"""How many groups a journal entry names, those that read most again first."""

Reading = float | str
"""A number, or the stable word for why it was not read."""


class Sample(Written, frozen=True):
    """One look at what moves.

    Attributes:
        lag_records, lag_s: of the flow that the move ends; its total, and its oldest record.
        source_end, target_end: sums of the log ends of the unit's partitions in either region.
        gap: nothing was read for a while before it.
    """

    at_ms: int
    lag_records: Reading
    lag_s: Reading
    source_end: Reading
    target_end: Reading
    gap: bool = False


class Measured(Written, frozen=True):
    """What was measured of one execution.

    Attributes:
        every_ms: how far apart the samples are.
        rpo_s, rto_s: the objectives when it began; None: nobody has set any.
        findings: what was found when it was begun, without what had to be left out; None: nobody has noted it.
        samples: oldest first; some are from before its beginning and after its end.
    """

    execution: str
    rpo_s: float | None = None
    rto_s: float | None = None
    findings: tuple[FindingView, ...] | None = None
    findings_left_out: int = 0
    every_ms: int = EVERY_MS
    samples: tuple[Sample, ...] = ()
    version: Literal[1] = 1


def begun(execution: str, rpo_s: float | None, rto_s: float | None, found: Sequence[FindingView] | None) -> Measured:
    """Return what there is before the first sample; long messages and findings beyond `FINDINGS_MAX` are cut."""
    if found is None:
        return Measured(execution, rpo_s, rto_s)
    kept = tuple(_short(finding) for finding in found[:FINDINGS_MAX])
    return Measured(execution, rpo_s, rto_s, kept, len(found) - len(kept))


def _short(finding: FindingView) -> FindingView:
    message, where = finding.message, finding.where
    if len(message) > FINDING_CHARACTERS_MAX:
        message = f"{message[:FINDING_CHARACTERS_MAX]} ..."
    return msgspec.structs.replace(finding, message=message, where=where[:FINDING_CHARACTERS_MAX])


def due(measured: Measured, now_ms: int) -> bool:
    """Whether the next sample is to be taken; a tenth of the distance early counts, for whoever asks is never exactly in time."""
    return not measured.samples or now_ms - measured.samples[-1].at_ms >= 0.9 * measured.every_ms


def add(measured: Measured, sample: Sample) -> Measured:
    """Return it with one more sample, thinned where there are too many. A sample that is older than the last one is left out."""
    if measured.samples:
        apart_ms = sample.at_ms - measured.samples[-1].at_ms
        if apart_ms <= 0:
            return measured
        sample = msgspec.structs.replace(sample, gap=sample.gap or apart_ms > GAP_FACTOR * measured.every_ms)
    samples, every_ms = (*measured.samples, sample), measured.every_ms
    while len(samples) > SAMPLES_MAX:
        samples, every_ms = _thinned(samples), every_ms * 2
    return msgspec.structs.replace(measured, samples=samples, every_ms=every_ms)


def _thinned(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    pairs = [samples[at : at + 2] for at in range(0, len(samples), 2)]
    return tuple(_worst_of(*pair) if len(pair) == 2 else pair[0] for pair in pairs)


def _worst_of(one: Sample, later: Sample) -> Sample:
    return Sample(
        at_ms=later.at_ms,
        lag_records=_unread(one.lag_records, later.lag_records) or _most(one.lag_records, later.lag_records),
        lag_s=_unread(one.lag_s, later.lag_s) or _most(one.lag_s, later.lag_s),
        source_end=_unread(one.source_end, later.source_end) or later.source_end,
        target_end=_unread(one.target_end, later.target_end) or later.target_end,
        gap=one.gap or later.gap,
    )


def _unread(*readings: Reading) -> str:
    """Return why the first of them that was not read was not; empty where all were."""
    return next((reading for reading in readings if isinstance(reading, str)), "")


def _most(*readings: Reading) -> float:
    return max(reading for reading in readings if not isinstance(reading, str))


# ---------------------------------------------------------------- what groups read again


class GroupRereads(Written, frozen=True):
    """How one group's positions were moved.

    Attributes:
        exact: positions from which nothing is read again.
        bounded: positions from which records are read again, ``repeats_max`` at most in all.
        unknown: positions without an answer, where the last safe one, or the log's start, was taken.
    """

    group: str
    exact: int
    bounded: int
    repeats_max: int
    unknown: int


class Rereads(Written, frozen=True):
    """How all groups' positions were moved; small enough for a journal entry.

    Attributes:
        groups: how many had positions.
        listed: those that read most again, `GROUPS_MAX` at most; the totals are of all.
    """

    groups: int
    exact: int
    bounded: int
    repeats_max: int
    unknown: int
    listed: tuple[GroupRereads, ...]


def rereads(repeats: Mapping[GroupId, Iterable[int | None]]) -> Rereads:
    """Return the sums of what each group may read again on each of its partitions: 0 exact, None without an answer."""
    rows = [_of_group(group, tuple(counts)) for group, counts in repeats.items()]
    listed = sorted(rows, key=lambda row: (-row.unknown, -row.repeats_max, row.group))[:GROUPS_MAX]
    return Rereads(
        groups=len(rows),
        exact=sum(row.exact for row in rows),
        bounded=sum(row.bounded for row in rows),
        repeats_max=sum(row.repeats_max for row in rows),
        unknown=sum(row.unknown for row in rows),
        listed=tuple(listed),
    )


def _of_group(group: GroupId, counts: Sequence[int | None]) -> GroupRereads:
    again = [count for count in counts if count]
    return GroupRereads(group, counts.count(0), len(again), sum(again), counts.count(None))
