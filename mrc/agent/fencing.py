"""Fences: reconciled to the active-region record, always, by every leading agent that reaches the region.

A flow that a failover could not stop is refused its writes in the same way, for as long as `mrc.agent.blocking` says.

Anybody who leads may add refusals; only the region's own leader (or the mover, which leads in the region it opens) takes
them away, right after a transaction has shown that the record still wants it. Bindings that mrc did not add are
never removed. What agents added while they heard no ZooKeeper majority (`mrc.agent.quorum`) is marked as theirs in the cluster
itself, and noted as soon as a leader sees it.
"""

from __future__ import annotations

import msgspec

from mrc.agent.estate import Estate
from mrc.agent.store import LeaderCheck
from mrc.core.errors import MrcError
from mrc.core.failover import fence
from mrc.core.failover.fence import FenceRecord
from mrc.core.inventory import Binding
from mrc.core.model import Region, TopicPartition, Value
from mrc.core.views import FenceView

RACES = 5
"""How often a lost race for the fence's node is run again at once."""


class Proof(Value, frozen=True):
    """What the partition leaders answered.

    Attributes:
        state: ``open``, ``fenced``, ``unverified`` (some leader's answer could not be had) or ``mixed``.
        refusing: partitions whose leader refuses.
        moving: partitions whose high watermark moved between two looks.
        transactions: partitions with an open transaction behind the fence (last stable offset below the high watermark).
    """

    state: str
    detail: str
    refusing: tuple[TopicPartition, ...] = ()
    moving: tuple[TopicPartition, ...] = ()
    transactions: tuple[TopicPartition, ...] = ()


def reconcile(estate: Estate, region: Region, lead: LeaderCheck) -> bool:
    """Make a region's refusals what the record and a flow block want; return whether anything was changed.

    Raises:
        MrcError: world errors; ``STALE_TERM`` when the record changed meanwhile (the caller comes again).
    """
    with estate.reconciling[region]:
        return _reconcile(estate, region, lead)


def _reconcile(estate: Estate, region: Region, lead: LeaderCheck) -> bool:
    record, record_version = estate.require_record()
    want = fence.wanted(record, region)
    cluster = estate.clusters[region]
    existing = cluster.bindings()
    stored, version = estate.store.fence(region)
    ours = frozenset(stored.bindings)
    imposed = fence.self_imposed(estate.unit, existing)
    if imposed.marks and region == estate.region:
        # Made without ZooKeeper: from now on they are noted as any other, and go as any other.
        estate.store.put_fence(lead, region, _noting(stored, ours | (imposed.made & existing)), version, record_version)
        lead()
        cluster.remove_bindings(imposed.marks)
        return True
    desired = fence.denies(estate.unit, existing, want)
    if stored.block:
        desired |= fence.flow_block(estate.unit)
    missing = desired - existing
    extra = (ours & existing) - desired
    if missing:
        # Noted before they are made: a successor then knows them, and removes only what is noted.
        estate.store.put_fence(lead, region, _noting(stored, ours | missing), version, record_version)
        lead()
        cluster.add_bindings(missing)
        return True
    if extra and region == estate.region:
        estate.store.put_fence(lead, region, _noting(stored, ours), version, record_version)
        lead()
        cluster.remove_bindings(extra)
        stored, version = estate.store.fence(region)
        estate.store.put_fence(lead, region, _noting(stored, frozenset(stored.bindings) - extra), version, record_version)
        return True
    return False


def reconcile_at_once(estate: Estate, region: Region, lead: LeaderCheck) -> None:
    """Bring a fence to the record at once; a lost race means that somebody else did, and is looked at again."""
    for _ in range(RACES):
        try:
            if not reconcile(estate, region, lead):
                return
        except MrcError as error:
            if error.code != "STALE_TERM":
                raise
            lead()


def admit(estate: Estate, region: Region, coming: frozenset[Binding], lead: LeaderCheck) -> None:
    """Add bindings of the operator's in this agent's own region, in one request with the refusals that the record wants against them.

    So nobody whom a new ALLOW names can write for a moment. What is added is the operator's, DENYs too: mrc never removes it.

    Raises:
        MrcError: world errors; ``STALE_TERM`` when the record or the fence changed meanwhile (the caller comes again).
    """
    record, record_version = estate.require_record()
    cluster = estate.clusters[region]
    existing = cluster.bindings()
    stored, version = estate.store.fence(region)
    refusals = fence.denies(estate.unit, existing | coming, fence.wanted(record, region)) - existing - coming
    if not coming - existing:
        return
    estate.store.put_fence(lead, region, _noting(stored, frozenset(stored.bindings) | refusals), version, record_version)
    lead()
    cluster.add_bindings((coming - existing) | refusals)


def _noting(stored: FenceRecord, bindings: frozenset[Binding]) -> FenceRecord:
    return msgspec.structs.replace(stored, bindings=tuple(sorted(bindings)))


def prove(estate: Estate, region: Region, *, still: bool) -> Proof:
    """Ask every partition's leader; with ``still`` also look twice at the logs' ends and for open transactions."""
    cluster = estate.clusters[region]
    tps = estate.partitions(region)
    answers = cluster.probe(tps)
    counts = {answer: sum(a == answer for a in answers.values()) for answer in ("refused", "writable", "unverifiable")}
    detail = f"{len(tps)} partitions: {counts['refused']} refuse, {counts['writable']} accept, {counts['unverifiable']} unverifiable"
    refusing = tuple(tp for tp in tps if answers[tp] == "refused")
    if counts["unverifiable"]:
        return Proof("unverified", detail, refusing)
    if counts["writable"] == len(tps):
        return Proof("open", detail)
    if counts["writable"]:
        return Proof("mixed", detail, refusing)
    if not still:
        return Proof("fenced", detail, refusing)
    before = cluster.ends(tps, "read_uncommitted")
    estate.clock.sleep(0.1)
    after = cluster.ends(tps, "read_uncommitted")
    stable = cluster.ends(tps, "read_committed")
    moving = tuple(tp for tp in tps if before[tp] != after[tp])
    transactions = tuple(tp for tp in tps if stable[tp] < after[tp])
    detail += f"; high watermarks {'move' if moving else 'stand still'}; {len(transactions)} open transactions"
    return Proof("fenced", detail, refusing, moving, transactions)


def require_fenced(estate: Estate, region: Region, *, still: bool) -> Proof:
    """Return the proof that a region is fenced.

    Raises:
        MrcError: ``NOT_VERIFIED`` or ``OPEN_TRANSACTION`` naming what stands against it.
    """
    proof = prove(estate, region, still=still)
    if proof.state != "fenced" or proof.moving:
        raise MrcError("NOT_VERIFIED", f"the fence of {region} does not hold yet: {proof.detail}", where=str(region), retryable=True)
    if proof.transactions:
        names = ", ".join(map(str, proof.transactions))
        raise MrcError("OPEN_TRANSACTION", f"an open transaction can still commit on {names}", where=str(region), retryable=True)
    return proof


def require_open(estate: Estate, region: Region) -> Proof:
    """Return the proof that no leader of a region refuses, before a new fence is begun there.

    A refusal by an earlier fence, whose end a broker has not learnt of yet, would be taken for one by the new fence. Where no probe is
    possible nothing is refused, and nothing proved: no fence will be proved either.

    Raises:
        MrcError: ``NOT_VERIFIED`` naming the partitions.
    """
    proof = prove(estate, region, still=False)
    if proof.refusing:
        names = ", ".join(map(str, proof.refusing))
        message = (
            f"leaders of {region} still refuse writes on {names}, because of an earlier fence or of ACLs that are not mrc's; nothing is "
            f"fenced yet: approve when the brokers have learnt of the ACLs or those are gone, or abort"
        )
        raise MrcError("NOT_VERIFIED", message, where=str(region), retryable=True)
    return proof


def view(proof: Proof | None, error: MrcError | None, at_ms: int) -> FenceView:
    """Return what status shows of a fence."""
    if proof is None:
        return FenceView("unknown", str(error) if error else "not proved yet", at_ms)
    return FenceView("unverified" if proof.state == "mixed" else proof.state, proof.detail, at_ms)
