"""Without headers: resolvers of all regions decide alike, by what marks list, whatever the links, the clocks and the deaths between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from mrc.core.conflict.entity import Rules
from mrc.core.conflict.events import EntityEvent
from mrc.core.conflict.headers import Stamp
from mrc.core.conflict.listing import FOLLOWED_MS_MAX, LISTED_MAX, Claimed, Claims
from mrc.core.conflict.marks import Entry, pack
from mrc.core.conflict.rules import Rule, RuleSet, StatePrecedence
from mrc.core.conflict.taking import Wrong
from mrc.core.errors import MrcError
from mrc.core.model import Offset, Region, TopicPartition
from mrc.ports import Arrived, Outgoing
from mrc.resolver import reading
from mrc.resolver import task as tasks
from mrc.resolver.kinds import Kind, check_timestamps, kind_of, topics
from mrc.resolver.listings import Found, Listings
from mrc.resolver.task import Counts
from mrc.sim.clock import FakeClock
from mrc.sim.streams import FakeShelves, FakeStreamLog, StreamCluster
from tests.resolver import test_convergence as lives
from tests.resolver import world as worlds
from tests.resolver.pair import Pair
from tests.resolver.test_convergence import SEEDS, caught
from tests.resolver.unstamped import Unstamped
from tests.resolver.world import TOPIC

EAST, WEST = Region("east"), Region("west")


def judge(seed: int) -> str:
    return f"seed {seed}: {wrong}" if (wrong := lives.lived(seed, Unstamped).wrong()) else ""


def test_all_regions_decide_alike_and_as_the_oracle_does() -> None:
    assert [words for seed in range(SEEDS) if (words := judge(seed))][:3] == []


def test_no_event_is_taken_to_have_seen_one_whose_copy_was_not_there_when_it_was_written() -> None:
    seen = 0
    for seed in range(2_000, 2_000 + SEEDS // 4):
        world = lives.lived(seed, Unstamped)
        assert isinstance(world, Unstamped)
        assert world.seen_too_much() == "", seed
        # What regions have written says the same as the marks: of each side of a conflict, what it is taken to have seen.
        by_marks = {one["id"]: one["seen"] for key in world.made for one in world.judged(key)}
        for site in world.sites.values():
            for one in (side for some in site.conflicts().values() for each in some for side in each["candidates"]):
                behind = [by_marks[id] for id in by_marks if _before(id, one["id"])]
                most = {other: max(each.get(other, 0) for each in behind) for other in one["seen"]}
                assert one["seen"] == most, (seed, one["id"])
                seen += bool(most)
    assert seen > SEEDS // 10


def _before(id: str, other: str) -> bool:
    """Whether two ids are of one log, and the first is not behind the other."""
    (log, _, at), (other_log, _, other_at) = id.rpartition("-"), other.rpartition("-")
    return log == other_log and int(at) <= int(other_at)


def test_all_regions_change_their_rules_at_the_same_place() -> None:
    for seed in range(SEEDS // 4):
        assert lives.lived_with_changes(seed, Unstamped).wrong() == "", seed


def test_people_decide_alike_in_all_regions() -> None:
    for seed in range(SEEDS // 4):
        assert lives.lived_with_decisions(seed, Unstamped).wrong() == "", seed


def test_the_worlds_hold_conflicts_events_that_have_seen_others_repetitions_and_strangers() -> None:
    counts, reasons, seen, deaths = Counts(), Counter[str](), 0, 0
    for seed in range(1000, 1030):
        world = lives.lived(seed, Unstamped)
        for site in world.sites.values():
            deaths += site.deaths
            for resolver in site.resolvers.values():
                counts.add(resolver.counts)
            reasons.update((dict(one.headers)["mrc-reason"] or b"").decode() for one in site.records(site.topics.dead_letters))
        seen += sum(bool(one["seen"]) for key in world.made for one in world.judged(key))
    assert deaths > 20
    assert min(counts.conflicts, counts.came_again, seen) > 50, (counts, seen)
    assert min(reasons[one] for one in ("not-listed", "clock-ahead", "not-json")) > 5, reasons


# ---------------------------------------------------------------- what is wrong is caught


def test_numbers_that_are_the_copies_own_offsets_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = reading.stamped

    def wrong(record: Arrived, kind: Kind, stamp: Stamp) -> tuple[EntityEvent, Wrong | None]:
        return right(record, kind, msgspec.structs.replace(stamp, vector={**stamp.vector, stamp.origin: record.offset + 1}))

    monkeypatch.setattr(tasks, "stamped", wrong)
    caught(judge)


def test_what_has_arrived_instead_of_what_the_marks_say_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(right: Callable[..., list[Found]]) -> Callable[..., list[Found]]:
        def wrong(listings: Listings, region: Region, *said: object) -> list[Found]:
            found = right(listings, region, *said)
            arrived = {other: claims.settled for other, claims in listings._claims.items() if other != region and claims.settled}
            return [
                one._replace(stamp=msgspec.structs.replace(one.stamp, vector={**arrived, region: one.stamp.number}))
                if isinstance(one, Claimed)
                else one
                for one in found
            ]

        return wrong

    for right in (Listings.come, Listings.hear):
        monkeypatch.setattr(Listings, right.__name__, changed(right))
    caught(judge)


def test_a_look_at_the_logs_end_before_the_copies_were_read_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = FakeStreamLog.ends

    def before(log: FakeStreamLog, tps: Sequence[TopicPartition]) -> Mapping[TopicPartition, Offset]:
        now = right(log, tps)
        found, log.looked = getattr(log, "looked", now), now  # type: ignore[attr-defined]
        return {tp: found.get(tp, now[tp]) for tp in tps}

    monkeypatch.setattr(FakeStreamLog, "ends", before)
    caught(judge)


def test_a_state_that_forgets_what_was_claimed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "ENOUGH", 30)
    monkeypatch.setattr(Claims, "state", Claims.heard)
    caught(judge)


# ---------------------------------------------------------------- two regions, step by step

RULES = Rules(RuleSet("order", (Rule("ships", StatePrecedence(("Shipped", "Cancelled"))),), (EAST, WEST), "json:$.event", {}, "watermark"))


def pair() -> Pair:
    return Pair(kind_of(TOPIC, RULES))


def write(both: Pair, region: Region, type: str, key: bytes = b"17", headers: Sequence[tuple[str, bytes | None]] = ()) -> None:
    value = b'{"event": "%s"}' % type.encode()
    both.sites[region].cluster.write(TOPIC, 0, key, value, headers)


def conflicts(both: Pair) -> list[list[dict[str, Any]]]:
    return [[one for some in site.conflicts().values() for one in some] for site in both.sites.values()]


def standing(both: Pair) -> list[tuple[str, bytes | None]]:
    found = [dict(site.resolved()["17"].headers) for site in both.sites.values()]
    return [((said["mrc-event-id"] or b"").decode(), said["mrc-final"]) for said in found]


def test_what_was_copied_and_marked_before_is_no_conflict() -> None:
    both = pair()
    write(both, EAST, "Shipped")
    both.settle()
    write(both, WEST, "Cancelled")
    both.settle()
    assert conflicts(both) == [[], []]
    assert standing(both) == [("west-0-0", b"true")] * 2


def test_what_was_written_at_the_same_time_is_one_and_says_how_it_was_found() -> None:
    both = pair()
    write(both, EAST, "Placed")
    both.settle()
    write(both, EAST, "Shipped")
    write(both, WEST, "Cancelled")
    both.settle()
    (one,), (same,) = conflicts(both)
    assert one == same
    assert one["steps"][0] == (
        "concurrent by the regions' marks: when east's Shipped east-0-1 came to offset 1, east had read nothing of west; "
        "when west's Cancelled west-0-0 came to offset 0, west had read east up to offset 0"
    )
    assert standing(both) == [("east-0-1", b"true")] * 2


def test_an_event_shows_when_its_regions_mark_lists_it_and_not_before() -> None:
    both = pair()
    both.settle(copying=False)
    east = both.sites[EAST]
    write(both, EAST, "Placed")
    east.tick()
    assert east.records(east.topics.resolved) == []
    both.settle(copying=False)
    assert standing_at(both, EAST) == ("east-0-0", b"false")


def standing_at(both: Pair, region: Region) -> tuple[str, bytes | None]:
    said = dict(both.sites[region].resolved()["17"].headers)
    return (said["mrc-event-id"] or b"").decode(), said["mrc-final"]


def test_records_alike_are_two_events() -> None:
    both = pair()
    for _ in range(2):
        write(both, EAST, "Placed")
    both.settle()
    assert standing(both) == [("east-0-1", b"true")] * 2
    assert [site.resolvers["a"].counts.events for site in both.sites.values()] == [2, 2]


def test_headers_that_look_like_a_stamp_say_nothing() -> None:
    both = pair()
    write(both, EAST, "Placed", headers=[("mrc-origin", b"west"), ("mrc-vv", b"garbled")])
    both.settle()
    assert standing(both) == [("east-0-0", b"true")] * 2
    assert all(site.records(site.topics.dead_letters) == [] for site in both.sites.values())


def test_a_region_whose_resolver_was_away_lists_what_came_meanwhile_as_seen_by_nobody_and_in_doubt() -> None:
    both = pair()
    write(both, WEST, "Placed")
    both.settle()
    both.sites[EAST].stop("a")
    for number in range(7_000):  # more than one mark lists
        write(both, EAST, "Cancelled", b"other-%d" % number)
    write(both, EAST, "Cancelled")
    write(both, WEST, "Shipped")
    west = both.sites[WEST]
    for _ in range(4):
        west.tick()
        both.clock.sleep(1)
    both.sites[EAST].start()
    both.settle()
    both.settle()
    (one,), (same,) = conflicts(both)
    assert one == same
    assert standing(both) == [("west-0-1", b"true")] * 2
    assert [site.resolvers["a"].tasks[TOPIC, 0].unlisted for site in both.sites.values()] == [0, 0]


def test_marks_of_which_some_could_not_be_written_leave_none_missing_before_others(monkeypatch: pytest.MonkeyPatch) -> None:
    both = pair()
    both.settle()
    right, lost = StreamCluster.append, 0

    def losing(cluster: StreamCluster, records: Sequence[Outgoing]) -> None:
        nonlocal lost
        right(cluster, records[1:])
        lost += 1
        raise MrcError("UNREACHABLE", "the first of them was not written", retryable=True)

    for number in range(2 * LISTED_MAX + 1):
        write(both, EAST, "Placed", b"other-%d" % number)
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(StreamCluster, "append", losing)
            both.sites[EAST].tick()
            both.clock.sleep(1)
            both.sites[EAST].tick()
    assert lost
    both.settle()
    assert [site.resolvers["a"].counts.events for site in both.sites.values()] == [2 * LISTED_MAX + 1] * 2


def test_a_region_whose_clock_is_far_ahead_takes_no_other_along() -> None:
    both = pair()
    ahead = FakeClock(both.clock.now_ms() + 600_000)
    both.clock.meanwhile = lambda: ahead.sleep(100)
    both.sites[WEST].clock = ahead
    both.restart(WEST, both.kind)
    both.sites[WEST].cluster.write(TOPIC, 0, b"17", b'{"event": "Placed"}', (), ahead.now_ms())
    both.settle()
    write(both, EAST, "Cancelled")
    for _ in range(4):
        both.settle()
    assert conflicts(both) == [[], []]
    assert standing(both) == [("east-0-0", b"true")] * 2
    assert all(site.records(site.topics.dead_letters) == [] for site in both.sites.values())
    said = [msgspec.json.decode(record.value or b"")["listing"] for record in both.sites[EAST].records(both.sites[EAST].topics.own_marks)]
    followed = [look["clock_ms"] - listing["read_ms"] for listing in said for look in listing["knew"]]
    assert followed
    assert max(followed) <= FOLLOWED_MS_MAX


def test_events_behind_marks_of_a_clock_that_was_far_ahead_are_not_taken_for_such_themselves() -> None:
    both = pair()
    ahead = FakeClock(both.clock.now_ms() + 36_000_000)
    right, both.sites[EAST].clock = both.sites[EAST].clock, ahead
    both.restart(EAST, both.kind)
    for _ in range(3):
        both.settle()
        ahead.sleep(1)
    both.sites[EAST].clock = right
    both.restart(EAST, both.kind)
    write(both, EAST, "Placed")
    both.settle()
    both.settle()
    assert standing(both) == [("east-0-0", b"false")] * 2
    both.clock.sleep(36_000)
    both.settle()
    assert standing(both) == [("east-0-0", b"true")] * 2
    assert all(site.records(site.topics.dead_letters) == [] for site in both.sites.values())


def test_detection_is_not_changed_under_a_state() -> None:
    both = pair()
    write(both, EAST, "Placed")
    both.settle()
    causal = kind_of(TOPIC, Rules(msgspec.structs.replace(RULES.set, detection="causal")))
    both.restart(EAST, causal)
    with pytest.raises(MrcError) as caught_error:
        both.sites[EAST].tick()
    assert caught_error.value.code == "RULES_CHANGED"


def test_copies_that_a_broker_stamps_are_refused_where_marks_list_them() -> None:
    stamped = Rules(msgspec.structs.replace(RULES.set, detection="causal"))
    types = {TOPIC: "LogAppendTime", f"west.{TOPIC}": "LogAppendTime"}
    check_timestamps(kind_of(TOPIC, stamped), topics(kind_of(TOPIC, stamped), EAST), types)
    kind = kind_of(TOPIC, RULES)
    check_timestamps(kind, topics(kind, EAST), {**types, f"west.{TOPIC}": "CreateTime"})
    with pytest.raises(MrcError, match=f"the records of west.{TOPIC} itself") as caught_error:
        check_timestamps(kind, topics(kind, EAST), types)
    assert caught_error.value.code == "TIMESTAMPS_DIFFER"


def test_a_mark_that_lists_nonsense_is_a_dead_letter_and_those_behind_it_count() -> None:
    both = pair()
    both.settle()
    east = both.sites[EAST]
    mark = msgspec.json.decode(east.records(east.topics.own_marks)[-1].value or b"")
    for events in (b"!", b"AAAA", msgspec.json.encode(pack([Entry(10**9, 0, 0)]))[1:-1]):
        said = {**mark, "listing": {**mark["listing"], "events": events.decode()}}
        east.cluster.write(east.topics.own_marks, 0, b"mark", msgspec.json.encode(said), ())
    write(both, EAST, "Placed")
    both.settle()
    assert standing(both) == [("east-0-0", b"true")] * 2
    for site in both.sites.values():
        assert [dict(one.headers)["mrc-reason"] for one in site.records(site.topics.dead_letters)] == [b"bad-mark"] * 3


def test_a_mark_of_a_process_that_lost_its_share_raises_nothing_that_marks_before_it_have_sealed() -> None:
    both = pair()
    east, west = both.sites[EAST], both.sites[WEST]
    both.settle()
    stale = msgspec.json.decode(east.records(east.topics.own_marks)[-1].value or b"")
    write(both, EAST, "Cancelled")
    both.settle(copying=False)
    east.cluster.write(east.topics.own_marks, 0, b"mark", msgspec.json.encode({**stale, "clock_ms": both.clock.now_ms() + 300_000}), ())
    for record in east.cluster.read(east.topics.own_marks, 0)[both._copied[f"{EAST} {west.topics.marks[EAST]}-0"] :]:
        west.cluster.write(west.topics.marks[EAST], 0, record.key, record.value, record.headers, record.timestamp_ms)
    west.tick()  # it has these marks before the event that they list
    write(both, WEST, "Shipped")
    both.settle()
    both.settle()
    (one,), (same,) = conflicts(both)
    assert one == same


def test_what_cannot_be_read_is_told_once_though_it_is_read_again() -> None:
    both = pair()
    east = both.sites[EAST]
    write(both, EAST, "Placed")
    east.cluster.write(TOPIC, 0, b"17", b"{", ())
    for _ in range(2):  # a share, and what stands there
        east.tick()
    assert len(east.records(east.topics.dead_letters)) == 1
    east.start()
    both.settle()
    assert standing(both) == [("east-0-0", b"true")] * 2
    assert [len(site.records(site.topics.dead_letters)) for site in both.sites.values()] == [1, 1]


def test_marks_that_are_missing_are_not_passed_over() -> None:
    both = pair()
    both.settle()
    west = both.sites[WEST]
    for _ in range(3):
        write(both, EAST, "Placed")
        both.settle(copying=False)
    east = both.sites[EAST]
    copied = [one for one in both._copied if "watermarks" in one and one.startswith("east")]
    for name in copied:
        both._copied[name] = len(east.cluster.read(east.topics.own_marks, int(name[-1]))) - 1
    with pytest.raises(MrcError, match="marks between them are missing") as caught_error:
        both.settle()
    assert caught_error.value.code == "OFFSET_OUT_OF_RANGE"
    assert west.records(west.topics.dead_letters) == []


def test_without_its_disk_it_goes_on_from_the_changelog() -> None:
    world = lives.lived(3, Unstamped)
    site = world.sites[world.regions[0]]
    before = site.records(site.topics.dead_letters)
    site.shelves = FakeShelves(site.cluster)
    for name in list(site.resolvers):
        site.start(name)
    world.heal()
    assert world.wrong() == ""
    assert site.records(site.topics.dead_letters) == before
