"""What is chosen once stays: ports, ids, passwords, options."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

import pytest

from mrc.core.errors import MrcError
from mrc.sandbox import layout as places
from mrc.sandbox.layout import Options, State


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "sandbox")


@pytest.mark.parametrize("brokers", [1, 3])
def test_every_use_has_a_port_of_its_own(state: State, brokers: Literal[1, 3]) -> None:
    layout = state.make(Options(brokers=brokers))
    assert sorted(layout.ports) == sorted(places.ports_needed(layout.options))
    assert len(set(layout.ports.values())) == len(layout.ports)


def test_ports_stay_out_of_the_range_for_outgoing_connections(state: State) -> None:
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(places.FIRST_PORT <= port < first_outgoing for port in state.make(None).ports.values())


def test_a_second_making_changes_nothing(state: State) -> None:
    first = state.make(Options(policy="default"))
    passwords = {user: state.secret(user).read_text() for user in places.USERS}
    assert state.make(None) == first
    assert state.make(Options(policy="default")) == first
    assert {user: state.secret(user).read_text() for user in places.USERS} == passwords


def test_a_making_that_was_broken_off_after_the_passwords_keeps_them(state: State) -> None:
    state.make(None)
    before = state.secret("mrc").read_text()
    (state.folder / "sandbox.json").unlink()
    state.make(None)
    assert state.secret("mrc").read_text() == before


def test_other_options_are_refused_and_named(state: State) -> None:
    state.make(Options())
    with pytest.raises(MrcError, match=r"brokers=1 .* not with brokers=3") as refused:
        state.make(Options(brokers=3))
    assert refused.value.code == "SANDBOX_FAILED"


def test_secrets_are_for_the_owner_only(state: State) -> None:
    state.make(None)
    for user in (*places.USERS, places.BROKER_USER):
        assert state.secret(user).stat().st_mode & 0o777 == 0o600
    assert state.secret("mrc").parent.stat().st_mode & 0o777 == 0o700


def test_cluster_ids_differ_and_are_no_options_to_kafkas_tools(state: State) -> None:
    clusters = state.make(None).clusters
    assert clusters["east"] != clusters["west"]
    assert all(len(cluster) == 22 and not cluster.startswith("-") for cluster in clusters.values())


def test_a_garbled_file_is_an_error_with_its_place(state: State) -> None:
    state.make(None)
    (state.folder / "sandbox.json").write_text('{"ports": 1}')
    with pytest.raises(MrcError) as refused:
        state.layout()
    assert refused.value.code == "SANDBOX_FAILED"
    assert refused.value.where.endswith("sandbox.json")


def test_a_taken_port_is_not_chosen() -> None:
    with socket.socket() as taken:
        taken.bind((places.HOST, 0))
        taken.listen()
        assert not places.port_free(taken.getsockname()[1])


def test_under_identity_only_the_active_regions_flow_runs(state: State) -> None:
    layout = state.make(Options(active="west"))
    assert [layout.active_flow(region) for region in places.REGIONS] == [False, True]


def test_under_default_both_flows_run(state: State) -> None:
    layout = state.make(Options(policy="default"))
    assert [layout.active_flow(region) for region in places.REGIONS] == [True, True]
