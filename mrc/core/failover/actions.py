"""The table of actions: what each needs, what it gives, whether its proof expires, how it is undone.

The safety order of a move lives here and nowhere else: a step may begin only when every fact that its action needs has
been given by steps before it (`mrc.core.failover.plan.lint` judges runbooks by it, the machine checks it again at run
time). An action that is not in the table cannot be planned, and an agent refuses an execution that names one.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mrc.core.failover.runbook import MoveKind
from mrc.core.model import Value

ParameterKind = type[str] | type[int] | type[bool] | type[tuple[str, ...]]


class Action(Value, frozen=True):
    """One row of the table.

    Attributes:
        does: one sentence for plans and docs.
        needs: per kind of move, the facts that must have been given; a kind that is missing may not use the action.
        gives: the facts that a verified step gives.
        takes: the facts that hold no longer once the step has begun; their proofs are not repeated then.
        proof: the verification expires: after a resume it is proved again before anything else is done.
        opens: after it there is no way back but another move (the point of no return).
        asks: a person must approve it: a runbook without the approval is refused.
        undo: what undoing it does; empty: there is nothing to undo, and ``why_no_undo`` says why.
        why_no_undo: see above.
        skipping: what remains undone where a person skips the step; empty: the move cannot do without it.
        required: kinds of move that must have exactly one step of it.
        parameters: allowed parameters and their kinds; each must be given.
        one_of: those of the parameters of which exactly one must be given.
        custom: it does what an operator wants: it may stand anywhere, as often as wanted.
    """

    does: str
    needs: Mapping[MoveKind, frozenset[str]]
    gives: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()
    proof: bool = False
    opens: bool = False
    asks: bool = False
    undo: str = ""
    why_no_undo: str = ""
    skipping: str = ""
    required: frozenset[MoveKind] = frozenset()
    parameters: Mapping[str, ParameterKind] = {}
    one_of: frozenset[str] = frozenset()
    custom: bool = False


def _facts(*names: str) -> frozenset[str]:
    return frozenset(names)


_BOTH: frozenset[MoveKind] = frozenset({"switchover", "failover"})
_PLANNED: frozenset[MoveKind] = frozenset({"switchover"})
_UNPLANNED: frozenset[MoveKind] = frozenset({"failover"})
_FENCES: frozenset[MoveKind] = frozenset({"fence"})
_HOME: frozenset[MoveKind] = frozenset({"failback"})
_REBUILDS: frozenset[MoveKind] = frozenset({"rebuild"})
_ANYWHERE: Mapping[MoveKind, frozenset[str]] = dict.fromkeys(("switchover", "failover", "fence", "failback", "rebuild"), _facts())


def _going_home(actions: Mapping[str, Action]) -> dict[str, Action]:
    """Return the table with the rows of a switchover for failbacks too: its last part is one."""
    found = {}
    for name, action in actions.items():
        needs = action.needs
        if "switchover" in needs and "failback" not in needs:
            needs = {**needs, "failback": needs["switchover"]}
        required = action.required | _HOME if "switchover" in action.required else action.required
        found[name] = msgspec.structs.replace(action, needs=needs, required=required)
    return found


_ROWS: Mapping[str, Action] = {
    "preflight": Action(
        does="observe both regions anew and refuse on any finding that forbids the move",
        needs=_ANYWHERE,
        gives=_facts("checked"),
        why_no_undo="it only reads",
        required=_BOTH | _FENCES | _REBUILDS,
    ),
    "hold-flow": Action(
        does="stop the flow into the target and keep it stopped; note which topics are made there, and which of them anew",
        needs={"rebuild": _facts("checked")},
        gives=_facts("flow-held"),
        undo="make what was deleted, and let the flow go on",
        required=_REBUILDS,
    ),
    "copy-acls": Action(
        does="add the source's ACLs on the unit's topics and groups that the target lacks, together with the fence's refusals against them",
        needs={"rebuild": _facts("flow-held")},
        gives=_facts("acls-copied"),
        why_no_undo="they let nobody write in a region that is fenced",
        required=_REBUILDS,
    ),
    "make-topics": Action(
        does="delete the topics that the plan names, and make those that are missing, with the source's partitions and settings",
        needs={"rebuild": _facts("flow-held", "acls-copied")},
        gives=_facts("topics-made"),
        why_no_undo="letting the flow go makes what was deleted",
        required=_REBUILDS,
    ),
    "await-region": Action(
        does="wait until Kafka and Connect of the region to which the move leads answer, and every leader there refuses applications",
        needs={"failback": _facts("checked"), "rebuild": _facts("topics-made")},
        gives=_facts("region-back"),
        why_no_undo="it only waits",
        required=_HOME | _REBUILDS,
    ),
    "start-flow": Action(
        does="close the ledger's entries of logs that are gone, and let the flow copy everything that the source holds, from its beginning",
        needs={"rebuild": _facts("region-back")},
        gives=_facts("flow-started"),
        why_no_undo="copies in a fenced region harm nobody",
        required=_REBUILDS,
    ),
    "await-copies": Action(
        does="wait until a switchover to the target would find nothing against it: the flow runs, both logs are read nearly to their ends",
        needs={"rebuild": _facts("flow-started")},
        gives=_facts("ready"),
        why_no_undo="it only waits",
        required=_REBUILDS,
    ),
    "place-groups": Action(
        does="commit every group's safe position in the target and read it back",
        needs={"rebuild": _facts("ready")},
        skipping="groups may have no position in the target yet; live sync and the next move commit them",
        why_no_undo="positions in a fenced standby are kept current anyway",
        required=_REBUILDS,
    ),
    "list-divergence": Action(
        does="list what failovers have left behind there; a log that is shorter than its mirror, or was made anew, is refused",
        needs={"failback": _facts("region-back")},
        gives=_facts("divergence-listed"),
        why_no_undo="it only reads",
        required=_HOME,
    ),
    "export-divergence": Action(
        does="copy every divergent record with its origin to mrc.recovered.TOPIC in the source, once",
        needs={"failback": _facts("divergence-listed")},
        gives=_facts("divergence-exported"),
        why_no_undo="copies harm nobody, and a later failback goes on with them",
        required=_HOME,
    ),
    "resolve-divergence": Action(
        does="give every exported record its fate by its topic's policy: written again in the source, superseded, or in quarantine",
        needs={"failback": _facts("divergence-exported")},
        gives=_facts("divergence-resolved"),
        why_no_undo="what applications have read cannot be taken back; a later failback goes on with it",
        required=_HOME,
    ),
    "account-divergence": Action(
        does="count anew, from the logs, what became of every divergent record; where a sum does not match the move stops",
        needs={"failback": _facts("divergence-resolved")},
        gives=_facts("accounted"),
        why_no_undo="it only counts",
        required=_HOME,
    ),
    "settle-old-log": Action(
        does="leave the old log as it is, purge it up to its tails' ends, write what stands behind them, or make its topics anew and copy "
        "them again; then the flow into it must run and be caught up",
        needs={"failback": _facts("accounted")},
        gives=_facts("old-log-settled"),
        undo="finish making topics anew where that was begun, and let the flow go",
        required=_HOME,
    ),
    "attest": Action(
        does="record who attests that the source is dead, or why its agents must have fenced it; that stays unverified until it returns",
        needs={"failover": _facts("checked")},
        gives=_facts("source-settled"),
        why_no_undo="a statement changes nothing",
        required=_UNPLANNED,
    ),
    "fence-source": Action(
        does="set the record to draining (to move: once no partition leader of the source refuses); each must refuse, no transaction open",
        needs={"switchover": _facts("checked"), "fence": _facts("checked"), "failback": _facts("old-log-settled")},
        gives=_facts("source-settled"),
        proof=True,
        undo="open the source again",
        required=_PLANNED | _FENCES,
    ),
    "reopen-source": Action(
        does="set the record to open with the next epoch; every partition leader of the source must accept writes again",
        needs={"fence": _facts("source-settled")},
        gives=_facts("source-open"),
        takes=_facts("source-settled"),
        asks=True,
        why_no_undo="undoing a fence opens the source as well",
        required=_FENCES,
    ),
    "drain": Action(
        does="wait until every partition's mirror holds the source's last visible record",
        needs={"switchover": _facts("source-settled")},
        gives=_facts("drained"),
        why_no_undo="it only waits",
        required=_PLANNED,
    ),
    "release-groups": Action(
        does="wait until no consumer group has members in the source",
        needs={"switchover": _facts("source-settled")},
        gives=_facts("groups-released"),
        proof=True,
        why_no_undo="it only waits",
        required=_PLANNED,
    ),
    "stop-flow": Action(
        does="stop the flow source -> target; its tasks must be gone and its last position be the source's last visible record "
        "(failover: where Connect does not answer, MirrorMaker must be refused its writes instead)",
        needs={"switchover": _facts("drained"), "failover": _facts("source-settled")},
        gives=_facts("flow-stopped"),
        proof=True,
        undo="let the flow run again",
        required=_BOTH,
    ),
    "record-ends": Action(
        does="record the target's log ends: the reversed flow starts there (after a failover: the divergence ledger begins there)",
        needs={"switchover": _facts("flow-stopped"), "failover": _facts("flow-stopped")},
        gives=_facts("ends-recorded"),
        undo="forget them",
        required=_BOTH,
    ),
    "close-source": Action(
        does="set the record to closed: the source's groups lose READ, nobody reads or writes",
        needs={"switchover": _facts("flow-stopped", "groups-released"), "failover": _facts("source-settled")},
        gives=_facts("closed"),
        undo="open the source again",
        required=_BOTH,
    ),
    "move-positions": Action(
        does="commit every group's translated position in the target and read it back; nothing may have come into the source meanwhile",
        needs={"switchover": _facts("closed", "ends-recorded"), "failover": _facts("closed", "ends-recorded")},
        gives=_facts("positions-moved"),
        why_no_undo="positions in a fenced standby are kept current anyway",
        required=_BOTH,
    ),
    "open-target": Action(
        does="set the record to open with the next epoch; every partition leader of the target must accept writes",
        needs={
            "switchover": _facts("source-settled", "closed", "positions-moved"),
            "failover": _facts("source-settled", "closed", "positions-moved"),
        },
        gives=_facts("target-open"),
        opens=True,
        why_no_undo="applications write in the target from now on: move back with a switchover",
        required=_BOTH,
    ),
    "route": Action(
        does="send clients to the target that do not follow the record: by the configured command, DNS, HAProxy; each route is read back",
        needs={"switchover": _facts("target-open"), "failover": _facts("target-open")},
        gives=_facts("routed"),
        skipping="clients that do not follow the record are not sent to the target",
        why_no_undo="it comes after the point of no return",
    ),
    "reverse-flow": Action(
        does="start the flow target -> source at the recorded ends, so that the old region follows",
        needs={"switchover": _facts("target-open", "ends-recorded")},
        gives=_facts("reversed"),
        skipping="nobody has seen the old region follow; its leading agent starts the flow when it can",
        why_no_undo="it comes after the point of no return",
        required=_PLANNED,
    ),
    "canary": Action(
        does="write and read back a record in mrc's own topic of the target",
        skipping="nobody has seen a record written in the target, nor its groups come",
        needs={"switchover": _facts("target-open"), "failover": _facts("target-open")},
        why_no_undo="it comes after the point of no return",
    ),
    "command": Action(
        does="run a command of the operator's (no shell; the execution's facts as JSON on standard input)",
        needs=_ANYWHERE,
        why_no_undo="mrc does not know what the command did",
        skipping="what the command was to do is left to you",
        parameters={"argv": tuple},
        custom=True,
    ),
    "http": Action(
        does="send a request to an address of the operator's, the execution's facts as JSON body; any 2xx is success",
        needs=_ANYWHERE,
        why_no_undo="mrc does not know what the request did",
        skipping="what the request was to do is left to you",
        parameters={"method": str, "url": str},
        custom=True,
    ),
    "wait-for": Action(
        does="run a command of the operator's again and again until its exit code is 0 (no shell; facts on standard input)",
        needs=_ANYWHERE,
        why_no_undo="it only waits",
        skipping="what was waited for has not been seen",
        parameters={"argv": tuple},
        custom=True,
    ),
    "pause": Action(
        does="wait some seconds; an abort ends it",
        needs=_ANYWHERE,
        why_no_undo="it only waits",
        skipping="the time has not passed",
        parameters={"seconds": int},
        custom=True,
    ),
    "notify": Action(
        does="tell somebody, by a command or an address of the operator's; a failure is noted and stops nothing",
        needs=_ANYWHERE,
        why_no_undo="what was told cannot be untold",
        skipping="nobody has been told",
        parameters={"argv": tuple, "url": str},
        one_of=frozenset({"argv", "url"}),
        custom=True,
    ),
}

ACTIONS: Mapping[str, Action] = _going_home(_ROWS)

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""Methods of `http` steps."""
