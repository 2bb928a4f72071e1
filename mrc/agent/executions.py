"""Executions as one agent knows them: the mover's own, or replayed from the journal."""

from __future__ import annotations

from mrc.agent.coordinator import Coordinator
from mrc.core.errors import MrcError
from mrc.core.failover.execution import Run, replay
from mrc.core.failover.plan import Plan
from mrc.core.failover.shown import execution_view, unreadable_view
from mrc.core.views import ExecutionView

HISTORY_MAX = 200
"""How many executions are listed, and looked through for a token."""


def run_of(coordinator: Coordinator, execution: str) -> Run:
    """Return an execution's state: the mover's own, or replayed from the journal. Raises as `mrc.agent.store.Store.plan`."""
    run = coordinator.mover.run
    if run is not None and run.plan.id == execution:
        return run
    store = coordinator.estate.store
    return replay(store.plan(execution), store.entries(execution))


def listed(coordinator: Coordinator, execution: str) -> ExecutionView:
    """Return what is shown of an execution; one whose plan or journal is garbled stands in its place and says where it is."""
    try:
        return execution_view(run_of(coordinator, execution), coordinator.estate.clock.now_ms())
    except MrcError as error:
        if error.code != "GARBLED_RECORD":
            raise
        return unreadable_view(coordinator.estate.unit.name, execution, str(error))


def last(coordinator: Coordinator) -> tuple[ExecutionView, ...]:
    """Return the last executions as `listed`, oldest first."""
    return tuple(listed(coordinator, name) for name in coordinator.estate.store.executions()[-HISTORY_MAX:])


def by_token(coordinator: Coordinator, token: str) -> Plan | None:
    """Return the plan that a token has begun.

    A plan that cannot be read is passed over, but for one in which the token still stands: what it began would be begun again.
    `mrc.agent.archive` and the history name it.
    """
    if not token:
        return None
    store = coordinator.estate.store
    for id in reversed(store.executions()[-HISTORY_MAX:]):
        try:
            plan = store.plan(id)
        except MrcError as error:
            if error.code != "GARBLED_RECORD" or store.mentions(id, token):
                raise
            continue
        if plan.token == token:
            return plan
    return None
