"""What must hold of a case beside its answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tests.conformance.logs import records
from tests.conformance.stage import eventually
from tests.conformance.strategies import sync

if TYPE_CHECKING:
    from tests.conformance.case import Case
    from tests.conformance.running import Run

STANDBY_S = 80.0


def finding(topic: str, code: str = "", *, anew: bool = False) -> Callable[[Run, Case], None]:
    """mrc tells of a finding about the topic: at some time, or, with ``anew``, still after the agent was started anew."""

    def holds(run: Run, case: Case) -> None:
        told = run.findings_anew if anew else run.told
        found = [one for one in told[case.replication_group] if topic in one["where"] and code in ("", one["code"])]
        assert found, f"no finding {code} about {topic}; there are {told[case.replication_group]}"

    return holds


def came_from_the_target(topic: str, position: int) -> Callable[[Run, Case], None]:
    """The group's position on copies of the target's own records is answered exactly: by the original that it has not read yet."""

    def holds(run: Run, case: Case) -> None:
        row = run.rows[case.replication_group][case.group, topic, 0]
        assert (row["source_offset"], row["translation"]["type"]) == (position, "exact"), row
        here, there = (topic, 0), (case.topic, 0)
        copies, _ = records(run.stage.config("east"), [here], "read_committed")
        originals, _ = records(run.stage.config("west"), [there], "read_committed")
        unread = [record.value for record in copies[here] if record.offset >= position]
        assert unread
        assert [record.value for record in originals[there] if record.offset >= row["translation"]["offset"]] == unread

    return holds


def duplicates_came_about(run: Run, case: Case) -> None:
    """Some event was copied more than once: else the case is not the one that it is named for."""
    copies = {where: Counter(event.id for event in log.events) for where, log in run.targets.items() if where[0] == case.mirror}
    assert any(count > 1 for ids in copies.values() for count in ids.values())


def gaps_came_about(run: Run, case: Case) -> None:
    """The target's log has offsets without records: else the case is not the one that it is named for."""
    for where, log in run.targets.items():
        if where[0] == case.mirror:
            offsets = [event.offset for event in log.events]
            assert offsets[-1] - offsets[0] > len(offsets) - 1, where


def syncs_lie_in_the_target(run: Run, case: Case) -> None:
    """No sync of the topic is in the source; the target has some."""
    for region, topic in (("west", "mm2-offset-syncs.east.internal"), ("east", "mm2-offset-syncs.west.internal")):
        there = topic in run.stage.admin(region).list_topics(timeout=60).topics
        found, _ = records(run.stage.config(region), [(topic, 0)] if there else [], "read_committed")
        syncs = [sync(r.key, r.value) for rows in found.values() for r in rows if r.key is not None and r.value is not None]
        assert any(one.topic == case.topic for one in syncs) is (region == "west"), region


def history_advances_then_rewinds(run: Run, case: Case) -> None:
    """The checkpoints of the group were exact for its first position, then for the earlier one."""
    told = [(row["source_offset"], row["translation"]) for row in run.history(case.group, case.topic, 0)]
    offsets = [offset for offset, translation in told if translation["type"] == "exact"]
    assert offsets[0] == 9_000, told
    assert offsets[-1] == 1_000, told


def no_checkpoint_on(partition: int) -> Callable[[Run, Case], None]:
    """There is no checkpoint of the group on the partition."""

    def holds(run: Run, case: Case) -> None:
        assert (case.group, case.topic, partition) not in run.rows[case.replication_group]

    return holds


def checkpoint_holds_its_floor(before: Mapping[int, int]) -> Callable[[Run, Case], None]:
    """While a position cannot be answered, the answer for the group's earlier one stands. Partition -> that earlier position."""

    def holds(run: Run, case: Case) -> None:
        for partition, committed in before.items():
            floor = run.rows[case.replication_group][case.group, case.topic, partition]["floor"]
            cost = run.judge(case, partition).to_target(committed, floor)
            assert floor >= 0, partition
            assert not cost.skipped, (partition, floor, cost)
            assert not cost.repeated, (partition, floor, cost)

    return holds


def standby_says_the_same(run: Run, case: Case) -> None:
    """In the standby the group is kept at the answers, forwards and backwards."""
    rows = {p: row for (group, topic, p), row in run.rows[case.replication_group].items() if (group, topic) == (case.group, case.topic)}
    wanted = {(case.mirror, p): row["translation"]["offset"] for p, row in rows.items()}
    assert wanted
    eventually(
        lambda: {where: run.stage.committed(case.group, where, "west")[0] for where in wanted} == wanted,
        f"{case.group} stands at {wanted} in west",
        STANDBY_S,
    )


def standby_was_left_alone(position: int) -> Callable[[Run, Case], None]:
    """A group with members in the target keeps what it has committed there."""

    def holds(run: Run, case: Case) -> None:
        assert run.stage.committed(case.group, (case.mirror, 0), "west")[0] == position

    return holds


def metadata_is_kept(run: Run, case: Case) -> None:
    """The standby's position carries the metadata of the source's."""
    # The driver's consumer puts a NUL behind what it commits, and hides it; no other client does.
    here = run.stage.committed(case.group, (case.topic, 0), "east")[1].removesuffix(b"\0")
    assert here == case.metadata.encode()
    eventually(
        lambda: run.stage.committed(case.group, (case.mirror, 0), "west")[1] == here, f"{case.group} carries {here!r} in west", STANDBY_S
    )
