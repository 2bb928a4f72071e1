"""What a region lacks that is rebuilt from the other one, and what stands against it. Pure functions of what was seen.

A region is rebuilt that came back empty, or without the records that its mirror holds. Invariant: no topic is deleted that the plan does
not name by its id, and none that holds records unless a person has said that they may be lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mrc.core.failover import fence
from mrc.core.failover.flows import OldTopic
from mrc.core.failover.ledger import Ledger
from mrc.core.inventory import Binding, Unit
from mrc.core.model import Region, Value
from mrc.core.views import FindingView


class SeenTopic(Value, frozen=True):
    """A topic of the region that is rebuilt.

    Attributes:
        wanted: as the source has it; its ``topic_id`` is the present one's, empty where there is none.
        offsets: how many offsets its logs hold, from their starts to their ends.
        fits: it is there, has never held a record, and is like the source's: it stays.
    """

    name: str
    wanted: OldTopic
    offsets: int
    fits: bool


def deletes(seen: Iterable[SeenTopic]) -> dict[str, str]:
    """Return the topics that are deleted and made anew, id by name."""
    return {one.name: one.wanted.topic_id for one in seen if one.wanted.topic_id and not one.fits}


def lacking(unit: Unit, source: frozenset[Binding], target: frozenset[Binding], ours: frozenset[Binding]) -> frozenset[Binding]:
    """Return the source's ACLs that the target lacks: those that cover the unit's topics and groups, and what their principals need beside.

    That is their transactional ids and the idempotent writes of those who write; no other right on the cluster is copied.

    Args:
        ours: what mrc refuses in the source, as it is noted; none of the operator's, nor is what agents there refuse by themselves.
    """
    imposed = fence.self_imposed(unit, source)
    theirs = source - ours - imposed.marks - imposed.made
    about = {one for one in theirs if fence.covers_topics(one, unit) or fence.covers_groups(one, unit)}
    named = fence.writers(unit, about) | fence.readers(unit, about)
    beside = {
        one
        for one in theirs
        if one.principal in named
        and (one.resource == "transactional_id" or (one.resource == "cluster" and one.operation == "idempotent_write"))
    }
    return frozenset((about | beside) - target)


def findings(
    region: Region, source: Region, seen: Sequence[SeenTopic], waiting: Sequence[Ledger], *, allow_data_loss: bool
) -> Iterator[FindingView]:
    """Yield what a rebuild of ``region`` does with its topics, and which of their records stand against it.

    Args:
        waiting: entries of the region whose records are not accounted for.
        allow_data_loss: a person has said that records may be deleted that nobody else may have.
    """
    holds = sum(one.offsets for one in seen)
    for one in seen:
        how = f"{one.wanted.partitions} partitions and the settings of {source}"
        if one.offsets and allow_data_loss:
            message = f"{one.name} of {region} holds {one.offsets:,} offsets: they are deleted, and it is made anew with {how}"
            yield FindingView("TOPIC_NOT_EMPTY", "warning", message, one.name)
        elif one.offsets:
            message = (
                f"{one.name} of {region} holds {one.offsets:,} offsets, which a rebuild would delete: nothing is, unless you say so with "
                f"--allow-data-loss and a --reason"
            )
            yield FindingView("TOPIC_NOT_EMPTY", "error", message, one.name)
        elif not one.fits:
            was = f"is empty and unlike that of {source}: it is deleted" if one.wanted.topic_id else "is missing: it is made"
            yield FindingView("TOPIC_REBUILT", "info", f"{one.name} of {region} {was}, with {how}", one.name)
    for ledger in waiting:
        alone = f"{ledger.divergent:,} records" if ledger.state == "listed" else "nobody knows how many records"
        said = f"{alone} that {region} alone had since failover {ledger.execution} are not accounted for"
        if not holds:
            yield FindingView("DIVERGENCE_WAITS", "warning", f"{said}, and its logs are empty: they are lost", ledger.execution)
        elif allow_data_loss:
            yield FindingView("DIVERGENCE_WAITS", "warning", f"{said}: whatever of them is left is deleted", ledger.execution)
        else:
            way = (
                "`mrc divergence export` and `resolve` recover them" if ledger.state == "listed" else "take what is wanted of them by hand"
            )
            yield FindingView("DIVERGENCE_WAITS", "error", f"{said}: {way} first", ledger.execution)


def access(unit: Unit, region: Region, added: frozenset[Binding], there: frozenset[Binding], left_out: int) -> Iterator[FindingView]:
    """Yield which ACLs a rebuild adds, and who may not write all the same.

    Args:
        there: what the region has already.
        left_out: how many ALLOWs of the source are for one host only.
    """
    if added:
        counts: Mapping[str, int] = {name: sum(one.principal == name for one in added) for name in sorted({one.principal for one in added})}
        names = ", ".join(f"{name}: {count}" for name, count in counts.items())
        yield FindingView("ACLS_COPIED", "info", f"{len(added)} ACLs are added in {region} ({names})", str(region))
    if left_out:
        message = f"{left_out} ACLs are for one host only and are not copied: make them in {region} by hand where its hosts need them"
        yield FindingView("ACLS_LEFT_OUT", "warning", message, str(region))
    allowed = frozenset(one for one in added | there if one.permission == "allow")
    for blocked in fence.blocks_writers(unit, allowed):
        yield FindingView("WRITER_NOT_ALLOWED", "error", f"no ACL would let {blocked} write in {region}", str(region))
