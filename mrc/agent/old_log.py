"""What becomes of the log that holds a tail, once every divergent record is accounted for: the last part of a failback before its move.

Per topic (``divergence.old_log``): it stays; it is purged up to the tail's end; what stands of the tail's entities is written behind it;
or the topic is made anew (`mrc.agent.renewing`). The last two hold the flow into the region, so that nobody else writes there meanwhile:
applications are refused, and what the flow brings later comes behind. Nothing is noted of what was written or deleted: the logs say it,
so whoever takes over looks again and does the rest. An agent that wakes too late writes nothing any more: whoever lets the flow go has
taken its place as the one who writes (`mrc.agent.renewing.begin_again`).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple, get_args

from mrc.agent import renewing
from mrc.agent.estate import Estate
from mrc.agent.failback import require_ready, wait_until
from mrc.agent.recovery import BATCH, READ, read
from mrc.agent.work import Work
from mrc.core.errors import MrcError
from mrc.core.failover import old_log
from mrc.core.failover.divergence import OldLogPolicy
from mrc.core.failover.flows import FlowStart
from mrc.core.failover.ledger import Tail
from mrc.core.failover.old_log import Held
from mrc.core.inventory import TopicInfo
from mrc.core.model import Flow, GroupId, Offset, Record, Region, TopicPartition
from mrc.ports import Emitted

OLD_LOG_POLICIES: tuple[str, ...] = get_args(OldLogPolicy)
"""All of them."""


# ---------------------------------------------------------------- looking


def tails_held(estate: Estate, region: Region, policies: Container[str] = OLD_LOG_POLICIES) -> tuple[Held, ...]:
    """Return the partitions of a region whose logs hold tails, as they are now; of topics with these policies. Raises world errors."""
    listed, _ = _listed(estate, region)
    tails = {tp: some for tp, some in listed.items() if estate.unit.recovery.old_log_of(tp.topic) in policies}
    return old_log.held(tails, estate.clusters[region].starts(list(tails))) if tails else ()


def _listed(estate: Estate, region: Region) -> tuple[dict[TopicPartition, tuple[Tail, ...]], Mapping[str, TopicInfo]]:
    """Return the tails of a region, and its topics where it has some: mostly there are none, and nobody is asked."""
    ledgers = [ledger for ledger, _ in estate.store.ledgers() if (ledger.region, ledger.state) == (region, "listed") and ledger.divergent]
    topics = estate.clusters[region].topics(estate.unit.topics) if ledgers else {}
    return old_log.tailed(ledgers, topics), topics


def cleanups(estate: Estate, topics: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return ``cleanup.policy`` in each region, by topic. Raises world errors."""
    names = sorted(set(topics))
    regions = [estate.clusters[region].topics(names) for region in estate.unit.regions]
    return {name: tuple(seen[name].config.get("cleanup.policy", "") for seen in regions if name in seen) for name in names}


def behind(estate: Estate, region: Region, purged: Iterable[Held]) -> dict[GroupId, int]:
    """Return, by group, how many offsets below the tails of these partitions it has not read in the open region. Raises world errors.

    A group that has positions on a topic, and none on one of its partitions, begins there at the log's start; so does one that has none at
    all. One that has some on other topics alone does not read these.
    """
    other = estate.clusters[estate.unit.other(region)]
    purged = list(purged)
    starts = other.starts([one.tp for one in purged])
    found: dict[GroupId, int] = {}
    for group, positions in other.positions_of(estate.unit.groups).items():
        reads = {tp.topic for tp in positions} & set(estate.unit.topics)
        for one in (one for one in purged if one.tp.topic in reads or not reads):
            position = positions.get(one.tp)
            at = max(starts[one.tp], position.offset if position else starts[one.tp])
            if at < one.mirror_end and any(record.offset < one.mirror_end for record in other.records(one.tp, Offset(at), 1)):
                found[group] = found.get(group, 0) + one.mirror_end - at
    return found


def _require_fit(work: Work) -> None:
    """See that no policy is wrong for its topic. Raises ``OLD_LOG_REFUSED``."""
    recovery, region = work.estate.unit.recovery, work.plan.target
    topics = {one.tp.topic for one in tails_held(work.estate, region)}
    for topic, seen in cleanups(work.estate, topics).items():
        if why := old_log.unfit(recovery.old_log_of(topic), topic, seen):
            raise MrcError("OLD_LOG_REFUSED", why, where=topic)


# ---------------------------------------------------------------- doing


def settle(work: Work) -> dict[str, str]:
    """Do with each log that holds a tail what its topic's policy says. Killed anywhere, it goes on where it was.

    Raises:
        MrcError: ``OLD_LOG_REFUSED`` before anything is done; ``TAIL_UNREAD`` where groups have not read what a purge would delete;
            world errors.
    """
    renewing.let_go_left(work)
    if renewing.held(work) is None:
        _require_fit(work)
        _purge(work)
    _write_in_the_old_log(work)
    return {}


def _purge(work: Work) -> None:
    """Delete records up to the last tail's end, once no group would have to read what lies below it.

    Where a group is set back afterwards, the move names what it would skip (``COPIES_DELETED``) and waits until it has read that in the
    open region.
    """
    region = work.plan.target
    purged = tails_held(work.estate, region, ("purge",))
    if not purged:
        return

    def require_read() -> None:
        if unread := behind(work.estate, region, purged):
            raise MrcError("TAIL_UNREAD", old_log.unread(unread, region), where=str(region), retryable=True)

    wait_until(work, require_read, every_s=0.2)
    work.lead()
    work.estate.clusters[region].delete_records({one.tp: one.end for one in purged})


def _write_in_the_old_log(work: Work) -> None:
    """Hold the flow, write what stands behind tails, make topics anew, let the flow go on.

    What is deleted was accounted for by the step before, and nobody but the flow could have written behind it.
    """
    region = work.plan.target
    if renewing.held(work) is None:
        anew = sorted({one.tp.topic for one in tails_held(work.estate, region, ("recreate",))})
        if not anew and not any(_look(work.estate, region, one).stale for one in tails_held(work.estate, region, ("supersede",))):
            return
        infos = work.estate.clusters[region].topics(anew)
        renewing.hold(work, {name: renewing.shape(info.topic_id, info) for name, info in infos.items()})
    renewing.wait_for_stop(work)
    start, version = renewing.require_held(work)
    _supersede(work, start)
    renewing.finish(work, start, version)


class _Look(NamedTuple):
    """What is in a partition's tails and behind them.

    Attributes:
        stale: the keys of whose records the last that the log holds is in a tail: whoever reads it to its end takes that for what stands.
        superseding: how many records say behind a tail what stands.
    """

    stale: set[bytes]
    superseding: int


def _look(estate: Estate, region: Region, one: Held) -> _Look:
    """Read a partition of a region from its first tail on.

    Raises:
        MrcError: ``OLD_LOG_REFUSED`` where a record in a tail has no key, and so speaks of no entity.
    """
    cluster, stale, superseding = estate.clusters[region], set[bytes](), 0
    for record in read(cluster, one.tp, one.begin, cluster.ends([one.tp], "read_committed")[one.tp]):
        superseding += old_log.is_superseding(record, region, one.tp)
        if not one.in_a_tail(record.offset):
            stale.discard(record.key or b"")
        elif record.key is None:
            message = f"{one.tp} at {record.offset} has no key, so nothing can supersede it; allowed: keep, recreate"
            raise MrcError("OLD_LOG_REFUSED", message, where=one.tp.topic)
        else:
            stale.add(record.key)
    return _Look(stale, superseding)


def _supersede(work: Work, start: FlowStart) -> None:
    """Write what the open region's log says of every stale entity, while the flow stands still.

    Of an entity whose last record there the flow has not copied yet nothing is written: that record comes behind the tail by itself. So
    whoever reads the log to its end then finds the same last record of each key as in the open region's.
    """
    estate, region = work.estate, work.plan.target
    superseded = tails_held(estate, region, ("supersede",))
    if not superseded:
        return
    cluster, rate = estate.clusters[region], estate.unit.recovery.records_per_second
    work.lead()
    emitter = cluster.emitter(renewing.writer(estate))
    try:
        resumes = renewing.next_positions(work, start)
        for one in superseded:
            _wait_for_end(work, one.tp)
            records = _standing(work, one, resumes.get(one.tp, Offset(0)))
            for begin in range(0, len(records), BATCH):
                some = records[begin : begin + BATCH]
                work.lead()
                emitter.send(some)
                work.lead()
                emitter.commit()
                estate.clock.sleep(len(some) / rate)
                if work.interrupted() or estate.clock.monotonic_s() >= work.deadline_s:
                    message = f"{one.tp}: not all that stands is written behind its tail yet"
                    raise MrcError("EFFECT_TIMED_OUT", message, where=str(region), retryable=True)
    finally:
        emitter.close()


def _wait_for_end(work: Work, tp: TopicPartition) -> None:
    """Wait until nothing is undecided in a log: what the flow's last transaction holds may be the newer record."""
    cluster = work.estate.clusters[work.plan.target]
    work.wait(
        lambda: cluster.ends([tp], "read_committed") == cluster.ends([tp], "read_uncommitted"),
        lambda: MrcError("OPEN_TRANSACTION", f"a transaction of the flow's is open on {tp}", where=str(tp), retryable=True),
        every_s=0.2,
    )


def _standing(work: Work, one: Held, resumes: Offset) -> list[Emitted]:
    """Return the records to be written behind the tails of a partition.

    Args:
        resumes: from where the flow will go on in the open region's log: it brings everything from there on.
    """
    estate, region = work.estate, work.plan.target
    stale = _look(estate, region, one).stale
    if not stale:
        return []
    source = estate.clusters[work.plan.source]
    # By the flow's own sight: what it has copied of a transaction that is not ended yet comes before what would be written here.
    sight = estate.sights(Flow(work.plan.source, region)).source
    last: dict[bytes, Record] = {}
    for record in read(source, one.tp, source.starts([one.tp])[one.tp], source.ends([one.tp], sight.isolation)[one.tp], sight):
        if record.key in stale:
            last[record.key] = record
    now_ms, found = estate.clock.now_ms(), []
    for key in sorted(stale):
        stands = last.get(key)
        if stands is None or stands.offset < resumes:
            value, headers = old_log.superseding(one.tp, stands, work.plan.source)
            found.append(Emitted(one.tp, key, value, now_ms, headers))
    return found


# ---------------------------------------------------------------- seeing, undoing


def settled(work: Work) -> str:
    """Wait until every log is as its policy says and a switchover would find nothing against it."""
    said: dict[str, str] = {}

    def require_settled() -> None:
        require_ready(work)
        said.clear()
        said.update(_seen(work))

    wait_until(work, require_settled, every_s=0.2)
    policies = [f"{topic}: {said.get(topic, 'as it was')}" for topic in work.estate.unit.topics]
    return f"old logs: {'; '.join(policies)}; the flow into {work.plan.target} runs"


def _seen(work: Work) -> Mapping[str, str]:
    """Return, by topic, what was done with its old log, from the logs themselves. Raises ``NOT_VERIFIED`` where something was not."""
    estate, region, recovery = work.estate, work.plan.target, work.estate.unit.recovery
    found: dict[str, str] = {}
    for ledger, _ in estate.store.ledgers():
        if ledger.region == region and ledger.execution:
            for topic in {tail.topic for tail in ledger.tails if tail.records > 0}:
                policy = recovery.old_log_of(topic)
                if policy == "purge":
                    found[topic] = "purged up to the ends of its tails"
                elif policy == "recreate":
                    found[topic] = "made anew"
    written: dict[str, int] = {}
    for one in tails_held(estate, region):
        policy = recovery.old_log_of(one.tp.topic)
        if policy in ("purge", "recreate"):
            raise MrcError("NOT_VERIFIED", f"{one.tp} still holds a tail up to {one.end}", where=str(region), retryable=True)
        if policy == "supersede":
            seen = _look(estate, region, one)
            if seen.stale:
                message = f"the last record of {len(seen.stale)} keys of {one.tp} is in a tail still"
                raise MrcError("NOT_VERIFIED", message, where=str(region), retryable=True)
            written[one.tp.topic] = written.get(one.tp.topic, 0) + seen.superseding
    return found | {topic: f"what stands of {count} keys is written behind its tails" for topic, count in written.items()}


def finish(work: Work) -> str:
    """Let the flow go that was held; where topics were being made anew, make them to the end: their logs are gone."""
    found = renewing.held(work)
    if found is None:
        return "no flow was held for an old log"
    renewing.wait_for_stop(work)
    renewing.finish(work, *found)
    return f"{work.forward} is let go; made anew to the end: {', '.join(sorted(found[0].renewing)) or 'none'}"


# ---------------------------------------------------------------- telling it from copies


def may_be_superseded(estate: Estate, region: Region) -> list[TopicPartition]:
    """Return the partitions of a region where something may have been written behind a tail. Raises world errors."""
    tails, topics = _listed(estate, region)
    return [tp for tp in tails if "compact" in topics[tp.topic].config.get("cleanup.policy", "")]


def below_superseding(estate: Estate, region: Region, tp: TopicPartition, offset: Offset) -> Offset | None:
    """Return where superseding records begin that reach to the record at ``offset``; None where that is none. Raises world errors."""
    begin: Offset | None = None
    low = offset
    while True:
        found = list(read(estate.clusters[region], tp, low, Offset(offset + 1)))
        ours = next((at for at, one in enumerate(reversed(found)) if not old_log.is_superseding(one, region, tp)), len(found))
        if ours:
            begin = Offset(found[-ours].offset)
        if ours < len(found) or not found or low == 0:
            return begin
        offset, low = Offset(low - 1), Offset(max(0, low - READ))


def behind_superseding(estate: Estate, region: Region, tp: TopicPartition, begin: Offset, end: Offset) -> Offset:
    """Return the offset behind the last superseding record in ``[begin, end)``; ``begin`` where there is none. Raises world errors."""
    found = [one.offset for one in read(estate.clusters[region], tp, begin, end) if old_log.is_superseding(one, region, tp)]
    return Offset(found[-1] + 1) if found else begin
