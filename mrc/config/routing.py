"""`routing` of a replication group: what sends clients to a region that do not follow the active-region record, and what must hold of it.

Reads no network; of files the key's alone, whose text it never tells.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

from msgspec import Meta

from mrc.config.secret import Secret, read_secret
from mrc.core.errors import MrcError
from mrc.core.model import Written

NonEmpty = Annotated[str, Meta(min_length=1)]
DomainName = Annotated[
    str, Meta(pattern=r"^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?$")
]
ProxyName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]+$")]

Algorithm = Literal["hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"]

_KEY = re.compile(
    r'\s*key\s+(?P<quote>"?)(?P<name>[A-Za-z0-9_.-]+)(?P=quote)\s*\{\s*algorithm\s+"?(?P<algorithm>[A-Za-z0-9.-]+)"?\s*;'
    r'\s*secret\s+"(?P<secret>[A-Za-z0-9+/]+={0,2})"\s*;\s*\}\s*;?\s*',
    re.ASCII,
)
"""A key as `tsig-keygen` prints it and `nsupdate -k` reads it."""


class TsigKey(NamedTuple):
    """Signs messages to a name server."""

    name: str
    algorithm: str
    secret: Secret


class DnsSettings(Written, frozen=True):
    """A name in DNS that leads to the open region.

    Attributes:
        server: address and port of the zone's primary, which takes updates.
        zone: the zone that ``name`` is in.
        name: what clients look up.
        type: of its records.
        values: the records for each region.
        ttl_s: how long resolvers may remember them.
        key_file: the TSIG key, as ``tsig-keygen`` prints it.
    """

    server: NonEmpty
    zone: DomainName
    name: DomainName
    values: dict[NonEmpty, Annotated[tuple[NonEmpty, ...], Meta(min_length=1)]]
    key_file: Path
    type: Literal["A", "AAAA", "CNAME"] = "A"
    ttl_s: Annotated[int, Meta(ge=0, le=86_400)] = 5

    @property
    def address(self) -> tuple[str, int]:
        """The server's address and port."""
        host, _, port = self.server.rpartition(":")
        return host.strip("[]"), int(port)

    def key(self) -> TsigKey:
        """Return the key, read from its file now. Raises ``CONFIG_INVALID``, which never tells what is in the file."""
        text = re.sub(r"(?m)^\s*(#|//).*$", "", read_secret(self.key_file).reveal())
        found = _KEY.fullmatch(text)
        if found is None:
            message = 'not a TSIG key; it must be: key "NAME" { algorithm hmac-sha256; secret "BASE64"; };'
            raise MrcError("CONFIG_INVALID", message, where=str(self.key_file))
        try:
            base64.b64decode(found["secret"], validate=True)
        except ValueError:
            raise MrcError("CONFIG_INVALID", "the key's secret is not base64", where=str(self.key_file)) from None
        algorithm = found["algorithm"].lower()
        if algorithm not in get_args(Algorithm):
            message = f"the key's algorithm is {algorithm}; allowed: {', '.join(get_args(Algorithm))}"
            raise MrcError("CONFIG_INVALID", message, where=str(self.key_file))
        return TsigKey(found["name"], algorithm, Secret(found["secret"]))


class HaproxySettings(Written, frozen=True):
    """A backend of HAProxy whose servers are switched by its runtime API.

    Attributes:
        address: path of its socket with level admin, or ``host:port``.
        backend: its name.
        servers: names of each region's servers in it.
    """

    address: NonEmpty
    backend: ProxyName
    servers: dict[NonEmpty, Annotated[tuple[ProxyName, ...], Meta(min_length=1)]]


class RoutingSettings(Written, frozen=True):
    """How clients are redirected that do not follow the active-region record.

    Attributes:
        producers: what is known of the producers that are redirected: nothing; that all of them follow the record by `mrc.client` (or
            likewise start anew with each opening); that none is idempotent.
        command: program and arguments, no shell; a program with a slash in it is relative to the file.
        read_back: likewise; prints the region that the command has let clients go to.
        dns: names to change.
        haproxy: backends to switch.
    """

    producers: Literal["unknown", "mrc.client", "not-idempotent"] = "unknown"
    command: Annotated[tuple[NonEmpty, ...], Meta(min_length=1)] | None = None
    read_back: Annotated[tuple[NonEmpty, ...], Meta(min_length=1)] | None = None
    dns: tuple[DnsSettings, ...] = ()
    haproxy: tuple[HaproxySettings, ...] = ()


Finding = tuple[tuple[str | int, ...], str]


def findings(key: tuple[str | int, ...], routing: RoutingSettings, regions: Collection[str]) -> Iterator[Finding]:
    """Yield a key and a message for everything that does not hold; ``regions`` are the replication group's own."""
    if routing.command is None and not routing.dns and not routing.haproxy:
        yield key, "it redirects nobody; allowed: command, dns, haproxy"
    if routing.read_back is not None and routing.command is None:
        yield (*key, "read_back"), "there is no command whose work it could read back"
    seen: set[tuple[str, ...]] = set()
    for index, name in enumerate(routing.dns):
        at = (*key, "dns", index)
        yield from _dns(at, name, regions)
        yield from _once((*at, "name"), ("dns", name.server, name.name.rstrip(".").lower(), name.type), name.name, seen)
    for index, proxy in enumerate(routing.haproxy):
        at = (*key, "haproxy", index)
        yield from _haproxy(at, proxy, regions)
        yield from _once((*at, "backend"), ("haproxy", proxy.address, proxy.backend), proxy.backend, seen)


def _once(key: tuple[str | int, ...], one: tuple[str, ...], name: str, seen: set[tuple[str, ...]]) -> Iterator[Finding]:
    if one in seen:
        yield key, f"{name} is there twice: one would undo the other"
    seen.add(one)


def _regions(key: tuple[str | int, ...], given: Mapping[str, tuple[str, ...]], regions: Collection[str]) -> Iterator[Finding]:
    for name in given:
        if name not in regions:
            yield (*key, name), f"{name} is no region of this replication group; allowed: {', '.join(regions)}"
    for name in regions:
        if name not in given:
            yield key, f"{name} is missing; there must be something for each of {', '.join(regions)}"


def _dns(key: tuple[str | int, ...], name: DnsSettings, regions: Collection[str]) -> Iterator[Finding]:
    if not _is_address(name.server):
        yield (*key, "server"), f"{name.server!r} is not address:port; a name does not do, its look-up could take any time"
    zone, owner = name.zone.rstrip(".").lower(), name.name.rstrip(".").lower()
    if owner != zone and not owner.endswith(f".{zone}"):
        yield (*key, "name"), f"{name.name} is not in zone {name.zone}"
    if owner == zone and name.type == "CNAME":
        yield (*key, "name"), "a zone's own name cannot be a CNAME"
    yield from _regions((*key, "values"), name.values, regions)
    for region, values in name.values.items():
        at = (*key, "values", region)
        for index, value in enumerate(values):
            if not _is_value(name.type, value):
                yield (*at, index), f"{value!r} is no value of a record of type {name.type}"
        if name.type == "CNAME" and len(values) > 1:
            yield at, "a CNAME has one value"
    sets = [frozenset(value.lower().rstrip(".") for value in values) for values in name.values.values()]
    if len(sets) != len(set(sets)):
        yield (*key, "values"), "two regions have the same values: where the name leads could not be told"
    try:
        name.key()
    except MrcError as error:
        yield (*key, "key_file"), f"{error.where}: {error.message}"


def _haproxy(key: tuple[str | int, ...], proxy: HaproxySettings, regions: Collection[str]) -> Iterator[Finding]:
    if not proxy.address.startswith("/"):
        host, _, port = proxy.address.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
            yield (*key, "address"), f"{proxy.address!r} is neither the path of a socket, from / on, nor host:port"
    yield from _regions((*key, "servers"), proxy.servers, regions)
    home: dict[str, str] = {}
    for region, names in proxy.servers.items():
        for index, name in enumerate(names):
            if home.setdefault(name, region) != region:
                yield (*key, "servers", region, index), f"server {name} belongs to {home[name]} already"


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    try:
        ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return False
    return port.isascii() and port.isdigit() and 0 < int(port) < 65_536 and (":" not in host or host.startswith("["))


_NAME = re.compile(r"([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?", re.ASCII)


def _is_value(kind: str, text: str) -> bool:
    if kind == "CNAME":
        return _NAME.fullmatch(text) is not None
    try:
        return ipaddress.ip_address(text).version == (4 if kind == "A" else 6)
    except ValueError:
        return False
