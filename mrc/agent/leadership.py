"""Who leads a region's pair of agents. A leader's term is the version of a node that every new leader writes.

The ephemeral node says who leads; it proves nothing (a re-created one starts at version 0 again). What keeps a stale
leader from writing is the check of the term in each transaction; what keeps it from acting is the lease, checked right
before each effect.
"""

from __future__ import annotations

import msgspec

from mrc.core.errors import MrcError
from mrc.core.model import Region, Written, decode, encode
from mrc.ports import Check, Conflict, Put, Tree


class AgentNode(Written, frozen=True):
    """What an agent says of itself in ZooKeeper."""

    id: str
    address: str
    version: str


def leader_path(region: Region) -> str:
    """Return the node that exists while somebody leads in a region; it holds an `AgentNode`."""
    return f"/regions/{region}/leader"


def term_path(region: Region) -> str:
    """Return the node whose version is the term of a region's last leader."""
    return f"/regions/{region}/term"


class Leadership:
    """One agent's candidacy for its region. `tick` keeps it current; a few times per session time-out."""

    def __init__(self, tree: Tree, region: Region, me: AgentNode) -> None:
        self._tree = tree
        self._root = f"/regions/{region}"
        self._me = me
        self._prepared = False
        self.term: int | None = None
        self._session = 0

    @property
    def leads(self) -> bool:
        """Whether this agent leads and its lease is good.

        The lease is the session's: what a later session of the same process is answered renews nothing for a former term.
        """
        return self.term is not None and self._session == self._tree.session_id() and self._tree.lease_s() > 0

    def tick(self) -> bool:
        """Announce this agent, take the lead where it is free; return whether the term is new."""
        if not self._prepared:
            for folder in ("agents", "term"):
                self._tree.ensure(f"{self._root}/{folder}")
            self._prepared = True
        self._announce()
        leader = f"{self._root}/leader"
        session = self._tree.session_id()
        if not self._tree.owns(leader):
            self.term = None
            try:
                self._tree.create_ephemeral(leader, encode(self._me))
            except Conflict:
                return False
        elif self.term is not None:
            return False
        # Also where the node is this session's and the answer to its making, or to the term's, was lost.
        term = self._new_term()
        self._session, self.term = session, term
        return True

    def _announce(self) -> None:
        path = f"{self._root}/agents/{self._me.id}"
        if not self._tree.owns(path):
            try:
                self._tree.create_ephemeral(path, encode(self._me))
            except Conflict:
                return  # the node of this agent's former session; it goes with that session

    def _new_term(self) -> int:
        """Write the term node until it is ours; bounded, for each lost race means that another agent wrote."""
        path = f"{self._root}/term"
        for _ in range(10):
            node = self._tree.get(path)
            version = node.version if node else 0
            try:
                self._tree.commit([Put(path, self._me.id.encode(), version)])
            except Conflict:
                continue
            return version + 1
        raise MrcError("ZOOKEEPER_UNREACHABLE", "could not write the term", where=path, retryable=True)

    def check(self) -> Check:
        """Return the transaction check of this leader's term.

        Raises:
            MrcError: ``LEASE_LOST`` when this agent does not lead or its lease has run out.
        """
        term = self.term
        if term is None or not self.leads:
            raise MrcError("LEASE_LOST", "this agent does not lead any more", where=self._root)
        return Check(f"{self._root}/term", term)

    def leader(self) -> AgentNode | None:
        """Return who leads now; None where nobody does."""
        return self._node(f"{self._root}/leader")

    def current_term(self) -> int:
        """Return the term of whoever leads, or led last."""
        node = self._tree.get(f"{self._root}/term")
        return node.version if node else 0

    def agents(self) -> list[AgentNode]:
        """Return the agents of the region that are alive."""
        names = self._tree.children(f"{self._root}/agents")
        nodes = [self._node(f"{self._root}/agents/{name}") for name in names]
        return [node for node in nodes if node]

    def _node(self, path: str) -> AgentNode | None:
        node = self._tree.get(path)
        if node is None:
            return None
        try:
            return decode(node.data, AgentNode)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return None
