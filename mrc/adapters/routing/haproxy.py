"""HAProxy's runtime API: which servers of a backend take connections, set and read back.

A region's servers are `ready`, the others' in `maint`. HAProxy has no compare-and-set: what was seen is compared right before the
commands, which are sent at once, old servers first; the new ones' `ready` is the last, so whatever is broken off before is mixed and
is done again. Connections to the old servers are ended, for HAProxy itself would keep them.

Invariant: nothing that the other side does, or leaves undone, keeps a call longer than its deadline and the look-up of a name.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence

from mrc.core.errors import MrcError
from mrc.core.inventory import Pointing
from mrc.core.model import Region

ANSWER_BYTES_MAX = 1_000_000
"""How much HAProxy may say in one answer."""

_MAINT = 0x01 | 0x02 | 0x20 | 0x40  # forced, inherited, by resolution of a name; the configuration's own bit (0x04) only says why
_DRAIN = 0x08 | 0x10
_COLUMNS = ("be_name", "srv_name", "srv_admin_state")


class HaproxyRoute:
    """The port `Route`.

    Args:
        address: a socket's path, or ``host:port``.
        backend: whose servers are switched.
        servers: of each region; names without blanks and semicolons.
        deadline_s: for each exchange.
    """

    def __init__(self, address: str, backend: str, servers: Mapping[Region, Sequence[str]], deadline_s: float) -> None:
        self.name = f"haproxy {address} {backend}"
        self._address = address
        self._backend = backend
        self._servers = {region: tuple(names) for region, names in servers.items()}
        self._deadline_s = deadline_s

    def read(self) -> Pointing:
        """See `Route.read`."""
        states = self._states()
        ours = {name for names in self._servers.values() for name in names}
        missing = sorted(ours - states.keys())
        if missing:
            raise self._refused(f"backend {self._backend} has no server {', '.join(missing)}")
        open_servers = {name for name, state in states.items() if state == "ready"}
        leads_to = [region for region, names in self._servers.items() if open_servers == set(names)]
        return Pointing(
            region=leads_to[0] if leads_to else "",
            foreign=bool(open_servers - ours),
            seen=tuple(f"{name} {states[name]}" for name in sorted(states)),
        )

    def point(self, region: Region, seen: Pointing, told: Mapping[str, str]) -> None:
        """See `Route.point`."""
        if (now := self.read()).seen != seen.seen:
            raise self._changed(f"it was {_spelt(seen)}, and is {_spelt(now)}")
        here = self._servers[region]
        old = [name for names in self._servers.values() for name in names if name not in here]
        commands = [f"set server {self._backend}/{name} state maint" for name in old]
        commands += [f"shutdown sessions server {self._backend}/{name}" for name in old]
        commands += [f"set server {self._backend}/{name} state ready" for name in here]
        said = self._ask("; ".join(commands)).strip()
        if said:
            raise self._refused(said.splitlines()[0][:200])
        if (now := self.read()).region != region:
            raise self._changed(f"set to {region}, and read back it is {_spelt(now)}")

    def _states(self) -> dict[str, str]:
        """Return what each server of the backend is set to: ready, drain or maint."""
        said = self._ask(f"show servers state {self._backend}")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        if len(lines) < 2 or not lines[1].startswith("#"):
            raise self._refused(lines[0][:200] if lines else "it says nothing")
        names = lines[1].lstrip("# ").split()
        found: dict[str, str] = {}
        backends: set[str] = set()
        try:
            backend, server, admin = (names.index(column) for column in _COLUMNS)
            for line in lines[2:]:
                words = line.split()
                bits = int(words[admin])
                backends.add(words[backend])
                found[words[server]] = "maint" if bits & _MAINT else "drain" if bits & _DRAIN else "ready"
        except (ValueError, IndexError):
            raise self._unreachable("what it says of its servers cannot be read") from None
        if backends - {self._backend}:
            raise self._unreachable(f"asked for {self._backend}, it speaks of another backend")
        return found

    def _ask(self, command: str) -> str:
        """Send one line and return the whole answer; HAProxy closes the connection behind it."""
        until_s = time.monotonic() + self._deadline_s
        said = bytearray()
        try:
            with self._connect() as sock:
                sock.settimeout(_left_s(until_s))
                sock.sendall(command.encode() + b"\n")
                while len(said) <= ANSWER_BYTES_MAX:
                    sock.settimeout(_left_s(until_s))
                    part = sock.recv(65_536)
                    if not part:
                        return said.decode(errors="replace")
                    said += part
        except TimeoutError:
            raise self._unreachable(f"no answer within {self._deadline_s:g} s") from None
        except OSError as error:
            raise self._unreachable(error.strerror or str(error)) from None
        raise self._unreachable(f"it says more than {ANSWER_BYTES_MAX} bytes")

    def _connect(self) -> socket.socket:
        if not self._address.startswith("/"):
            host, _, port = self._address.rpartition(":")
            return socket.create_connection((host.strip("[]"), int(port)), timeout=self._deadline_s)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._deadline_s)
            sock.connect(self._address)
        except OSError:
            sock.close()
            raise
        return sock

    def _unreachable(self, why: str) -> MrcError:
        return MrcError("ROUTE_UNREACHABLE", why, where=self.name, retryable=True)

    def _refused(self, why: str) -> MrcError:
        return MrcError("ROUTE_REFUSED", f"HAProxy says: {why}", where=self.name)

    def _changed(self, why: str) -> MrcError:
        return MrcError("ROUTE_CHANGED", why, where=self.name, retryable=True)


def _left_s(until_s: float) -> float:
    """Return the seconds that are left, for a socket. Raises `TimeoutError` where there are none."""
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _spelt(pointing: Pointing) -> str:
    return ", ".join(pointing.seen) or "nothing"
