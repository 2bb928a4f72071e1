"""What stands against a move, judged from one `Inventory`. ``error`` forbids it; ``warning`` and ``info`` are shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mrc.core.errors import CODES
from mrc.core.failover import fence, routes
from mrc.core.failover.flows import differs
from mrc.core.failover.runbook import PLANNED, MoveKind
from mrc.core.inventory import FlowStatus, Inventory, RegionInventory, Unit
from mrc.core.model import Flow, Known, Region, Unknown
from mrc.core.views import FindingView


def findings(
    inventory: Inventory,
    kind: MoveKind,
    target: Region,
    *,
    attested: bool,
    superseding: bool = False,
    absence_s: float | None = None,
    restarted: bool = False,
) -> tuple[FindingView, ...]:
    """Return everything that stands against moving the unit to ``target``, worst first.

    Args:
        superseding: a failover takes the place of the move that is running, whatever the record says in its middle.
        absence_s: seconds for which nobody has led in the source; None: somebody leads, or nobody has watched.
        restarted: a person sees to it that producers are started anew where a redirect would carry them along.
    """
    found = [*_request(inventory, kind, target, superseding=superseding and kind == "failover")]
    if kind == "failover" and not attested and inventory.record is not None:
        found.append(_unattested(inventory.unit, inventory.unit.other(target), absence_s))
    if not any(f.severity == "error" for f in found):
        source = inventory.unit.other(target)
        if kind != "fence":  # which opens nothing
            found += _target(inventory, kind, target)
        found += _source(inventory, kind, source)
        found += routes.findings(inventory, kind, target, restarted=restarted)
        if kind == "failback":
            found = [_waited_for(one, target) for one in found]
    order = {"error": 0, "warning": 1, "info": 2}
    return tuple(sorted(found, key=lambda f: order[f.severity]))


def _waited_for(finding: FindingView, target: Region) -> FindingView:
    """Return what a failback finds; what it waits for itself, the region's return, keeps nobody from beginning it."""
    away = finding.code in ("CLUSTER_UNREACHABLE", "CONNECT_UNREACHABLE") and finding.where == target
    if finding.severity == "error" and (away or finding.code == "FLOW_NOT_RUNNING"):
        return FindingView(finding.code, "warning", f"{finding.message}; the failback waits for it", finding.where)
    return finding


def _unattested(unit: Unit, source: Region, absence_s: float | None) -> FindingView:
    """Judge a failover that no person answers for: it may rest on the source's agents where they fence themselves."""
    if imposed := fence.assumed(unit, absence_s):
        message = f"the fence of {source} is self-imposed, unverified: {imposed}; dead agents beside live brokers fence nothing"
        return FindingView("SELF_FENCE_ASSUMED", "warning", message, str(source))
    message = "nobody has attested that the source is dead"
    if unit.self_fence_after_s is not None:
        seen = "has not been seen by this agent" if absence_s is None else f"has lasted {absence_s:.1f} s"
        wanted_s = unit.self_fence_after_s + fence.SELF_FENCE_MARGIN_S
        message += f"; nor is its fence self-imposed: that nobody leads in {source} {seen}, and {wanted_s:g} s are wanted"
    return _error("NOT_ATTESTED", message)


def _request(inventory: Inventory, kind: MoveKind, target: Region, *, superseding: bool) -> Iterator[FindingView]:
    unit, record = inventory.unit, inventory.record
    if unit.mode != "active-passive":
        yield _error("MODE_NOT_SUPPORTED", f"{unit.name} is {unit.mode}")
    if kind == "failback" and unit.policy == "default":
        flow = Flow(target, unit.other(target))
        message = f"under the default policy {flow} copies late what a failover left behind, so there is nothing to recover: switch over"
        yield _error("NOTHING_DIVERGES", message, str(target))
    if kind == "rebuild" and unit.policy == "default":
        other = unit.other(target)
        message = (
            f"under the default policy what {target} wrote stands in {other} as {target}.TOPIC, and no flow brings it back: make the "
            f"topics of {target} by hand, with both flows stopped and their positions on them reset"
        )
        yield _error("REBUILD_REFUSED", message, str(target))
    for flow, connector in unit.connectors.items():
        settings = inventory.regions[flow.target].inbound_settings
        if kind != "fence" and isinstance(settings, Known) and (told := differs(unit.policy, settings.value)):
            yield _error("POLICY_DIFFERS", told, connector)
    if record is None:
        yield _error("NO_ACTIVE_RECORD", CODES["NO_ACTIVE_RECORD"].means)
        return
    if record.region == target and record.state == "open" and kind == "fence":
        yield _error("ALREADY_ACTIVE", f"{target} is the open region, epoch {record.epoch}: only that can be fenced, from the other")
    elif record.region == target and record.state == "open":
        yield _error("ALREADY_ACTIVE", f"{target} is the active region already, epoch {record.epoch}")
    elif (record.region == target or record.state == "closed") and not superseding:
        yield _error("MOVE_IN_PROGRESS", f"the record says {record.region} {record.state}; an execution must finish first")
    if inventory.execution and superseding:
        message = f"execution {inventory.execution} is running; it ends as it stands, and this failover takes its place"
        yield FindingView("MOVE_IN_PROGRESS", "warning", message, inventory.execution)
    elif inventory.execution:
        yield _error("MOVE_IN_PROGRESS", f"execution {inventory.execution} is running")


def _target(inventory: Inventory, kind: MoveKind, target: Region) -> Iterator[FindingView]:
    unit, seen = inventory.unit, inventory.regions[target]
    yield from _unreachable(seen.kafka, "CLUSTER_UNREACHABLE", "error", "Kafka", target)
    # Under the default policy no flow has to be stopped, and so none blocked.
    stays = unit.policy == "default" and kind == "failover"
    unreachable = _unreachable(seen.connect, "CONNECT_UNREACHABLE", "warning" if stays else "error", "Connect", target)
    may_block = kind == "failover" and not stays
    yield from (_blocking(unit, seen, one) if may_block and one.code == "CONNECT_UNREACHABLE" else one for one in unreachable)
    yield from _unsafe(inventory, seen)
    if kind == "rebuild" and isinstance(seen.inbound, Known) and seen.inbound.value.state == "ABSENT":
        connector = unit.connectors[Flow(unit.other(target), target)]
        message = f'there is no connector {connector}: make it again, with "initial_state": "STOPPED" and the settings that it had'
        yield _error("REBUILD_REFUSED", message, str(target))
    if kind != "rebuild":  # which makes them
        yield from _furnished(unit, seen, target)
    if isinstance(seen.groups, Known):
        for group, state in seen.groups.value.items():
            if state.members:
                yield _error(
                    "GROUP_HAS_MEMBERS", f"group {group} has {state.members} members in {target}: their positions would be overwritten"
                )
    if isinstance(seen.inbound, Known) and seen.inbound.value.state == "FAILED":
        yield FindingView("FLOW_FAILED", "warning", f"the flow into {target} has failed: {seen.inbound.value.trace}", str(target))


def _furnished(unit: Unit, seen: RegionInventory, target: Region) -> Iterator[FindingView]:
    """Judge the target's topics, and what its ACLs let the applications do."""
    if isinstance(seen.topics, Known):
        for topic in unit.read_in(target):
            info = seen.topics.value.get(topic)
            if info is None:
                yield _error("UNKNOWN_TOPIC", f"topic {topic} does not exist in {target}", str(target))
            elif topic in unit.topics and fence.probe_would_be_appended(info):
                yield FindingView(
                    "PROBE_IMPOSSIBLE", "warning", f"{topic} takes records of any time: its fence stays unverified", str(target)
                )
    if isinstance(seen.bindings, Known) and isinstance(seen.kafka, Known):
        allowed = frozenset(b for b in seen.bindings.value if b.permission == "allow")
        for blocked in fence.blocks_writers(unit, allowed):
            yield _error("WRITER_NOT_ALLOWED", f"no ACL lets {blocked} write in {target}", str(target))
        for blocked in fence.lacks_readers(unit, target, allowed):
            yield FindingView("READER_NOT_ALLOWED", "warning", blocked, str(target))


def _blocking(unit: Unit, seen: RegionInventory, unreachable: FindingView) -> FindingView:
    """Judge a failover to a region whose Connect does not answer: its flow cannot be stopped, but may be refused its writes."""
    bindings = seen.bindings.value if isinstance(seen.bindings, Known) else ()
    broker = seen.broker_settings.value if isinstance(seen.broker_settings, Known) else {}
    if reason := fence.unblockable(unit, bindings, broker):
        return _error(unreachable.code, f"{unreachable.message}; nor can its flow be blocked: {reason}", unreachable.where)
    message = f"{unreachable.message}; the flow cannot be stopped, so {', '.join(unit.replicators)} is refused to write in its place"
    return FindingView("FLOW_BLOCKED", "warning", message, unreachable.where)


def _source(inventory: Inventory, kind: MoveKind, source: Region) -> Iterator[FindingView]:
    seen = inventory.regions[source]
    severity = {"switchover": "error", "failback": "error", "failover": "info", "fence": "warning", "rebuild": "error"}[kind]
    if not inventory.unit.probe:
        # A planned move would refuse the applications and then wait for ever: nothing else gives it that proof, and it cannot do without.
        told = f"no {kind} is begun without that proof; a fence waits for it, a failover rests on a person's word"
        unproved = "error" if kind in PLANNED or kind == "rebuild" else "warning"
        yield FindingView("PROBE_MISSING", unproved, f"without a probe the fence of {source} cannot be proved: {told}", str(source))
    yield from _unreachable(seen.kafka, "CLUSTER_UNREACHABLE", severity, "Kafka", source)
    if kind != "fence":  # which copies nothing
        yield from _unreachable(seen.connect, "CONNECT_UNREACHABLE", severity, "Connect", source)
    if kind == "failover":
        if isinstance(seen.kafka, Known):
            message = f"Kafka of {source} answers: a switchover loses nothing, a failover may"
            yield FindingView("SOURCE_ALIVE", "warning", message, str(source))
        return
    yield from _unsafe(inventory, seen)
    if kind == "fence":
        yield from _unproved(inventory, seen)
        return
    target_seen = inventory.regions[inventory.unit.other(source)]
    if kind != "rebuild" and isinstance(target_seen.inbound, Known):
        yield from _running(inventory, source, target_seen.inbound.value)
    if isinstance(seen.topics, Known) and isinstance(target_seen.topics, Known):
        for topic in inventory.unit.topics:
            here, there = seen.topics.value.get(topic), target_seen.topics.value.get(topic)
            if here is None:
                yield _error("UNKNOWN_TOPIC", f"topic {topic} does not exist in {source}", str(source))
            elif fence.probe_would_be_appended(here):
                yield _error("PROBE_IMPOSSIBLE", f"{topic} takes records of any time: its fence cannot be proved", str(source))
            elif kind != "rebuild" and there is not None and len(here.leaders) != len(there.leaders):
                yield _error(
                    "PARTITIONS_DIFFER", f"{topic} has {len(here.leaders)} partitions in {source}, {len(there.leaders)} in the target"
                )


def _running(inventory: Inventory, source: Region, status: FlowStatus) -> Iterator[FindingView]:
    if inventory.held and not status.tasks:
        message = (
            f"execution {inventory.held} holds the flow from {source}, whose copies' logs were being written in, or made anew: "
            f"where it has ended in the middle of that, a failback or a rebuild lets the flow go"
        )
        yield _error("FLOW_NOT_RUNNING", message)
    elif status.state != "RUNNING" or not status.tasks_run:
        tasks = ", ".join(status.tasks) or "none"
        yield _error("FLOW_NOT_RUNNING", f"the flow from {source} is {status.state}, tasks {tasks}: nothing would drain")


def _unproved(inventory: Inventory, seen: RegionInventory) -> Iterator[FindingView]:
    """Say why a fence that refuses writes all the same cannot be proved: in an emergency that keeps nobody from it."""
    if isinstance(seen.topics, Unknown):
        return
    for topic in inventory.unit.topics:
        info = seen.topics.value.get(topic)
        if info is None:
            yield FindingView("UNKNOWN_TOPIC", "warning", f"topic {topic} does not exist in {seen.region}", str(seen.region))
        elif fence.probe_would_be_appended(info):
            message = f"{topic} takes records of any time: its fence cannot be proved, the step waits"
            yield FindingView("PROBE_IMPOSSIBLE", "warning", message, str(seen.region))


def _unsafe(inventory: Inventory, seen: RegionInventory) -> Iterator[FindingView]:
    if isinstance(seen.bindings, Known) and isinstance(seen.broker_settings, Known):
        connector = seen.inbound_settings.value if isinstance(seen.inbound_settings, Known) else {}
        yield from fence.unsafe(inventory.unit, seen.region, seen.bindings.value, seen.broker_settings.value, connector)
    elif isinstance(seen.kafka, Known):
        unread = seen.bindings if isinstance(seen.bindings, Unknown) else seen.broker_settings
        detail = unread.detail if isinstance(unread, Unknown) else ""
        yield _error("AUTHORIZATION_FAILED", f"ACLs or broker settings of {seen.region} cannot be read: {detail}", str(seen.region))


def spelt(found: Iterable[FindingView]) -> str:
    """Return findings in one line, as an error tells of them."""
    return "; ".join(f"{one.code}: {one.message}" for one in found)


def _unreachable(reading: Known[float] | Unknown, code: str, severity: str, what: str, region: Region) -> Iterator[FindingView]:
    """Say that a cluster cannot be used, with the code of the reason: one that refuses mrc's credentials is not silent."""
    if isinstance(reading, Unknown):
        reason = reading.reason.replace("-", "_").upper()
        yield FindingView(
            reason if reason in CODES else code, severity, f"{what} of {region} cannot be used: {reading.detail}", str(region)
        )


def _error(code: str, message: str, where: str = "") -> FindingView:
    return FindingView(code, "error", message, where)
