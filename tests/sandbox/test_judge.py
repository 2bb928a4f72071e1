"""The judge against hand-made logs, among them those of moves that broke their promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mrc.sandbox.judge import LIMITS, Limits, Move, MoveVerdict, Partition, Verdict, judge
from mrc.sandbox.traffic_log import Acked, InDoubt, Logs, Processed

P0: Partition = ("orders", 0)
P1: Partition = ("orders", 1)


class Story:
    """A tiny estate that is told step by step and then judged. Time passes by a tenth of a second with every event."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.logs: dict[str, dict[Partition, list[tuple[int, str]]]] = {"east": {P0: [], P1: []}, "west": {P0: [], P1: []}}
        self.traffic = Logs(Path())  # told here, not read
        self.moves: list[Move] = []

    def tick(self, seconds: float = 0.1) -> float:
        self.now_s += seconds
        return self.now_s

    def append(self, region: str, event: str, partition: Partition = P0) -> int:
        log = self.logs[region][partition]
        offset = log[-1][0] + 1 if log else 0
        log.append((offset, event))
        return offset

    def ack(self, region: str, epoch: int, *events: str, partition: Partition = P0, resent: bool = False) -> None:
        for event in events:
            offset = self.append(region, event, partition)
            self.traffic.acked.append(Acked(self.tick(), region, epoch, *partition, offset, "key", 0, event, resent))

    def doubt(self, region: str, epoch: int, event: str) -> None:
        self.traffic.in_doubt.append(InDoubt(self.tick(), region, epoch, "orders", "key", 0, event, "_PURGE_INFLIGHT"))

    def copy(self, source: str, target: str, *events: str, partition: Partition = P0) -> None:
        for event in events:
            assert any(event == each for _, each in self.logs[source][partition])
            self.append(target, event, partition)

    def process(self, region: str, epoch: int, group: str, *events: str, partition: Partition = P0) -> None:
        for event in events:
            offset = next(offset for offset, each in self.logs[region][partition] if each == event)
            self.traffic.processed.append(Processed(self.tick(), region, epoch, group, *partition, offset, event))

    def move(self, kind: str, source: str, target: str, captured: Mapping[str, Mapping[str, int]] | None = None) -> None:
        self.moves.append(Move(kind, source, target, int(self.tick() * 1000), captured or {}))

    def verdict(
        self, *, groups: Sequence[str] = ("billing",), drained: bool = True, unread: str = "", active: str = "east", limits: Limits = LIMITS
    ) -> Verdict:
        logs = {region: log for region, log in self.logs.items() if region != unread}
        return judge(self.traffic, logs, self.moves, groups, active=active, drained=drained, limits=limits)


def planned() -> Story:
    """East to west without any loss: a and b before, c after."""
    story = Story()
    story.ack("east", 1, "a", "b")
    story.process("east", 1, "billing", "a", "b")
    story.copy("east", "west", "a", "b")
    story.move("switchover", "east", "west")
    story.tick(1.0)
    story.ack("west", 2, "c")
    story.process("west", 2, "billing", "c")
    return story


def unplanned(captured: int = 1) -> Story:
    """East dies with a, b, c, d acknowledged; west has a and b. Billing had processed a and b, and b's position was not captured."""
    story = Story()
    story.ack("east", 1, "a", "b", "c", "d")
    story.process("east", 1, "billing", "a", "b")
    story.copy("east", "west", "a", "b")
    story.move("failover", "east", "west", {"billing": {"orders-0": captured}})
    story.ack("west", 2, "e")
    story.process("west", 2, "billing", "b", "e")
    return story


def only(verdict: Verdict) -> MoveVerdict:
    assert len(verdict.moves) == 1
    return verdict.moves[0]


def test_a_clean_planned_move_is_ok_with_its_times() -> None:
    verdict = planned().verdict()
    move = only(verdict)
    assert verdict.ok, verdict.reasons
    assert (move.acked, move.lost, move.skipped, move.resent, move.duplicates_in_log) == (2, 0, 0, 0, 0)
    assert move.reread_per_group == {"billing": 0}
    # The last source acknowledgement, two events processed, the command, a second, the first target acknowledgement.
    assert move.write_block_s == 1.4
    assert move.rto_s == 1.2
    assert verdict.acked_after == 1


def test_the_json_names_from_and_to() -> None:
    plain = msgspec.to_builtins(planned().verdict())["moves"][0]
    assert (plain["kind"], plain["from"], plain["to"]) == ("switchover", "east", "west")
    assert {"write_block_s", "rto_s", "acked", "lost", "unreplicated_tail", "skipped", "reread_per_group"} <= plain.keys()


def test_a_lost_event_breaks_a_planned_move() -> None:
    story = planned()
    story.logs["west"][P0] = [record for record in story.logs["west"][P0] if record[1] != "b"]
    move = only(story.verdict())
    assert not move.ok
    assert move.lost == 1
    assert move.lost_per_partition == {"orders-0": 1}
    assert any("lost 1" in reason for reason in move.reasons)


def test_a_skipped_event_breaks_a_planned_move_and_is_not_lost() -> None:
    story = planned()
    story.traffic.processed = [line for line in story.traffic.processed if line.id != "b"]
    move = only(story.verdict())
    assert not move.ok
    assert (move.lost, move.skipped, move.skipped_per_group) == (0, 1, {"billing": 1})


def test_an_event_that_is_still_ahead_of_the_group_is_not_skipped_unless_it_was_given_the_time() -> None:
    story = planned()
    story.ack("west", 2, "d")
    assert story.verdict(drained=False).ok
    assert only(story.verdict(drained=True)).skipped == 1


def test_a_re_read_breaks_a_planned_move() -> None:
    story = planned()
    story.process("west", 2, "billing", "b")
    move = only(story.verdict())
    assert not move.ok
    assert move.reread_per_group == {"billing": 1}


def test_each_group_is_counted_apart() -> None:
    story = planned()
    story.process("east", 1, "shipping", "a")
    story.process("west", 2, "shipping", "a", "b", "c")
    move = only(story.verdict(groups=("billing", "shipping")))
    assert move.reread_per_group == {"billing": 0, "shipping": 1}


def test_what_was_re_sent_is_counted_apart_and_explains_its_second_processing() -> None:
    story = planned()
    story.append("east", "x")
    story.doubt("east", 1, "x")
    story.process("east", 1, "billing", "x")
    story.copy("east", "west", "x")
    story.ack("west", 2, "x", resent=True)
    story.process("west", 2, "billing", "x")
    verdict = story.verdict()
    assert verdict.ok, verdict.reasons
    assert only(verdict).resent == 1
    story.process("west", 2, "billing", "x")
    assert only(story.verdict()).reread_per_group == {"billing": 1}


def test_a_copy_made_twice_by_the_replicator_shows_as_duplicate_and_as_re_read() -> None:
    story = planned()
    story.logs["west"][P0].insert(2, (9, "b"))
    story.traffic.processed.append(Processed(story.tick(), "west", 2, "billing", *P0, 9, "b"))
    move = only(story.verdict())
    assert move.duplicates_in_log == 1
    assert move.reread_per_group == {"billing": 1}
    assert not move.ok


def test_a_failover_may_lose_exactly_the_tail_and_re_read_above_the_capture() -> None:
    verdict = unplanned().verdict(unread="east")
    move = only(verdict)
    assert verdict.ok, verdict.reasons
    assert (move.lost, move.unreplicated_tail) == (2, 2)
    assert move.unreplicated_tail_per_partition == {"orders-0": 2}
    assert move.reread_per_group == {"billing": 1}
    assert move.reread_below_capture == {}


def test_a_failover_that_loses_more_than_the_tail_is_broken() -> None:
    story = unplanned()
    story.logs["west"][P0] = [record for record in story.logs["west"][P0] if record[1] != "a"]
    move = only(story.verdict(unread="east"))
    assert not move.ok
    assert (move.lost, move.unreplicated_tail) == (3, 2)


def test_a_re_read_below_the_captured_position_breaks_a_failover() -> None:
    move = only(unplanned(captured=2).verdict(unread="east"))
    assert not move.ok
    assert move.reread_below_capture == {"billing": 1}


def test_a_re_read_breaks_a_failover_for_which_nothing_was_captured() -> None:
    story = unplanned()
    story.moves = [msgspec.structs.replace(story.moves[0], captured={})]
    assert not story.verdict(unread="east").ok


def test_a_skip_breaks_a_failover() -> None:
    story = unplanned()
    story.traffic.processed = [line for line in story.traffic.processed if line.id != "b"]
    move = only(story.verdict(unread="east"))
    assert (move.skipped, move.ok) == (1, False)


def test_the_way_home_counts_the_old_tail_neither_as_lost_again_nor_as_skipped() -> None:
    story = unplanned()
    story.copy("west", "east", "e")
    story.move("switchover", "west", "east")
    story.ack("east", 3, "f")
    story.process("east", 3, "billing", "f")
    verdict = story.verdict()
    assert verdict.ok, verdict.reasons
    assert [move.lost for move in verdict.moves] == [2, 0]
    assert [move.skipped for move in verdict.moves] == [0, 0]
    assert [move.acked for move in verdict.moves] == [4, 1]


def test_an_event_that_came_back_as_a_copy_to_where_it_was_written_is_found() -> None:
    story = planned()
    story.logs["west"]["east.orders", 0] = [(0, "b")]
    story.logs["east"]["west.orders", 0] = [(0, "c")]
    (reason,) = story.verdict().reasons
    assert reason == "1 events stand in two topics of west, such as b: copied in a loop"


def test_a_loss_on_the_second_move_belongs_to_the_second_move() -> None:
    story = planned()
    story.move("switchover", "west", "east")
    story.ack("east", 3, "d")
    story.process("east", 3, "billing", "d")
    verdict = story.verdict()
    assert [move.lost for move in verdict.moves] == [0, 1]
    assert [move.ok for move in verdict.moves] == [True, False]


def test_a_skip_belongs_to_the_move_that_carried_the_group_over_it() -> None:
    story = planned()
    story.ack("west", 2, "d")
    story.copy("west", "east", "c", "d")
    story.move("switchover", "west", "east")
    story.ack("east", 3, "f")
    story.process("east", 3, "billing", "f")
    assert [move.skipped for move in story.verdict().moves] == [0, 1]


def test_both_regions_taking_writes_is_found() -> None:
    story = planned()
    story.ack("east", 1, "late")
    story.copy("east", "west", "late")
    story.process("west", 2, "billing", "late")
    move = only(story.verdict())
    assert not move.ok
    assert any("after the first in west" in reason for reason in move.reasons)


def test_a_write_in_the_wrong_region_after_the_move_is_found() -> None:
    story = planned()
    story.ack("east", 2, "stray")
    assert any("elsewhere after" in reason for reason in only(story.verdict()).reasons)


def test_a_target_that_never_took_a_write_is_not_ok_and_has_no_times() -> None:
    story = Story()
    story.ack("east", 1, "a")
    story.process("east", 1, "billing", "a")
    story.copy("east", "west", "a")
    story.move("switchover", "east", "west")
    move = only(story.verdict())
    assert not move.ok
    assert (move.write_block_s, move.rto_s) == (None, None)


def test_a_group_that_did_not_follow_is_named() -> None:
    story = planned()
    move = only(story.verdict(groups=("billing", "shipping")))
    assert "shipping processed nothing in west" in move.reasons
    assert move.rto_s is None


def test_the_write_block_is_that_of_the_worst_partition() -> None:
    story = Story()
    story.ack("east", 1, "a", partition=P1)
    story.tick(2.0)
    story.ack("east", 1, "b")
    story.copy("east", "west", "a", partition=P1)
    story.copy("east", "west", "b")
    story.move("switchover", "east", "west")
    story.ack("west", 2, "c")
    story.ack("west", 2, "d", partition=P1)
    story.process("west", 2, "billing", "b")
    assert only(story.verdict(drained=False)).write_block_s == 2.4


def test_a_move_slower_than_the_limits_is_not_ok() -> None:
    verdict = planned().verdict(limits=Limits(write_block_s=1.0, rto_s=1.0))
    assert len(verdict.reasons) == 2
    assert planned().verdict(limits=Limits(write_block_s=None, rto_s=None)).ok


def test_an_unreadable_target_counts_against_the_move() -> None:
    assert not planned().verdict(unread="west").ok


def test_an_event_that_the_active_region_forgot_after_the_last_move_is_found() -> None:
    story = planned()
    story.logs["west"][P0].pop()
    verdict = story.verdict()
    assert (verdict.ok, verdict.lost_after) == (False, 1)


def test_a_re_read_before_any_move_is_no_moves_fault() -> None:
    story = planned()
    story.traffic.processed.insert(0, msgspec.structs.replace(story.traffic.processed[0], at_s=999.0))
    verdict = story.verdict()
    assert verdict.ok
    assert verdict.reread_before == {"billing": 1}


def test_without_moves_only_the_log_is_judged() -> None:
    story = Story()
    story.ack("east", 1, "a")
    assert story.verdict().ok
    story.logs["east"][P0].clear()
    assert story.verdict().lost_after == 1
