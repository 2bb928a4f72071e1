"""Routes: reconciled to the active-region record by the agent that leads in the open region, always.

So a change that was lost, came late, or was undone by a restarted proxy is mended. What leads to neither region is somebody else's and
stays as it is. Each change is compared with what was read right before; of two that race one loses, looks again, and finds it done.
"""

from __future__ import annotations

from collections.abc import Mapping

from mrc.agent.estate import Estate
from mrc.agent.store import LeaderCheck
from mrc.core.errors import MrcError
from mrc.core.failover import routes
from mrc.core.failover.routes import Released
from mrc.core.model import ActiveRecord, Region
from mrc.ports import Route


def release(estate: Estate, record: ActiveRecord, version: int, lead: LeaderCheck) -> None:
    """Let clients go to the open region: from now on every route is wanted there. Harmless when repeated.

    Raises:
        MrcError: ``STALE_TERM`` when the record has changed meanwhile.
    """
    wanted = Released(record.region, record.epoch, record.execution)
    found = estate.store.released()
    if found is None or found[0] != wanted:
        estate.store.put_released(lead, wanted, found[1] if found else None, version)


def reconcile(estate: Estate, lead: LeaderCheck) -> tuple[str, ...]:
    """Let every route lead to where the record wants it; return the names of those that were changed.

    Each route is tried, whatever the others do.

    Raises:
        MrcError: of the first that could not be read or set; ``ROUTE_ELSEWHERE`` for one that leads to neither region.
    """
    if not estate.routes:
        return ()
    record, _ = estate.require_record()
    if record.region != estate.region:
        return ()  # the open region's own leader does it
    found = estate.store.released()
    region = routes.wanted(estate.unit, record, found[0] if found else None)
    if region is None:
        return ()
    changed, failures = [], []
    for route in estate.routes:
        try:
            if _set(estate, route, region, record, lead):
                changed.append(route.name)
        except MrcError as error:
            if not error.code.startswith("ROUTE_"):
                raise
            failures.append(error)
    if failures:
        raise failures[0]
    return tuple(changed)


def _set(estate: Estate, route: Route, region: Region, record: ActiveRecord, lead: LeaderCheck) -> bool:
    seen = route.read()
    if seen.region == region:
        return False
    if seen.foreign:
        message = f"it leads to neither region ({', '.join(seen.seen)}), and mrc does not overwrite that: set it to {region} by hand"
        raise MrcError("ROUTE_ELSEWHERE", message, where=route.name)
    if estate.require_record()[0] != record:
        raise MrcError("STALE_TERM", "the record has changed meanwhile", where=route.name, retryable=True)
    lead()
    route.point(region, seen, told(record, seen.region))
    return True


def told(record: ActiveRecord, source: str) -> Mapping[str, str]:
    """Return the facts of a redirect that was asked for by nobody but the record."""
    return {"execution": record.execution, "kind": "", "source": source, "target": record.region, "epoch": str(record.epoch)}


def unset(estate: Estate, region: Region) -> list[str]:
    """Return, of every route that does not lead to ``region``, where it leads. Raises what reading them raises."""
    seen = {route.name: route.read() for route in estate.routes}
    return [f"{name}: {', '.join(one.seen) or 'nothing'}" for name, one in seen.items() if one.region != region]
