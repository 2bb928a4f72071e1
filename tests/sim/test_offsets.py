"""What operators see of positions, and what they commit and delete by hand, with the production agents in the in-memory world."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from msgspec.structs import replace

from mrc.agent.service import AgentService
from mrc.core.errors import MrcError
from mrc.core.model import GroupId, Known, Offset, Reading, TopicPartition, Unknown
from mrc.core.translation.positions import Place, checkpoints_topic
from mrc.core.translation.syncs import Mm2Checkpoint, Sync, encode_mm2_checkpoint, encode_sync
from mrc.core.views import ExplanationView, GroupOffsetView, OffsetDiffView
from mrc.ports import Position
from mrc.sim.cluster import FakeCluster
from mrc.sim.log import Record
from mrc.sim.reader import FakeReader
from mrc.sim.world import CONSUMER, EAST, PRODUCER, WEST
from tests.sim.estate import BILLING, SHIPPING, Estate
from tests.sim.test_service import known, reason, service

T = TypeVar("T")

TP = TopicPartition("orders", 0)
RETIRED = GroupId("retired")


@pytest.fixture
def estate() -> Estate:
    """East is open and quiet: everything is produced, copied, read and captured."""
    made = Estate()
    made.settle(30)
    made.drain()
    made.settle(60)
    return made


@pytest.fixture
def answers(estate: Estate) -> AgentService:
    return service(estate, WEST)


def append(cluster: FakeCluster, topic: str, *entries: tuple[bytes, bytes]) -> None:
    cluster.ensure_topic(topic, compacted=True)
    for key, value in entries:
        cluster.log(TopicPartition(topic, 0)).append(Record(key, value, 0))


def commit(estate: Estate, group: GroupId, tp: TopicPartition, offset: int) -> None:
    estate.world.clusters[EAST].commit_as_member(CONSUMER, group, {tp: Position(Offset(offset), "note")})


def quiet(estate: Estate) -> None:
    """Nobody reads, and the live sync has nothing to write, so that the target's positions are the test's own."""
    estate.consuming = {}
    for agent in estate.agents.values():
        agent.coordinator.sync.tick = lambda: False  # type: ignore[method-assign]


def offset_on(rows: tuple[GroupOffsetView, ...], tp: TopicPartition) -> GroupOffsetView:
    return next(row for row in rows if (row.topic, row.partition) == (tp.topic, tp.partition))


def diff_on(estate: Estate, tp: TopicPartition, group: GroupId = BILLING) -> OffsetDiffView:
    rows = service(estate, WEST).diff("orders", group)
    return next(row for row in rows if (row.topic, row.partition) == (tp.topic, tp.partition))


def explained(answers: AgentService, tp: TopicPartition = TP, group: GroupId = BILLING) -> ExplanationView:
    (one,) = answers.explain("orders", group, tp.topic, tp.partition)
    return one


def code(refused: pytest.ExceptionInfo[MrcError]) -> str:
    return refused.value.code


# ---------------------------------------------------------------- show


def test_a_group_is_shown_on_every_partition_with_both_positions_and_what_is_committed(estate: Estate, answers: AgentService) -> None:
    rows = answers.group_offsets("orders", BILLING)
    assert [(row.topic, row.partition) for row in rows] == [(tp.topic, tp.partition) for tp in sorted(estate.world.tps())]
    for row in rows:
        assert (row.source, row.target, row.translation.type, row.evidence) == (EAST, WEST, "exact", "exact")
        end = estate.world.clusters[EAST].log(TopicPartition(row.topic, row.partition)).end
        assert known(row.source_offset) == known(row.safe_offset) == known(row.committed) == end
        assert known(row.age_s) >= 0


def uncaptured(estate: Estate, tp: TopicPartition) -> None:
    """Let the capture know nothing of a group on a partition."""
    capture = estate.leader(WEST).coordinator.capture
    capture.forget([key for key in capture.captured() if (key.group, key.topic, key.partition) == (BILLING, tp.topic, tp.partition)])


def test_a_partition_without_a_position_is_shown_as_one(estate: Estate, answers: AgentService) -> None:
    uncaptured(estate, TP)
    row = offset_on(answers.group_offsets("orders", BILLING), TP)
    assert {reason(row.source_offset), reason(row.safe_offset), reason(row.age_s), row.translation.reason} == {"no-checkpoint"}
    assert (row.evidence, row.metadata) == ("", "")
    assert known(row.committed) > 0


def test_a_group_that_there_is_not_is_refused(answers: AgentService) -> None:
    for ask in (answers.group_offsets, answers.diff):
        with pytest.raises(MrcError) as refused:
            ask("orders", "nobody")
        assert code(refused) == "UNKNOWN_GROUP"


def test_a_silent_target_hides_nothing_of_the_source(estate: Estate, answers: AgentService) -> None:
    estate.world.clusters[WEST].reachable = False
    rows = answers.group_offsets("orders", BILLING)
    assert {reason(row.committed) for row in rows} == {"cluster-unreachable"}
    assert all(known(row.source_offset) > 0 for row in rows)


def test_a_captured_position_carries_its_metadata(estate: Estate, answers: AgentService) -> None:
    quiet(estate)
    commit(estate, BILLING, TP, 3)
    estate.settle(60)
    row = offset_on(answers.group_offsets("orders", BILLING), TP)
    assert (known(row.source_offset), known(row.safe_offset), row.metadata) == (3, 3, "note")


def test_a_bounded_answer_is_as_fresh_as_an_exact_one(estate: Estate, answers: AgentService) -> None:
    quiet(estate)
    for _ in range(3):
        estate.world.clusters[EAST].produce(PRODUCER, TP, b"k", b"same", timestamp_ms=7)
    estate.settle(60)
    west = estate.world.clusters[WEST].log(TP)
    west.append(west.entries[-1].record)  # a fourth, so that nobody can tell which is a copy of which
    commit(estate, BILLING, TP, estate.world.clusters[EAST].log(TP).end - 1)
    estate.settle(200)
    row = offset_on(answers.group_offsets("orders", BILLING), TP)
    assert (row.translation.type, row.translation.reason) == ("bounded", "identical-records")
    assert known(row.age_s) < 2


def test_logs_that_grow_all_the_time_are_read_through_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker says that a log has ended when it has nothing to send; of one that grows all the time it never does."""
    poll = FakeReader.poll
    monkeypatch.setattr(FakeReader, "poll", lambda *asked: [replace(one, at_end=False) for one in poll(*asked)])
    estate = Estate()
    estate.settle(60)
    rows = service(estate, WEST).group_offsets("orders", BILLING)
    assert len(rows) == len(estate.world.tps())
    assert {row.translation.type for row in rows} == {"exact"}


def test_an_agent_whose_capture_has_not_begun_says_so(estate: Estate) -> None:
    with pytest.raises(MrcError) as refused:
        service(estate, EAST).group_offsets("orders", BILLING)
    assert code(refused) == "CAPTURE_BEHIND"


# ---------------------------------------------------------------- explain


def test_the_records_on_both_sides_are_shown_and_are_the_same(estate: Estate, answers: AgentService) -> None:
    quiet(estate)
    commit(estate, BILLING, TP, 5)
    estate.settle(60)
    one = explained(answers)
    assert (known(one.source.offset), known(one.target.offset)) == (5, 5)
    assert one.next_alike
    assert one.before_alike
    here, there = one.source.next[0], one.target.next[0]
    assert (here.offset, here.key, here.value) == (5, there.key, there.value)
    assert here.value.startswith("event-")
    assert [record.offset for record in (*one.source.before, *one.target.before)] == [4, 4]


def test_at_the_logs_ends_there_is_no_next_record_and_the_ones_before_are_the_same(answers: AgentService) -> None:
    one = explained(answers)
    assert (one.source.next, one.target.next, one.next_alike, one.before_alike) == ((), (), False, True)


def test_a_dead_source_hides_nothing_of_the_target(estate: Estate, answers: AgentService) -> None:
    estate.world.lose(EAST)
    one = explained(answers)
    assert "CLUSTER_UNREACHABLE" in one.source.unread
    assert one.target.before
    assert not one.before_alike


def test_what_mirrormaker_would_have_answered_is_told_with_what_it_would_read_again(estate: Estate, answers: AgentService) -> None:
    quiet(estate)
    estate.world.replicators[WEST].connectors["mrc.orders.east-west"].config["offset-syncs.topic.location"] = "target"
    syncs = [encode_sync(tp, Sync(offset, offset)) for offset in (0, 10, 20) for tp in (TP, TopicPartition("orders", 1))]
    append(estate.world.clusters[WEST], "mm2-offset-syncs.east.internal", *syncs, (b"garbled", b"record"))
    commit(estate, BILLING, TP, 16)
    estate.settle(60)
    one = explained(answers)
    assert (one.syncs.region, one.syncs.topic, one.syncs.read, one.syncs.unread) == (WEST, "mm2-offset-syncs.east.internal", 3, "")
    assert [sync.source for sync in (*one.syncs.at_or_below, *one.syncs.above)] == [0, 10, 20]
    assert (known(one.mm2.offset), known(one.mm2.rereads), known(one.mm2.skips)) == (11, 5, 0)
    assert one.mm2.sync[0].source == 10


def test_syncs_that_lie_in_the_source_are_read_there_and_a_topic_that_is_missing_is_named(estate: Estate, answers: AgentService) -> None:
    one = explained(answers)
    assert "mm2-offset-syncs.west.internal" in one.syncs.unread
    assert reason(one.mm2.offset) == "not-read"
    append(estate.world.clusters[EAST], "mm2-offset-syncs.west.internal", encode_sync(TP, Sync(3, 3)))
    again = explained(answers)
    assert (again.syncs.region, again.syncs.read) == (EAST, 1)
    assert known(again.mm2.rereads) == known(again.target.offset) - 4
    commit(estate, BILLING, TP, 2)
    estate.consuming = {}
    estate.settle(60)
    assert reason(explained(answers).mm2.offset) == "no-sync"


def test_a_stale_sync_that_skips_is_told(estate: Estate, answers: AgentService) -> None:
    quiet(estate)
    append(estate.world.clusters[EAST], "mm2-offset-syncs.west.internal", encode_sync(TP, Sync(2, 12)))
    commit(estate, BILLING, TP, 5)
    estate.settle(60)
    assert (known(explained(answers).mm2.skips), known(explained(answers).mm2.rereads)) == (8, 0)


def test_every_partition_is_explained_where_none_is_named_and_a_wrong_name_is_refused(estate: Estate, answers: AgentService) -> None:
    assert len(list(answers.explain("orders", BILLING, "", None))) == 7
    assert len(list(answers.explain("orders", BILLING, "payments", None))) == 4
    for topic, partition in (("nothing", None), ("orders", 9)):
        with pytest.raises(MrcError) as refused:
            list(answers.explain("orders", BILLING, topic, partition))
        assert code(refused) == "UNKNOWN_TOPIC"


# ---------------------------------------------------------------- diff


def test_positions_that_the_live_sync_keeps_agree(estate: Estate, answers: AgentService) -> None:
    assert {row.verdict for row in answers.diff("orders", "")} == {"agrees"}
    assert len(answers.diff("orders", "")) == 14
    assert {reason(row.mm2_target) for row in answers.diff("orders", "")} == {"no-checkpoint"}


def test_a_target_that_is_ahead_of_the_answer_would_skip_and_one_behind_would_repeat(estate: Estate) -> None:
    quiet(estate)
    commit(estate, BILLING, TP, 5)
    estate.settle(60)
    west = estate.world.clusters[WEST]
    for offset, verdict, told in ((5, "agrees", ""), (3, "behind", "at most 2 records"), (9, "beyond", "4 records would be skipped")):
        west.commit_positions(BILLING, {TP: Position(Offset(offset))})
        row = diff_on(estate, TP)
        assert (row.verdict, known(row.committed), known(row.answer)) == (verdict, offset, 5)
        assert told in row.detail


def test_two_offsets_with_only_markers_between_them_mean_the_same(estate: Estate) -> None:
    west = estate.world.clusters[WEST]
    quiet(estate)
    end = west.log(TP).end
    transaction = west.begin()
    west.log(TP).append(Record(b"k", b"aborted", 0), transaction)
    west.finish(transaction, commit=False)
    west.commit_positions(BILLING, {TP: Position(Offset(end + 2))})
    row = diff_on(estate, TP)
    assert (row.verdict, known(row.answer)) == ("agrees", end)
    assert "no record lies between" in row.detail


def test_mirrormakers_checkpoint_stands_beside_the_answer(estate: Estate) -> None:
    topic = "east.checkpoints.internal"
    append(estate.world.clusters[WEST], topic, encode_mm2_checkpoint(BILLING, TP, Mm2Checkpoint(7, 4, "")), (b"garbled", b""))
    row = diff_on(estate, TP)
    assert (known(row.mm2_source), known(row.mm2_target)) == (7, 4)


def test_a_group_that_has_nothing_committed_in_the_target_is_told(estate: Estate) -> None:
    quiet(estate)
    estate.world.clusters[WEST].members_of[BILLING].positions.pop(TP)
    assert diff_on(estate, TP).verdict == "not-committed"


# ---------------------------------------------------------------- unmovable


def test_a_whole_estate_has_nothing_that_cannot_be_moved(answers: AgentService) -> None:
    assert answers.unmovable("orders") == ()


def test_what_group_offsets_do_not_move_is_listed(estate: Estate, answers: AgentService) -> None:
    east = estate.world.clusters[EAST]
    estate.consuming = {}
    east.others = {GroupId("connect-east"): "connect", GroupId("shared"): ""}
    east.join("User:admin", GroupId("reports"))
    east.acls.bindings = {b for b in east.acls.bindings if b.permission == "allow"}
    east.commit_positions(GroupId("reporting"), {TP: Position(Offset(1)), TopicPartition("orders", 2): Position(Offset(1))})
    east.commit_positions(GroupId("elsewhere"), {})
    del east.members_of[SHIPPING].positions[TP]
    east.members_of[BILLING].positions.clear()
    found = answers.unmovable("orders")
    assert [(one.kind, one.group, one.topic, one.partition) for one in found] == [
        ("no-position", SHIPPING, "orders", 0),
        ("no-positions", BILLING, "", -1),
        ("not-configured", "reporting", "orders", -1),
        ("other-protocol", "connect-east", "", -1),
        ("other-protocol", "shared", "", -1),
    ]
    assert "2 partitions" in found[2].detail
    assert "not told" in found[4].detail


def test_a_group_that_cannot_be_read_is_named_and_a_dead_source_is_an_error(estate: Estate, answers: AgentService) -> None:
    estate.world.clusters[EAST].members_of[BILLING].unstable = True
    assert [(one.kind, one.group) for one in answers.unmovable("orders")] == [("not-read", BILLING)]
    estate.world.lose(EAST)
    with pytest.raises(MrcError) as refused:
        answers.unmovable("orders")
    assert code(refused) == "CLUSTER_UNREACHABLE"


# ---------------------------------------------------------------- translate many


def test_many_positions_are_answered_in_their_order_and_none_refuses_the_others(answers: AgentService) -> None:
    places = [Place("east", "orders", 0, 5), Place("north", "orders", 0, 5), Place("east", "nothing", 0, 5), Place("west", "orders", 0, 5)]
    found = answers.translate_many("orders", [*places, Place("east", "orders", 77, 5)])
    assert [(one.region, one.topic, one.partition, one.offset) for one in found[:4]] == [tuple(place) for place in places]
    assert [one.translation.type for one in found] == ["exact", "unknown", "unknown", "exact", "unknown"]
    assert [one.translation.reason for one in found] == ["", "unknown-region", "unknown-topic", "", "unknown-topic"]


# ---------------------------------------------------------------- apply, commit


def of(reading: Reading[float]) -> float | str:
    return reading.value if isinstance(reading, Known) else reading.reason


def test_answers_are_committed_shown_before_and_after_and_read_back(estate: Estate, answers: AgentService) -> None:
    quiet(estate)
    west = estate.world.clusters[WEST]
    west.commit_positions(BILLING, {TP: Position(Offset(2))})
    before = dict(west.members_of[BILLING].positions)
    shown = next(one for one in answers.apply_offsets("orders", BILLING, dry_run=True) if (one.topic, one.partition) == ("orders", 0))
    end = west.log(TP).end
    assert (of(shown.before), of(shown.wanted), of(shown.after)) == (2, end, "not-committed")
    assert west.members_of[BILLING].positions == before
    done = answers.apply_offsets("orders", BILLING, dry_run=False)
    assert len(done) == 7
    assert all(one.after == one.wanted for one in done)
    assert west.positions(BILLING)[TP].offset == end
    assert answers.apply_offsets("orders", BILLING, dry_run=False)[0].after == done[0].after


def test_a_partition_without_an_answer_is_left_out_and_named(estate: Estate, answers: AgentService) -> None:
    quiet(estate)
    uncaptured(estate, TP)
    done = answers.apply_offsets("orders", BILLING, dry_run=False)
    left = [one for one in done if isinstance(one.wanted, Unknown)]
    assert [(one.topic, one.partition, one.note, of(one.wanted)) for one in left] == [("orders", 0, "left out", "no-checkpoint")]
    assert len(done) == 7


def test_a_group_with_members_keeps_its_positions(estate: Estate, answers: AgentService) -> None:
    quiet(estate)
    west = estate.world.clusters[WEST]
    west.acls.bindings = {b for b in west.acls.bindings if b.permission == "allow"}
    west.commit_positions(BILLING, {TP: Position(Offset(2))})
    west.join(CONSUMER, BILLING)
    for dry_run in (True, False):
        with pytest.raises(MrcError, match="1 members") as refused:
            answers.apply_offsets("orders", BILLING, dry_run=dry_run)
        assert code(refused) == "GROUP_HAS_MEMBERS"
    assert west.positions(BILLING)[TP].offset == 2


def test_in_the_open_region_nothing_is_committed(estate: Estate) -> None:
    east = service(estate, EAST)
    before = dict(estate.world.clusters[EAST].members_of[BILLING].positions)
    with pytest.raises(MrcError) as applied:
        east.apply_offsets("orders", BILLING, dry_run=False)
    with pytest.raises(MrcError) as imported:
        east.commit_offsets("orders", BILLING, 1, {TP: Position(Offset(1))}, dry_run=False)
    assert (code(applied), code(imported)) == ("TARGET_IS_OPEN", "TARGET_IS_OPEN")
    assert estate.world.clusters[EAST].members_of[BILLING].positions == before


def test_given_positions_are_committed_with_their_metadata(estate: Estate, answers: AgentService) -> None:
    quiet(estate)
    (done,) = answers.commit_offsets("orders", BILLING, 1, {TP: Position(Offset(4), "AQ==")}, dry_run=False)
    assert (of(done.wanted), of(done.after), done.note) == (4, 4, "")
    assert estate.world.clusters[WEST].positions(BILLING)[TP] == Position(Offset(4), "AQ==")


@pytest.mark.parametrize(
    ("group", "epoch", "tp", "offset", "expected"),
    [
        ("nobody", 1, TP, 1, "UNKNOWN_GROUP"),
        (BILLING, 7, TP, 1, "POSITIONS_STALE"),
        (BILLING, 1, TopicPartition("others", 0), 1, "UNKNOWN_TOPIC"),
        (BILLING, 1, TopicPartition("orders", 9), 1, "UNKNOWN_TOPIC"),
        (BILLING, 1, TP, 10**9, "OFFSET_OUT_OF_RANGE"),
    ],
)
def test_positions_that_cannot_be_right_are_refused_and_nothing_is_committed(
    estate: Estate, answers: AgentService, group: str, epoch: int, tp: TopicPartition, offset: int, expected: str
) -> None:
    quiet(estate)
    before = len(estate.world.clusters[WEST].committed)
    with pytest.raises(MrcError) as refused:
        answers.commit_offsets("orders", group, epoch, {TP: Position(Offset(0)), tp: Position(Offset(offset))}, dry_run=False)
    assert code(refused) == expected
    assert len(estate.world.clusters[WEST].committed) == before


def test_a_position_below_the_log_is_raised_to_its_start_and_says_so(estate: Estate, answers: AgentService) -> None:
    quiet(estate)
    estate.world.clusters[WEST].log(TP).trim(3)
    (done,) = answers.commit_offsets("orders", BILLING, 0, {TP: Position(Offset(1))}, dry_run=False)
    assert (of(done.wanted), of(done.after)) == (3, 3)
    assert "start" in done.note


def test_while_a_move_runs_positions_are_its_own(estate: Estate) -> None:
    estate.begin("switchover", WEST)
    with pytest.raises(MrcError) as refused:
        service(estate, WEST).apply_offsets("orders", BILLING, dry_run=False)
    assert code(refused) == "MOVE_IN_PROGRESS"
    assert estate.finish(WEST).phase == "succeeded"


def late(estate: Estate, ask: Callable[[GroupId], T]) -> Callable[[GroupId], T]:
    """Let a question take longer than a lease lasts, and nothing else happen meanwhile."""
    estate.world.clock.meanwhile = lambda: None

    def asked(group: GroupId) -> T:
        estate.world.clock.sleep(60)
        return ask(group)

    return asked


def test_a_leader_that_has_lost_its_lease_meanwhile_commits_nothing(
    estate: Estate, answers: AgentService, monkeypatch: pytest.MonkeyPatch
) -> None:
    west = estate.world.clusters[WEST]
    committed = len(west.committed)
    monkeypatch.setattr(west, "group", late(estate, west.group))
    with pytest.raises(MrcError) as refused:
        answers.apply_offsets("orders", BILLING, dry_run=False)
    assert code(refused) == "LEASE_LOST"
    assert len(west.committed) == committed


# ---------------------------------------------------------------- forget


def test_the_checkpoints_of_a_deleted_group_are_forgotten_for_good(estate: Estate, answers: AgentService) -> None:
    quiet(estate)
    east, west = estate.world.clusters[EAST], estate.world.clusters[WEST]
    estate.settle(2)
    east.settings["offsets.retention.minutes"] = "0"  # it may have expired: mrc keeps what it has
    east.leave(BILLING)
    east.forget_group(BILLING)
    estate.settle(5)
    assert len(answers.forget("orders", BILLING, "", dry_run=True)) == 7
    on_orders = answers.forget("orders", BILLING, "orders", dry_run=False)
    assert [(one.topic, one.partition, one.forgotten) for one in on_orders] == [
        ("orders", 0, True),
        ("orders", 1, True),
        ("orders", 2, True),
    ]
    assert len(answers.forget("orders", BILLING, "", dry_run=False)) == 4
    kept = west.load(checkpoints_topic(EAST))
    assert len(kept) == 7
    assert not any(b"billing" in key for key in kept)
    estate.settle(60)
    assert {c.group for c in answers.checkpoints("orders", "", "")} == {SHIPPING}
    with pytest.raises(MrcError) as refused:
        answers.forget("orders", BILLING, "", dry_run=False)
    assert code(refused) == "UNKNOWN_GROUP"


def test_a_group_that_still_has_positions_is_not_forgotten(estate: Estate, answers: AgentService) -> None:
    with pytest.raises(MrcError) as refused:
        answers.forget("orders", BILLING, "orders", dry_run=False)
    assert code(refused) == "GROUP_HAS_POSITIONS"
    estate.world.lose(EAST)
    with pytest.raises(MrcError) as silent:
        answers.forget("orders", BILLING, "", dry_run=False)
    assert code(silent) == "CLUSTER_UNREACHABLE"
    assert len(answers.checkpoints("orders", BILLING, "")) == 7


def test_a_leader_that_has_lost_its_lease_meanwhile_forgets_nothing(
    estate: Estate, answers: AgentService, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = estate.world.clusters[WEST].load(checkpoints_topic(EAST))
    monkeypatch.setattr(estate.world.clusters[EAST], "positions", late(estate, lambda _group: {}))
    with pytest.raises(MrcError) as refused:
        answers.forget("orders", BILLING, "", dry_run=False)
    assert code(refused) == "LEASE_LOST"
    assert estate.world.clusters[WEST].load(checkpoints_topic(EAST)) == kept
