"""Routes: where clients are sent that do not follow the active-region record; what is wanted of them, what stands against a move.

A redirect that leaves the client's process alone (a name in DNS, a proxy, a command) carries a running idempotent producer to the other
cluster, where its producer id belongs to somebody else: records may be acknowledged that are never appended. So such routes are set
only where every producer starts anew by itself, or where a person says that they were started anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from mrc.core.failover.runbook import PLANNED, STAYING, MoveKind, Runbook
from mrc.core.inventory import Inventory, Unit
from mrc.core.model import ActiveRecord, Epoch, Region, Unknown, Written
from mrc.core.views import FindingView


class Released(Written, frozen=True):
    """The last region that clients were let go to, by the step `route` of an execution."""

    region: Region
    epoch: Epoch
    execution: str
    version: Literal[1] = 1


def wanted(unit: Unit, record: ActiveRecord, released: Released | None) -> Region | None:
    """Return where routes shall lead; None: nobody is to touch them.

    Where a redirect may carry producers along, only to where a move's `route` step, which a person has approved, has let clients go.
    """
    if record.state != "open":
        return None
    if unit.carries_producers and (released is None or released.region != record.region):
        return None
    return record.region


def asking(runbook: Runbook, unit: Unit) -> Runbook:
    """Return the runbook with an approval of its `route` step where a redirect may carry producers along."""
    if not unit.carries_producers:
        return runbook
    steps = tuple(
        msgspec.structs.replace(step, approval_rule=step.approval_rule or True) if step.action == "route" else step
        for step in runbook.steps
    )
    return msgspec.structs.replace(runbook, steps=steps)


def findings(inventory: Inventory, kind: MoveKind, target: Region, *, restarted: bool) -> Iterator[FindingView]:
    """Yield what stands against sending clients to ``target``, and what is wrong with where they are sent now.

    Args:
        restarted: a person sees to it that producers are started anew.
    """
    if inventory.unit.carries_producers and kind not in STAYING:
        yield _producers(target, restarted=restarted)
    # An unplanned move cannot wait for a name server; fences and rebuilds send nobody anywhere.
    severity: Literal["error", "warning"] = "error" if kind in PLANNED else "warning"
    source = inventory.unit.other(target)
    for name, reading in inventory.routes.items():
        if isinstance(reading, Unknown):
            yield FindingView(
                reading.reason.replace("-", "_").upper(), severity, f"where clients are sent cannot be read: {reading.detail}", name
            )
            continue
        pointing = reading.value
        holds = ", ".join(pointing.seen) or "nothing"
        if pointing.foreign:
            message = f"it leads to neither region ({holds}): mrc does not overwrite that, set it to {source} by hand"
            yield FindingView("ROUTE_ELSEWHERE", severity, message, name)
        elif pointing.region != source:
            message = f"it leads to {pointing.region or 'no one region'} ({holds}), and {source} is the open one"
            yield FindingView("ROUTE_ELSEWHERE", "warning", message, name)


def _producers(target: Region, *, restarted: bool) -> FindingView:
    if restarted:
        message = f"a person sees to it that no producer that was running before is sent to {target}; the step route waits for that word"
        return FindingView("PRODUCERS_CARRIED", "warning", message, "routing.producers")
    message = (
        f"a redirect may carry running idempotent producers to {target}, and records be acknowledged that are never appended: let them use "
        f"mrc.client, or stop them before the redirect and attest it"
    )
    return FindingView("PRODUCERS_CARRIED", "error", message, "routing.producers")
