"""What the rooms above need from the outside world, each with its guarantees and time-outs.

Adapters implement these against real parts, `mrc.sim` in memory; one contract suite runs on both. Driver
errors never pass through a port: a failed call raises `MrcError` with a code of kind ``world``. Every call
ends within the deadline its adapter was built with; nothing waits for ever on a dead cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from mrc.core.inventory import Binding as Binding
from mrc.core.inventory import FlowStatus as FlowStatus
from mrc.core.inventory import GroupInfo as GroupInfo
from mrc.core.inventory import Pointing as Pointing
from mrc.core.inventory import Position as Position
from mrc.core.inventory import ProbeAnswer as ProbeAnswer
from mrc.core.inventory import TopicInfo as TopicInfo
from mrc.core.model import GroupId, Offset, Region, TopicPartition
from mrc.core.model import Record as Record
from mrc.core.model import Seen as Seen
from mrc.core.translation.sight import Isolation as Isolation
from mrc.core.translation.sight import Sight as Sight

CALL_DEADLINE_S = 2.0
"""How long an agent's call to ZooKeeper, Kafka or Connect may take: less than a lease, so that a stale agent's request has ended."""

# ---------------------------------------------------------------- coordination (ZooKeeper)

LEASE_SHARE = 2 / 3
"""The part of the session time-out that counts as lease; the rest covers clocks of unlike speed and a request under way."""

RENEW_EVERY_S = 0.5
"""How often an agent asks ZooKeeper something, whatever else it does, which renews its lease."""


class Node(msgspec.Struct, frozen=True):
    """A node's data and its version (0 when created, one more with every set)."""

    data: bytes
    version: int


class Check(msgspec.Struct, frozen=True):
    """In a transaction: the node has this version."""

    path: str
    version: int


class Create(msgspec.Struct, frozen=True):
    """In a transaction: make this persistent node; it must not exist."""

    path: str
    data: bytes


class Put(msgspec.Struct, frozen=True):
    """In a transaction: replace this node's data; it must have this version."""

    path: str
    data: bytes
    version: int


class Delete(msgspec.Struct, frozen=True):
    """In a transaction: remove this childless node; it must have this version."""

    path: str
    version: int


Op = Check | Create | Put | Delete


class Conflict(Exception):
    """A compare-and-set lost: the node exists already, is gone, or has another version. Nothing was changed."""


class Tree(Protocol):
    """A small linearizable tree with versions. Paths are absolute below mrc's root.

    Writes are compare-and-set and may raise `Conflict`. A write whose reply was lost raises ``ZOOKEEPER_UNREACHABLE``
    and may have happened: callers read again.
    """

    def get(self, path: str) -> Node | None:
        """Return the node, or None where there is none."""

    def children(self, path: str) -> list[str]:
        """Return the names below ``path``, sorted; empty where there is no such node."""

    def get_all(self, paths: Sequence[str]) -> list[Node | None]:
        """Return what `get` would of each path, in one go; not one moment's view of them."""

    def ensure(self, path: str) -> None:
        """Make ``path`` and its parents, empty, where missing."""

    def create_ephemeral(self, path: str, data: bytes) -> None:
        """Make a node that vanishes with this session. Raises `Conflict` when it exists."""

    def owns(self, path: str) -> bool:
        """Whether ``path`` exists and belongs to this very session."""

    def commit(self, ops: Sequence[Op]) -> None:
        """Do all or nothing. Raises `Conflict`."""

    def watch(self, path: str, notify: Callable[[], None]) -> None:
        """Call ``notify`` soon after each change of the node at ``path`` (also its making), until the end. It only enqueues."""

    def within(self, seconds: float) -> AbstractContextManager[None]:
        """Let the calls of this thread inside the block end within ``seconds`` in all, where that is sooner than by their deadline."""

    def full_path(self, path: str) -> str:
        """Return where ``path`` is in ZooKeeper, mrc's root included; asks nobody."""

    def session_id(self) -> int:
        """Return a number that is another one for each session of this handle; 0 where there was none yet."""

    def lease_s(self) -> float:
        """Seconds of lease left: session time-out less margin less the time since the last reply. 0 or less: none."""


# ---------------------------------------------------------------- one Kafka cluster

COMMITTED = Sight()
"""Committed records, timestamps compared."""


class Batch(msgspec.Struct, frozen=True):
    """What a poll saw of one partition, in offset order.

    Attributes:
        tp: the partition.
        records: visible records; may be empty.
        position: everything below it has been seen, markers and aborted records included.
        at_end: ``position`` was the readable end when the broker answered. Of a log that grows all the time this may never be told.
    """

    tp: TopicPartition
    records: tuple[Seen, ...]
    position: Offset
    at_end: bool


class Reader(Protocol):
    """Reads partitions from given positions without a consumer group. One thread only."""

    def poll(self, max_records: int, timeout_s: float) -> list[Batch]:
        """Return what has come since; at most one batch per partition. Raises world errors; positions stay where they were."""

    def pause(self, tps: Iterable[TopicPartition]) -> None:
        """Stop fetching these partitions until resumed; positions stay."""

    def resume(self, tps: Iterable[TopicPartition]) -> None:
        """Fetch these partitions again."""

    def close(self) -> None:
        """Release the connection; harmless when repeated."""


class Commit(msgspec.Struct, frozen=True):
    """A group's position on one partition has changed; None: it is gone (deleted, or expired)."""

    group: GroupId
    tp: TopicPartition
    position: Position | None


class Commits(Protocol):
    """What groups commit, from the moment on at which it was opened. One thread only."""

    def poll(self, timeout_s: float) -> list[Commit]:
        """Return what was committed since, in the order of each group's commits; transactional ones once they are committed.

        Raises world errors; ``AUTHORIZATION_FAILED`` or ``VERSION_MISMATCH`` where commits cannot be followed in this way.
        """

    def close(self) -> None:
        """Release the connection; harmless when repeated."""


class Emitted(msgspec.Struct, frozen=True):
    """A record to be written, its timestamp included."""

    tp: TopicPartition
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Emitter(Protocol):
    """Writes records in transactions, one after another. Whoever opens one breaks off what an earlier one of the same name left open.

    An earlier one never writes again: its calls raise ``STALE_TERM``. After any error it is of no use: close it and open another. One
    thread only.
    """

    def send(self, records: Sequence[Emitted]) -> None:
        """Write records in the open transaction, and begin one where there is none. Readers of committed records do not see them yet."""

    def commit(self) -> None:
        """Let everybody see what was sent since the last commit, all of it. When it raises, all of it or nothing is."""

    def close(self) -> None:
        """Release the connection; what is not committed never will be. Harmless when repeated."""


class Cluster(Protocol):
    """One region's Kafka cluster as seen from this agent."""

    def topics(self, names: Sequence[str]) -> dict[str, TopicInfo]:
        """Return those of ``names`` that exist."""

    def topic_names(self) -> list[str]:
        """Return the names of all topics, internal ones too."""

    def starts(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, Offset]:
        """Return log start offsets."""

    def ends(self, tps: Sequence[TopicPartition], isolation: Isolation) -> dict[TopicPartition, Offset]:
        """Return log ends: the high watermark (read_uncommitted) or the last stable offset (read_committed)."""

    def group_ids(self) -> list[GroupId]:
        """Return the ids of all consumer groups."""

    def other_groups(self) -> dict[GroupId, str]:
        """Return the groups that are no consumer groups, with the name of their protocol (``connect``, ...); empty: it is not told."""

    def group(self, group: GroupId) -> GroupInfo:
        """Return a group's state; an unknown group is ``Dead`` with 0 members."""

    def groups(self, groups: Sequence[GroupId]) -> dict[GroupId, GroupInfo]:
        """Return the states of many groups, many of them asked at once; of each as `group`."""

    def positions(self, group: GroupId) -> dict[TopicPartition, Position]:
        """Return committed positions, with require_stable; partitions without one are absent."""

    def positions_of(self, groups: Sequence[GroupId]) -> dict[GroupId, dict[TopicPartition, Position]]:
        """Return the positions of many groups, many of them asked at once; of each as `positions`."""

    def commits(self) -> Commits:
        """Return a tail of every group's commits from now on; of what was committed before, `positions` tells.

        Raises ``UNKNOWN_TOPIC`` while no group has ever committed.
        """

    def commit_positions(self, group: GroupId, positions: Mapping[TopicPartition, Position]) -> None:
        """Commit for a group without members; the error of each partition is checked. Raises ``GROUP_HAS_MEMBERS``."""

    def commit_positions_of(self, positions: Mapping[GroupId, Mapping[TopicPartition, Position]]) -> None:
        """Commit for many groups, for many of them at once; for each as `commit_positions`.

        Groups without an error have their positions when another's is raised; so may any of them when the cluster does not answer.
        """

    def bindings(self, *, everywhere: bool = False) -> frozenset[Binding]:
        """Return every ACL binding of the cluster; an ALLOW for one host counts as one for ``*``, a DENY for one host is left out.

        With ``everywhere`` those only that hold for every host, ALLOWs too.
        """

    def add_bindings(self, bindings: Iterable[Binding]) -> None:
        """Make them; harmless when they exist."""

    def remove_bindings(self, bindings: Iterable[Binding]) -> None:
        """Remove exactly these; harmless when they are gone."""

    def broker_settings(self) -> dict[str, str]:
        """Return ``super.users`` and ``allow.everyone.if.no.acl.found`` and the like, of one broker."""

    def probe(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, ProbeAnswer]:
        """Ask every partition's leader, with a fresh client as the probe principal, whether it would take a write.

        Nothing is appended: the record's timestamp is out of bounds. Where the topic's settings would let it in, the
        answer is ``unverifiable`` and nothing is sent.
        """

    def last_records(
        self, tps: Sequence[TopicPartition], below: Mapping[TopicPartition, Offset], sight: Sight = COMMITTED
    ) -> dict[TopicPartition, Seen | None]:
        """Return the last visible record below the given offsets, None where there is none."""

    def reader(self, start: Mapping[TopicPartition, Offset], sight: Sight = COMMITTED) -> Reader:
        """Return a reader of these partitions from these positions."""

    def records(self, tp: TopicPartition, begin: Offset, limit: int, sight: Sight = COMMITTED) -> tuple[Record, ...]:
        """Return the first ``limit`` visible records at or after ``begin``, whole, in offset order; fewer where the log ends."""

    def ensure_topic(self, name: str, *, compacted: bool, partitions: int = 1) -> None:
        """Make one of mrc's own topics (the cluster's default replication) where missing; one that is not compacted keeps all for ever."""

    def make_topic_like(self, name: str, partitions: int, config: Mapping[str, str]) -> None:
        """Make a topic of the applications' with what of ``config`` is not the cluster's default anyway. Raises ``UNKNOWN_TOPIC`` never."""

    def delete_topic(self, name: str) -> None:
        """Delete a topic with all that is in it; harmless when it is gone."""

    def delete_records(self, below: Mapping[TopicPartition, Offset]) -> None:
        """Delete what lies below these offsets: logs begin there, or later where they do already.

        Raises ``POLICY_VIOLATION`` where a topic's ``cleanup.policy`` is ``compact`` alone, ``OFFSET_OUT_OF_RANGE`` where a log ends before
        its offset, ``UNKNOWN_TOPIC``. Of several partitions some may have been done when it raises.
        """

    def emitter(self, name: str) -> Emitter:
        """Return an emitter, once the transaction of every earlier one of this name has ended."""

    def remove_topics(self, names: Iterable[str]) -> None:
        """Delete some of mrc's own topics; harmless when they are gone."""

    def append(self, topic: str, entries: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Append keyed records to one of mrc's own topics; returns when all in-sync replicas have them."""

    def load(self, topic: str) -> dict[bytes, bytes]:
        """Return the last value per key of one of mrc's own topics (tombstones left out); empty when it does not exist."""


# ---------------------------------------------------------------- the replicator (MirrorMaker 2 on Connect)


class Replicator(Protocol):
    """The flows into one region (its Connect cluster). Connectors are named by configuration."""

    def status(self, connector: str) -> FlowStatus:
        """Return the connector's state."""

    def settings(self, connector: str) -> dict[str, str]:
        """Return the connector's configuration; empty where there is none."""

    def configurations(self) -> dict[str, dict[str, str]]:
        """Return the configuration of every connector of the Connect cluster, by name."""

    def create(self, connector: str, settings: Mapping[str, str]) -> None:
        """Make a connector, STOPPED, without tasks; one that is there stays as it is. `status` may call it ABSENT for a moment."""

    def configure(self, connector: str, settings: Mapping[str, str]) -> None:
        """Replace a connector's whole configuration; whether it runs stays as it is."""

    def delete(self, connector: str) -> None:
        """Remove a connector; harmless when it is gone. Connect keeps its positions: one made anew begins there."""

    def stop(self, connector: str) -> None:
        """Ask the connector to stop; harmless when it is stopped. Its tasks end later: see `status`."""

    def resume(self, connector: str) -> None:
        """Ask the connector to run; harmless when it runs."""

    def positions(self, connector: str) -> dict[TopicPartition, Offset]:
        """Return, per source partition, the next source offset that it would copy (Connect stores the last copied one)."""

    def set_positions(self, connector: str, positions: Mapping[TopicPartition, Offset]) -> None:
        """Set where a STOPPED connector starts.

        Raises ``CONNECT_REFUSED`` when it runs; retryable where Connect takes positions of a flow that has never run only after it has
        been made to: nothing is copied by that, nothing was set, and it is STOPPED again.
        """


# ---------------------------------------------------------------- streams of records, and state beside them


class Arrived(msgspec.Struct, frozen=True, gc=False):
    """A record that was read; ``timestamp_ms`` is its own, -1 where it has none."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int = -1


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A record to be written."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Shares(Protocol):
    """Who works on the partitions that a process of a group has its share of."""

    def taken(self, tps: frozenset[TopicPartition]) -> Mapping[TopicPartition, Offset]:
        """Begin with these partitions and no others; return where each is read from, 0: from its beginning."""

    def given_back(self) -> None:
        """End with all partitions; somebody else has them now."""


class StreamLog(Protocol):
    """Reading, deciding and writing as one act: a consumer group's share of some topics, and transactions. One thread only."""

    def poll(self, max_records: int, timeout_s: float, shares: Shares) -> list[Arrived]:
        """Return what has come since, committed records only, in offset order per partition.

        When the share changes ``shares`` is told within this call, and nothing is returned that was read before. All that other
        processes have committed for these partitions can be read by then, and they can commit no more.

        Raises world errors; ``OFFSET_OUT_OF_RANGE`` where a position is outside of the log.
        """

    def at_end(self, tp: TopicPartition) -> bool:
        """Whether the last `poll` has left nothing of a partition that was committed when it began, as far as the cluster answers."""

    def ends(self, tps: Sequence[TopicPartition]) -> Mapping[TopicPartition, Offset]:
        """Return where the logs end now, what is not committed included: what is written from now on stands there or behind."""

    def commit(self, records: Sequence[Outgoing], positions: Mapping[TopicPartition, Offset]) -> dict[TopicPartition, Offset]:
        """Write all records and note all positions, or nothing of both.

        Returns, per partition written to, the offset behind the last record. When it raises, either may be the case, and this log is
        of no more use. ``RESOLVER_FENCED``: another process has its name.
        """

    def append(self, records: Sequence[Outgoing]) -> None:
        """Write records outside of any transaction; returns when all in-sync replicas have them. When it raises, any may be written."""

    def replay(self, tp: TopicPartition, begin: Offset) -> Iterator[list[Arrived]]:
        """Yield the committed records of a partition from ``begin`` to its readable end of now; ``OFFSET_OUT_OF_RANGE`` beyond that."""

    def identity(self, topic: str) -> str:
        """Return what tells this topic from any other, also from one of the same name that was made before or after it."""

    def close(self) -> None:
        """Leave the group and release the connections; harmless when repeated."""


class Span(msgspec.Struct, frozen=True):
    """Offsets of one partition, from ``begin`` to below ``end``."""

    begin: Offset
    end: Offset


class Logs(Protocol):
    """One region's logs as they stand: whole, committed records, read without a group. Nothing is written, nothing committed.

    One thread only; several readings may be open at a time.
    """

    def spans(self, topics: Sequence[str], since_ms: int | None = None) -> dict[TopicPartition, Span]:
        """Return what the topics hold now, per partition, from the first record on whose timestamp is ``since_ms`` or later.

        Raises world errors; ``TOPICS_MISSING`` where a topic does not exist.
        """

    def read(self, spans: Mapping[TopicPartition, Span]) -> Iterator[list[Arrived]]:
        """Yield the records of these spans: each partition's in order, those of different partitions as they come."""

    def follow(self, begin: Mapping[TopicPartition, Offset], passed: dict[TopicPartition, Offset] | None = None) -> Iterator[list[Arrived]]:
        """Yield what stands there and what comes, for ever; an empty list where nothing has come for a moment (half a second).

        Args:
            begin: where to begin.
            passed: is told, before a list is yielded, up to where there is nothing else than it, where that is known: the markers of
                transactions, which no record is, may be the last that a log holds.
        """

    def close(self) -> None:
        """Release the connections; harmless when repeated."""


class Shelf(Protocol):
    """What is kept on local disk of one partition's state."""

    def offset(self) -> Offset:
        """Return the changelog offset up to which it holds everything; 0 when it is new."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, None where there is none."""

    def items(self, prefix: bytes, begin: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield every key that begins so, with its value, in the order of keys, from ``begin`` on."""

    def apply(self, writes: Mapping[bytes, bytes | None], offset: Offset) -> None:
        """Set and remove (None) keys and set the offset: all or nothing, whatever kills the process."""

    def close(self) -> None:
        """Release the files; harmless when repeated."""


class Shelves(Protocol):
    """The local disk."""

    def open(self, name: str, identity: str) -> Shelf:
        """Return the shelf of this name; an empty one where there is none, or where it was made for another ``identity``."""

    def wipe(self, name: str) -> None:
        """Remove a closed shelf."""


# ---------------------------------------------------------------- hooks, time, ids


class Hook(Protocol):
    """What operators have mrc do: the routing command, and the custom steps of runbooks. Both may be done more than once."""

    def run(self, argv: Sequence[str], facts: Mapping[str, str], timeout_s: float) -> str:
        """Run ``argv`` (no shell) with ``facts`` as JSON on standard input; return its output.

        Raises ``HOOK_FAILED`` for an exit code other than 0, and where there is none within ``timeout_s``.
        """

    def send(self, method: str, url: str, facts: Mapping[str, str], timeout_s: float) -> str:
        """Send ``facts`` as JSON body (GET: no body) to an http or https address; return the answer's text, its beginning if it is long.

        Raises ``HOOK_FAILED`` for a status that is not 2xx, a redirect too, and where there is none within ``timeout_s``.
        """


class Route(Protocol):
    """Where clients are sent that do not follow the active-region record: a name in DNS, servers of HAProxy, a command.

    Raises ``ROUTE_UNREACHABLE`` (retryable; what was asked may have happened) where there is no answer in time or none that can be
    read, and ``ROUTE_REFUSED`` where the other side does not let mrc do it.
    """

    name: str

    def read(self) -> Pointing:
        """Return where the route leads, asked anew at the place that decides it."""

    def point(self, region: Region, seen: Pointing, told: Mapping[str, str]) -> None:
        """Let the route lead to ``region``, provided that it is as it was ``seen``; returns when that was read back.

        Raises ``ROUTE_CHANGED`` when it is not as it was seen (nothing is overwritten), or when something else was read back.
        ``told`` are facts for a command of the operator's: execution, epoch. May be done more than once.
        """


class Clock(Protocol):
    """Time and ids, so that core and agent have none of their own."""

    def now_ms(self) -> int:
        """Wall-clock milliseconds since the Unix epoch; may jump."""

    def monotonic_s(self) -> float:
        """Seconds that never go back; only differences mean something."""

    def sleep(self, seconds: float) -> None:
        """Wait."""
