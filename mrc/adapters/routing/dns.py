"""A name in DNS, changed by RFC 2136 with what was seen as prerequisite, and read back from the authoritative server.

Every message is signed with the key (TSIG), and so must every answer be: an unsigned one is nobody's. TCP only: nothing is cut short,
and no stranger's datagram is taken for an answer. What the server's secondaries and the clients' resolvers still know is not seen.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.tsig
import dns.update

from mrc.core.errors import MrcError
from mrc.core.inventory import Pointing
from mrc.core.model import Region

_LOST = frozenset({dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.YXDOMAIN, dns.rcode.NXDOMAIN})
"""How a server says that a prerequisite does not hold."""

_REFUSES = (dns.tsig.PeerError, dns.message.UnknownTSIGKey)


class DnsRoute:
    """The port `Route`.

    Args:
        server: address and port of the zone's primary; no name, for its look-up could take any time.
        zone, name: the name to change, and the zone that it is in.
        kind: ``A``, ``AAAA`` or ``CNAME``.
        ttl_s: how long resolvers may remember the answer.
        values: the name's records for each region.
        key: reads the TSIG key's name, algorithm and secret (base64), anew for each message.
        deadline_s: for each exchange.
    """

    def __init__(
        self,
        server: tuple[str, int],
        zone: str,
        name: str,
        kind: str,
        ttl_s: int,
        values: Mapping[Region, Sequence[str]],
        key: Callable[[], tuple[str, str, str]],
        deadline_s: float,
    ) -> None:
        self.name = f"dns {name} {kind} at {server[0]}:{server[1]}"
        self._server = server
        self._zone = dns.name.from_text(zone)
        self._owner = dns.name.from_text(name)
        self._kind = dns.rdatatype.from_text(kind)
        self._ttl_s = ttl_s
        self._values = {region: dns.rdataset.from_text_list("IN", kind, ttl_s, list(texts)) for region, texts in values.items()}
        self._key = key
        self._deadline_s = deadline_s

    def read(self) -> Pointing:
        """See `Route.read`."""
        return self._pointing(self._look())

    def point(self, region: Region, seen: Pointing, told: Mapping[str, str]) -> None:
        """See `Route.point`. The server itself compares: between its comparing and its changing there is nobody."""
        update = dns.update.UpdateMessage(self._zone)
        if seen.seen:
            update.present(self._owner, dns.rdataset.from_text_list("IN", self._kind, 0, list(seen.seen)))
        elif self._kind == dns.rdatatype.CNAME:
            update.absent(self._owner)  # a CNAME bears nothing beside it
        else:
            update.absent(self._owner, self._kind)
        update.replace(self._owner, self._values[region])
        answer = self._ask(update)
        code = answer.rcode()
        if code in _LOST:
            raise self._error("ROUTE_CHANGED", f"it is not {', '.join(seen.seen) or 'empty'} any more; nothing was changed", retryable=True)
        self._require_good(code)
        now = self.read()
        if now.region != region:
            message = f"set to {region}, and read back it is {', '.join(now.seen) or 'empty'}"
            raise self._error("ROUTE_CHANGED", message, retryable=True)

    def _look(self) -> dns.rdataset.Rdataset | None:
        query = dns.message.make_query(self._owner, self._kind, flags=0)
        answer = self._ask(query)
        if answer.rcode() != dns.rcode.NXDOMAIN:
            self._require_good(answer.rcode())
        if not answer.flags & dns.flags.AA:
            raise self._error("ROUTE_REFUSED", f"the server has no authority over {self._owner}")
        found = [rrset for rrset in answer.answer if rrset.name == self._owner and rrset.rdclass == dns.rdataclass.IN]
        if len(found) > 1:
            raise self._error("ROUTE_UNREACHABLE", "the answer has records of several kinds", retryable=True)
        return found[0] if found else None

    def _pointing(self, found: dns.rdataset.Rdataset | None) -> Pointing:
        """Records compare as DNS compares them: in no order, names in any case."""
        if found is None:
            return Pointing("", foreign=False, seen=())
        if found.rdtype != self._kind:
            kind = dns.rdatatype.to_text(found.rdtype)
            return Pointing("", foreign=True, seen=tuple(sorted(f"{kind} {rdata.to_text()}" for rdata in found)))
        leads_to = [region for region, values in self._values.items() if set(values) == set(found)]
        return Pointing(
            region=leads_to[0] if leads_to else "", foreign=not leads_to, seen=tuple(sorted(rdata.to_text() for rdata in found))
        )

    def _ask(self, message: dns.message.Message) -> dns.message.Message:
        try:
            name, algorithm, secret = self._key()
        except MrcError as error:
            raise self._error("ROUTE_REFUSED", f"there is no key to sign with: {error}") from error
        address, port = self._server
        message.use_tsig(dns.tsig.Key(name, secret, algorithm))
        try:
            # The driver refuses answers without a signature, or with another one than the key's.
            return dns.query.tcp(message, address, timeout=self._deadline_s, port=port)
        except dns.exception.Timeout:
            raise self._error("ROUTE_UNREACHABLE", f"no answer within {self._deadline_s:g} s", retryable=True) from None
        except _REFUSES as error:
            raise self._error("ROUTE_REFUSED", f"the server does not accept key {name}: {type(error).__name__}") from None
        except (dns.exception.DNSException, ValueError, struct.error, EOFError) as error:
            why = f"the answer cannot be taken: {str(error)[:200] or type(error).__name__}"
            raise self._error("ROUTE_UNREACHABLE", why, retryable=True) from None
        except OSError as error:
            raise self._error("ROUTE_UNREACHABLE", error.strerror or type(error).__name__, retryable=True) from None

    def _require_good(self, code: dns.rcode.Rcode) -> None:
        if code == dns.rcode.SERVFAIL:
            raise self._error("ROUTE_UNREACHABLE", "the server fails (SERVFAIL)", retryable=True)
        if code != dns.rcode.NOERROR:
            raise self._error("ROUTE_REFUSED", f"the server says {dns.rcode.to_text(code)}")

    def _error(self, code: str, why: str, *, retryable: bool = False) -> MrcError:
        return MrcError(code, why, where=self.name, retryable=retryable)
