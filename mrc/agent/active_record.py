"""The active-region record through a move: what it says before and after each step, and how a step changes it."""

from __future__ import annotations

import msgspec

from mrc.agent.work import Work
from mrc.core.errors import MrcError
from mrc.core.failover.plan import Plan
from mrc.core.model import ActiveRecord, Epoch


def set_record(work: Work, allowed: tuple[ActiveRecord, ...], wanted: ActiveRecord) -> None:
    """Set the record to ``wanted`` from one of ``allowed`` (compared by region, state, epoch); harmless when it is so already."""
    record, version = work.estate.require_record()
    if same(record, wanted):
        return
    if not any(same(record, one) for one in allowed):
        message = f"the record says {record.region} {record.state}, epoch {record.epoch}: not what this move has left there"
        raise MrcError("RECORD_UNEXPECTED", message, where=work.plan.id)
    stamped = msgspec.structs.replace(wanted, execution=work.plan.id, at_ms=work.estate.clock.now_ms())
    work.estate.store.put_record(work.lead, stamped, version)


def require_same(work: Work, wanted: ActiveRecord) -> tuple[ActiveRecord, int]:
    """Return the record with its version. Raises ``RECORD_UNEXPECTED`` where it is not the same as ``wanted``."""
    record, version = work.estate.require_record()
    if not same(record, wanted):
        raise MrcError("RECORD_UNEXPECTED", f"the record says {record.region} {record.state}, epoch {record.epoch}", where=work.plan.id)
    return record, version


def same(one: ActiveRecord, other: ActiveRecord) -> bool:
    """Whether two records say the same of the same epoch."""
    return (one.region, one.state, one.epoch) == (other.region, other.state, other.epoch)


def records_of(plan: Plan) -> tuple[ActiveRecord, ActiveRecord, ActiveRecord, ActiveRecord]:
    """Return the four records of a move: source open, source draining, target closed, target open."""
    return (
        ActiveRecord(plan.source, "open", plan.epoch),
        ActiveRecord(plan.source, "draining", plan.epoch),
        ActiveRecord(plan.target, "closed", plan.epoch),
        ActiveRecord(plan.target, "open", Epoch(plan.epoch + 1)),
    )


def reopened(plan: Plan) -> ActiveRecord:
    """Return the record with which the source is opened again, in an epoch of its own."""
    return ActiveRecord(plan.source, "open", Epoch(plan.epoch + 1))


def never_opened(plan: Plan) -> ActiveRecord:
    """Return the record where a failover takes the place of a move to its source that died before it had opened it."""
    return ActiveRecord(plan.source, "closed", plan.epoch)
