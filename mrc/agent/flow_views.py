"""What is shown of a flow: what the capture has measured, or of one that stands by what was read here and now."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from mrc.agent.coordinator import Coordinator
from mrc.agent.looking import ask
from mrc.core.failover.flows import should_run
from mrc.core.inventory import Inventory
from mrc.core.model import Flow, Known, Offset, Reading, TopicPartition, Unknown
from mrc.core.views import FlowView, PartitionLagView

T = TypeVar("T")


def flow_view(coordinator: Coordinator, inventory: Inventory, flow: Flow, *, partitions: bool) -> FlowView:
    """Return what is shown of a flow; only the leading agent of its target measures it."""
    estate = coordinator.estate
    inbound = inventory.regions[flow.target].inbound
    wanted = should_run(inventory.record, flow, estate.unit.policy) if inventory.record else None
    captured = coordinator.capture.snapshot() if flow == coordinator.flow and coordinator.leads else None
    now_ms = estate.clock.now_ms()
    unmeasured = Unknown("not-measured-here", f"the leading agent of {flow.target} measures this flow", now_ms)
    there = inventory.regions[flow.target].kafka
    # With a silent target nothing is read: that is the reason, not that nothing was read yet.
    silent = there if captured and not captured.partitions and isinstance(there, Unknown) else None
    rpo = captured.rpo if captured else "measured by the leading agent of the target"
    return FlowView(
        source=flow.source,
        target=flow.target,
        connector=estate.connector(flow),
        wanted={True: "running", False: "stopped", None: "moving"}[wanted] if inventory.record else "unknown",
        connector_state=inbound.value.state if isinstance(inbound, Known) else "UNKNOWN",
        tasks=inbound.value.tasks if isinstance(inbound, Known) else (),
        trace=inbound.value.trace if isinstance(inbound, Known) else inbound.detail,
        lag_records=silent or (captured.lag_records if captured else unmeasured),
        lag_seconds=silent or (captured.lag_seconds if captured else unmeasured),
        rpo=f"unknown: {silent.reason}" if silent else rpo,
        checkpoint_age_s=captured.checkpoint_age_s if captured else unmeasured,
        checkpoints=len(captured.checkpoints) if captured else 0,
        exact=sum(c.translation.type == "exact" for c in captured.checkpoints) if captured else 0,
        partitions=tuple(map(_whole, captured.partitions)) if captured and partitions else (),
    )


def _whole(partition: PartitionLagView) -> PartitionLagView:
    """Return a partition whose end is not below its position: ends are read once a second, and a log that was copied goes that far."""
    end, replicated = partition.source_end, partition.replicated
    if isinstance(end, Known) and isinstance(replicated, Known) and end.value < replicated.value:
        return msgspec.structs.replace(partition, source_end=replicated)
    return partition


def standing_by(coordinator: Coordinator, inventory: Inventory, view: FlowView) -> FlowView:
    """Return a flow that the record wants stopped with what was read here and now: Connect's stored positions, then the live log ends.

    Only the identity policy has such flows: the one out of the standby. It copies nothing. What its source has behind the
    stored position came from its target by the other flow, or was left behind by a failover and is in the divergence
    ledger; a move gives it another position before it runs again. So its lag is not the distance of the two offsets, it is
    0: known while every leader of the source refuses writes, for then only the replicator writes there; else unknown.
    """
    estate, flow = coordinator.estate, coordinator.flow
    now_ms = estate.clock.now_ms()
    seen = inventory.regions[flow.source]
    here = inventory.regions[flow.target]
    # Connect keeps its positions in its own Kafka cluster: without that it does not answer in time.
    asked = here.kafka if isinstance(here.kafka, Unknown) else here.connect
    stored = _asked(asked, lambda: estate.replicators[flow.target].positions(view.connector), now_ms)
    topics = seen.topics if isinstance(seen.topics, Known) else here.topics
    counts = {name: len(info.leaders) for name, info in topics.value.items()} if isinstance(topics, Known) else {}
    tps = [TopicPartition(topic, p) for topic in estate.unit.topics for p in range(counts.get(topic, 0))]
    ends = _asked(seen.kafka, lambda: estate.clusters[flow.source].ends(tps, "read_committed"), now_ms)
    fence = coordinator.fence(flow.source)
    lag: Reading[float] = Known(0.0, now_ms)
    if isinstance(ends, Unknown):
        lag = ends
    elif fence.state != "fenced":
        lag = Unknown("fence-not-proved", f"{flow.source} may have taken writes of its own: {fence.detail}", fence.at_ms or now_ms)
    partitions = tuple(PartitionLagView(tp.topic, tp.partition, lag, lag, _at(ends, tp, now_ms), _at(stored, tp, now_ms)) for tp in tps)
    rpo = f"nothing: {flow.target} is active, the flow stands by" if isinstance(lag, Known) else f"unknown: {lag.reason}"
    return msgspec.structs.replace(view, lag_records=lag, lag_seconds=lag, rpo=rpo, partitions=partitions)


def _asked(seen: Reading[float], read: Callable[[], T], now_ms: int) -> Reading[T]:
    """Ask a cluster that answered the observer the last time; a silent one is not waited for, its silence is the answer."""
    return seen if isinstance(seen, Unknown) else ask(read, now_ms)


def _at(offsets: Reading[dict[TopicPartition, Offset]], tp: TopicPartition, now_ms: int) -> Reading[float]:
    if isinstance(offsets, Unknown):
        return offsets
    if tp not in offsets.value:
        return Unknown("never-copied", f"Connect has stored no position of {tp}", now_ms)
    return Known(float(offsets.value[tp]), offsets.at_ms)
