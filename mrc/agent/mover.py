"""The mover's loop: journal first, then effects, one at a time; results come back as events.

It runs in the agent that leads in the region the unit moves to. Whoever takes over replays the journal, notes that it
goes on, proves again what was proved, and repeats the effect whose result the journal does not hold. Events of people
(approve, abort) are handled between effects; waits inside an effect end early when one has come.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable

from mrc.agent.estate import Estate
from mrc.agent.steps import STEPS
from mrc.agent.work import Positions, Recent, Work
from mrc.core.errors import InvariantViolation, MrcError
from mrc.core.failover.execution import (
    ENDED,
    AbortAsked,
    Approved,
    Did,
    Do,
    Effect,
    Entry,
    Event,
    Failed,
    Resumed,
    Run,
    Skipped,
    Started,
    Superseded,
    Undid,
    Undo,
    Verified,
    Verify,
    handle,
    replay,
)
from mrc.core.failover.plan import Plan
from mrc.core.inventory import Inventory
from mrc.core.model import Region
from mrc.ports import Check

Asked = Approved | AbortAsked | Skipped
"""What a person may ask of a running execution."""

_PAUSE_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses before the n-th try of an effect."""


class Mover:
    """Runs the executions of one replication group that move to this agent's region."""

    def __init__(
        self,
        estate: Estate,
        agent: str,
        positions: Positions,
        observe: Callable[[], Inventory],
        changed: Callable[[Run], None] = lambda run: None,
    ) -> None:
        self._estate = estate
        self._agent = agent
        self._positions = positions
        self._observe = observe
        self._changed = changed
        self._asked: collections.deque[Asked] = collections.deque(maxlen=16)
        self._effects: collections.deque[Effect] = collections.deque()
        self._taking = threading.Lock()
        self._recent = Recent()
        self.run: Run | None = None

    # -- called by the service, from any thread: they enqueue or write one transaction

    def ask(self, event: Asked) -> None:
        """Enqueue a person's event after judging it against the present state.

        Raises:
            MrcError: ``APPROVE_REFUSED``, ``ABORT_REFUSED``, ``SKIP_REFUSED`` or ``UNKNOWN_EXECUTION``; nothing changes then.
        """
        run = self.run
        if run is None or run.phase in ENDED:
            raise MrcError("UNKNOWN_EXECUTION", "no execution is running here")
        handle(run, event, self._estate.clock.now_ms())
        self._asked.append(event)

    def begin(self, plan: Plan) -> Run:
        """Make ``plan`` the running execution.

        Raises:
            MrcError: ``MOVE_IN_PROGRESS`` when one is running; ``LEASE_LOST``, ``STALE_TERM``.
        """
        with self._taking:
            current, version = self._estate.store.current()
            if current:
                raise MrcError("MOVE_IN_PROGRESS", f"execution {current} is running", where=current)
            now_ms = self._estate.clock.now_ms()
            run, effects = handle(Run(plan), Started(), now_ms)
            self._estate.store.begin(self._estate.leadership.check, plan, self._entry(0, Started(), now_ms), version)
            self._recent = Recent()
            self._take(run, effects)
        return run

    def supersede(self, old: str, plan: Plan) -> Run:
        """End the running execution ``old``, whatever it does, and begin ``plan`` in its place.

        Raises:
            MrcError: as `begin`.
        """
        with self._taking:
            store, now_ms = self._estate.store, self._estate.clock.now_ms()
            event = Superseded(plan.actor, plan.id)
            before = replay(store.plan(old), store.entries(old))
            handle(before, event, now_ms)
            run, effects = handle(Run(plan), Started(), now_ms)
            last, first = self._entry(before.number, event, now_ms), self._entry(0, Started(), now_ms)
            store.supersede(self._estate.leadership.check, before.plan, last, plan, first)
            self._asked.clear()
            self._recent = Recent()
            self._take(run, effects)
        return run

    # -- called by the mover's thread

    def resume(self) -> bool:
        """Take over the running execution, if there is one and it moves here; return whether one was taken over.

        Also one that this agent began itself, where ZooKeeper's answer was lost. None of a unit that was made active-active since.
        """
        with self._taking:
            return self._estate.unit.mode == "active-passive" and self._resume(self._estate.region)

    def adopt(self, plan: Plan, asked: AbortAsked) -> None:
        """Take over an execution that moves to another region, in which no agent is left, to undo it and nothing else.

        Raises:
            MrcError: ``ABORT_REFUSED``, ``MODE_CHANGED``; nothing was taken over then.
        """
        with self._taking:
            self._estate.require_record()
            run = replay(plan, self._estate.store.entries(plan.id))
            if run.phase == "undoing":
                self._resume(plan.target)
                return
            handle(run, asked, self._estate.clock.now_ms())
            self._take_up(run, asked)

    @property
    def idle(self) -> bool:
        """Whether this agent carries no execution."""
        run = self.run
        return run is None or run.phase in ENDED

    def _resume(self, target: Region) -> bool:
        current, _ = self._estate.store.current()
        if not current:
            return False
        plan = self._estate.store.plan(current)
        if plan.target != target:
            return False
        unknown = [step.action for step in plan.steps if step.action not in STEPS]
        if unknown:
            raise MrcError("RUNBOOK_INVALID", f"this agent does not know the action {unknown[0]}; it does not take over", where=current)
        run = replay(plan, self._estate.store.entries(current))
        self._asked.clear()
        self._take_up(run, Resumed())
        return True

    def _take_up(self, run: Run, event: Event) -> None:
        """Go on with a replayed execution, once the journal holds that and why; else carry none, so that it is tried again."""
        self._recent = Recent()
        self._take(run, ())
        try:
            self._accept(event)
        except MrcError:
            self.drop()
            raise

    def drop(self) -> None:
        """Forget everything: this agent does not lead any more."""
        self.run = None
        self._effects.clear()
        self._asked.clear()

    def step(self) -> bool:
        """Handle one event or carry out one effect; return whether there was anything to do.

        Raises:
            MrcError: ``LEASE_LOST``, ``STALE_TERM`` (the caller drops the mover), ``ZOOKEEPER_UNREACHABLE`` (it calls
                `resume` when ZooKeeper is back: the result of the effect is lost, so it is repeated).
        """
        if self.run is None or self.run.phase in ENDED:
            return False
        if self._asked:
            self._listen(self._asked.popleft(), self.run)
            return True
        if not self._effects:
            return False
        run, effect = self.run, self._effects.popleft()
        pause = _PAUSE_S[min(effect.attempt % 100, len(_PAUSE_S) - 1)]
        if pause:
            self._estate.clock.sleep(pause)
        if self.run is not run:
            return True  # another execution has taken its place meanwhile: the effect must not be carried out any more
        event = self._perform(run, effect)
        if self.run is not run or self._asked:
            # Somebody took the execution up again meanwhile. Or a person's event comes first: it decides what becomes of the step,
            # whose effect may be repeated.
            return True
        self._accept(event)
        return True

    # -- inside

    def _listen(self, asked: Asked, run: Run) -> None:
        """Accept a person's event, unless another one that came before it has taken its place away."""
        try:
            handle(run, asked, self._estate.clock.now_ms())
        except InvariantViolation:
            raise
        except MrcError:
            return
        self._effects.clear()
        self._accept(asked)

    def _perform(self, run: Run, effect: Effect) -> Event:
        """Carry one effect out and say how it went. Only a lost lead passes as an exception."""
        clock = self._estate.clock
        step = STEPS[effect.step.action]
        work = Work(
            estate=self._estate,
            plan=run.plan,
            step=effect.step,
            facts=run.facts,
            deadline_s=clock.monotonic_s() + effect.step.timeout_s,
            positions=self._positions,
            observe=self._observe,
            interrupted=lambda: bool(self._asked) or self.run is not run,  # asked for, or in another execution's place by now
            recent=self._recent,
        )
        name, attempt = effect.step.name, effect.attempt
        try:
            work.lead()
            match effect:
                case Do():
                    return Did(name, attempt, step.do(work))
                case Verify():
                    return Verified(name, attempt, step.verify(work))
                case Undo():
                    return Undid(name, attempt, step.undo(work) if step.undo else "nothing to undo")
        except InvariantViolation:
            raise
        except MrcError as error:
            if error.code in ("LEASE_LOST", "STALE_TERM", "ZOOKEEPER_UNREACHABLE"):
                raise
            where = f" ({error.where})" if error.where else ""
            return Failed(name, attempt, error.code, error.message + where)

    def _accept(self, event: Event) -> None:
        """Journal first; then the new state stands and its effects are handed out."""
        if self.run is None:
            raise InvariantViolation("no execution to go on with")
        now_ms = self._estate.clock.now_ms()
        run, effects = handle(self.run, event, now_ms)
        self._estate.store.append(self._lead, run.plan, self._entry(self.run.number, event, now_ms), ends=run.phase in ENDED)
        self._take(run, effects)

    def _lead(self) -> Check:
        return self._estate.leadership.check()

    def _take(self, run: Run, effects: tuple[Effect, ...]) -> None:
        self.run = run
        self._effects.clear()
        self._effects.extend(effects)
        self._changed(run)

    def _entry(self, number: int, event: Event, now_ms: int) -> Entry:
        return Entry(number=number, at_ms=now_ms, agent=self._agent, term=self._estate.leadership.term or 0, event=event)
