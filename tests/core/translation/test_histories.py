"""The aligner and the map against random histories: never skips, exact when it says exact, bounds hold."""

from __future__ import annotations

import os
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from mrc.core.model import Offset, Seen
from mrc.core.translation.aligner import Aligner
from mrc.core.translation.offset_map import Bounded, Exact, OffsetMap, Translation
from tests.core.translation.oracle import History, Log, history, judge

HISTORIES = int(os.environ.get("MRC_HISTORIES", "3000"))
KEPT = [int(line) for line in (Path(__file__).parent / "seeds.txt").read_text().split() if line.isdigit()]


def read(log: Log, begin: int, end: int) -> list[Seen]:
    return [Seen(r.offset, 0, r.face) for r in log.records if begin <= r.offset < end]


def align(past: History, rng: random.Random, *, whole: bool) -> Aligner:
    """Feed both logs in random pieces, sometimes not to their ends, as two readers would see them."""
    aligner = Aligner(OffsetMap(0, 0))
    aligner.map.anchors = tuple(past.anchors)
    source_end = past.source.end if whole else rng.randrange(0, past.source.end + 1)
    target_end = past.target.end if whole else rng.randrange(0, past.target.end + 1)
    s = t = 0
    while s < source_end or t < target_end:
        if t < target_end and rng.random() < 0.5:
            upto = rng.randrange(t, target_end) + 1
            aligner.feed_target(read(past.target, t, upto), upto)
            t = upto
        elif s < source_end:
            upto = rng.randrange(s, source_end) + 1
            aligner.feed_source(read(past.source, s, upto), upto)
            s = upto
        if rng.random() < 0.3:
            aligner.note_source_end(past.source.end)
    aligner.note_source_end(past.source.end)
    if t == past.target.end:
        aligner.pass_source_below(past.begin)
    return aligner


def check(seed: int, interpolate: bool = False) -> str:
    """Return what is wrong with the answers for one seed's history, empty when nothing is."""
    past = history(seed)
    rng = random.Random(seed + 1)
    whole = rng.random() < 0.6
    known = align(past, rng, whole=whole).map
    for committed in range(past.source.end + 1):
        answers = [known.to_target(committed), known.to_target(committed, final=True)] if whole else [known.to_target(committed)]
        if interpolate and isinstance(answers[0], Exact) and known.last:
            answers = [Exact(Offset(min(past.target.end, committed + known.last[1] - known.last[0])), "guessed")]
        for answer in answers:
            if wrong := _wrong(answer, past.source, past.target, committed, known.target_read):
                return f"seed {seed}: source {committed} -> {answer}: {wrong}"
    for committed in range(past.target.end + 1):
        answer = known.to_source(committed)
        if wrong := _wrong(answer, past.target, past.source, committed, known.source_read):
            return f"seed {seed}: target {committed} -> {answer}: {wrong}"
    return ""


def _wrong(answer: Translation, ours: Log, theirs: Log, committed: int, seen: int) -> str:
    if not isinstance(answer, Exact | Bounded):
        return ""
    skipped, repeated = judge(ours, theirs, committed, answer.offset, seen)
    if skipped:
        return f"skips {skipped}"
    if answer.offset > theirs.end:
        return "beyond the end"
    if isinstance(answer, Bounded) and repeated > answer.repeats_max:
        return f"repeats {repeated}"
    return ""


@pytest.mark.parametrize("seed", KEPT)
def test_kept_seeds_stay_right(seed: int) -> None:
    assert check(seed) == ""


def _check_range(bounds: tuple[int, int]) -> list[str]:
    return [wrong for seed in range(*bounds) if (wrong := check(seed))]


def test_never_skips_and_bounds_hold_on_random_histories() -> None:
    step = 250
    ranges = [(a, min(a + step, HISTORIES)) for a in range(0, HISTORIES, step)]
    with ProcessPoolExecutor(max_workers=2) as pool:
        wrong = [line for lines in pool.map(_check_range, ranges) for line in lines]
    assert wrong[:5] == []


def test_exact_answers_repeat_nothing() -> None:
    exact = 0
    for seed in range(600):
        past = history(seed)
        known = align(past, random.Random(seed), whole=True).map
        for committed in range(past.source.end + 1):
            answer = known.to_target(committed)
            if isinstance(answer, Exact):
                exact += 1
                _, repeated = judge(past.source, past.target, committed, answer.offset, past.target.end)
                assert repeated == 0, (seed, committed, answer)
    assert exact > 1000


def test_an_interpolating_translator_is_caught() -> None:
    assert any(check(seed, interpolate=True) for seed in range(300))
