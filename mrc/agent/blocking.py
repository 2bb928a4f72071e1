"""Flow blocks: a flow whose Connect does not answer cannot be stopped, so a failover has the replicator refused its writes in the target.

That a region is blocked, and by which execution, stands beside the bindings of its fence (`FenceRecord.block`), so one
reconciler sets, notes and takes away the refusals of both (`mrc.agent.fencing`). Invariant: a block ends when Connect has said that the
flow is STOPPED and has no tasks, and never before; nobody resumes the flow before its refusals are gone.
"""

from __future__ import annotations

import msgspec

from mrc.agent.estate import Estate
from mrc.agent.store import LeaderCheck
from mrc.core.errors import MrcError
from mrc.core.failover import fence
from mrc.core.model import Region, TopicPartition

STILL_S = 0.5
"""How long nothing may come into a blocked target's logs before that counts as seen: MirrorMaker polls more often."""


def begin(estate: Estate, region: Region, execution: str, lead: LeaderCheck) -> None:
    """Note that the flow into a region is blocked; the fence's reconciler does the rest. Harmless when it is blocked.

    Raises:
        MrcError: ``CONNECT_UNREACHABLE`` where a block would refuse nobody; ``STALE_TERM`` when the record or the fence changed meanwhile.
    """
    reason = fence.unblockable(estate.unit, estate.clusters[region].bindings(), estate.broker_settings(region))
    if reason:
        message = f"Connect of {region} does not answer, so the flow cannot be stopped; nor can it be blocked: {reason}"
        raise MrcError("CONNECT_UNREACHABLE", message, where=str(region), retryable=True)
    _, record_version = estate.require_record()
    stored, version = estate.store.fence(region)
    if not stored.block:
        estate.store.put_fence(lead, region, msgspec.structs.replace(stored, block=execution), version, record_version)


def require(estate: Estate, region: Region, *, still: bool, deadline_s: float) -> str:
    """Return the proof that a flow is blocked: its refusals stand, and with ``still`` nothing comes into the region's logs.

    A probe proves only its own principal, so no leader is asked. Before it takes a record of an application each has learnt of the
    block all the same: brokers learn of ACLs in their order, and the block's DENYs come before the end of the region's fence.

    Raises:
        MrcError: ``NOT_VERIFIED`` naming what stands against it.
    """
    stored, _ = estate.store.fence(region)
    missing = fence.flow_block(estate.unit) - estate.clusters[region].bindings()
    if not stored.block or missing:
        raise MrcError("NOT_VERIFIED", f"the flow into {region} is not blocked: {len(missing)} refusals are not set", where=str(region))
    refused = f"{', '.join(estate.unit.replicators)} may not write {', '.join(estate.unit.topics)} there"
    if not still:
        return f"Connect of {region} does not answer; its flow is blocked: {refused}"
    cluster, tps = estate.clusters[region], estate.partitions(region)
    moving: list[TopicPartition] = []

    def stands() -> bool:
        before = cluster.ends(tps, "read_uncommitted")
        estate.clock.sleep(STILL_S)
        after = cluster.ends(tps, "read_uncommitted")
        moving[:] = [tp for tp in tps if before[tp] != after[tp]]
        return not moving

    if not estate.wait_until(stands, deadline_s):
        raise MrcError("NOT_VERIFIED", f"the flow into {region} still writes {', '.join(map(str, moving))}", where=str(region))
    return f"Connect of {region} does not answer; its flow is blocked: {refused}, and {len(tps)} logs stand still"


def stands(estate: Estate, region: Region) -> bool:
    """Whether the flow into a region is blocked, or refusals of a block are still noted."""
    stored, _ = estate.store.fence(region)
    return bool(stored.block or fence.flow_block(estate.unit).intersection(stored.bindings))


def release(estate: Estate, lead: LeaderCheck) -> str:
    """Stop the blocked flow into this agent's region, and end the block once it is STOPPED; return what was done, empty for a free flow.

    Raises:
        MrcError: world errors; the caller comes again.
    """
    region = estate.region
    if not stands(estate, region):
        return ""
    _, record_version = estate.require_record()
    stored, version = estate.store.fence(region)
    replicator, connector = estate.replicators[region], estate.connector(estate.inbound(region))
    if not stored.block:
        return f"the refusals that blocked {connector} are being taken away"
    status = replicator.status(connector)
    if status.state != "STOPPED":
        lead()
        replicator.stop(connector)
        return f"stopped {connector}, which was blocked"
    if status.tasks:
        return f"{connector} is stopping; it stays blocked until its tasks are gone"
    estate.store.put_fence(lead, region, msgspec.structs.replace(stored, block=""), version, record_version)
    return f"{connector} is STOPPED: its block ends"
