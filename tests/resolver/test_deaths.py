"""Rules change and people decide, and at any effect of a resolver, or of a person's command, its process dies: all comes out the same."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import pytest

from mrc.core.conflict.listing import Claims
from mrc.core.conflict.partition import Partition
from mrc.core.errors import MrcError
from mrc.core.model import Offset, TopicPartition
from mrc.ports import Outgoing, StreamLog
from mrc.resolver import loop
from mrc.resolver.task import ASKED, ENTITY, GIVEN, RULES, Task, restore
from tests.core.conflict.test_convergence import HISTORIES
from tests.resolver.dying import Death, Point
from tests.resolver.scripted import Scripted, ScriptedUnstamped, Wrongly, rightly
from tests.resolver.stories import STORIES, Story, deaths, lived
from tests.resolver.world import how

LIVES = max(10, HISTORIES // 2_000) if HISTORIES < 1_000_000 else 1_000_000
"""Of each story at most, besides one for each way to die; with a million histories all that there are."""

KINDS = {"with headers": Scripted, "without": ScriptedUnstamped}

PARTLY = {
    "log.poll": ("unanswered",),
    "log.commit": ("unanswered", "open"),
    "log.append": ("unanswered", "first", "last"),
}
"""How one can die at some effects besides before and after."""

ALWAYS = (
    *("log.poll", "log.commit", "log.append", "log.replay", "log.replay.next", "log.at_end", "log.identity", "log.close"),
    *("shelves.open", "shelf.offset", "shelf.get", "shelf.items", "shelf.items.next", "shelf.apply", "shelf.close"),
)
"""What there is to die at in every story, at least."""

MORE = {
    "rules change": ("shelves.wipe",),
    "people decide": ("desk.spans", "desk.read", "desk.read.next", "desk.append", "desk.follow", "desk.follow.next"),
    "a file is taken back": (),
}


@cache
def calm(story: str, kind: str) -> Scripted:
    """Return the world in which nobody has died."""
    return lived(STORIES[story], KINDS[kind])


def wrong_in(story: Story, kind: type[Scripted], death: Death, right: dict[str, Any], wrongly: Wrongly = rightly) -> str:
    """Return what is wrong after a death; empty: nothing."""
    world = lived(story, kind, death, wrongly)
    if not world.watch.deaths:
        return f"{death}: nobody has died"
    return f"{death}: {words}" if (words := world.unlike(right)) else ""


def each_way(points: Sequence[Point], choose: random.Random) -> list[Death]:
    """Return a death of each kind of effect in each way."""
    ways: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        ways.setdefault((point.kind, point.how), []).append(point)
    return [Death(point.at, point.how) for point in map(choose.choice, ways.values())]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("story", STORIES)
def test_wherever_a_process_dies_all_is_told_as_if_none_had(story: str, kind: str) -> None:
    world = calm(story, kind)
    assert world.wrong() == ""
    right, points, choose = world.told(), world.watch.points, random.Random(LIVES)
    every = deaths(STORIES[story], points)
    chosen = [*each_way(points, choose), *choose.sample(every, min(LIVES, len(every)))]
    assert [words for death in chosen if (words := wrong_in(STORIES[story], KINDS[kind], death, right))][:3] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("story", STORIES)
def test_all_kinds_of_effects_are_died_at_and_none_is_left_out(story: str, kind: str) -> None:
    points = calm(story, kind).watch.points
    found: dict[str, set[str]] = {}
    for point in points:
        found.setdefault(point.kind, set()).add(point.how)
    for wanted in (*ALWAYS, *MORE[story], *(["log.ends"] if kind == "without" else [])):
        assert found[wanted] == {"before", "after", *PARTLY.get(wanted, ())}, wanted
    assert {point.region for point in points} == {"east", "west"}
    assert {point.at for point in points} == set(range(max(point.at for point in points) + 1))
    assert len(points) > 900
    assert len(deaths(STORIES[story], points)) > 1_000


def test_the_stories_hold_what_is_hard() -> None:
    hows, reasons, versions, asked, late = Counter[str](), Counter[str](), set[str](), 0, 0
    for story in STORIES:
        for kind in KINDS:
            world = calm(story, kind)
            for site in world.sites.values():
                told = [one for some in site.conflicts().values() for one in some]
                hows.update(how(one).split()[0] for one in told)
                versions |= {one["rules_hash"] for one in told}
                reasons.update((dict(one.headers)["mrc-reason"] or b"").decode() for one in site.records(site.topics.dead_letters))
                asked += len(site.records(site.topics.compensations))
                hows["deleted"] += sum(one.value is None for one in site.resolved().values())
            late += len(world.late)
    assert min(hows[one] for one in ("rule", "open", "decision", "time", "superseded", "deleted")) > 3, hows
    assert min(reasons[one] for one in ("no-type", "not-open", "no-candidate")) > 1, reasons
    assert (len(versions), asked > 10, late) == (4, True, 4)


# ---------------------------------------------------------------- what is wrong is caught


def the_disk_is_changed_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    right = Task.finish

    def finish(task: Task, now_s: float = 0.0, provisional_after_s: float = 0.0) -> list[Outgoing]:
        found = right(task, now_s, provisional_after_s)
        task._shelf.apply(task._writes, task._shelf.offset())
        return found

    patch.setattr(Task, "finish", finish)


def the_disk_is_not_mended_from_the_changelog(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(loop, "restore", lambda shelf, batches: 0 if shelf.offset() else restore(shelf, batches))


def written_down_later(prefix: bytes) -> Callable[[pytest.MonkeyPatch], None]:
    """Records of the state that begin so are in the transaction after the next, not in that of what they belong to."""

    def breaks(patch: pytest.MonkeyPatch) -> None:
        right, kept = Task.finish, dict[int, list[dict[bytes, bytes | None]]]()

        def finish(task: Task, now_s: float = 0.0, provisional_after_s: float = 0.0) -> list[Outgoing]:
            found = right(task, now_s, provisional_after_s)
            if not task.dirty:
                return found
            waits = kept.setdefault(id(task), [{}, {}])
            late = {key: task._writes.pop(key) for key in [*task._writes] if key.startswith(prefix)}
            waits.append(late)
            due = waits.pop(0)
            task._writes |= due
            changelog, number = task.changelog.topic, task.changelog.partition
            return [
                *(one for one in found if one.topic != changelog or one.key not in late),
                *(Outgoing(changelog, number, key, value) for key, value in due.items()),
            ]

        patch.setattr(Task, "finish", finish)

    return breaks


def a_mark_that_does_not_count_yet_is_not_read_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Partition, "first_held", lambda partition, region: None)


def what_is_listed_and_has_not_come_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Claims, "state", Claims.heard)


class Apart:
    """Results are appended, and only then the state and the positions are committed."""

    def __init__(self, log: StreamLog) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def commit(self, records: Sequence[Outgoing], positions: Mapping[TopicPartition, Offset]) -> dict[TopicPartition, Offset]:
        state = [one for one in records if one.topic.startswith("mrc.changelog.")]
        if results := [one for one in records if one not in state]:
            self._log.append(results)
        return self._log.commit(state, positions)


def as_it_is(patch: pytest.MonkeyPatch) -> None:
    pass


class Broken(NamedTuple):
    """In which story it must be noticed, how it is broken, and what stands before the log."""

    story: str
    kind: str
    breaks: Callable[[pytest.MonkeyPatch], None] = as_it_is
    wrongly: Wrongly = rightly


BROKEN = {
    "the disk before the commit, rules": Broken("rules change", "with headers", the_disk_is_changed_before_the_commit),
    "the disk before the commit, people": Broken("people decide", "without", the_disk_is_changed_before_the_commit),
    "the disk never mended": Broken("people decide", "with headers", the_disk_is_not_mended_from_the_changelog),
    "results apart from the state": Broken("people decide", "with headers", wrongly=Apart),
    "rules that marks tell of, later": Broken("a file is taken back", "with headers", written_down_later(RULES)),
    "a decision, later": Broken("people decide", "with headers", written_down_later(GIVEN)),
    "what a decision has changed, later": Broken("people decide", "with headers", written_down_later(ENTITY)),
    "whom to ask until when, later": Broken("people decide", "with headers", written_down_later(ASKED)),
    "a mark that waits, forgotten": Broken("people decide", "with headers", a_mark_that_does_not_count_yet_is_not_read_again),
    "what is listed and has not come, forgotten": Broken("people decide", "without", what_is_listed_and_has_not_come_is_forgotten),
}


@pytest.mark.parametrize("name", BROKEN)
def test_who_does_it_otherwise_is_caught_by_deaths_around_commits_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = BROKEN[name]
    story, kind = STORIES[broken.story], KINDS[broken.kind]
    right = calm(broken.story, broken.kind).told()
    broken.breaks(monkeypatch)
    alive = lived(story, kind, None, broken.wrongly)
    assert alive.unlike(right) == ""
    commits = [point for point in alive.watch.points if point.kind == "log.commit"]
    for point in random.Random(0).sample(commits, len(commits)):
        try:
            if wrong_in(story, kind, Death(point.at, point.how), right, broken.wrongly):
                return
        except (AssertionError, MrcError):  # it comes to no end, or cannot go on
            return
    raise AssertionError("nobody has noticed")
