"""Where everything of one sandbox lives: the state folder, its parts, their ports and their secrets.

Owns ``sandbox.json`` (options and ports, chosen once, written atomically) and ``secrets/``. A part keeps its port for
the life of the state folder, so that a region which returns is found where it was.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from mrc.core.errors import MrcError
from mrc.core.model import Policy, Region, Written, decode

REGIONS = (Region("east"), Region("west"))
USERS = ("admin", "mm2", "mrc", "producer", "consumer", "probe")
REPLICATION_GROUP = "orders"
TOPICS = {"orders": 3, "payments": 4}
GROUPS = ("billing", "shipping")
AGENTS = ("a", "b")
BROKER_USER = "broker"
HOST = "127.0.0.1"
FIRST_PORT = 12000
PORT_TRIES_MAX = 200

Kind = Literal["link", "zookeeper", "broker", "connect", "agent"]


class Options(Written, frozen=True):
    """What a sandbox is made with; fixed for the life of its state folder.

    Attributes:
        brokers: brokers per region, 1 or 3.
        policy: MM2's replication policy.
        mm2_exactly_once: whether Connect copies in transactions.
        active: the region that the first active-region record names.
        links: whether sites reach one another through processes that `mrc sandbox cut` silences.
        mm2_checkpoints_every_s: how often MirrorMaker emits checkpoints; mrc does without, they are compared with.
    """

    brokers: Literal[1, 3] = 1
    policy: Policy = "identity"
    mm2_exactly_once: bool = False
    active: Literal["east", "west"] = "east"
    links: bool = False
    mm2_checkpoints_every_s: int = 1


class Part(msgspec.Struct, frozen=True):
    """One process of the sandbox.

    Attributes:
        name: unique in the sandbox; also the name of its log and its data folder.
        region: where it runs; ``witness`` for the third ZooKeeper server, ``between`` for a link.
        port: the one that answers when the part is ready.
    """

    name: str
    region: str
    kind: Kind
    port: int


class Layout(Written, frozen=True):
    """A sandbox as ``sandbox.json`` keeps it.

    Attributes:
        options: what it was made with.
        clusters: Kafka cluster id per region.
        ports: port per use; see `ports_needed`.
    """

    options: Options
    clusters: dict[str, str]
    ports: dict[str, int]
    version: Literal[1] = 1

    def broker_ids(self) -> range:
        """Return the node ids of each region's brokers."""
        return range(1, self.options.brokers + 1)

    def bootstrap(self, region: str, listener: Literal["client", "remote"] = "client") -> str:
        """Return the bootstrap servers of ``region``: for clients inside it, or for those in other regions."""
        return ",".join(f"{HOST}:{self.listener(region, node, listener)}" for node in self.broker_ids())

    def listener(self, region: str, node: int, use: str) -> int:
        """Return the port at which those that a broker's listener is for find it."""
        return self.port(f"{broker(region, node)}.{use}", other(region) if use == "remote" else region)

    def connect_url(self, region: str, origin: str = "") -> str:
        """Return the address of ``region``'s Connect worker, as seen from ``origin`` (empty: from outside of all sites)."""
        return f"http://{HOST}:{self.port(f'{region}-connect', origin)}"

    def zookeeper(self, origin: str = "") -> str:
        """Return the ensemble's connect string, as seen from ``origin`` (empty: from outside of all sites)."""
        return ",".join(f"{HOST}:{self.port(f'{site}-zookeeper.client', origin)}" for site in sites())

    def port(self, name: str, origin: str) -> int:
        """Return the port at which ``origin`` finds what listens on the port ``name``: a link's where one lies between."""
        return self.ports.get(f"{origin}>{name}", self.ports[name])

    def routes(self, link: Part) -> dict[int, int]:
        """Return a link's ports, each with the port that its connections are passed on to."""
        crossing = [(origin, name) for origin, to, name in _crossings(self.options) if link_between(origin, to) == link.name]
        return {self.ports[f"{origin}>{name}"]: self.ports[name] for origin, name in crossing}

    def links(self) -> list[Part]:
        """Return the links between sites; none where they reach one another directly."""
        first: dict[str, int] = {}
        for origin, to, name in _crossings(self.options):
            first.setdefault(link_between(origin, to), self.ports[f"{origin}>{name}"])
        return [Part(name, "between", "link", port) for name, port in first.items()]

    def active_flow(self, source: str) -> bool:
        """Whether the flow out of ``source`` runs from the start; under identity only one may."""
        return self.options.policy == "default" or source == self.options.active

    def servers(self) -> list[Part]:
        """Return every part but the agents, in the order in which people read them."""
        found = self.links()
        for site in sites():
            found.append(Part(f"{site}-zookeeper", site, "zookeeper", self.ports[f"{site}-zookeeper.client"]))
            if site in REGIONS:
                found += [Part(broker(site, n), site, "broker", self.ports[f"{broker(site, n)}.client"]) for n in self.broker_ids()]
                found.append(Part(f"{site}-connect", site, "connect", self.ports[f"{site}-connect"]))
        return found

    def agents(self) -> list[Part]:
        """Return the agents of both regions."""
        return [Part(f"{region}-{pick}", region, "agent", self.ports[f"{region}-{pick}.grpc"]) for region in REGIONS for pick in AGENTS]


def sites() -> tuple[str, ...]:
    """Return where ZooKeeper servers stand: both regions and the witness."""
    return (*REGIONS, "witness")


def broker(region: str, node: int) -> str:
    """Return the part name of a broker."""
    return f"{region}-broker-{node}"


def link_between(one: str, another: str) -> str:
    """Return the name of the link between two sites."""
    return "-".join(("link", *sorted((one, another))))


def other(region: str) -> str:
    """Return the region that ``region`` replicates with."""
    return next(name for name in REGIONS if name != region)


def ports_needed(options: Options) -> list[str]:
    """Return the names of all ports of a sandbox, each once, in a fixed order."""
    return list(_port_names(options))


def _port_names(options: Options) -> Iterator[str]:
    for site in sites():
        for use in ("client", "peer", "election"):
            yield f"{site}-zookeeper.{use}"
    for region in REGIONS:
        for node in range(1, options.brokers + 1):
            for listener in ("client", "remote", "broker", "controller"):
                yield f"{broker(region, node)}.{listener}"
        yield f"{region}-connect"
        for pick in AGENTS:
            yield f"{region}-{pick}.grpc"
            yield f"{region}-{pick}.metrics"
    for origin, _, name in _crossings(options):
        yield f"{origin}>{name}"


def _crossings(options: Options) -> Iterator[tuple[str, str, str]]:
    """Yield who uses which port of which other site: (origin, site, the port's name); nothing where there are no links."""
    pairs = [(origin, to) for origin in sites() for to in sites() if origin != to] if options.links else []
    for origin, to in pairs:
        yield origin, to, f"{to}-zookeeper.peer"
        yield origin, to, f"{to}-zookeeper.election"
        if origin in REGIONS:
            yield origin, to, f"{to}-zookeeper.client"
        if origin in REGIONS and to in REGIONS:
            for node in range(1, options.brokers + 1):
                yield origin, to, f"{broker(to, node)}.remote"
            yield origin, to, f"{to}-connect"


def choose_ports(names: list[str]) -> dict[str, int]:
    """Return a free loopback port per name, all different.

    Ports of the kernel's own range for outgoing connections are left alone: a client that retries against a dead
    broker's port of that range may be given the very port as its source, connect to itself, and keep the broker from
    coming back. Raises ``SANDBOX_FAILED`` when no free ports are found.
    """
    last = _outgoing_ports_start() - 1
    start = random.SystemRandom().randrange(FIRST_PORT, max(FIRST_PORT + 1, last - len(names) - PORT_TRIES_MAX))
    held: list[socket.socket] = []
    chosen: dict[str, int] = {}
    try:
        for port in range(start, min(start + len(names) + PORT_TRIES_MAX, last)):
            if len(chosen) == len(names):
                break
            if (bound := _bind(port)) is not None:
                held.append(bound)
                chosen[names[len(chosen)]] = port
    finally:
        for bound in held:
            bound.close()
    if len(chosen) < len(names):
        raise MrcError("SANDBOX_FAILED", f"no {len(names)} free ports between {start} and {last}", retryable=True)
    return chosen


def port_free(port: int) -> bool:
    """Whether nobody listens on the loopback port."""
    bound = _bind(port)
    if bound is not None:
        bound.close()
    return bound is not None


def _bind(port: int) -> socket.socket | None:
    attempt = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # Connections of a process that has just ended linger in TIME_WAIT; they keep no server from listening.
    attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        attempt.bind((HOST, port))
    except OSError:
        attempt.close()
        return None
    return attempt


def _outgoing_ports_start() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32768


class State:
    """The state folder of one sandbox: paths, and what is kept in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    @property
    def config(self) -> Path:
        """The generated mrc.yaml."""
        return self.folder / "mrc.yaml"

    @property
    def temporary(self) -> Path:
        """The folder for what servers unpack while they run; `mrc sandbox down` removes it."""
        return self.folder / "tmp"

    def log(self, part: str) -> Path:
        """Return the file that holds what the part printed."""
        return self.folder / "logs" / f"{part}.log"

    def data(self, part: str) -> Path:
        """Return the part's data folder."""
        return self.folder / "data" / part

    def settings(self, part: str) -> Path:
        """Return the part's own configuration file; generated at every start."""
        return self.folder / "etc" / f"{part}.properties"

    def secret(self, user: str) -> Path:
        """Return the file that holds the user's password."""
        return self.folder / "secrets" / user

    def layout(self) -> Layout | None:
        """Return what was chosen when the sandbox was made; None where there is none. Raises ``SANDBOX_FAILED`` when unreadable."""
        path = self.folder / "sandbox.json"
        try:
            return decode(path.read_bytes(), Layout)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise MrcError("SANDBOX_FAILED", f"cannot read the sandbox's own file: {error}", where=str(path)) from error

    def make(self, options: Options | None) -> Layout:
        """Return the layout, choosing ports, ids and passwords where they are missing. May be repeated after any crash.

        ``None`` means: as it was made, else the defaults. Raises ``SANDBOX_FAILED`` when it was made with other options.
        """
        for name in ("data", "etc", "logs", "secrets"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "secrets").chmod(0o700)
        for user in (*USERS, BROKER_USER):
            if not self.secret(user).exists():
                write_private(self.secret(user), secrets.token_urlsafe(18))
        layout = self.layout()
        if layout is None:
            wanted = options or Options()
            layout = Layout(wanted, {region: _cluster_id() for region in REGIONS}, choose_ports(ports_needed(wanted)))
            write_private(self.folder / "sandbox.json", msgspec.json.format(msgspec.json.encode(layout)).decode())
        elif options is not None and options != layout.options:
            raise MrcError(
                "SANDBOX_FAILED",
                f"this sandbox was made with {_spell(layout.options)}, not with {_spell(options)}; "
                "`mrc sandbox down --wipe` makes room, or name another folder with --state",
                where=str(self.folder),
            )
        return layout


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def _cluster_id() -> str:
    # Kafka's ids are 16 bytes in URL-safe base64; its tools take one that starts with "-" for an option.
    return "M" + secrets.token_urlsafe(16)[1:]


def _spell(options: Options) -> str:
    exactly = "on" if options.mm2_exactly_once else "off"
    links = " links" if options.links else ""
    return f"brokers={options.brokers} policy={options.policy} mm2-exactly-once={exactly} active={options.active}{links}"
