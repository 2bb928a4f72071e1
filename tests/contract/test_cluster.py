"""The contract of `Cluster`, on the fake and on Kafka."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import Producer

from mrc.core.errors import MrcError
from mrc.core.model import Offset, Seen, TopicPartition
from mrc.ports import Batch, Binding, Cluster, Commit, Emitted, Position, Reader, Sight
from mrc.sandbox import jars
from mrc.sandbox.world import Sandbox
from tests.contract.cluster_stages import ClusterStage, RealStage, at, fresh_group
from tests.contract.waiting import eventually

KEPT = {"retention_ms": "-1"}
"""For topics with records of a fixed time: a broker that looks at its logs just then would delete them as too old."""


def _allow(stage: ClusterStage, topic: str, *principals: str) -> None:
    found = [
        Binding("topic", topic, "literal", f"User:{name}", operation, "allow") for name in principals for operation in ("write", "describe")
    ]
    stage.cluster.add_bindings(found)


def _deny(topic: str, principal: str) -> Binding:
    return Binding("topic", topic, "literal", f"User:{principal}", "write", "deny")


def _read(reader: Reader, partitions: int = 1) -> dict[TopicPartition, tuple[list[Seen], Batch]]:
    """Read until every partition was at its end; return records and the last batch per partition."""
    found: dict[TopicPartition, tuple[list[Seen], Batch]] = {}
    for _ in range(200):
        for batch in reader.poll(100, 0.1):
            found[batch.tp] = ([*found.get(batch.tp, ([], batch))[0], *batch.records], batch)
        if len(found) == partitions and all(batch.at_end for _, batch in found.values()):
            return found
    raise AssertionError(f"no end: {found}")


def _a_moment() -> None:
    time.sleep(0.05)


def _fails(stage: ClusterStage, call: Callable[[], object]) -> str:
    with pytest.raises(MrcError) as raised:
        call()
    assert stage.cluster is not None
    return raised.value.code


# ---------------------------------------------------------------- topics and offsets


def test_topics_describes_those_that_exist(stage: ClusterStage) -> None:
    name = stage.topic(2, cleanup_policy="compact")
    found = stage.cluster.topics([name, "test-none"])
    assert set(found) == {name}
    assert found[name].topic_id
    assert len(found[name].leaders) == 2
    assert all(leader >= 0 for leader in found[name].leaders)
    assert found[name].config["cleanup.policy"] == "compact"
    assert stage.cluster.topics([]) == {}


def test_topics_that_were_removed_are_named_no_more(stage: ClusterStage) -> None:
    name, kept = f"mrc.test-{fresh_group()}.internal", stage.topic()
    stage.cluster.ensure_topic(name, compacted=True)
    eventually(_a_moment, lambda: {name, kept} <= set(stage.cluster.topic_names()))
    stage.cluster.remove_topics([name])
    eventually(_a_moment, lambda: name not in stage.cluster.topic_names())
    stage.cluster.remove_topics([name])
    stage.cluster.remove_topics([])
    assert kept in stage.cluster.topic_names()


def test_an_open_transaction_holds_the_last_stable_offset_back(stage: ClusterStage) -> None:
    tp = TopicPartition(stage.topic(), 0)
    _allow(stage, tp.topic, "producer")
    stage.produce(tp, ["a", "b"])
    finish = stage.begin(tp, ["c"])
    assert stage.cluster.starts([tp]) == {tp: 0}
    assert stage.cluster.ends([tp], "read_uncommitted") == {tp: 3}
    assert stage.cluster.ends([tp], "read_committed") == {tp: 2}
    finish(True)
    assert stage.cluster.ends([tp], "read_uncommitted") == stage.cluster.ends([tp], "read_committed") == {tp: 4}


def test_a_trimmed_log_starts_later(stage: ClusterStage) -> None:
    tp = TopicPartition(stage.topic(), 0)
    stage.produce(tp, ["a", "b", "c"])
    stage.trim(tp, 2)
    assert stage.cluster.starts([tp]) == {tp: 2}


def test_offsets_of_what_is_not_there_are_an_error(stage: ClusterStage) -> None:
    tp = TopicPartition("test-none", 0)
    assert _fails(stage, lambda: stage.cluster.ends([tp], "read_committed")) == "UNKNOWN_TOPIC"
    beyond = TopicPartition(stage.topic(), 7)
    assert _fails(stage, lambda: stage.cluster.starts([beyond])) == "UNKNOWN_TOPIC"


# ---------------------------------------------------------------- groups


def test_an_unknown_group_is_dead_and_has_no_positions(stage: ClusterStage) -> None:
    group = fresh_group()
    assert stage.cluster.group(group).state == "Dead"
    assert stage.cluster.group(group).members == 0
    assert stage.cluster.positions(group) == {}


def test_positions_committed_for_an_empty_group_are_read_back_with_their_metadata(stage: ClusterStage) -> None:
    topic, group = stage.topic(3), fresh_group()
    wanted = {TopicPartition(topic, 0): Position(at(0), "note"), TopicPartition(topic, 2): Position(at(5))}
    stage.cluster.commit_positions(group, wanted)
    assert stage.cluster.positions(group) == wanted
    assert stage.cluster.group(group).state == "Empty"
    assert group in stage.cluster.group_ids()


def test_many_groups_are_told_of_at_once_as_each_of_them_alone(stage: ClusterStage) -> None:
    topic, live, empty, unknown = stage.topic(), fresh_group(), fresh_group(), fresh_group()
    stage.cluster.commit_positions(empty, {TopicPartition(topic, 0): Position(at(1))})
    with stage.member(live, topic):
        found = stage.cluster.groups([live, empty, unknown])
        assert found == {group: stage.cluster.group(group) for group in (live, empty, unknown)}
        assert [(found[group].state, found[group].members) for group in (empty, unknown)] == [("Empty", 0), ("Dead", 0)]
        assert found[live].members == 1
    many = [fresh_group() for _ in range(60)]
    assert list(stage.cluster.groups(many)) == many
    assert stage.cluster.groups([]) == {}


def test_a_live_group_refuses_a_commit_from_outside(stage: ClusterStage) -> None:
    topic, group = stage.topic(), fresh_group()
    tp = TopicPartition(topic, 0)
    stage.cluster.commit_positions(group, {tp: Position(at(1))})
    with stage.member(group, topic):
        assert stage.cluster.group(group).members == 1
        assert _fails(stage, lambda: stage.cluster.commit_positions(group, {tp: Position(at(2))})) == "GROUP_HAS_MEMBERS"
        assert stage.cluster.positions(group) == {tp: Position(at(1))}
    assert stage.cluster.group(group).members == 0
    stage.cluster.commit_positions(group, {tp: Position(at(2))})
    assert stage.cluster.positions(group) == {tp: Position(at(2))}


def test_the_error_of_one_partition_in_a_commit_is_raised(stage: ClusterStage) -> None:
    topic, group = stage.topic(), fresh_group()
    wanted = {TopicPartition(topic, 0): Position(at(1)), TopicPartition(topic, 9): Position(at(1))}
    assert _fails(stage, lambda: stage.cluster.commit_positions(group, wanted)) == "UNKNOWN_TOPIC"
    assert stage.cluster.positions(group) == {TopicPartition(topic, 0): Position(at(1))}


def test_positions_of_many_groups_are_committed_and_read_at_once(stage: ClusterStage) -> None:
    topic, many = stage.topic(3), [fresh_group() for _ in range(60)]
    wanted = {
        group: {TopicPartition(topic, 0): Position(at(number), "note"), TopicPartition(topic, 2): Position(at(1))}
        for number, group in enumerate(many)
    }
    stage.cluster.commit_positions_of({**wanted, fresh_group(): {}})
    unknown = fresh_group()
    assert stage.cluster.positions_of([*many, unknown]) == {**wanted, unknown: {}}
    assert stage.cluster.positions_of([]) == {}
    stage.cluster.commit_positions_of({})


def test_a_group_that_refuses_a_commit_keeps_no_other_from_it(stage: ClusterStage) -> None:
    topic, live, before, after = stage.topic(), fresh_group(), fresh_group(), fresh_group()
    tp = TopicPartition(topic, 0)
    with stage.member(live, topic):
        wanted = {group: {tp: Position(at(1))} for group in (before, live, after)}
        assert _fails(stage, lambda: stage.cluster.commit_positions_of(wanted)) == "GROUP_HAS_MEMBERS"
        assert stage.cluster.positions_of([before, after]) == {group: {tp: Position(at(1))} for group in (before, after)}


# ---------------------------------------------------------------- fences


def test_bindings_are_added_and_removed_exactly_and_repeatedly(stage: ClusterStage) -> None:
    topic = stage.topic()
    mine, other = _deny(topic, "producer"), Binding("topic", topic[:6], "prefixed", "User:producer", "read", "deny")
    before = stage.cluster.bindings()
    try:
        for _ in range(2):
            stage.cluster.add_bindings([mine, other])
            eventually(lambda: None, lambda: stage.cluster.bindings() - before == {mine, other})
        for _ in range(2):
            stage.cluster.remove_bindings([mine])
            eventually(lambda: None, lambda: stage.cluster.bindings() - before == {other})
    finally:
        stage.cluster.remove_bindings([mine, other])
    eventually(lambda: None, lambda: stage.cluster.bindings() == before)


def test_what_is_allowed_on_one_host_counts_as_allowed_unless_only_what_holds_everywhere_is_asked_for(stage: ClusterStage) -> None:
    topic = f"test-{fresh_group()}"
    allowed = Binding("topic", topic, "literal", "User:shop", "write", "allow")
    denied = Binding("topic", topic, "literal", "User:shop", "read", "deny")
    both = Binding("topic", topic, "literal", "User:shop", "describe", "allow")

    def seen(*, everywhere: bool) -> frozenset[Binding]:
        return frozenset(one for one in stage.cluster.bindings(everywhere=everywhere) if one.name == topic)

    stage.cluster.add_bindings([both])
    with stage.for_one_host(allowed), stage.for_one_host(denied):
        eventually(lambda: None, lambda: seen(everywhere=False) == {allowed, both})
        assert seen(everywhere=True) == {both}
    eventually(lambda: None, lambda: seen(everywhere=False) == {both})
    stage.cluster.remove_bindings([both])


def test_a_probe_tells_a_fence_from_none_and_appends_nothing(stage: ClusterStage) -> None:
    fenced, free = stage.topic(2), stage.topic()
    _allow(stage, fenced, "probe")
    _allow(stage, free, "probe")
    tps = [TopicPartition(fenced, 0), TopicPartition(fenced, 1), TopicPartition(free, 0)]
    open_all = dict.fromkeys(tps, "writable")
    eventually(lambda: None, lambda: stage.cluster.probe(tps) == open_all)
    stage.cluster.add_bindings([_deny(fenced, "probe")])
    eventually(lambda: None, lambda: stage.cluster.probe(tps) == {tps[0]: "refused", tps[1]: "refused", tps[2]: "writable"})
    stage.cluster.remove_bindings([_deny(fenced, "probe")])
    eventually(lambda: None, lambda: stage.cluster.probe(tps) == open_all)
    assert stage.cluster.ends(tps, "read_uncommitted") == dict.fromkeys(tps, 0)


def test_a_refusal_of_everybody_beats_what_is_allowed_by_name_and_stops_no_super_user(stage: ClusterStage) -> None:
    tp = TopicPartition(stage.topic(), 0)
    _allow(stage, tp.topic, "probe")
    eventually(lambda: None, lambda: stage.cluster.probe([tp]) == {tp: "writable"})
    everybody = Binding("topic", tp.topic, "literal", "User:*", "write", "deny")
    stage.cluster.add_bindings([everybody])
    eventually(lambda: None, lambda: stage.cluster.probe([tp]) == {tp: "refused"})
    stage.produce(tp, ["by a super user"])
    assert stage.cluster.ends([tp], "read_uncommitted") == {tp: 1}
    stage.cluster.remove_bindings([everybody])


@pytest.mark.parametrize("config", [{"message_timestamp_type": "LogAppendTime"}, {"message_timestamp_after_max_ms": "9223372036854775807"}])
def test_a_probe_that_would_be_appended_is_not_sent(stage: ClusterStage, config: dict[str, str]) -> None:
    tp = TopicPartition(stage.topic(1, **config), 0)
    _allow(stage, tp.topic, "probe")
    assert stage.cluster.probe([tp]) == {tp: "unverifiable"}
    assert stage.cluster.ends([tp], "read_uncommitted") == {tp: 0}


def test_a_probe_by_somebody_who_does_not_see_the_topic_proves_nothing(stage: ClusterStage) -> None:
    tp = TopicPartition(stage.topic(), 0)
    assert stage.cluster.probe([tp]) == {tp: "unverifiable"}


def test_an_open_transaction_passes_a_fence(stage: ClusterStage) -> None:
    tp = TopicPartition(stage.topic(), 0)
    _allow(stage, tp.topic, "producer", "probe")
    eventually(lambda: None, lambda: stage.cluster.probe([tp]) == {tp: "writable"})
    finish = stage.begin(tp, ["a"])
    stage.cluster.add_bindings([_deny(tp.topic, "producer"), _deny(tp.topic, "probe")])
    eventually(lambda: None, lambda: stage.cluster.probe([tp]) == {tp: "refused"})
    assert stage.cluster.ends([tp], "read_committed") == {tp: 0}
    finish(True)
    assert stage.cluster.ends([tp], "read_committed") == {tp: 2}


def test_broker_settings_tell_whether_there_is_an_authorizer(stage: ClusterStage) -> None:
    settings = stage.cluster.broker_settings()
    assert settings["authorizer.class.name"].endswith("StandardAuthorizer")
    assert "super.users" not in settings


# ---------------------------------------------------------------- reading


def test_last_records_are_the_last_visible_ones_below(stage: ClusterStage) -> None:
    topic = stage.topic(3)
    plain, marked, empty = (TopicPartition(topic, partition) for partition in range(3))
    _allow(stage, topic, "producer")
    stage.produce(plain, ["a", "b", "c"])
    stage.produce(marked, ["a"])
    for _ in range(20):
        stage.begin(marked, ["aborted"])(False)
    ends = stage.cluster.ends([plain, marked, empty], "read_committed")
    assert ends[marked] == 41
    found = stage.cluster.last_records([plain, marked, empty], ends)
    assert [None if seen is None else seen.offset for seen in found.values()] == [2, 0, None]
    below = stage.cluster.last_records([plain], {plain: Offset(2)})[plain]
    assert below is not None
    assert below.offset == 1
    assert stage.cluster.last_records([plain], {plain: Offset(0)}) == {plain: None}


def test_a_reader_sees_visible_records_only_and_its_position_passes_markers(stage: ClusterStage) -> None:
    tp = TopicPartition(stage.topic(), 0)
    _allow(stage, tp.topic, "producer")
    stage.produce(tp, ["a"])
    stage.begin(tp, ["aborted"])(False)
    stage.begin(tp, ["b"])(True)
    reader = stage.cluster.reader({tp: at(0)})
    records, last = _read(reader)[tp]
    assert [record.offset for record in records] == [0, 3]
    assert (last.position, last.at_end) == (5, True)
    stage.produce(tp, ["c"])
    records, last = _read(reader)[tp]
    assert [record.offset for record in records] == [5]
    assert last.position == 6
    reader.close()
    reader.close()


def test_a_reader_of_uncommitted_records_sees_aborted_and_open_ones(stage: ClusterStage) -> None:
    tp = TopicPartition(stage.topic(), 0)
    _allow(stage, tp.topic, "producer")
    stage.produce(tp, ["a"])
    stage.begin(tp, ["aborted"])(False)
    finish = stage.begin(tp, ["open"])
    uncommitted = Sight("read_uncommitted")
    reader = stage.cluster.reader({tp: at(0)}, uncommitted)
    records, last = _read(reader)[tp]
    reader.close()
    assert ([record.offset for record in records], last.position) == ([0, 1, 3], 4)
    below = stage.cluster.ends([tp], "read_uncommitted")
    found = [stage.cluster.last_records([tp], below, sight)[tp] for sight in (uncommitted, Sight())]
    assert [seen.offset if seen else None for seen in found] == [3, 0]
    assert [r.value for r in stage.cluster.records(tp, at(0), 10, uncommitted)] == [b"a", b"aborted", b"open"]
    finish(True)


def test_records_are_returned_whole_up_to_a_limit(stage: ClusterStage) -> None:
    tp = TopicPartition(stage.topic(1, **KEPT), 0)
    _allow(stage, tp.topic, "producer")
    stage.produce(tp, ["a", "b"], timestamp_ms=1_700_000_000_000)
    for _ in range(10):
        stage.begin(tp, ["aborted"])(False)
    stage.produce(tp, ["c", "d"], timestamp_ms=1_700_000_000_001)
    found = stage.cluster.records(tp, at(1), 2)
    assert [(r.offset, r.timestamp_ms, r.key, r.value, r.headers) for r in found] == [
        (1, 1_700_000_000_000, b"k", b"b", ()),
        (22, 1_700_000_000_001, b"k", b"c", ()),
    ]
    assert stage.cluster.records(tp, at(24), 2) == ()
    stage.trim(tp, 22)
    assert [r.value for r in stage.cluster.records(tp, at(0), 9)] == [b"c", b"d"]


def test_timestamps_count_only_where_they_are_looked_at(stage: ClusterStage) -> None:
    here, there = TopicPartition(stage.topic(1, **KEPT), 0), TopicPartition(stage.topic(1, **KEPT), 0)
    stage.produce(here, ["same"], timestamp_ms=1_700_000_000_000)
    stage.produce(there, ["same"], timestamp_ms=1_700_000_000_001)
    for unstamped, equal in ((frozenset[str](), False), (frozenset({here.topic, there.topic}), True)):
        sight = Sight(unstamped=unstamped)
        reader = stage.cluster.reader({here: at(0), there: at(0)}, sight)
        found = _read(reader, partitions=2)
        reader.close()
        assert (found[here][0][0].fingerprint == found[there][0][0].fingerprint) is equal
        last = stage.cluster.last_records([here], {here: at(1)}, sight)[here]
        assert last is not None
        assert last.fingerprint == found[here][0][0].fingerprint
        assert last.timestamp_ms == 1_700_000_000_000


def test_commits_are_told_as_they_happen_and_deletions_too(stage: ClusterStage) -> None:
    tp = TopicPartition(stage.topic(), 0)
    stage.produce(tp, ["a", "b", "c"])
    before, group = fresh_group(), fresh_group()
    stage.cluster.commit_positions(before, {tp: Position(at(1))})
    tail = stage.cluster.commits()
    found: list[Commit] = []

    def told(wanted: list[Commit]) -> None:
        def turn() -> None:
            found.extend(commit for commit in tail.poll(0.1) if commit.group in (group, before))

        eventually(turn, lambda: found == wanted)

    stage.cluster.commit_positions(group, {tp: Position(at(2), "meta")})
    stage.cluster.commit_positions(group, {tp: Position(at(1))})
    wanted = [Commit(group, tp, Position(at(2), "meta")), Commit(group, tp, Position(at(1)))]
    told(wanted)
    stage.forget_group(group)
    told([*wanted, Commit(group, tp, None)])
    tail.close()
    tail.close()


def test_a_reader_tells_the_end_of_an_empty_partition(stage: ClusterStage) -> None:
    tp = TopicPartition(stage.topic(), 0)
    reader = stage.cluster.reader({tp: at(0)})
    records, last = _read(reader)[tp]
    assert (records, last.position, last.at_end) == ([], 0, True)
    reader.close()


def test_a_reader_waits_before_an_open_transaction(stage: ClusterStage) -> None:
    tp = TopicPartition(stage.topic(), 0)
    _allow(stage, tp.topic, "producer")
    stage.produce(tp, ["a"])
    finish = stage.begin(tp, ["b"])
    reader = stage.cluster.reader({tp: at(0)})
    records, last = _read(reader)[tp]
    assert ([record.offset for record in records], last.position, last.at_end) == ([0], 1, True)
    finish(True)
    records, last = _read(reader)[tp]
    assert ([record.offset for record in records], last.position) == ([1], 3)
    reader.close()


def test_equal_records_have_equal_fingerprints_wherever_they_are(stage: ClusterStage) -> None:
    here, there = TopicPartition(stage.topic(1, **KEPT), 0), TopicPartition(stage.topic(1, **KEPT), 0)
    stage.produce(here, ["other", "same"], timestamp_ms=1_700_000_000_000)
    stage.produce(there, ["same"], timestamp_ms=1_700_000_000_000)
    reader = stage.cluster.reader({here: at(0), there: at(0)})
    found = _read(reader, partitions=2)
    reader.close()
    assert found[here][0][1].fingerprint == found[there][0][0].fingerprint
    assert found[here][0][0].fingerprint != found[there][0][0].fingerprint
    assert found[here][0][1].timestamp_ms == 1_700_000_000_000


def test_a_position_outside_of_the_log_is_an_error_and_never_a_jump(stage: ClusterStage) -> None:
    tp = TopicPartition(stage.topic(), 0)
    stage.produce(tp, ["a", "b", "c"])
    stage.trim(tp, 2)
    for position in (0, 9):
        reader = stage.cluster.reader({tp: at(position)})
        with pytest.raises(MrcError) as raised:
            _read(reader)
        reader.close()
        assert raised.value.code == "OFFSET_OUT_OF_RANGE"
        assert f"{tp} at {position}" in raised.value.where


def test_a_paused_partition_is_not_read_and_goes_on_where_it_was(stage: ClusterStage) -> None:
    topic = stage.topic(2)
    paused, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    reader = stage.cluster.reader({paused: at(0), other: at(0)})
    stage.produce(paused, ["a"])
    stage.produce(other, ["a"])
    _read(reader, partitions=2)
    reader.pause([paused])
    stage.produce(paused, ["b", "c"])
    stage.produce(other, ["b"])
    assert [record.offset for record in _read(reader)[other][0]] == [1]
    reader.resume([paused])
    assert [record.offset for record in _read(reader)[paused][0]] == [1, 2]
    reader.close()


def test_a_group_of_consumers_is_none_of_the_other_groups(stage: ClusterStage) -> None:
    group, topic = fresh_group(), stage.topic()
    with stage.member(group, topic):
        assert group in stage.cluster.group_ids()
        assert group not in stage.cluster.other_groups()
    assert group not in stage.cluster.other_groups()


# ---------------------------------------------------------------- mrc's own topics


def test_load_returns_the_last_value_per_key_without_tombstones(stage: ClusterStage) -> None:
    name = f"mrc.{fresh_group()}.internal"
    assert stage.cluster.load(name) == {}
    stage.cluster.ensure_topic(name, compacted=True)
    stage.cluster.ensure_topic(name, compacted=True)
    assert stage.cluster.load(name) == {}
    stage.cluster.append(name, [(b"a", b"1"), (b"b", b"1"), (b"a", b"2")])
    stage.cluster.append(name, [(b"b", None), (b"c", b"")])
    assert stage.cluster.load(name) == {b"a": b"2", b"c": b""}
    assert stage.cluster.topics([name])[name].config["cleanup.policy"] == "compact"


# ---------------------------------------------------------------- writing in transactions


def outgoing(tp: TopicPartition, value: bytes, timestamp_ms: int) -> Emitted:
    return Emitted(tp, b"k", value, timestamp_ms, (("origin", value), ("empty", None)))


def own_topic(stage: ClusterStage) -> TopicPartition:
    """A topic that mrc may write."""
    name = f"mrc.{fresh_group()}"
    stage.cluster.ensure_topic(name, compacted=False)
    eventually(lambda: None, lambda: name in stage.cluster.topics([name]))
    return TopicPartition(name, 0)


def values(stage: ClusterStage, tp: TopicPartition) -> list[bytes | None]:
    return [record.value for record in stage.cluster.records(tp, at(0), 100)]


def come(stage: ClusterStage, tp: TopicPartition, wanted: list[bytes | None]) -> None:
    """Wait until a partition's committed values are these: a broker decides a commit first and marks its logs after that."""
    eventually(lambda: None, lambda: values(stage, tp) == wanted)


def test_what_an_emitter_sends_is_seen_once_it_is_committed_with_its_time_and_headers(stage: ClusterStage) -> None:
    one, other = own_topic(stage), own_topic(stage)
    emitter = stage.cluster.emitter(f"mrc.recovery.{fresh_group()}")
    now_ms = int(time.time() * 1000)
    emitter.send([outgoing(one, b"1", now_ms), outgoing(other, b"2", now_ms)])
    emitter.send([outgoing(one, b"3", now_ms)])
    assert (values(stage, one), values(stage, other)) == ([], [])
    emitter.commit()
    come(stage, one, [b"1", b"3"])
    come(stage, other, [b"2"])
    (first, _) = stage.cluster.records(one, at(0), 100)
    assert (first.key, first.timestamp_ms, first.headers) == (b"k", now_ms, (("origin", b"1"), ("empty", None)))
    emitter.commit()
    emitter.close()
    emitter.close()


def test_the_next_emitter_of_a_name_breaks_off_what_the_last_one_left_open_and_ends_it(stage: ClusterStage) -> None:
    tp, name = own_topic(stage), f"mrc.recovery.{fresh_group()}"
    now_ms = int(time.time() * 1000)
    sleeper = stage.cluster.emitter(name)
    sleeper.send([outgoing(tp, b"kept", now_ms)])
    sleeper.commit()
    sleeper.send([outgoing(tp, b"broken off", now_ms)])
    follower = stage.cluster.emitter(name)
    assert stage.cluster.ends([tp], "read_committed") == stage.cluster.ends([tp], "read_uncommitted")
    with pytest.raises(MrcError) as raised:
        sleeper.commit()
    assert raised.value.code == "STALE_TERM"
    follower.send([outgoing(tp, b"next", now_ms)])
    follower.commit()
    come(stage, tp, [b"kept", b"next"])
    for emitter in (sleeper, follower):
        emitter.close()


def test_a_topic_is_made_anew_with_another_id_and_its_settings(stage: ClusterStage) -> None:
    name = f"mrc.{fresh_group()}"
    stage.cluster.make_topic_like(name, 2, {"retention.ms": "7200000"})
    eventually(lambda: None, lambda: name in stage.cluster.topics([name]))
    before = stage.cluster.topics([name])[name]
    stage.cluster.make_topic_like(name, 5, {})
    assert stage.cluster.topics([name])[name] == before
    stage.cluster.delete_topic(name)
    eventually(lambda: None, lambda: stage.cluster.topics([name]) == {})
    stage.cluster.delete_topic(name)
    stage.cluster.make_topic_like(name, 2, {"retention.ms": before.config["retention.ms"]})
    eventually(lambda: None, lambda: name in stage.cluster.topics([name]))
    after = stage.cluster.topics([name])[name]
    assert after.topic_id != before.topic_id
    assert (len(after.leaders), after.config["retention.ms"]) == (2, "7200000")


def deletable(stage: ClusterStage, partitions: int = 1, **config: str) -> str:
    """A topic whose records mrc may delete."""
    topic = stage.topic(partitions, **config)
    stage.cluster.add_bindings([Binding("topic", topic, "literal", "User:mrc", "delete", "allow")])
    eventually(lambda: None, lambda: "AUTHORIZATION_FAILED" not in refused(stage, TopicPartition(topic, 0), 0))
    return topic


def refused(stage: ClusterStage, tp: TopicPartition, below: int) -> str:
    try:
        stage.cluster.delete_records({tp: at(below)})
    except MrcError as error:
        return error.code
    return ""


def test_a_log_begins_where_its_records_were_deleted_up_to_and_never_earlier_again(stage: ClusterStage) -> None:
    topic = deletable(stage, 2)
    one, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    for tp in (one, other):
        stage.produce(tp, list("abcde"))
    stage.cluster.delete_records({one: at(3), other: at(5)})
    assert stage.cluster.starts([one, other]) == {one: 3, other: 5}
    stage.cluster.delete_records({one: at(2)})
    stage.cluster.delete_records({})
    assert stage.cluster.starts([one, other]) == {one: 3, other: 5}
    assert values(stage, one) == [b"d", b"e"]
    assert refused(stage, one, 6) == "OFFSET_OUT_OF_RANGE"
    assert refused(stage, TopicPartition("mrc.no-such-topic", 0), 1) == "UNKNOWN_TOPIC"


def test_records_of_a_topic_that_is_only_compacted_are_not_deleted(stage: ClusterStage) -> None:
    kept, both = (TopicPartition(deletable(stage, cleanup_policy=policy), 0) for policy in ("compact", "compact,delete"))
    for tp in (kept, both):
        stage.produce(tp, list("abc"))
    assert refused(stage, kept, 2) == "POLICY_VIOLATION"
    assert refused(stage, both, 2) == ""
    assert stage.cluster.starts([kept, both]) == {kept: 0, both: 2}


def test_one_of_mrcs_own_topics_that_is_not_compacted_keeps_all_for_ever(stage: ClusterStage) -> None:
    name = f"mrc.recovered.{fresh_group()}"
    stage.cluster.ensure_topic(name, compacted=False, partitions=3)
    stage.cluster.ensure_topic(name, compacted=False, partitions=3)
    eventually(lambda: None, lambda: name in stage.cluster.topics([name]))
    found = stage.cluster.topics([name])[name]
    assert (len(found.leaders), found.config["retention.ms"], found.config["cleanup.policy"]) == (3, "-1", "delete")


# ---------------------------------------------------------------- a dead cluster

CALLS: list[Callable[[Cluster], object]] = [
    lambda cluster: cluster.topics(["orders"]),
    lambda cluster: cluster.starts([TopicPartition("orders", 0)]),
    lambda cluster: cluster.ends([TopicPartition("orders", 0)], "read_committed"),
    lambda cluster: cluster.group_ids(),
    lambda cluster: cluster.other_groups(),
    lambda cluster: cluster.group(fresh_group()),
    lambda cluster: cluster.groups([fresh_group(), fresh_group()]),
    lambda cluster: cluster.positions(fresh_group()),
    lambda cluster: cluster.commit_positions(fresh_group(), {TopicPartition("orders", 0): Position(at(0))}),
    lambda cluster: cluster.positions_of([fresh_group(), fresh_group()]),
    lambda cluster: cluster.commit_positions_of({fresh_group(): {TopicPartition("orders", 0): Position(at(0))}}),
    lambda cluster: cluster.bindings(),
    lambda cluster: cluster.add_bindings([_deny("orders", "producer")]),
    lambda cluster: cluster.remove_bindings([_deny("orders", "producer")]),
    lambda cluster: cluster.broker_settings(),
    lambda cluster: cluster.probe([TopicPartition("orders", 0)]),
    lambda cluster: cluster.last_records([TopicPartition("orders", 0)], {TopicPartition("orders", 0): Offset(1)}),
    lambda cluster: cluster.records(TopicPartition("orders", 0), Offset(0), 1),
    lambda cluster: cluster.commits(),
    lambda cluster: cluster.ensure_topic("mrc.test.internal", compacted=True),
    lambda cluster: cluster.append("mrc.test.internal", [(b"k", b"v")]),
    lambda cluster: cluster.load("mrc.test.internal"),
    lambda cluster: cluster.emitter(fresh_group()),
    lambda cluster: cluster.make_topic_like("orders", 1, {}),
    lambda cluster: cluster.delete_topic("orders"),
    lambda cluster: cluster.delete_records({TopicPartition("orders", 0): at(1)}),
]


@pytest.mark.parametrize("call", CALLS, ids=[str(call.__code__.co_names[0]) for call in CALLS])
def test_a_cluster_that_does_not_answer_is_a_retryable_error(stage: ClusterStage, call: Callable[[Cluster], object]) -> None:
    with pytest.raises(MrcError) as raised:
        call(stage.dead)
    assert (raised.value.code, raised.value.retryable) == ("CLUSTER_UNREACHABLE", True)


def test_a_reader_of_a_cluster_that_does_not_answer_raises_and_goes_on_raising(stage: ClusterStage) -> None:
    reader = stage.dead.reader({TopicPartition("orders", 0): at(0)})
    for _ in range(2):
        raised: list[MrcError] = []
        for _ in range(50):
            try:
                assert reader.poll(10, 0.05) == []
            except MrcError as error:
                raised.append(error)
                break
        assert [error.code for error in raised] == ["CLUSTER_UNREACHABLE"]
    with suppress(MrcError):
        reader.close()


# ---------------------------------------------------------------- what mrc does not use, and why


@pytest.mark.server
def test_a_quota_is_no_fence(sandbox: Sandbox, tmp_path: Path) -> None:
    """Fresh producers at one byte a second each append at once: Kafka answers first, and delays the next request."""
    stage = RealStage(sandbox)
    try:
        tp = TopicPartition(stage.topic(), 0)
        _allow(stage, tp.topic, "producer")
        eventually(lambda: None, lambda: _appended_by_a_fresh_producer(sandbox, tp))
        config = sandbox.client_config("east", "admin")
        login = f'org.apache.kafka.common.security.scram.ScramLoginModule required username="admin" password="{config["sasl.password"]}";'
        properties = tmp_path / "admin.properties"
        properties.write_text(f"security.protocol=SASL_PLAINTEXT\nsasl.mechanism={config['sasl.mechanism']}\nsasl.jaas.config={login}\n")
        quota = [jars.java(), "-Xmx128m", "-cp", f"{jars.folder()}/*", "kafka.admin.ConfigCommand", "--bootstrap-server"]
        quota += [
            str(config["bootstrap.servers"]),
            "--command-config",
            str(properties),
            "--entity-type",
            "users",
            "--entity-name",
            "producer",
        ]
        subprocess.run([*quota, "--alter", "--add-config", "producer_byte_rate=1"], check=True, capture_output=True, timeout=60)
        try:
            before = stage.cluster.ends([tp], "read_uncommitted")[tp]
            assert all(_appended_by_a_fresh_producer(sandbox, tp) for _ in range(3))
            assert stage.cluster.ends([tp], "read_uncommitted") == {tp: before + 3}
        finally:
            subprocess.run([*quota, "--alter", "--delete-config", "producer_byte_rate"], check=True, capture_output=True, timeout=60)
    finally:
        stage.close()


def _appended_by_a_fresh_producer(sandbox: Sandbox, tp: TopicPartition) -> bool:
    failures: list[object] = []
    producer = Producer({**sandbox.client_config("east", "producer"), "linger.ms": 0, "message.timeout.ms": 10_000})
    producer.produce(tp.topic, b"x" * 5_000, b"k", tp.partition, on_delivery=lambda error, _: failures.append(error) if error else None)
    return producer.flush(15) == 0 and not failures
