"""Logs that are written in, or made anew, while the flow into them is held; then the flow goes on, or begins again.

What is made anew is noted first, with the id of each topic that may be deleted (`mrc.core.failover.flows.FlowStart`), so whoever
takes over goes on, and never deletes another topic than that. Used by failbacks (``old_log: recreate``) and rebuilds. Where a failover
took the place of one and was aborted, its note is left: whichever comes next lets that flow go, and deletes nothing for it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from mrc.agent.estate import Estate
from mrc.agent.work import Work
from mrc.core.errors import MrcError
from mrc.core.failover.flows import FlowStart, OldTopic
from mrc.core.failover.ledger import renewed
from mrc.core.inventory import TopicInfo
from mrc.core.model import Offset, TopicPartition

_SHAPE = (
    "cleanup.policy",
    "compression.type",
    "delete.retention.ms",
    "max.compaction.lag.ms",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.ms",
    "unclean.leader.election.enable",
)
"""Settings that a topic keeps when it is made anew: those that say what it takes, keeps and gives up."""


def shape(topic_id: str, like: TopicInfo) -> OldTopic:
    """Return what a topic has to be like: as ``like``; ``topic_id`` is of the one that is deleted, empty where there is none."""
    return OldTopic(topic_id, len(like.leaders), {key: like.config[key] for key in _SHAPE if key in like.config})


DELETED_SEEN_S = 1.0
"""After how long brokers tell of a deletion that the controller has taken; a topic whose deletion was broken off is looked at then."""


def held(work: Work) -> tuple[FlowStart, int] | None:
    """Return the start of the flow into the target with its version, where this execution holds it."""
    found = work.estate.store.flow_start(work.estate.inbound(work.plan.target))
    return found if found is not None and found[0].held and found[0].execution == work.plan.id else None


def require_held(work: Work) -> tuple[FlowStart, int]:
    """Return the same. Raises ``STALE_TERM`` where this execution does not hold it, or not any more."""
    if (found := held(work)) is None:
        raise MrcError("STALE_TERM", "the flow is not held any more", where=str(work.forward))
    return found


def hold(work: Work, topics: Mapping[str, OldTopic]) -> None:
    """Note that the flow into the target has to stand still, and what is made anew meanwhile."""
    flow, store = work.estate.inbound(work.plan.target), work.estate.store
    found = store.flow_start(flow)
    unset = {} if found is None or found[0].applied else found[0].positions
    start = FlowStart(epoch=work.plan.epoch, positions=unset, held=True, renewing=dict(topics), execution=work.plan.id)
    store.put_flow_start(work.lead, flow, start, found[1] if found else None)


def wait_for_stop(work: Work) -> None:
    """Stop the flow into the target and wait until its tasks are gone. Harmless when repeated."""
    replicator, connector = work.estate.replicators[work.plan.target], work.estate.connector(work.estate.inbound(work.plan.target))
    work.lead()
    replicator.stop(connector)
    work.wait(
        lambda: not replicator.status(connector).tasks,
        lambda: MrcError("EFFECT_TIMED_OUT", f"tasks of {connector} are still there", where=connector, retryable=True),
    )


def topic_id(work: Work, name: str) -> str:
    """Return the id of a topic of the target; empty where there is none."""
    found = work.estate.clusters[work.plan.target].topics([name])
    return found[name].topic_id if name in found else ""


def make_anew(work: Work, name: str, wanted: OldTopic) -> None:
    """Delete the topic with the noted id, if it is still there, and make one where there is none."""
    cluster = work.estate.clusters[work.plan.target]
    late = MrcError("EFFECT_TIMED_OUT", f"{name} is not deleted and made anew yet", where=str(work.plan.target), retryable=True)
    if wanted.topic_id and topic_id(work, name) == wanted.topic_id:
        work.lead()
        cluster.delete_topic(name)
        work.wait(lambda: topic_id(work, name) != wanted.topic_id, lambda: late)
    if not topic_id(work, name):
        work.lead()
        cluster.make_topic_like(name, wanted.partitions, wanted.config)
        work.wait(lambda: topic_id(work, name) not in ("", wanted.topic_id), lambda: late)


def writer(estate: Estate) -> str:
    """Return as whom an agent writes in the logs of its region while the flow into it is held."""
    return f"mrc.recovery.{estate.unit.name}.old-log"


def end_writes(work: Work) -> None:
    """Let nobody go on writing in the target's logs who had begun while the flow was held: an agent that slept, or a request under way."""
    work.lead()
    work.estate.clusters[work.plan.target].emitter(writer(work.estate)).close()


def end_left(work: Work) -> None:
    """The same where an execution, whose place a failover has taken, has left the flow into the target held; it opens there."""
    found = work.estate.store.flow_start(work.forward)
    if found is not None and found[0].held:
        end_writes(work)


def next_positions(work: Work, start: FlowStart) -> dict[TopicPartition, Offset]:
    """Return from where the held flow goes on in the source: where it stopped, or where it was to begin."""
    estate, flow = work.estate, work.estate.inbound(work.plan.target)
    stored = estate.replicators[flow.target].positions(estate.connector(flow))
    found: dict[TopicPartition, Offset] = {}
    for tp in estate.partitions(flow.source):
        unset = dict(enumerate(start.positions.get(tp.topic, ())))
        found[tp] = unset.get(tp.partition, stored.get(tp, Offset(0)))
    return found


def begin_again(work: Work, start: FlowStart, version: int, anew: Container[str]) -> None:
    """Let the held flow go: topics in ``anew`` are copied from the beginning, others from where it stopped or was to begin.

    Entries of the divergence ledger that speak of the old logs are closed first, and whoever wrote in the target's logs meanwhile is kept
    from going on: what the flow copies must stand behind that.
    """
    for ledger, seen in work.estate.store.ledgers():
        if (after := renewed(ledger, work.plan.target, anew)) != ledger:
            work.estate.store.put_ledger(work.lead, after, seen)
    found: dict[str, tuple[Offset, ...]] = {}
    for tp, at in next_positions(work, start).items():
        found[tp.topic] = (*found.get(tp.topic, ()), Offset(0) if tp.topic in anew else at)
    end_writes(work)
    work.estate.store.put_flow_start(work.lead, work.forward, FlowStart(epoch=start.epoch, positions=found), version)


def finish(work: Work, start: FlowStart, version: int) -> None:
    """Make everything anew that was noted, and let the flow begin again."""
    for name, wanted in start.renewing.items():
        make_anew(work, name, wanted)
    begin_again(work, start, version, start.renewing)


def let_go(work: Work, start: FlowStart, version: int) -> set[str]:
    """Let a held flow go before all is made anew: topics that were deleted are made, no others are deleted; return which are new."""
    work.estate.clock.sleep(DELETED_SEEN_S)
    ids = {name: topic_id(work, name) for name in start.renewing}
    for name, wanted in start.renewing.items():
        if wanted.topic_id and not ids[name]:
            make_anew(work, name, wanted)
    anew = {name for name, wanted in start.renewing.items() if topic_id(work, name) != wanted.topic_id}
    begin_again(work, start, version, anew)
    return anew


def let_go_left(work: Work) -> None:
    """Let go what an execution that has ended without it holds still."""
    found = work.estate.store.flow_start(work.estate.inbound(work.plan.target))
    if found is not None and found[0].held and found[0].execution != work.plan.id:
        let_go(work, *found)
