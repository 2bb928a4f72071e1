"""What has ended is kept in every region's own cluster, whoever dies meanwhile, and is read there without mrc's agents."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mrc.agent.archive import AGAIN_EVERY_S, SETTLED_MS
from mrc.core.errors import MrcError
from mrc.core.failover.archive import TOPIC, Archived, decode_archive, encode_archived, key
from mrc.core.failover.execution import AbortAsked, Entry, Verified
from mrc.core.failover.plan import Plan
from mrc.core.model import Region, TopicPartition, decode, encode
from mrc.sim.kills import Killed
from mrc.sim.tree import Stored
from mrc.sim.world import EAST, WEST
from mrc.wiring.direct import read_history
from tests.sim.estate import Estate

FIRST = Path(__file__).parents[1] / "core" / "first_archived.json"


@pytest.fixture
def estate() -> Estate:
    """A switchover to west has ended."""
    made = Estate()
    made.settle(30)
    made.move("switchover", WEST)
    return made


def settled(estate: Estate) -> None:
    """Let so much time go by that what has ended is kept at the next turn."""
    estate.settle(SETTLED_MS // 100 + 1)


def ticked(estate: Estate) -> None:
    settled(estate)
    ticked_at_once(estate)


def ticked_at_once(estate: Estate) -> None:
    for agent in estate.agents.values():
        if agent.alive:
            agent.coordinator.archive_tick()


def kept(estate: Estate, region: Region) -> dict[str, Archived]:
    found, garbled = decode_archive("orders", estate.world.clusters[region].load(TOPIC))
    assert not garbled
    return found


def journals(estate: Estate) -> dict[str, Archived]:
    store = next(agent for agent in estate.agents.values() if agent.alive).coordinator.estate.store
    return {id: Archived(store.plan(id), store.entries(id)) for id in store.executions()}


def appended(estate: Estate, region: Region) -> int:
    return int(estate.world.clusters[region].log(TopicPartition(TOPIC, 0)).end)


def test_both_regions_keep_plan_and_journal_with_actor_and_reason(estate: Estate) -> None:
    ticked(estate)
    assert kept(estate, EAST) == kept(estate, WEST) == journals(estate)
    (one,) = kept(estate, WEST).values()
    assert (one.plan.actor, one.run().phase) == ("test", "succeeded")


def test_what_runs_is_kept_when_it_has_ended_and_nothing_is_written_twice(estate: Estate) -> None:
    estate.settle(SETTLED_MS // 100 + 1)
    estate.begin("switchover", EAST)
    estate.round()
    ticked_at_once(estate)
    assert len(kept(estate, EAST)) == 1
    run = estate.run_of(EAST)
    assert run is not None
    estate.leader(EAST).coordinator.mover.ask(AbortAsked("test"))
    estate.finish(EAST)
    for _ in range(3):
        ticked(estate)
    assert kept(estate, EAST) == kept(estate, WEST) == journals(estate)
    assert {region: appended(estate, region) for region in (EAST, WEST)} == {EAST: 2, WEST: 2}


def test_a_region_that_was_dead_catches_up(estate: Estate) -> None:
    ticked(estate)
    estate.lose(WEST)
    estate.move("failover", EAST, attested=True)
    ticked(estate)
    assert len(kept(estate, EAST)) == 2
    estate.regain(WEST)
    estate.settle(30)
    ticked(estate)
    assert kept(estate, WEST) == journals(estate)


def test_an_agent_that_dies_leaves_the_rest_to_the_next_one_which_writes_only_what_is_missing(estate: Estate) -> None:
    ticked(estate)
    leader = estate.leader(WEST)
    estate.stop(leader.name)
    estate.settle(60)
    assert estate.leader(WEST).name != leader.name
    ticked(estate)
    assert kept(estate, WEST) == journals(estate)
    assert appended(estate, WEST) == 1


def test_a_record_that_cannot_be_read_is_told_of_and_left_alone(estate: Estate) -> None:
    (id,) = journals(estate)
    west = estate.world.clusters[WEST]
    west.ensure_topic(TOPIC, compacted=True)
    west.append(TOPIC, [(key("orders", id), b"\x00 not json"), (b"others/1", b"not ours")])
    ticked(estate)
    assert west.load(TOPIC)[key("orders", id)] == b"\x00 not json"
    (found,) = estate.leader(WEST).coordinator.archive.findings()
    assert (found.code, id in found.message) == ("GARBLED_RECORD", True)
    assert list(read_history(west, "orders", WEST)) == [id]
    why = read_history(west, "orders", WEST)[id]
    assert isinstance(why, MrcError)
    assert (why.code, why.where, id in why.message) == ("GARBLED_RECORD", f"west {TOPIC}", True)
    assert isinstance(read_history(estate.world.clusters[EAST], "orders", EAST)[id], Archived)


def test_a_region_in_which_nothing_has_been_kept_says_so(estate: Estate) -> None:
    with pytest.raises(MrcError, match="archived there yet") as told:
        read_history(estate.world.clusters[WEST], "orders", WEST)
    assert told.value.code == "UNKNOWN_TOPIC"


def test_the_first_version_stays_readable() -> None:
    raw = FIRST.read_bytes().strip()
    one = decode(raw, Archived)
    assert one.run().phase == "succeeded"
    ((again_key, again),) = encode_archived(one)
    assert (again_key, decode(again, Archived)) == (key("orders", one.plan.id), one)
    lines = (FIRST.parent / "first_journal.jsonl").read_bytes().splitlines()
    assert one == Archived(decode(lines[0], Plan), tuple(decode(line, Entry) for line in lines[1:]))


def test_an_execution_with_an_action_of_another_version_ends_no_agent_and_keeps_no_other_back(estate: Estate) -> None:
    ((id, one),) = journals(estate).items()
    nodes, path = estate.world.ensemble.nodes, "/groups/orders/executions/0"
    steps = tuple(msgspec.structs.replace(step, action=f"other-{step.action}") for step in one.plan.steps)
    nodes[path] = Stored(encode(msgspec.structs.replace(one.plan, id="0", steps=steps)))
    nodes[f"{path}/entries"] = Stored(b"")
    nodes |= {f"{path}/entries/{entry.number:06d}": Stored(encode(entry)) for entry in one.entries}
    ticked(estate)
    assert set(kept(estate, WEST)) == {id}


def long(estate: Estate, id: str) -> Archived:
    """Put an execution into ZooKeeper whose journal no record of Kafka's usual size holds, older than all others; return it."""
    ((_, one),) = journals(estate).items()
    entries = []
    for entry in one.entries:
        said = isinstance(entry.event, Verified)
        entries.append(
            msgspec.structs.replace(entry, event=msgspec.structs.replace(entry.event, evidence="x" * 200_000) if said else entry.event)
        )
    made = Archived(msgspec.structs.replace(one.plan, id=id), tuple(entries))
    assert len(encode(made)) > 1_048_588
    nodes, path = estate.world.ensemble.nodes, f"/groups/orders/executions/{id}"
    nodes |= {path: Stored(encode(made.plan)), f"{path}/entries": Stored(b"")}
    nodes |= {f"{path}/entries/{entry.number:06d}": Stored(encode(entry)) for entry in made.entries}
    return made


@pytest.mark.parametrize("pieces", range(4))
def test_a_long_execution_is_kept_whole_wherever_its_agent_dies_while_writing_it(estate: Estate, pieces: int) -> None:
    made = long(estate, "0")
    leader = estate.leader(WEST)
    settled(estate)
    leader.switch.armed, leader.switch.at = True, 1 + pieces  # the topic is made first
    with pytest.raises(Killed):
        leader.coordinator.archive_tick()
    assert set(kept(estate, WEST)) == set()
    estate.stop(leader.name)
    estate.settle(60)
    ticked(estate)
    assert kept(estate, WEST) == kept(estate, EAST) == journals(estate)
    assert kept(estate, WEST)["0"] == made


def test_an_execution_that_the_topic_does_not_take_keeps_no_other_back_and_is_told_of_until_it_does(estate: Estate) -> None:
    long(estate, "0")
    west = estate.world.clusters[WEST]
    west.ensure_topic(TOPIC, compacted=True)
    west.contents[TOPIC].config["max.message.bytes"] = "400000"
    ticked(estate)
    assert set(kept(estate, WEST)) == set(journals(estate)) - {"0"}
    leader = estate.leader(WEST).coordinator
    assert [(one.code, "execution 0 is not archived" in one.message) for one in leader.archive.findings()] == [("RECORD_TOO_LARGE", True)]
    west.contents[TOPIC].config["max.message.bytes"] = "1048588"
    estate.world.clock.sleep(AGAIN_EVERY_S)
    estate.settle()
    ticked(estate)
    assert kept(estate, WEST) == journals(estate)
    assert leader.archive.findings() == ()


def test_what_neither_runs_nor_has_ended_is_not_read_at_every_turn(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    ((_, one),) = journals(estate).items()
    nodes, path = estate.world.ensemble.nodes, "/groups/orders/executions/0"
    nodes |= {path: Stored(encode(msgspec.structs.replace(one.plan, id="0"))), f"{path}/entries": Stored(b"")}
    nodes |= {f"{path}/entries/000000": Stored(encode(one.entries[0]))}
    leader = estate.leader(WEST).coordinator
    store, read = leader.estate.store, []
    plan = store.plan

    def counted(execution: str) -> Plan:
        read.append(execution)
        return plan(execution)

    monkeypatch.setattr(store, "plan", counted)
    for _ in range(20):
        estate.settle(2)
        leader.archive_tick()
    assert read.count("0") == 1
    nodes |= {f"{path}/entries/{entry.number:06d}": Stored(encode(entry)) for entry in one.entries[1:]}
    estate.world.clock.sleep(AGAIN_EVERY_S)
    estate.settle()
    leader.archive_tick()
    assert set(kept(estate, WEST)) == set(journals(estate))


def test_an_agent_that_leads_again_writes_nothing_that_another_one_has_written_meanwhile(estate: Estate) -> None:
    """Its own turn has not come while it did not lead."""
    settled(estate)
    first = estate.leader(WEST)
    first.coordinator.archive_tick()
    first.tree.expire()
    estate.asleep = {first.name}
    estate.settle(60)
    second = estate.leader(WEST)
    assert second.name != first.name
    estate.asleep = set()
    estate.move("switchover", EAST)
    settled(estate)
    second.coordinator.archive_tick()
    estate.stop(second.name)
    estate.settle(60)
    assert estate.leader(WEST) is first
    first.coordinator.archive_tick()
    assert (kept(estate, WEST), appended(estate, WEST)) == (journals(estate), 2)
