"""Routes with an operator beside them who changes them too: in memory, a command's, HAProxy's, a name server's. All but the first real."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Protocol

import dns.query
import dns.rcode
import dns.tsig
import dns.update

from mrc.adapters.routing import CommandHook
from mrc.adapters.routing.dns import DnsRoute
from mrc.adapters.routing.haproxy import HaproxyRoute
from mrc.adapters.routing.own import CommandRoute
from mrc.core.model import Region
from mrc.ports import Route
from mrc.sim.routes import FakeRoute

EAST, WEST = Region("east"), Region("west")
DEADLINE_S = 2.0
WAIT_S = 20.0

ELSEWHERE = "elsewhere"
NOWHERE = ""


class RouteStage(Protocol):
    """A route that leads to east at first.

    Attributes:
        unallowed: the same one, reached by somebody who may read it and not change it.
        dead: one that nobody answers for.
    """

    route: Route
    unallowed: Route
    dead: Route

    def lead(self, to: str) -> None:
        """Somebody else lets it lead to a region, elsewhere, or nowhere."""


class FakeStage:
    def __init__(self) -> None:
        self._fake = FakeRoute((EAST, WEST), EAST)
        self.route: Route = self._fake
        unallowed, dead = FakeRoute((EAST, WEST), EAST), FakeRoute((EAST, WEST), EAST)
        unallowed.refuses, dead.reachable = True, False
        self.unallowed: Route = unallowed
        self.dead: Route = dead

    def lead(self, to: str) -> None:
        self._fake.leads_to = to


class CommandStage:
    """Clients look into a file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "route"
        self.lead(EAST)
        hook = CommandHook(folder)
        write = f"import json, sys; open({str(self._file)!r}, 'w').write(json.load(sys.stdin)['target'])"
        look = ("cat", str(self._file))
        self.route: Route = CommandRoute(hook, (sys.executable, "-c", write), look, (EAST, WEST), 10)
        self.unallowed: Route = CommandRoute(hook, ("false",), look, (EAST, WEST), 10)
        self.dead: Route = CommandRoute(hook, ("true",), ("false",), (EAST, WEST), 10)

    def lead(self, to: str) -> None:
        self._file.write_text(to)


class HaproxyStage:
    def __init__(self, folder: Path, address: str, backend: str) -> None:
        self._socket = str(folder / "admin.sock")
        self._backend = backend
        servers = {EAST: ("east-1", "east-2"), WEST: ("west-1",)}
        self.route: Route = HaproxyRoute(address, backend, servers, DEADLINE_S)
        self.unallowed: Route = HaproxyRoute(str(folder / "user.sock"), backend, servers, DEADLINE_S)
        self.dead: Route = HaproxyRoute(str(folder / "nobody.sock"), backend, servers, DEADLINE_S)

    def lead(self, to: str) -> None:
        ready = {EAST: ("east-1", "east-2"), WEST: ("west-1",), ELSEWHERE: ("else-1",), NOWHERE: ()}[to]
        for server in ("east-1", "east-2", "west-1", "else-1"):
            self.set(server, "ready" if server in ready else "maint")

    def set(self, server: str, state: str) -> None:
        assert say(self._socket, f"set server {self._backend}/{server} state {state}").strip() == ""


def say(path: str, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(path)
        sock.sendall(command.encode() + b"\n")
        said = b""
        while part := sock.recv(65_536):
            said += part
    return said.decode()


class DnsStage:
    """A name of its own in the zone. Somebody else is a person with another key."""

    SECRET = "bm90LW11Y2gtb2YtYS1zZWNyZXQtYnV0LWEtc2VjcmV0"

    def __init__(self, port: int, name: str, kind: str = "A") -> None:
        self._port = port
        self._name = name
        self._kind = kind
        self.values = {
            "A": {EAST: ("192.0.2.1", "192.0.2.2"), WEST: ("198.51.100.1",), ELSEWHERE: ("203.0.113.9",), NOWHERE: ()},
            "CNAME": {EAST: ("kafka.East.example.",), WEST: ("kafka.west.example.",), ELSEWHERE: ("else.example.",), NOWHERE: ()},
        }[kind]
        self.route: Route = self.by(port, "mrc")
        self.unallowed: Route = self.by(port, "reader")
        self.dead: Route = self.by(unused_port(), "mrc")
        self.lead(EAST)

    def by(self, port: int, key: str, secret: str = SECRET) -> DnsRoute:
        values = {region: self.values[region] for region in (EAST, WEST)}
        return DnsRoute(
            ("127.0.0.1", port), "example.", self._name, self._kind, 5, values, lambda: (key, "hmac-sha256", secret), DEADLINE_S
        )

    def lead(self, to: str) -> None:
        update = dns.update.UpdateMessage("example.")
        update.delete(self._name)
        if self.values[Region(to)]:
            update.add(self._name, 60, self._kind, *self.values[Region(to)])
        update.use_tsig(dns.tsig.Key("operator", self.SECRET, "hmac-sha256"))
        answer = dns.query.tcp(update, "127.0.0.1", timeout=10, port=self._port)
        assert answer.rcode() == dns.rcode.NOERROR


def unused_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    assert found, f"{name} is not installed: `make setup` does so"
    return found


@contextmanager
def haproxy(folder: Path, backends: int) -> Iterator[str]:
    """Run HAProxy with as many backends, ``kafka-0`` and so on; give its address for TCP."""
    port = unused_port()
    lines = [
        "global",
        f"  stats socket {folder}/admin.sock mode 600 level admin",
        f"  stats socket {folder}/user.sock mode 600 level user",
        f"  stats socket ipv4@127.0.0.1:{port} level admin",
        "defaults",
        "  mode tcp",
        "  timeout connect 2s",
        "  timeout client 60s",
        "  timeout server 60s",
    ]
    for number in range(backends):
        lines.append(f"listen kafka-{number}\n  bind unix@{folder}/kafka-{number}.sock")
        lines += [f"  server {name} unix@{folder}/{name}.sock{' disabled' * (name != 'east-1')}" for name in SERVERS]
    (folder / "haproxy.cfg").write_text("\n".join(lines) + "\n")
    with running([program("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")], port, folder / "haproxy.log"):
        yield f"127.0.0.1:{port}"


SERVERS = ("east-1", "east-2", "west-1", "else-1")


@contextmanager
def knot(folder: Path) -> Iterator[int]:
    """Run a name server that is the primary of ``example.``; give its port."""
    port = unused_port()
    keys = "\n".join(f'  - id: {key}\n    algorithm: hmac-sha256\n    secret: "{DnsStage.SECRET}"' for key in ("mrc", "reader", "operator"))
    # One who may only read: an update by that key is refused.
    (folder / "knot.conf").write_text(f"""
server:
  rundir: "{folder}"
  listen: [ "127.0.0.1@{port}" ]
database:
  storage: "{folder}"
log:
  - target: stderr
    any: info
key:
{keys}
acl:
  - id: changes
    key: [ mrc, operator ]
    action: update
zone:
  - domain: example.
    storage: "{folder}"
    file: example.zone
    acl: changes
""")
    (folder / "example.zone").write_text("$ORIGIN example.\n$TTL 60\n@ SOA ns hostmaster 1 60 60 3600 60\n@ NS ns\nns A 127.0.0.1\n")
    with running([program("knotd"), "-c", str(folder / "knot.conf")], port, folder / "knot.log"):
        yield port


@contextmanager
def running(argv: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server until the block ends; it is there when it takes connections."""
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            until_s = time.monotonic() + WAIT_S
            while not _answers(port):
                assert process.poll() is None, f"{argv[0]} has ended: {log.read_text()}"
                assert time.monotonic() < until_s, f"{argv[0]} does not answer: {log.read_text()}"
                time.sleep(0.02)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


NUMBERS = count()
"""For names that no test shares with another."""
