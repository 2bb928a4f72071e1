"""What must hold before a move begins: no finding forbids it; a source that is given up was attested dead, or fences itself."""

from __future__ import annotations

import msgspec

from mrc.agent.leadership import leader_path
from mrc.agent.work import Work
from mrc.core.errors import MrcError
from mrc.core.failover.findings import findings, spelt
from mrc.core.model import Known


def preflight(work: Work) -> dict[str, str]:
    """Judge the move by a fresh look, and note which groups have members. Raises ``PLAN_REFUSED``, ``CAPTURE_BEHIND``."""
    inventory = msgspec.structs.replace(work.observe(), execution="")
    plan = work.plan
    settled = plan.attested or bool(plan.self_imposed)
    against = findings(inventory, plan.kind, plan.target, attested=settled, superseding=bool(plan.supersedes), restarted=plan.restarted)
    found = [f for f in against if f.severity == "error"]
    if found:
        raise MrcError("PLAN_REFUSED", spelt(found))
    if work.plan.kind == "switchover":  # a failback looks when its flow runs: see settle-old-log
        if obstacles := work.positions.obstacles():
            raise MrcError("PLAN_REFUSED", spelt(obstacles))
        # Whatever is unread when the fence stands is read inside the write block.
        work.wait(lambda: not work.positions.behind(), lambda: MrcError("CAPTURE_BEHIND", work.positions.behind(), where=str(work.forward)))
    groups = inventory.regions[work.plan.source].groups
    live = [group for group, info in groups.value.items() if info.members] if isinstance(groups, Known) else []
    return {"live_groups": ",".join(sorted(live))}


def preflight_seen(work: Work) -> str:
    """Say which groups had members: that nothing forbids the move was the look itself."""
    return f"no finding forbids the move; groups with members: {work.facts.get('live_groups') or 'none'}"


def attested(work: Work) -> str:
    """Return who attests that the source is dead, or since when it fences itself. Raises ``NOT_ATTESTED``."""
    if not work.plan.attested:
        return _self_imposed(work)
    return f"{work.plan.actor} attests that {work.plan.source} is dead; its fence is unverified until it returns"


def _self_imposed(work: Work) -> str:
    source = work.plan.source
    if not work.plan.self_imposed:
        raise MrcError("NOT_ATTESTED", f"nobody has attested that {source} is dead")
    if work.estate.store.tree.get(leader_path(source)) is not None:
        raise MrcError("NOT_ATTESTED", f"an agent leads in {source} again, so the region is no longer fenced by itself", where=str(source))
    return f"nobody attests that {source} is dead; its fence is self-imposed, unverified until it returns: {work.plan.self_imposed}"
