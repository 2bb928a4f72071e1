"""Views and messages are the same, field by field, there and back."""

from __future__ import annotations

from typing import Any

import grpc
import msgspec
import pytest
from google.protobuf.message import Message

from mrc.control.api import CONFLICT_SERVICE, METHODS, SERVICE, path
from mrc.control.mapping import error_of, read, respond, status_of
from mrc.control.pb.mrc.v1 import conflicts_pb2
from mrc.control.pb.mrc.v1 import mrc_pb2 as pb
from mrc.core import model, views
from mrc.core.errors import MrcError
from mrc.core.translation.positions import Place
from tests.control.estate import GONE, Agent, World, checkpoint

VIEWS: dict[str, Any] = {name.removesuffix("View"): kind for name, kind in vars(views).items() if name.endswith("View")}
MESSAGES: dict[str, type[Message]] = {name: getattr(pb, name) for name in (*VIEWS, "ActiveRecord", "Reading")}


@pytest.mark.parametrize("name", sorted(VIEWS))
def test_every_view_has_the_fields_of_its_message(name: str) -> None:
    assert [field.name for field in MESSAGES[name].DESCRIPTOR.fields] == list(VIEWS[name].__struct_fields__)


def test_the_active_record_and_readings_have_the_fields_of_their_messages() -> None:
    assert [field.name for field in pb.ActiveRecord.DESCRIPTOR.fields] == list(model.ActiveRecord.__struct_fields__)
    fields = {"type", *model.Known.__struct_fields__, *model.Unknown.__struct_fields__}
    assert {field.name for field in pb.Reading.DESCRIPTOR.fields} == fields


SERVICES = {
    service.full_name: service
    for service in (pb.DESCRIPTOR.services_by_name["CoordinatorService"], conflicts_pb2.DESCRIPTOR.services_by_name["ConflictService"])
}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_is_in_the_api_with_its_messages(name: str) -> None:
    _, service, called = path(name).split("/")
    described = SERVICES[service].methods_by_name[called]
    method = METHODS[name]
    assert (described.input_type, described.output_type) == (method.request.DESCRIPTOR, method.response.DESCRIPTOR)
    assert described.server_streaming == method.streams
    assert len(method.response.DESCRIPTOR.fields) == 1


def test_the_api_has_no_other_methods() -> None:
    assert set(SERVICES) == {SERVICE, CONFLICT_SERVICE}
    assert sorted(name for service in SERVICES.values() for name in service.methods_by_name) == sorted(METHODS)


def _answers() -> list[tuple[str, Any]]:
    world = World()
    world.leaders["west"] = "west-a"
    world.findings = (views.FindingView("NO_HEARTBEAT", "warning", "none seen", "east"),)
    agent = Agent(world, "west", "west-a")
    execution = agent.start("", "switchover", "west", "t", "me", "why", False)
    plan = agent.plan("", "failover", "west", True)
    verified = next(agent.verify("", ""))
    answers: list[tuple[str, Any]] = [("Version", agent.version()), ("Status", agent.status("")), ("Lag", agent.lag(""))]
    answers += [("ListCheckpoints", (checkpoint(),)), ("ListCheckpoints", ()), ("Translate", agent.translate("", "east", "orders", 0, 5))]
    answers += [("ShowOffsets", agent.group_offsets("", "")), ("DiffOffsets", agent.diff("", "")), ("ListUnmovable", agent.unmovable(""))]
    answers += [
        ("ExplainOffsets", next(agent.explain("", "billing", "", None))),
        ("ForgetCheckpoints", agent.forget("", "shipping", "", True)),
    ]
    answers += [("TranslateMany", agent.translate_many("", [Place("east", "orders", 0, 5), Place("east", "orders", 1, 20_000)]))]
    answers += [("ApplyOffsets", agent.apply_offsets("", "billing", True)), ("ApplyOffsets", agent.apply_offsets("", "billing", False))]
    answers += [("Plan", plan), ("Verify", verified), ("StartMove", execution), ("ListExecutions", (execution,))]
    answers += [("RecoverDivergence", next(agent.recover("", "0000-abc", "export"))), ("DivergenceStatus", agent.recoveries(""))]
    return [*answers, ("GetHistory", agent.history(execution.id)), ("ListDivergence", agent.divergence(""))]


@pytest.mark.parametrize(("method", "view"), _answers())
def test_what_is_sent_is_what_is_received(method: str, view: object) -> None:
    described = METHODS[method]
    sent = respond(described.response, view).SerializeToString()
    assert read(described.response.FromString(sent), described.view) == view


def test_a_missing_record_is_received_as_none() -> None:
    world = World()
    world.record = None
    view = Agent(world, "west", "west-a").status("")
    assert read(respond(pb.StatusResponse, view), views.StatusView) == view


def test_large_offsets_and_odd_readings_survive() -> None:
    far = msgspec.structs.replace(checkpoint(), source_offset=2**62, floor=-1)
    assert read(respond(pb.ListCheckpointsResponse, (far,)), tuple[views.CheckpointView, ...]) == (far,)
    lag = views.PartitionLagView("t", 0, GONE, model.Known(float("inf"), 1), model.Known(0.0, 2**53), GONE)
    flow = msgspec.structs.replace(Agent(World(), "west", "west-a")._flow("east", "west"), partitions=(lag,))
    assert read(respond(pb.LagResponse, (flow,)), tuple[views.FlowView, ...]) == (flow,)


def test_an_answer_of_another_version_is_an_error_that_says_so() -> None:
    with pytest.raises(MrcError, match="cannot be read") as caught:
        read(pb.StatusResponse(status=pb.Status(regions=[pb.Region(region="east")])), views.StatusView)
    assert caught.value.code == "VERSION_MISMATCH"


class Ended(grpc.RpcError):
    """A call that the client has ended by itself, behind an answer that said otherwise."""

    def trailing_metadata(self) -> Any:
        return status_of(MrcError("CONFLICT_CLOSED", "nobody is asked")).trailing_metadata

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self) -> str:
        return "received metadata size exceeds soft limit"


def test_of_a_call_that_was_ended_with_another_code_than_it_was_answered_with_an_error_is_made() -> None:
    error = error_of(Ended(), "there:1")
    assert (error.code, error.message, error.where) == ("AGENT_BUSY", "received metadata size exceeds soft limit", "there:1")
