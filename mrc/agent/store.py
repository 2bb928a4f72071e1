"""What mrc keeps in ZooKeeper for one replication group, typed. Every write of a leader is a transaction that checks its term.

Owns the layout below the root:

- ``/groups/<rg>/record`` the active-region record
- ``/groups/<rg>/fences/<region>`` bindings mrc really added
- ``/groups/<rg>/flows/<source>-><target>`` where a flow has to start
- ``/groups/<rg>/released`` where clients were let go that do not follow the record
- ``/groups/<rg>/current`` id of the running execution, empty where none runs
- ``/groups/<rg>/executions/<id>`` a plan, with ``entries/<number>`` below it, and ``measured`` where anything was
- ``/groups/<rg>/ledger/<id>`` divergence
- ``/groups/<rg>/adoption`` how the estate came to mrc

A garbled node raises ``GARBLED_RECORD`` naming its path; nothing is overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from mrc.core.errors import MrcError
from mrc.core.failover.adoption import Adoption
from mrc.core.failover.execution import Entry
from mrc.core.failover.fence import FenceRecord
from mrc.core.failover.flows import FlowStart
from mrc.core.failover.ledger import Ledger
from mrc.core.failover.measured import Measured
from mrc.core.failover.plan import Plan
from mrc.core.failover.routes import Released
from mrc.core.model import ActiveRecord, Flow, Region, decode, encode
from mrc.ports import Check, Conflict, Create, Delete, Op, Put, Tree

T = TypeVar("T")

LeaderCheck = Callable[[], Check]
"""Gives the check of the caller's term; raises ``LEASE_LOST`` when it does not lead any more."""


class Versioned(msgspec.Struct, frozen=True):
    """The version of a node that was read together with its value."""

    path: str
    version: int


class Store:
    """One replication group's nodes. Reads answer values with the version that a later write checks."""

    def __init__(self, tree: Tree, replication_group: str) -> None:
        self.tree = tree
        self.root = f"/groups/{replication_group}"
        self._prepared = False

    def prepare(self) -> None:
        """Make the folders, where missing. Idempotent."""
        if self._prepared:
            return
        for folder in ("fences", "flows", "executions", "ledger", "current"):
            self.tree.ensure(f"{self.root}/{folder}")
        self._prepared = True

    # -- the record

    @property
    def record_path(self) -> str:
        """Path of the active-region record."""
        return f"{self.root}/record"

    def record(self) -> tuple[ActiveRecord, int] | None:
        """Return the active-region record with its version; None where nobody has written the first."""
        return self._read(self.record_path, ActiveRecord)

    def put_record(self, lead: LeaderCheck, record: ActiveRecord, version: int) -> None:
        """Replace the record, for the running execution that it names.

        Raises ``STALE_TERM`` when the record, the leader or the running execution has changed meanwhile.
        """
        current, current_version = self.current()
        if current != record.execution:
            raise MrcError("STALE_TERM", f"execution {record.execution} is not the running one", where=current or self.root)
        self._commit([lead(), Check(f"{self.root}/current", current_version), Put(self.record_path, encode(record), version)])

    # -- fences and flows

    def fence(self, region: Region) -> tuple[FenceRecord, int | None]:
        """Return what mrc added in a region, and the node's version (None: no node yet)."""
        found = self._read(f"{self.root}/fences/{region}", FenceRecord)
        return found or (FenceRecord(), None)

    def put_fence(self, lead: LeaderCheck, region: Region, fence: FenceRecord, version: int | None, record_version: int) -> None:
        """Replace it, provided that the active-region record is still the one that was acted on."""
        write = self._upsert(f"{self.root}/fences/{region}", fence, version)
        self._commit([lead(), Check(self.record_path, record_version), write])

    def flow_start(self, flow: Flow) -> tuple[FlowStart, int] | None:
        """Return from where a flow has to start; None when no move has said."""
        return self._read(f"{self.root}/flows/{flow}", FlowStart)

    def put_flow_start(self, lead: LeaderCheck, flow: Flow, start: FlowStart, version: int | None) -> None:
        """Replace or make it."""
        self._commit([lead(), self._upsert(f"{self.root}/flows/{flow}", start, version)])

    def forget_flow_start(self, lead: LeaderCheck, flow: Flow, version: int) -> None:
        """Remove it."""
        self._commit([lead(), Delete(f"{self.root}/flows/{flow}", version)])

    # -- routes

    def released(self) -> tuple[Released, int] | None:
        """Return where clients were let go last; None where no move has."""
        return self._read(f"{self.root}/released", Released)

    def put_released(self, lead: LeaderCheck, released: Released, version: int | None, record_version: int) -> None:
        """Replace or make it, provided that the active-region record is still the one that was acted on."""
        write = self._upsert(f"{self.root}/released", released, version)
        self._commit([lead(), Check(self.record_path, record_version), write])

    # -- executions

    def current(self) -> tuple[str, int]:
        """Return the running execution's id (empty: none) and the node's version."""
        node = self.tree.get(f"{self.root}/current")
        return (node.data.decode(), node.version) if node else ("", 0)

    def begin(self, lead: LeaderCheck, plan: Plan, first: Entry, current_version: int) -> None:
        """Write the plan, its first entry and make it the running one, in one transaction.

        Raises ``STALE_TERM`` when the record is of another epoch than the plan, or has changed meanwhile.
        """
        self._commit([lead(), *self._beginning(plan, first, current_version)])

    def supersede(self, lead: LeaderCheck, old: Plan, last: Entry, plan: Plan, first: Entry) -> None:
        """End the running execution with its last entry and begin another one in its place, in one transaction.

        Raises ``STALE_TERM`` as `begin`, and when the old execution has changed meanwhile.
        """
        current, version = self.current()
        if current != old.id:
            raise MrcError("STALE_TERM", f"execution {old.id} is not the running one any more", where=current or self.root)
        ended = Create(f"{self.root}/executions/{old.id}/entries/{last.number:06d}", encode(last))
        self._commit([lead(), ended, *self._beginning(plan, first, version)])

    def _beginning(self, plan: Plan, first: Entry, current_version: int) -> list[Op]:
        """Return what makes ``plan`` the running execution, provided that the record stays as it is; ``STALE_TERM`` in another epoch."""
        found = self.record()
        if found is None or found[0].epoch != plan.epoch:
            raise MrcError("STALE_TERM", f"the plan is of epoch {plan.epoch}; plan again", where=self.record_path)
        path = f"{self.root}/executions/{plan.id}"
        return [
            Check(self.record_path, found[1]),
            Put(f"{self.root}/current", plan.id.encode(), current_version),
            Create(path, encode(plan)),
            Create(f"{path}/entries", b""),
            Create(f"{path}/entries/{first.number:06d}", encode(first)),
        ]

    def append(self, lead: LeaderCheck, plan: Plan, entry: Entry, *, ends: bool) -> None:
        """Append an entry; with ``ends`` the execution is no longer the running one, in the same transaction.

        Checks the term and the epoch: the record must belong to the plan's epoch or to the one it opens.
        Raises ``STALE_TERM`` when another agent leads or has written meanwhile: nothing was written.
        """
        found = self.record()
        if found is None:
            raise MrcError("NO_ACTIVE_RECORD", "the active-region record is gone", where=self.record_path)
        record, version = found
        if not plan.epoch <= record.epoch <= plan.epoch + 1:
            raise MrcError("STALE_TERM", f"epoch is {record.epoch}, the plan's is {plan.epoch}", where=plan.id)
        ops: list[Op] = [
            lead(),
            Check(self.record_path, version),
            Create(f"{self.root}/executions/{plan.id}/entries/{entry.number:06d}", encode(entry)),
        ]
        if ends:
            current, current_version = self.current()
            if current == plan.id:
                ops.append(Put(f"{self.root}/current", b"", current_version))
        self._commit(ops)

    def executions(self) -> list[str]:
        """Return the ids of all executions, oldest first (ids sort by time)."""
        return self.tree.children(f"{self.root}/executions")

    def plan(self, execution: str) -> Plan:
        """Return an execution's plan. Raises ``UNKNOWN_EXECUTION``."""
        found = self._read(f"{self.root}/executions/{execution}", Plan)
        if found is None:
            raise MrcError("UNKNOWN_EXECUTION", f"no execution {execution}")
        return found[0]

    def mentions(self, execution: str, word: str) -> bool:
        """Whether a word stands in an execution's plan, readable or not."""
        node = self.tree.get(f"{self.root}/executions/{execution}")
        return node is not None and word.encode() in node.data

    def entries(self, execution: str) -> tuple[Entry, ...]:
        """Return an execution's journal, in order. Raises ``GARBLED_RECORD``."""
        found: list[Entry] = []
        for _, entry in self.journal(execution):
            if isinstance(entry, MrcError):
                raise entry
            found.append(entry)
        return tuple(found)

    def journal(self, execution: str) -> tuple[tuple[str, Entry | MrcError], ...]:
        """Return an execution's journal, in order, with each entry's node; in place of a garbled one the error that says where it is."""
        path = f"{self.root}/executions/{execution}/entries"
        found: list[tuple[str, Entry | MrcError]] = []
        for name in self.tree.children(path):
            try:
                item = self._read(f"{path}/{name}", Entry)
            except MrcError as error:
                if error.code != "GARBLED_RECORD":
                    raise
                found.append((name, error))
            else:
                found += [(name, item[0])] if item else []
        return tuple(found)

    def measured(self, execution: str) -> tuple[Measured, int] | None:
        """Return what was measured of an execution, with the node's version; None where nothing was."""
        return self._read(f"{self.root}/executions/{execution}/measured", Measured)

    def put_measured(self, lead: LeaderCheck, measured: Measured, version: int | None) -> None:
        """Replace or make what was measured of an execution."""
        self._commit([lead(), self._upsert(f"{self.root}/executions/{measured.execution}/measured", measured, version)])

    # -- divergence

    def ledgers(self) -> list[tuple[Ledger, int]]:
        """Return the divergence ledger's entries with their versions, oldest first."""
        names = self.tree.children(f"{self.root}/ledger")
        found = [self._read(f"{self.root}/ledger/{name}", Ledger) for name in names]
        return [item for item in found if item]

    def put_ledger(self, lead: LeaderCheck, ledger: Ledger, version: int | None) -> None:
        """Replace or make an entry of the ledger."""
        self._commit([lead(), self._upsert(f"{self.root}/ledger/{ledger.id}", ledger, version)])

    def forget_ledger(self, lead: LeaderCheck, ledger: Ledger, version: int) -> None:
        """Remove an entry of a failover that was undone."""
        self._commit([lead(), Delete(f"{self.root}/ledger/{ledger.id}", version)])

    # -- adoption

    def adoption(self) -> tuple[Adoption, int] | None:
        """Return how the estate came to mrc, and how far that is; None where mrc did not adopt it."""
        return self._read(f"{self.root}/adoption", Adoption)

    def put_adoption(self, adoption: Adoption, version: int | None, *more: Op) -> int:
        """Replace or make it, all or nothing with ``more``; return its new version. Raises ``STALE_TERM`` when another has written it."""
        self._commit([self._upsert(f"{self.root}/adoption", adoption, version), *more])
        return 0 if version is None else version + 1

    def adoption_check(self, version: int) -> Check:
        """Return the check that stands for a leader's while an estate is adopted: nobody else has gone on with it."""
        return Check(f"{self.root}/adoption", version)

    def forget(self, path: str) -> None:
        """Remove a node below the replication group's with all that is below it, the deepest first. Idempotent."""
        for name in self.tree.children(path):
            self.forget(f"{path}/{name}")
        node = self.tree.get(path)
        if node is not None:
            self._commit([Delete(path, node.version)])

    # -- inside

    def _upsert(self, path: str, value: object, version: int | None) -> Op:
        return Create(path, encode(value)) if version is None else Put(path, encode(value), version)

    def _read(self, path: str, kind: type[T]) -> tuple[T, int] | None:
        node = self.tree.get(path)
        if node is None:
            return None
        try:
            return decode(node.data, kind), node.version
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise MrcError(
                "GARBLED_RECORD", f"cannot read it as {kind.__name__}: {error}", where=f"ZooKeeper {self.tree.full_path(path)}"
            ) from None

    def _commit(self, ops: Sequence[Op]) -> None:
        try:
            self.tree.commit(ops)
        except Conflict:
            raise MrcError("STALE_TERM", "the write lost a race and changed nothing", where=self.root, retryable=True) from None
