"""The contract of `Replicator`, on the fake and on MirrorMaker 2 in Connect."""

from __future__ import annotations

import pytest

from mrc.core.errors import MrcError
from mrc.core.model import Offset, TopicPartition
from mrc.ports import Binding, FlowStatus
from tests.contract.replicator_stages import FlowStage
from tests.contract.waiting import eventually


def _visible(flow: FlowStage, partition: int) -> list[int]:
    """Return the fingerprints of what the target shows."""
    tp = TopicPartition(flow.topic, partition)
    reader = flow.target.reader({tp: Offset(0)})
    try:
        found: list[int] = []
        for _ in range(200):
            for batch in reader.poll(1000, 0.1):
                found += [record.fingerprint for record in batch.records]
                if batch.at_end:
                    return found
        raise AssertionError("no end")
    finally:
        reader.close()


def _copied(flow: FlowStage, partition: int, count: int) -> None:
    def reached() -> bool:
        try:
            return len(_visible(flow, partition)) >= count
        except MrcError as error:
            if error.code != "UNKNOWN_TOPIC":
                raise
            return False

    eventually(flow.turn, reached)


def _stopped(flow: FlowStage) -> None:
    flow.replicator.stop(flow.connector)

    def reached() -> bool:
        status = flow.replicator.status(flow.connector)
        return status.state == "STOPPED" and not status.tasks

    eventually(flow.turn, reached)


def _running(flow: FlowStage) -> None:
    def reached() -> bool:
        status = flow.replicator.status(flow.connector)
        return status.state == "RUNNING" and bool(status.tasks) and set(status.tasks) == {"RUNNING"}

    eventually(flow.turn, reached)


def test_a_connector_that_is_not_there_is_absent_has_no_settings_and_takes_no_orders(flow: FlowStage) -> None:
    assert flow.replicator.status("none").state == "ABSENT"
    assert flow.replicator.settings("none") == {}
    with pytest.raises(MrcError) as raised:
        flow.replicator.stop("none")
    assert raised.value.code == "CONNECT_REFUSED"


def test_settings_name_the_source(flow: FlowStage) -> None:
    assert flow.replicator.settings(flow.connector)["source.cluster.alias"] == "east"


def test_stored_positions_are_the_next_source_offsets_once_the_tasks_are_gone(flow: FlowStage) -> None:
    flow.produce(0, ["a", "b", "c"])
    _running(flow)
    _copied(flow, 0, 3)
    flow.replicator.stop(flow.connector)
    flow.replicator.stop(flow.connector)
    _stopped(flow)
    assert flow.replicator.positions(flow.connector).get(TopicPartition(flow.topic, 0)) == 3
    assert TopicPartition(flow.topic, 1) not in flow.replicator.positions(flow.connector)


def test_positions_of_a_running_connector_are_not_set(flow: FlowStage) -> None:
    _running(flow)
    with pytest.raises(MrcError) as raised:
        flow.replicator.set_positions(flow.connector, {TopicPartition(flow.topic, 0): Offset(1)})
    assert raised.value.code == "CONNECT_REFUSED"


def test_a_resumed_flow_starts_at_the_set_positions_and_copies_nothing_twice(flow: FlowStage) -> None:
    _running(flow)
    _stopped(flow)
    flow.produce(0, ["skipped", "skipped", "first"])
    flow.produce(1, ["first", "second"])
    positions = {TopicPartition(flow.topic, 0): Offset(2), TopicPartition(flow.topic, 1): Offset(0)}
    flow.replicator.set_positions(flow.connector, positions)
    assert flow.replicator.positions(flow.connector) == {TopicPartition(flow.topic, 0): 2}
    flow.replicator.resume(flow.connector)
    flow.replicator.resume(flow.connector)
    _copied(flow, 0, 1)
    _copied(flow, 1, 2)
    flow.produce(0, ["second"])
    _copied(flow, 0, 2)
    assert (len(_visible(flow, 0)), len(_visible(flow, 1))) == (2, 2)


def test_a_position_beyond_the_sources_end_is_taken_and_then_everything_is_copied_again(flow: FlowStage) -> None:
    flow.produce(0, ["a", "b"])
    _copied(flow, 0, 2)
    _stopped(flow)
    tp = TopicPartition(flow.topic, 0)
    flow.replicator.set_positions(flow.connector, {tp: Offset(100)})
    assert flow.replicator.positions(flow.connector)[tp] == 100
    flow.replicator.resume(flow.connector)
    _copied(flow, 0, 4)


def test_a_flow_that_is_refused_its_writes_fails_is_stopped_all_the_same_and_goes_on_once_it_may_write(flow: FlowStage) -> None:
    refusal = Binding("topic", flow.topic, "literal", "User:mm2", "write", "deny")
    _running(flow)
    flow.target.add_bindings([refusal])
    try:
        flow.produce(0, ["a"])
        eventually(flow.turn, lambda: "FAILED" in flow.replicator.status(flow.connector).tasks)
        assert _visible(flow, 0) == []
        _stopped(flow)
    finally:
        flow.target.remove_bindings([refusal])
    eventually(flow.turn, lambda: refusal not in flow.target.bindings())
    flow.replicator.resume(flow.connector)
    _copied(flow, 0, 1)


def test_copies_keep_their_fingerprints(flow: FlowStage) -> None:
    flow.produce(0, ["a", "b"])
    _copied(flow, 0, 2)
    tp = TopicPartition(flow.topic, 0)
    source = flow.source.last_records([tp], flow.source.ends([tp], "read_committed"))[tp]
    target = flow.target.last_records([tp], flow.target.ends([tp], "read_committed"))[tp]
    assert source is not None
    assert target is not None
    assert source.fingerprint == target.fingerprint


def test_exactly_once_markers_take_offsets_in_the_target(flow: FlowStage) -> None:
    flow.produce(0, ["a", "b"])
    _copied(flow, 0, 2)
    tp = TopicPartition(flow.topic, 0)
    assert flow.target.ends([tp], "read_committed")[tp] > flow.source.ends([tp], "read_committed")[tp]


def test_a_connect_cluster_that_does_not_answer_is_a_retryable_error(flow: FlowStage) -> None:
    with pytest.raises(MrcError) as raised:
        flow.dead.status(flow.connector)
    assert (raised.value.code, raised.value.retryable) == ("CONNECT_UNREACHABLE", True)


def test_a_connector_is_made_stopped_keeps_its_state_when_configured_and_is_removed(flow: FlowStage) -> None:
    name = f"{flow.connector}.made"
    settings = {**flow.replicator.settings(flow.connector), "name": name}
    flow.replicator.create(name, settings)
    try:
        flow.replicator.create(name, {**settings, "topics": "none"})
        eventually(flow.turn, lambda: flow.replicator.status(name) == FlowStatus("STOPPED", ()))
        assert flow.replicator.settings(name)["topics"] == settings["topics"]
        flow.replicator.configure(name, {**settings, "topics": "other"})
        assert flow.replicator.configurations()[name]["topics"] == "other"
        # Workers share connectors out again after each change, and say UNASSIGNED meanwhile.
        eventually(flow.turn, lambda: flow.replicator.status(name) == FlowStatus("STOPPED", ()))
    finally:
        flow.replicator.delete(name)
    flow.replicator.delete(name)
    eventually(flow.turn, lambda: flow.replicator.status(name).state == "ABSENT")
    with pytest.raises(MrcError) as raised:
        flow.replicator.configure(name, settings)
    assert raised.value.code == "CONNECT_REFUSED"


def test_a_flow_that_never_ran_is_set_again_however_often_it_was_stopped_and_copies_nothing(flow: FlowStage) -> None:
    name, tp = f"{flow.connector}.unrun", TopicPartition(flow.topic, 0)
    _running(flow)
    _stopped(flow)
    flow.replicator.create(name, {**flow.replicator.settings(flow.connector), "name": name})
    settings = flow.replicator.settings(name)
    flow.produce(0, ["a", "b", "c"])

    def is_set(position: Offset) -> bool:
        try:
            flow.replicator.set_positions(name, {tp: position})
        except MrcError as error:
            if not error.retryable:
                raise
            return False
        return True

    try:
        eventually(flow.turn, lambda: flow.replicator.status(name) == FlowStatus("STOPPED", ()))
        for position in map(Offset, (1, 2, 3)):
            flow.replicator.stop(name)
            eventually(flow.turn, lambda position=position: is_set(position))  # type: ignore[misc] # mypy does not infer defaults
            assert flow.replicator.positions(name) == {tp: position}
        assert flow.replicator.settings(name) == settings
        assert _visible(flow, 0) == []
        eventually(flow.turn, lambda: flow.replicator.status(name) == FlowStatus("STOPPED", ()))
    finally:
        flow.replicator.delete(name)


def test_a_topic_that_is_left_out_is_copied_no_more_and_the_connector_goes_on(flow: FlowStage) -> None:
    flow.produce(0, ["a"])
    _running(flow)
    _copied(flow, 0, 1)
    _stopped(flow)
    flow.replicator.configure(flow.connector, {**flow.replicator.settings(flow.connector), "topics.exclude": flow.topic})
    flow.replicator.resume(flow.connector)
    flow.produce(0, ["b"])
    eventually(flow.turn, lambda: flow.replicator.status(flow.connector).state == "RUNNING")
    _stopped(flow)
    assert flow.replicator.positions(flow.connector)[TopicPartition(flow.topic, 0)] == 1
    assert len(_visible(flow, 0)) == 1
    settings = flow.replicator.settings(flow.connector)
    flow.replicator.configure(flow.connector, {key: value for key, value in settings.items() if key != "topics.exclude"})
    flow.replicator.resume(flow.connector)
    _copied(flow, 0, 2)
    assert len(_visible(flow, 0)) == 2
