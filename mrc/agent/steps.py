"""What each action does to the world: ``do`` (may run twice), ``verify`` (from fresh observation), ``undo``.

Whether and when a step may run is not decided here but by `mrc.core.failover.execution`. What a step has at hand: `mrc.agent.work`.
"""

from __future__ import annotations

from collections.abc import Mapping

from mrc.agent import closing, custom_steps, draining, failback, old_log, opening, positions, preflight, rebuilding, turning
from mrc.agent.work import Step, Work


def _nothing(work: Work) -> dict[str, str]:
    return {}


STEPS: Mapping[str, Step] = {
    "preflight": Step(preflight.preflight, preflight.preflight_seen),
    "attest": Step(_nothing, preflight.attested),
    "fence-source": Step(closing.fence_source, closing.source_fenced, closing.reopen_source),
    "reopen-source": Step(closing.open_source, closing.source_open),
    "drain": Step(_nothing, draining.drained),
    "release-groups": Step(_nothing, closing.released),
    "stop-flow": Step(turning.stop_flow, turning.flow_stopped, turning.resume_flow),
    "record-ends": Step(turning.record_ends, turning.ends_recorded, turning.forget_ends),
    "close-source": Step(closing.close_source, closing.source_closed, closing.unclose_source),
    "move-positions": Step(positions.move_positions, positions.positions_moved),
    "open-target": Step(opening.open_target, opening.target_open),
    "route": Step(opening.route, opening.routed),
    "reverse-flow": Step(_nothing, turning.flow_reversed),
    "canary": Step(opening.canary, opening.canary_seen),
    "command": Step(custom_steps.command, custom_steps.commanded),
    "http": Step(custom_steps.http, custom_steps.answered),
    "wait-for": Step(_nothing, custom_steps.waited_for),
    "pause": Step(custom_steps.pause, custom_steps.paused),
    "notify": Step(custom_steps.notify, custom_steps.notified),
    "await-region": Step(_nothing, failback.region_back),
    "hold-flow": Step(rebuilding.hold, rebuilding.held, rebuilding.let_go),
    "copy-acls": Step(rebuilding.copy_acls, rebuilding.acls_copied),
    "make-topics": Step(rebuilding.make_topics, rebuilding.topics_made),
    "start-flow": Step(rebuilding.start_flow, rebuilding.flow_started),
    "await-copies": Step(_nothing, rebuilding.copies_seen),
    "place-groups": Step(rebuilding.place_groups, rebuilding.groups_placed),
    "list-divergence": Step(failback.list_tails, failback.tails_listed),
    "export-divergence": Step(failback.export, failback.exported),
    "resolve-divergence": Step(failback.resolve, failback.resolved),
    "account-divergence": Step(failback.account, failback.accounted),
    "settle-old-log": Step(old_log.settle, old_log.settled, old_log.finish),
}
