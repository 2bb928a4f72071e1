"""One replication group in one agent: its pumps, called by the wiring's threads (or by a simulation, one after another).

Every pump does a bounded piece of work and returns; a world error passes out of it, is logged by the caller, and the pump is
called again later. What readers see is kept as immutable snapshots with their times.
"""

from __future__ import annotations

import contextlib
import threading

from mrc.agent import fencing, flowing, routing
from mrc.agent.archive import Archive
from mrc.agent.capture import Capture
from mrc.agent.estate import Estate
from mrc.agent.mover import Mover
from mrc.agent.observer import Observer
from mrc.agent.quorum import Absence, SelfFence
from mrc.agent.recording import Recorder
from mrc.agent.syncing import LiveSync
from mrc.core.errors import MrcError
from mrc.core.failover import routes
from mrc.core.failover.execution import ENDED, AbortAsked, Run
from mrc.core.failover.plan import as_seen
from mrc.core.failover.runbook import Runbook, approval_of
from mrc.core.model import Flow, Known, Region
from mrc.core.views import FenceView, FindingView

FENCE_PROOF_EVERY_S = 10.0
"""How often a fence that nobody changed is proved again."""

PROOF_AGE_MAX_S = 30.0
"""The same while a move is under way."""

OPENED_LATELY_MS = 2_000
"""A move counts as under way for so long after it has opened a region: clients are coming then."""


class Coordinator:
    """The observer, the capture, the reconcilers and the mover of one replication group."""

    def __init__(self, estate: Estate, agent: str) -> None:
        self.estate = estate
        self.agent = agent
        self.observer = Observer(estate)
        self.capture = Capture(estate)
        self.sync = LiveSync(estate, self.capture)
        self.archive = Archive(estate)
        self.self_fence = SelfFence(estate)
        self.absence = Absence(estate, estate.unit.other(estate.region))
        self.changed = threading.Condition()
        self.mover = Mover(estate, agent, self.capture, self.observer.observe, self._notify)
        self.recorder = Recorder(estate, self.observer, self.capture, lambda: self.mover.run)
        self.last_run: Run | None = None
        self._fences: dict[Region, FenceView] = {}
        self._proved_at_s: dict[Region, float] = {}
        self._changed: set[Region] = set()
        self._resumed = False

    @property
    def leads(self) -> bool:
        """Whether this agent leads in its region."""
        return self.estate.leadership.leads

    @property
    def flow(self) -> Flow:
        """The flow into this agent's region."""
        return self.estate.inbound(self.estate.region)

    def _notify(self, run: Run) -> None:
        self.last_run = run
        with self.changed:
            self.changed.notify_all()

    def fence(self, region: Region) -> FenceView:
        """Return the last proof of a region's fence."""
        return self._fences.get(region, FenceView("unknown", "not proved yet", 0))

    def noticed(self) -> tuple[FindingView, ...]:
        """Return what the capture, the live sync and the archive have noticed that an operator should know."""
        return self.capture.findings() + self.sync.findings() + self.archive.findings()

    def as_seen(self, runbook: Runbook) -> Runbook:
        """Return a runbook for a move to this region: conditions judged by what the observer saw last, approvals that the unit needs."""
        source = self.observer.region(self.estate.unit.other(self.estate.region))
        return routes.asking(as_seen(runbook, source_reachable=isinstance(source.kafka, Known)), self.estate.unit)

    # -- pumps

    def lead(self, *, new_term: bool) -> None:
        """React to a change of leadership: a new leader takes the running execution over, a former one drops it."""
        if not self.leads:
            self._resumed = False
            self.mover.drop()
            return
        if new_term or not self._resumed:
            self.estate.store.prepare()
            self.mover.resume()
            self._resumed = True
        elif self.mover.idle and self.estate.store.current()[0]:
            self.mover.resume()  # begun by this agent, but the answer that it was begun never came

    def fence_tick(self, region: Region) -> bool:
        """Reconcile a region's fence, and prove it now and then; return whether anything was changed."""
        if not self.leads:
            return False
        now_s = self.estate.clock.monotonic_s()
        try:
            changed = fencing.reconcile(self.estate, region, self.estate.leadership.check)
            self._prove_now_and_then(region, now_s, changed=changed)
        except MrcError as error:
            self._fences[region] = fencing.view(None, error, self.estate.clock.now_ms())
            self._proved_at_s.pop(region, None)
            raise
        return changed

    def _prove_now_and_then(self, region: Region, now_s: float, *, changed: bool) -> None:
        """Prove a region's fence where it was changed, or was not proved for a while.

        A move proves for itself what it needs, and each question of ours to every leader lengthens its write block: in the middle of one,
        and a moment after it, only a proof that is `PROOF_AGE_MAX_S` old is renewed.
        """
        if changed:
            self._changed.add(region)
        age_s = now_s - self._proved_at_s.get(region, -PROOF_AGE_MAX_S)
        at_rest = not self._moving()
        if age_s >= PROOF_AGE_MAX_S or (at_rest and (region in self._changed or age_s >= FENCE_PROOF_EVERY_S)):
            self._proved_at_s[region] = now_s
            self._changed.discard(region)
            proof = fencing.prove(self.estate, region, still=False)
            self._fences[region] = fencing.view(proof, None, self.estate.clock.now_ms())

    def _moving(self) -> bool:
        """Whether the record, as it was seen last, is between two openings, or opened a region a moment ago."""
        record = self.capture.record
        return record is not None and (record.state != "open" or abs(self.estate.clock.now_ms() - record.at_ms) < OPENED_LATELY_MS)

    def quorum_tick(self) -> bool:
        """Watch whether anybody leads in the other region, and fence this one if no majority is heard; return whether it was changed.

        Every agent does so, whether it leads or not. Only for units with ``self_fence_after_s``.
        """
        if self.estate.unit.self_fence_after_s is None:
            return False
        with contextlib.suppress(MrcError):  # no majority: what was seen before holds, and the next look is the one that counts
            self.absence.look()
        changed = self.self_fence.tick()
        if self.self_fence.stands:
            self._prove_now_and_then(self.estate.region, self.estate.clock.monotonic_s(), changed=changed)
        return changed

    def flow_tick(self) -> str:
        """Reconcile the flow into this region; return what was done."""
        return flowing.reconcile(self.estate, self.estate.leadership.check) if self.leads else ""

    def route_tick(self) -> tuple[str, ...]:
        """Look where clients are sent, and reconcile it; return what was changed."""
        if not self.leads:
            return ()
        try:
            return routing.reconcile(self.estate, self.estate.leadership.check)
        finally:
            self.observer.refresh_routes()

    def capture_tick(self) -> bool:
        """Read on, capture and translate; return whether there was anything new.

        A former leader forgets what it had read: the next one writes the maps on, and two hands would tear them.
        """
        if not self.leads:
            self.capture.pause()
            return False
        return self.capture.tick()

    def sync_tick(self) -> bool:
        """Keep the groups' positions committed in the standby; return whether anything was written."""
        if not self.leads:
            self.sync.forget()
            return False
        return self.sync.tick()

    def archive_tick(self) -> bool:
        """Keep what has ended in this region's own cluster; return whether anything was written."""
        return self.archive.tick() if self.leads else False

    def record_tick(self) -> bool:
        """Take a sample of what moves; return whether one was written."""
        if not self.leads:
            self.recorder.forget()
            return False
        return self.recorder.tick()

    def move_tick(self) -> bool:
        """Carry the running execution on by one event or effect; return whether there was anything to do."""
        if not self.leads:
            return False
        try:
            self._end_lapsed()
            return self.mover.step()
        except MrcError as error:
            if error.code not in ("LEASE_LOST", "STALE_TERM", "ZOOKEEPER_UNREACHABLE"):
                raise
            # What the journal holds is what counts: read it again, or let the next leader do so.
            self._resumed = False
            self.mover.drop()
            raise

    def _end_lapsed(self) -> None:
        """Ask to abort a move that waits for an approval which nobody may give any more."""
        run = self.mover.run
        if run is None or run.waiting is None or run.waiting.code or not run.abortable:
            return
        approval = approval_of(run.step.approval_rule)
        if approval is not None and approval.lapsed(self.estate.clock.now_ms() - run.waiting.since_ms):
            self.mover.ask(AbortAsked("mrc", f"nobody has approved step {run.step.name} within {approval.timeout_s:g} s"))

    def moving(self) -> bool:
        """Whether an execution is running here."""
        run = self.mover.run
        return run is not None and run.phase not in ENDED
