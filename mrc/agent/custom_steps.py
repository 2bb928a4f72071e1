"""Steps of the operator's own: commands, requests, waits and notices that a runbook puts between the steps of a move.

mrc does not know what they do: that they have done it is what they say themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

from mrc.agent.work import Work
from mrc.core.errors import InvariantViolation, MrcError


def _words(work: Work) -> list[str]:
    argv = work.step.parameters["argv"]
    if not isinstance(argv, tuple):
        raise InvariantViolation("argv is not a list", where=work.step.name)
    return list(argv)


def _told(work: Work) -> dict[str, str]:
    """Return the facts that a step of the operator's is told."""
    plan = work.plan
    return {**work.facts, "execution": plan.id, "kind": plan.kind, "source": plan.source, "target": plan.target, "step": work.step.name}


def _left_s(work: Work) -> float:
    return max(0.1, work.deadline_s - work.estate.clock.monotonic_s())


def run(work: Work, argv: list[str], facts: Mapping[str, str]) -> str:
    """Run a command with the facts, in what is left of the step's time; return the end of what it said. Raises ``HOOK_FAILED``."""
    return work.estate.hook.run(argv, facts, _left_s(work))[-200:].strip()


def command(work: Work) -> dict[str, str]:
    """Run the command; what it said is a fact."""
    work.lead()
    return {work.step.name: run(work, _words(work), _told(work))}


def commanded(work: Work) -> str:
    """Say what the command said: its exit code was the proof."""
    return f"exit code 0; it said: {work.facts.get(work.step.name) or 'nothing'}"


def http(work: Work) -> dict[str, str]:
    """Send the request; what was answered is a fact. Raises ``HOOK_FAILED``."""
    work.lead()
    method, url = str(work.step.parameters["method"]), str(work.step.parameters["url"])
    return {work.step.name: work.estate.hook.send(method, url, _told(work), _left_s(work))[:200].strip()}


def answered(work: Work) -> str:
    """Say what was answered: that it was taken is the proof."""
    return f"{work.step.parameters['url']} has taken the request; it said: {work.facts.get(work.step.name) or 'nothing'}"


def waited_for(work: Work) -> str:
    """Ask until the command says yes. Each run may take what is left of the step's time."""
    argv, facts = _words(work), _told(work)
    last: list[str] = [""]

    def done() -> bool:
        work.lead()
        try:
            last[0] = run(work, argv, facts)
        except MrcError as error:
            if error.code != "HOOK_FAILED":
                raise
            last[0] = error.message
            return False
        return True

    def otherwise() -> MrcError:
        return MrcError("EFFECT_TIMED_OUT", f"it has not ended with exit code 0; the last time: {last[0]}", where=argv[0])

    work.wait(done, otherwise, every_s=1.0)
    return f"exit code 0; it said: {last[0] or 'nothing'}"


def pause(work: Work) -> dict[str, str]:
    """Let the seconds pass; an abort ends it early."""
    seconds = int(str(work.step.parameters["seconds"]))
    clock = work.estate.clock
    until_s = clock.monotonic_s() + seconds
    broken_off = MrcError("EFFECT_TIMED_OUT", f"the pause of {seconds} s was broken off")
    work.wait(lambda: clock.monotonic_s() >= until_s, lambda: broken_off, every_s=min(0.2, seconds))
    return {}


def paused(work: Work) -> str:
    """Say for how long."""
    return f"{work.step.parameters['seconds']} s have passed"


def notify(work: Work) -> dict[str, str]:
    """Tell somebody; try again where that fails, in the time of one try, and then let the move go on."""
    parameters, said = work.step.parameters, ""
    for number in range(work.step.retries + 1):
        if number:
            work.estate.clock.sleep(0.5)
        if work.interrupted() or (number and work.estate.clock.monotonic_s() >= work.deadline_s):
            break
        work.lead()
        try:
            if "url" in parameters:
                work.estate.hook.send("POST", str(parameters["url"]), _told(work), _left_s(work))
            else:
                work.estate.hook.run(_words(work), _told(work), _left_s(work))
        except MrcError as error:
            if error.code != "HOOK_FAILED":
                raise
            said = f"nobody was told: {error.message}"
        else:
            return {work.step.name: "told"}
    return {work.step.name: said or "nobody was told: an abort came first"}


def notified(work: Work) -> str:
    """Say whether somebody was told."""
    return work.facts.get(work.step.name, "")
