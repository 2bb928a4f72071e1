"""Links between sites: what they pass on, what comes of it while they are silenced, and who goes through which."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrc.config import load
from mrc.core.errors import MrcError
from mrc.sandbox import estate, kafka, links, processes, zookeeper
from mrc.sandbox import layout as places
from mrc.sandbox.layout import HOST, Layout, Options, State
from mrc.sandbox.world import Sandbox

IN_TIME_S = 60.0
SILENT_S = 0.5


class Ends:
    """A listener, and a link to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listener = socket.create_server((HOST, 0))
        self.listener.settimeout(IN_TIME_S)
        self.port = next(iter(places.choose_ports(["link"]).values()))
        routes = {self.port: self.listener.getsockname()[1]}
        command = [sys.executable, "-m", "mrc.sandbox.links", *links.arguments(routes)]
        processes.spawn(folder, "link", command, folder / "link.log", {"PYTHONPATH": str(Path(places.__file__).parents[2])})

    def connect(self) -> socket.socket:
        """Return a connection through the link; both ends stand once the listener has accepted."""
        until_s = time.monotonic() + IN_TIME_S
        while True:
            try:
                made = socket.create_connection((HOST, self.port), timeout=IN_TIME_S)
            except ConnectionRefusedError:
                assert time.monotonic() < until_s
                time.sleep(0.05)
            else:
                return made

    def accept(self) -> socket.socket:
        made, _ = self.listener.accept()
        made.settimeout(IN_TIME_S)
        return made


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    made = Ends(tmp_path)
    try:
        yield made
    finally:
        processes.end(tmp_path, grace_s=0)
        made.listener.close()


def test_bytes_pass_in_both_directions_and_each_side_hears_when_the_other_has_finished(ends: Ends) -> None:
    with ends.connect() as here, ends.accept() as there:
        here.sendall(b"question" * 100_000)
        here.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: there.recv(1 << 16), b"")) == b"question" * 100_000
        there.sendall(b"answer")
        there.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: here.recv(1 << 16), b"")) == b"answer"


def test_a_link_to_nobody_closes_what_comes(ends: Ends) -> None:
    ends.listener.close()
    with ends.connect() as here:
        here.settimeout(IN_TIME_S)
        with contextlib.suppress(ConnectionResetError):
            assert here.recv(1) == b""


def test_while_it_is_silenced_nothing_comes_through_and_nothing_is_refused_and_then_it_arrives_late(ends: Ends) -> None:
    with ends.connect() as here, ends.accept() as there:
        here.sendall(b"before")
        assert there.recv(100) == b"before"
        processes.send(ends.folder, ["link"], signal.SIGSTOP)
        here.sendall(b"meanwhile")
        there.settimeout(SILENT_S)
        with pytest.raises(TimeoutError):
            there.recv(100)
        with ends.connect() as another:
            another.sendall(b"late")
            ends.listener.settimeout(SILENT_S)
            with pytest.raises(TimeoutError):
                ends.listener.accept()
            processes.send(ends.folder, ["link"], signal.SIGCONT)
            there.settimeout(IN_TIME_S)
            ends.listener.settimeout(IN_TIME_S)
            assert there.recv(100) == b"meanwhile"
            with ends.accept() as newcomer:
                assert newcomer.recv(100) == b"late"


# ---------------------------------------------------------------- who goes through which


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


@pytest.fixture
def layout(state: State) -> Layout:
    made = state.make(Options(links=True, brokers=3))
    estate.write(made, state)
    return made


def ports(text: str) -> set[int]:
    """Every port that a server's settings name."""
    words = text.replace("=", ":").replace(",", ":").replace("\n", ":").replace("/", ":").split(":")
    return {int(word) for word in words if word.isdecimal()}


def test_without_links_sites_reach_one_another_directly_and_nothing_can_be_cut(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path)
    made = sandbox.state.make(Options())
    estate.write(made, sandbox.state)
    assert made.links() == []
    assert estate.seen_from(sandbox.state, "east") == sandbox.config_path
    for verb in (sandbox.cut, sandbox.mend):
        with pytest.raises(MrcError, match="without links") as refused:
            verb("east")
        assert refused.value.code == "BAD_REQUEST"


def test_each_link_passes_on_what_lies_between_its_two_sites(layout: Layout) -> None:
    assert [part.name for part in layout.links()] == ["link-east-west", "link-east-witness", "link-west-witness"]
    for part in layout.links():
        one, another = part.name.split("-")[1:]
        names = {number: name for name, number in layout.ports.items()}
        passed = {names[port]: names[to] for port, to in layout.routes(part).items()}
        assert {name.partition(">")[0] for name in passed} <= {one, another}
        assert all(name.partition(">")[2] == to and to.startswith((one, another)) for name, to in passed.items())
        assert part.port in layout.routes(part)
    assert sum(len(layout.routes(part)) for part in layout.links()) == sum(">" in name for name in layout.ports)


def test_a_zookeeper_server_finds_the_others_through_links_and_itself_at_its_own_ports(state: State, layout: Layout) -> None:
    for number, site in enumerate(places.sites(), start=1):
        members = [line for line in zookeeper.zoo_cfg(layout, state, site).splitlines() if line.startswith("server.")]
        for line in members:
            through = any(layout.ports[name] in ports(line) for name in layout.ports if name.startswith(f"{site}>"))
            assert through == (not line.startswith(f"server.{number}="))


def test_a_broker_listens_at_its_own_ports_and_is_told_to_other_regions_by_the_links(state: State, layout: Layout) -> None:
    settings = dict(line.split("=", 1) for line in kafka.properties(layout, state, "east", 2).splitlines())
    assert layout.ports["east-broker-2.remote"] in ports(settings["listeners"])
    assert layout.ports["west>east-broker-2.remote"] in ports(settings["advertised.listeners"])
    assert layout.ports["east-broker-2.remote"] not in ports(settings["advertised.listeners"])
    assert {layout.ports[f"east-broker-2.{use}"] for use in ("client", "broker")} <= ports(settings["advertised.listeners"])


@pytest.mark.parametrize(("region", "there"), [("east", "west"), ("west", "east")])
def test_agents_reach_their_own_region_directly_and_the_others_through_links(state: State, layout: Layout, region: str, there: str) -> None:
    seen, outside = load(estate.seen_from(state, region)), load(state.config)
    assert ports(seen.zookeeper.connect) == {
        layout.ports[f"{region}-zookeeper.client"],
        layout.ports[f"{region}>{there}-zookeeper.client"],
        layout.ports[f"{region}>witness-zookeeper.client"],
    }
    assert seen.regions[there].connect.url.endswith(str(layout.ports[f"{region}>{there}-connect"]))
    assert seen.regions[region].connect.url == outside.regions[region].connect.url
    assert seen.regions[there].kafka.remote == layout.bootstrap(there, "remote")
    assert seen.regions[region].kafka.bootstrap == outside.regions[region].kafka.bootstrap
    assert outside.zookeeper.connect == layout.zookeeper()
