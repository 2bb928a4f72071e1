"""What a replication group's objectives say of its lag and of its last move."""

from __future__ import annotations

from collections.abc import Iterator

from mrc.agent import executions
from mrc.agent.coordinator import Coordinator
from mrc.core.inventory import Unit
from mrc.core.model import Known, Reading
from mrc.core.views import FindingView


def over_rpo(unit: Unit, source: str, target: str, lag: Reading[float]) -> Iterator[FindingView]:
    """Compare the lag of the flow source -> target with the objective."""
    if unit.rpo_s is not None and isinstance(lag, Known) and lag.value > unit.rpo_s:
        message = f"a failover now would lose the last {lag.value:.1f} s; the objective rpo_s is {unit.rpo_s:g}"
        yield FindingView("RPO_EXCEEDED", "warning", message, f"{source}->{target}")


def over_rto(coordinator: Coordinator) -> Iterator[FindingView]:
    """Compare the last move with the objective."""
    estate = coordinator.estate
    for last in estate.store.executions()[-1:]:
        view = executions.listed(coordinator, last)
        took_s = (view.ended_at_ms - view.started_at_ms) / 1000
        if (
            estate.unit.rto_s is not None
            and view.kind not in ("fence", "failback", "rebuild")
            and view.status == "succeeded"
            and took_s > estate.unit.rto_s
        ):
            message = f"the last {view.kind}, to {view.target}, took {took_s:.1f} s; the objective rto_s is {estate.unit.rto_s:g}"
            yield FindingView("RTO_EXCEEDED", "warning", message, last)
