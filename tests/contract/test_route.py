"""The contract of `Route`: in memory, by a command, by HAProxy over both of its sockets, by a name server with signed updates."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.rrset
import dns.tsig
import dns.update
import pytest

from mrc.adapters.routing.dns import DnsRoute
from mrc.adapters.routing.haproxy import HaproxyRoute
from mrc.core.errors import MrcError
from mrc.core.model import Region
from mrc.ports import Route
from tests.contract import route_stages as stages
from tests.contract.route_stages import DEADLINE_S, EAST, ELSEWHERE, NOWHERE, NUMBERS, WEST, CommandStage, DnsStage, FakeStage, HaproxyStage

BACKENDS = 32

server = pytest.mark.server


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("haproxy")
    with stages.haproxy(folder, BACKENDS) as address:
        yield folder, address


@pytest.fixture(scope="module")
def name_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with stages.knot(tmp_path_factory.mktemp("knot")) as port:
        yield port


@pytest.fixture(
    params=["fake", "command", *(pytest.param(kind, marks=server) for kind in ("haproxy-unix", "haproxy-tcp", "dns-a", "dns-cname"))]
)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> stages.RouteStage:
    if request.param == "fake":
        return FakeStage()
    if request.param == "command":
        return CommandStage(tmp_path)
    if request.param.startswith("haproxy"):
        folder, address = request.getfixturevalue("proxy")
        made = HaproxyStage(
            folder, address if request.param == "haproxy-tcp" else f"{folder}/admin.sock", f"kafka-{next(NUMBERS) % BACKENDS}"
        )
        made.lead(EAST)
        return made
    port = request.getfixturevalue("name_server")
    return DnsStage(port, f"kafka-{next(NUMBERS)}.example.", request.param.removeprefix("dns-").upper())


def failed(code: str, call: Callable[[], object]) -> MrcError:
    with pytest.raises(MrcError) as raised:
        call()
    assert raised.value.code == code, raised.value
    return raised.value


def point(route: Route, to: str = WEST) -> None:
    route.point(Region(to), route.read(), {"execution": "1", "epoch": "2"})


def test_it_says_where_it_leads(stage: stages.RouteStage) -> None:
    seen = {}
    for to in (EAST, WEST, NOWHERE, ELSEWHERE):
        stage.lead(to)
        seen[to] = stage.route.read()
    assert [(one.region, one.foreign) for one in seen.values()] == [(EAST, False), (WEST, False), ("", False), ("", True)]
    assert len({one.seen for one in seen.values()}) == 4


def test_it_leads_where_it_was_let_and_back_and_twice_is_once(stage: stages.RouteStage) -> None:
    for to in (WEST, WEST, EAST):
        point(stage.route, to)
        assert stage.route.read().region == to


def test_what_led_nowhere_can_be_set(stage: stages.RouteStage) -> None:
    stage.lead(NOWHERE)
    point(stage.route)
    assert stage.route.read().region == WEST


@pytest.mark.parametrize(("was", "meanwhile"), [(EAST, ELSEWHERE), (EAST, NOWHERE), (NOWHERE, ELSEWHERE), (NOWHERE, EAST)])
def test_what_somebody_else_has_changed_meanwhile_is_not_overwritten(stage: stages.RouteStage, was: str, meanwhile: str) -> None:
    stage.lead(was)
    seen = stage.route.read()
    stage.lead(meanwhile)
    between = stage.route.read()
    assert failed("ROUTE_CHANGED", lambda: stage.route.point(WEST, seen, {})).retryable
    assert stage.route.read() == between


def test_who_may_not_change_it_changes_nothing_and_is_told_where(stage: stages.RouteStage) -> None:
    with pytest.raises(MrcError) as raised:
        point(stage.unallowed)
    assert raised.value.code == ("ROUTE_UNREACHABLE" if isinstance(stage, CommandStage) else "ROUTE_REFUSED")
    assert raised.value.where == stage.unallowed.name
    assert stage.route.read().region == EAST


def test_nobody_there_is_an_error_of_the_world(stage: stages.RouteStage) -> None:
    error = failed("ROUTE_UNREACHABLE", stage.dead.read)
    assert error.retryable
    assert error.where == stage.dead.name


# ---------------------------------------------------------------- hostile and dying servers


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port at which each connection is given to ``answer`` and closed in the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    try:
                        answer(sock)
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def haproxy_at(port: int, deadline_s: float = DEADLINE_S) -> HaproxyRoute:
    return HaproxyRoute(f"127.0.0.1:{port}", "kafka", {EAST: ("east-1",), WEST: ("west-1",)}, deadline_s)


def dns_at(port: int, deadline_s: float = DEADLINE_S) -> DnsRoute:
    values = {EAST: ("192.0.2.1",), WEST: ("198.51.100.1",)}
    key = ("mrc", "hmac-sha256", DnsStage.SECRET)
    return DnsRoute(("127.0.0.1", port), "example.", "kafka.example.", "A", 5, values, lambda: key, deadline_s)


def trickle(sock: socket.socket) -> None:
    """A byte now and then, for ever: each read succeeds, and the whole never ends."""
    sock.recv(4096)
    sock.sendall(b"\x40\x00")  # which is a length to DNS
    while True:
        sock.sendall(b"1")
        time.sleep(0.02)


def silence(sock: socket.socket) -> None:
    while sock.recv(4096):
        pass


@pytest.mark.parametrize("at", [haproxy_at, dns_at])
@pytest.mark.parametrize("answer", [trickle, silence])
def test_a_server_that_never_ends_is_left_at_the_deadline(
    at: Callable[[int, float], Route], answer: Callable[[socket.socket], None]
) -> None:
    with answering(answer) as port:
        began_s = time.monotonic()
        assert failed("ROUTE_UNREACHABLE", at(port, 0.3).read).retryable
        assert time.monotonic() - began_s < 0.9


HEAD = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state\n"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("", "ROUTE_REFUSED"),
        ("Can't find backend.\n", "ROUTE_REFUSED"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "ROUTE_REFUSED"),
        (HEAD, "ROUTE_REFUSED"),
        (HEAD + "2 kafka 1 east-1 - 2 0\n", "ROUTE_REFUSED"),
        (HEAD + "2 kafka 1 east-1 - 2 x\n2 kafka 2 west-1 - 2 0\n", "ROUTE_UNREACHABLE"),
        (HEAD + "2 kafka 1 east-1\n", "ROUTE_UNREACHABLE"),
        (HEAD + "2 other 1 east-1 - 2 0\n2 other 2 west-1 - 2 1\n", "ROUTE_UNREACHABLE"),
        ("1\n# be_id srv_name\n2 east-1\n", "ROUTE_UNREACHABLE"),
        ("\xff" * 100, "ROUTE_REFUSED"),
        (HEAD + "x" * 2_000_000, "ROUTE_UNREACHABLE"),
    ],
)
def test_what_haproxy_does_not_say_is_never_taken_for_a_route(said: str, code: str) -> None:
    def answer(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(said.encode("latin-1"))

    with answering(answer) as port:
        assert failed(code, haproxy_at(port).read).where == f"haproxy 127.0.0.1:{port} kafka"


def dns_answer(shape: str) -> Callable[[socket.socket], None]:
    """Answer a signed question: rightly, but for what ``shape`` says."""
    key = dns.tsig.Key("mrc", DnsStage.SECRET, "hmac-sha256")
    other = dns.tsig.Key("mrc", "YW5vdGhlciBzZWNyZXQgb2YgYW5vdGhlciBwZXJzb24=", "hmac-sha256")

    def answer(sock: socket.socket) -> None:
        asked = sock.recv(4096)[2:]
        question = dns.message.from_wire(asked, keyring=key)
        reply = dns.message.make_response(question)
        reply.flags |= dns.flags.AA if shape != "no-authority" else 0
        reply.answer.append(dns.rrset.from_text("kafka.example.", 5, "IN", "A", "192.0.2.1"))
        if shape == "two-kinds":
            reply.answer.append(dns.rrset.from_text("kafka.example.", 5, "IN", "CNAME", "else.example."))
        if shape == "unsigned":
            reply.tsig = None
        elif shape == "forged":
            reply.use_tsig(other)
            reply.request_mac = question.mac or b""
        if shape == "servfail":
            reply.set_rcode(dns.rcode.SERVFAIL)
        whole = reply.to_wire()
        wire = {"cut": whole[: len(whole) // 2], "noise": bytes(range(256))}.get(shape, whole)
        sock.sendall(len(wire).to_bytes(2, "big") + wire)

    return answer


def test_the_answers_below_are_right_but_for_one_thing() -> None:
    with answering(dns_answer("right")) as port:
        assert dns_at(port).read().region == EAST


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        ("unsigned", "ROUTE_UNREACHABLE"),
        ("forged", "ROUTE_UNREACHABLE"),
        ("cut", "ROUTE_UNREACHABLE"),
        ("noise", "ROUTE_UNREACHABLE"),
        ("two-kinds", "ROUTE_UNREACHABLE"),
        ("servfail", "ROUTE_UNREACHABLE"),
        ("no-authority", "ROUTE_REFUSED"),
    ],
)
def test_a_wrong_answer_of_a_name_server_is_never_taken_for_a_route(shape: str, code: str) -> None:
    with answering(dns_answer(shape)) as port:
        assert DnsStage.SECRET not in str(failed(code, dns_at(port).read))


def test_a_key_that_cannot_be_read_is_an_error_of_the_route() -> None:
    def gone() -> tuple[str, str, str]:
        raise MrcError("CONFIG_INVALID", "the file cannot be read: No such file or directory", where="dns.key")

    route = DnsRoute(("127.0.0.1", 9), "example.", "kafka.example.", "A", 5, {EAST: ("192.0.2.1",), WEST: ("198.51.100.1",)}, gone, 1.0)
    assert "dns.key" in str(failed("ROUTE_REFUSED", route.read))


# ---------------------------------------------------------------- what only the real ones do


@server
def test_a_name_server_refuses_a_wrong_key_and_the_secret_is_not_told(name_server: int) -> None:
    stage = DnsStage(name_server, f"kafka-{next(NUMBERS)}.example.")
    for key, secret in (("nobody", DnsStage.SECRET), ("mrc", "d3Jvbmc=")):
        error = failed("ROUTE_REFUSED", stage.by(name_server, key, secret).read)
        assert key in str(error)
        assert secret not in str(error)


@server
def test_a_half_set_proxy_is_set_whole(proxy: tuple[Path, str]) -> None:
    stage = HaproxyStage(proxy[0], proxy[1], f"kafka-{next(NUMBERS) % BACKENDS}")
    stage.lead(EAST)
    stage.set("west-1", "ready")
    assert (mixed := stage.route.read()).region == ""
    assert not mixed.foreign
    point(stage.route)
    assert stage.route.read().region == WEST
    stage.set("west-1", "drain")
    assert stage.route.read().region == ""


@server
def test_connections_to_the_old_region_are_ended(proxy: tuple[Path, str]) -> None:
    """HAProxy itself would keep them, and a client would stay where every write is refused."""
    folder, number = proxy[0], next(NUMBERS) % BACKENDS
    stage = HaproxyStage(folder, proxy[1], f"kafka-{number}")
    stage.lead(EAST)
    stage.set("east-2", "maint")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        (folder / "east-1.sock").unlink(missing_ok=True)
        listener.bind(f"{folder}/east-1.sock")
        listener.listen()
        client.settimeout(10)
        client.connect(f"{folder}/kafka-{number}.sock")
        client.sendall(b"hello")
        with listener.accept()[0] as accepted:
            assert accepted.recv(5) == b"hello"
            point(stage.route)
            assert client.recv(1) == b""
