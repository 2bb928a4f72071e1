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

HISTORIES = int(os.environ.get("MRC_HISTORIES", "20000"))
KEPT = [int(line) for line in (Path(__file__).parent / "seeds.txt").read_text().split() if line.isdigit()]


def read(log: Log, begin: int, end: int, times: int) -> list[Seen]:
    """What is seen of a log; with ``times`` so many records share a timestamp, which copies keep; 0: all do."""
    return [Seen(r.offset, r.identity // times if times else 0, r.face) for r in log.records if begin <= r.offset < end]


def align(past: History, rng: random.Random, *, whole: bool, complete: bool | None = None) -> Aligner:
    """Feed both logs in random pieces, sometimes not to their ends, as two readers would see them.

    Pieces of what is compacted by now were sometimes read before it was.
    """
    s, t = past.starts
    times = 0 if past.twins else past.source.end % 3  # records that look the same have the same timestamp
    aligner = Aligner(OffsetMap(s, t))
    aligner.map.anchors = tuple(past.anchors)
    aligner.note_flow_begin(past.begin)
    aligner.map.complete = not past.filtered and not past.gone if complete is None else complete
    aligner.map.torn, aligner.map.faithful = past.gone, not past.changed
    source_end = past.source.end if whole else rng.randrange(s, past.source.end + 1)
    target_end = past.target.end if whole else rng.randrange(t, past.target.end + 1)
    while s < source_end or t < target_end:
        early = rng.random() < 0.5
        if t < target_end and rng.random() < 0.5:
            upto = rng.randrange(t, target_end) + 1
            aligner.feed_target(read(past.early[1] if early else past.target, t, upto, times), upto)
            t = upto
        elif s < source_end:
            upto = rng.randrange(s, source_end) + 1
            aligner.feed_source(read(past.early[0] if early else past.source, s, upto, times), upto)
            s = upto
        if rng.random() < 0.3:
            aligner.note_source_end(past.source.end)
    aligner.note_source_end(past.source.end)
    if t == past.target.end:
        aligner.pass_left_behind()
    return aligner


def check(seed: int, interpolate: bool = False) -> str:
    """Return what is wrong with the answers for one seed's history, empty when nothing is."""
    past = history(seed)
    rng = random.Random(seed + 1)
    whole = rng.random() < 0.6
    known = align(past, rng, whole=whole).map
    if known.lacking and whole and not past.gone:
        return f"seed {seed}: holes that are none: {known.lacking}"
    if not whole and past.gone and past.twins:
        # A twin that was not read yet is told apart when it is; until both logs were read through nobody is answered.
        return ""
    for committed in range(past.source.end + 1):
        answers = [known.to_target(committed), known.to_target(committed, final=True)] if whole else [known.to_target(committed)]
        if interpolate and isinstance(answers[0], Exact) and known.last:
            answers = [Exact(Offset(min(past.target.end, committed + known.last[1] - known.last[0])), "guessed")]
        for answer in answers:
            if wrong := _wrong(past, answer, committed, known.target_read):
                return f"seed {seed}: source {committed} -> {answer}: {wrong}"
    # What will still be read of the target may be copies of what went before: only then nothing is known of the way back.
    # A changed copy out of its order, behind what was sent again, cannot be told from a record of the target's own: see the documents.
    for committed in range(past.target.end + 1) if whole and not (past.changed and past.replays) else ():
        answer = known.to_source(committed)
        if wrong := _wrong(past, answer, committed, known.source_read, back=True):
            return f"seed {seed}: target {committed} -> {answer}: {wrong}"
    return ""


def _wrong(past: History, answer: Translation, committed: int, seen: int, *, back: bool = False) -> str:
    if not isinstance(answer, Exact | Bounded):
        return ""
    skipped, repeated = judge(past, committed, answer.offset, seen, back=back)
    if skipped:
        return f"skips {skipped}"
    if answer.offset > (past.source if back else past.target).end:
        return "beyond the end"
    # Changed copies that are sent again are not counted: they look like records of the target's own. See the documents.
    if isinstance(answer, Bounded) and repeated > answer.repeats_max and not (past.changed and past.replays):
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
        if past.changed and past.replays:
            continue
        known = align(past, random.Random(seed), whole=True).map
        for committed in range(past.source.end + 1):
            answer = known.to_target(committed)
            if isinstance(answer, Exact):
                exact += 1
                _, repeated = judge(past, committed, answer.offset, past.target.end)
                assert repeated == 0, (seed, committed, answer)
    assert exact > 1000


def test_where_nothing_is_ambiguous_every_answer_is_exact() -> None:
    answered = 0
    for seed in range(5000):
        past = history(seed)
        if past.gone or past.filtered or past.twins or past.replays or past.foreign or past.changed or past.torn:
            continue
        known = align(past, random.Random(seed), whole=True).map
        for committed in range(known.resolved_source + 1):
            assert isinstance(known.to_target(committed), Exact), (seed, committed)
            answered += 1
        for committed in range(known.resolved_target + 1):
            assert isinstance(known.to_source(committed), Exact), (seed, committed)
    assert answered > 5000


def test_foreign_records_leave_what_is_copied_exact_where_no_tail_was_left() -> None:
    """A record of somebody else's beside one without a copy may be its changed copy; without such it is just somebody else's."""
    answered = 0
    for seed in range(3000):
        past = history(seed)
        if past.gone or past.filtered or past.twins or past.replays or past.left or past.changed or not past.foreign:
            continue
        known = align(past, random.Random(seed), whole=True).map
        for committed in range(known.last[0] + 1 if known.last else 0):
            assert isinstance(known.to_target(committed), Exact), (seed, committed)
            answered += 1
    assert answered > 500


def test_an_interpolating_translator_is_caught() -> None:
    assert any(check(seed, interpolate=True) for seed in range(300))


def test_what_the_target_has_deleted_is_counted_from_every_position_also_below_a_reversed_flows_beginning() -> None:
    """Of a map that was made after the target's retention had taken the head of the log."""
    counted = below = 0
    for seed in range(6000):
        past = history(seed)
        ambiguous = past.filtered or past.twins or past.replays or past.foreign or past.changed or past.torn
        if ambiguous or not past.starts[1] or (past.source, past.target) != past.early:
            continue
        known = align(past, random.Random(seed), whole=True, complete=True).map
        if sum(run.length for run in known.runs()) == 1:
            continue  # what a lone pair passes is told when the next copy confirms it
        taken = past.taken - {r.identity for r in past.target.records}
        for committed in range(past.starts[0], known.resolved_source + 1):
            lost = [r for r in past.source.records if committed <= r.offset < known.resolved_source and r.identity in taken]
            assert known.deleted(committed, past.starts[1]).records >= len(lost), (seed, committed, past.begin)
            counted += bool(lost)
            below += any(r.offset < past.begin for r in lost)
    assert counted > 100
    assert below > 20
