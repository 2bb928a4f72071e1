"""Every error that mrc can answer with: one table of stable codes.

Three kinds: *you asked wrongly* (``usage``), *the world failed* (``world``), *mrc is wrong* (``bug``).
Only the third shows a traceback. A code never changes its meaning; retired codes are not used again.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["usage", "world", "bug"]


class Code(NamedTuple):
    """One row of the table.

    Attributes:
        kind: whose fault it is.
        means: one sentence; what happened.
        remedy: one sentence; what the reader does next.
    """

    kind: Kind
    means: str
    remedy: str


CODES: dict[str, Code] = {
    # asked wrongly
    "CONFIG_INVALID": Code(
        "usage",
        "The configuration file has an error.",
        "Mend the named line; `mrc config check` shows every error at once.",
    ),
    "CONFIG_NOT_FOUND": Code(
        "usage",
        "The configuration file does not exist.",
        "Name it with --config or MRC_CONFIG, or make one with `mrc config init`.",
    ),
    "RUNBOOK_INVALID": Code(
        "usage",
        "The runbook file has an error or an unsafe order.",
        "Mend the named step; the safe order is in docs/moves.md.",
    ),
    "RULES_INVALID": Code(
        "usage",
        "The conflict rules, or the cases that try them, have an error or could not come to the same answer in every region.",
        "Mend the named line; `mrc rules check` shows every error at once, docs/conflicts.md has the rules.",
    ),
    "UNKNOWN_REGION": Code("usage", "No such region in the configuration.", "Use one of the named regions."),
    "UNKNOWN_GROUP": Code(
        "usage",
        "No such consumer group in the replication group.",
        "Use one of the named groups, or add it to the configuration.",
    ),
    "UNKNOWN_TOPIC": Code(
        "usage",
        "No such topic or partition in the replication group.",
        "Use one of the named topics, or add it to the configuration.",
    ),
    "UNKNOWN_REPLICATION_GROUP": Code(
        "usage",
        "No such replication group in the configuration.",
        "Name one with --replication-group.",
    ),
    "UNKNOWN_EXECUTION": Code("usage", "No such execution in the history.", "`mrc history` lists them."),
    "UNKNOWN_CONFLICT": Code(
        "usage",
        "No such conflict: no region that was asked has written it.",
        "`mrc conflicts list` shows those that are final; they are kept for 30 days.",
    ),
    "CONFLICT_CLOSED": Code(
        "usage",
        "Nobody is asked about that conflict: a rule or a person has decided it, time is over, or later events left nothing to decide.",
        "`mrc conflicts list --open` shows those that wait for a person, `mrc conflicts show` how one was closed.",
    ),
    "TOO_MUCH_TO_READ": Code(
        "usage",
        "An answer would take more reading than an agent does for one call.",
        "Ask for less: one topic, a later time, fewer conflicts; `mrc conflicts` without --agents reads Kafka itself, without a bound.",
    ),
    "RESOLVER_SILENT": Code(
        "world",
        "A region's resolver has written no mark beside which a decision could be given.",
        "Start the region's resolver (`mrc rules status` shows its last mark), or give the decision in another region.",
    ),
    "ALREADY_ACTIVE": Code(
        "usage",
        "That region is the active region already.",
        "Name the other region; `mrc status` shows which is active.",
    ),
    "NO_ACTIVE_RECORD": Code(
        "usage",
        "No active-region record exists for this replication group.",
        "`mrc init` or `mrc sandbox up` writes the first one; agents never guess it.",
    ),
    "MOVE_IN_PROGRESS": Code(
        "usage",
        "Another move of this replication group is running.",
        "Wait for it, or look at it with `mrc watch`, or end it with `mrc abort`.",
    ),
    "PLAN_REFUSED": Code(
        "usage",
        "The plan has findings that forbid the move.",
        "Resolve the findings that `mrc plan` lists.",
    ),
    "POLICY_DIFFERS": Code(
        "usage",
        "A connector names copies otherwise than `policy` in the configuration says.",
        "Set `policy` to what the connector's `replication.policy.class` is, with `.` as separator, or make the connector anew.",
    ),
    "MODE_NOT_SUPPORTED": Code(
        "usage",
        "Active-active replication groups cannot be moved.",
        "Their rules decide conflicts; there is no single active region to move.",
    ),
    "MODE_CHANGED": Code(
        "usage",
        "An active-active replication group has an active-region record, which an earlier mode has left. Agents do nothing by it.",
        "`mrc unmanage REGION --keep-connectors` takes it away, and the refusals that mrc has added; where a move is running, set `mode` "
        "back and end that first.",
    ),
    "NOT_ATTESTED": Code(
        "usage",
        "A failover needs a person's word that the source region is dead.",
        "Say so with --attest-dead after you made sure of it; with `on_quorum_loss: fence` it is enough that nobody leads there for long.",
    ),
    "DIVERGENCE_OPEN": Code(
        "usage",
        "What the failover left behind is not listed yet.",
        "Let the old region return; `mrc divergence show` says when it is listed, the log of its leading agent why it is not.",
    ),
    "DIVERGENCE_LOST": Code(
        "usage",
        "The region was rebuilt before what it alone had was accounted for: those records are gone.",
        "`mrc divergence status` shows what was recovered of them before; `mrc history` who let the rest be lost, and why.",
    ),
    "NOTHING_DIVERGES": Code(
        "usage",
        "Under the default replication policy a failover leaves nothing behind that has to be recovered: it comes late.",
        "Go home with `mrc switchover`; `mrc divergence show` says what is still to be copied.",
    ),
    "NOT_EXPORTED": Code(
        "usage",
        "Divergent records have not been exported to the end.",
        "`mrc divergence export`, then resolve them.",
    ),
    "POLICY_NOT_AVAILABLE": Code(
        "usage",
        "The policy for divergent records is not one that this version carries out.",
        "Choose another one in `divergence` of the configuration; docs/failback.md says what each does.",
    ),
    "OLD_LOG_REFUSED": Code(
        "usage",
        "The policy for the old log cannot be right for one of the topics.",
        "The message says why and what is allowed; set `divergence.old_logs` for that topic, docs/failback.md says what each does.",
    ),
    "REBUILD_REFUSED": Code(
        "usage",
        "The region cannot be rebuilt as it is.",
        "Do what the message says, then ask again; docs/failback.md says what a rebuild needs.",
    ),
    "TOPIC_NOT_EMPTY": Code(
        "usage",
        "A rebuild would delete records.",
        "Take what is wanted of them by hand, then say so with --allow-data-loss and a --reason; docs/failback.md says how.",
    ),
    "SKIP_REFUSED": Code(
        "usage",
        "The step cannot be skipped: it does not wait, or the move cannot do without it.",
        "`mrc watch EXECUTION` shows what it waits for; approve, or abort.",
    ),
    "ABORT_REFUSED": Code(
        "usage",
        "The execution has passed its point of no return, or has ended.",
        "Let it finish; then move back with a switchover.",
    ),
    "APPROVE_REFUSED": Code(
        "usage",
        "The execution waits for nobody's approval, or not for this person's.",
        "`mrc watch` shows what it waits for, and for whom.",
    ),
    "TOKEN_REUSED": Code(
        "usage",
        "The idempotency token was used for another request.",
        "Use a new token for a new request.",
    ),
    "UNAUTHENTICATED": Code(
        "usage",
        "The peer has not proved who it is.",
        "Configure mTLS for clients that are not on this machine.",
    ),
    "POSITIONS_INVALID": Code(
        "usage",
        "A file of positions cannot be read.",
        "Write it anew with `mrc offsets export`; the message names what is wrong.",
    ),
    "POSITIONS_STALE": Code(
        "usage",
        "A file of positions was written in another epoch: regions were moved since.",
        "Write it anew with `mrc offsets export`.",
    ),
    "TARGET_IS_OPEN": Code(
        "usage",
        "The region is open, draining or to be opened next: its groups commit for themselves, or a move commits for them.",
        "Positions are committed in the standby; `mrc status` shows which region that is.",
    ),
    "GROUP_HAS_POSITIONS": Code(
        "usage",
        "The group still has positions in the source.",
        "Delete the group there first: the checkpoints of one that is there come back at once.",
    ),
    "ADOPTION_REFUSED": Code(
        "usage",
        "The estate cannot be adopted, or given back, as it is.",
        "Do what the message says, then ask again; docs/adoption.md has every case.",
    ),
    "ALREADY_ADOPTED": Code(
        "usage",
        "The replication group is mrc's already: there is an active-region record.",
        "`mrc status` shows it; `mrc unmanage` gives the estate back.",
    ),
    "MANAGED_BY_OTHERS": Code(
        "usage",
        "Somebody else manages these flows and would undo what mrc does.",
        "Do what the message says would work; docs/adoption.md has every case.",
    ),
    "BAD_REQUEST": Code(
        "usage",
        "The request is not well formed.",
        "See the message for the field and its allowed values.",
    ),
    # the world failed
    "LOG_SHORTER": Code(
        "world",
        "A region has come back without records that its mirror holds.",
        "Restore its disks, or take what it alone has by hand and `mrc rebuild` the region: docs/failback.md.",
    ),
    "TOPIC_RECREATED": Code(
        "world",
        "A topic of a returned region, or of the one that was failed over to, is not the one that it was at the failover.",
        "Restore its disks, or take what it alone has by hand and `mrc rebuild` the region: docs/failback.md.",
    ),
    "RECOVERED_COPIED": Code(
        "world",
        "MirrorMaker would copy the recovered topics to the other region.",
        "Name the replicated topics in the connector's `topics`, or exclude `mrc\\.recovered\\..*`.",
    ),
    "SUMS_DIFFER": Code(
        "world",
        "What became of divergent records does not add up; the failback stops.",
        "The message names the partitions; look at mrc.recovered.TOPIC and at the topic before anything else is done.",
    ),
    "CLUSTER_UNREACHABLE": Code(
        "world",
        "A Kafka cluster did not answer in time.",
        "Look at the brokers; mrc goes on when they answer.",
    ),
    "AUTHENTICATION_FAILED": Code(
        "world",
        "A Kafka cluster refused the credentials.",
        "Check user name, password file and mechanism in the configuration.",
    ),
    "AUTHORIZATION_FAILED": Code(
        "world",
        "A Kafka cluster refused mrc an operation.",
        "Grant mrc's principal the ACLs that docs/operations.md lists.",
    ),
    "CONNECT_UNREACHABLE": Code(
        "world",
        "A Kafka Connect cluster did not answer in time.",
        "Look at the Connect workers.",
    ),
    "CONNECT_REFUSED": Code(
        "world",
        "Kafka Connect refused a request.",
        "Read its message; compare the connector with the configuration.",
    ),
    "ZOOKEEPER_UNREACHABLE": Code(
        "world",
        "ZooKeeper did not answer, or has no quorum.",
        "Bring a majority of the ensemble back; nothing moves without it.",
    ),
    "AGENT_UNREACHABLE": Code(
        "world",
        "No agent answered, or the leading one did not in time.",
        "Ask again where one runs; else start one with `mrc agent run`: the configuration names the addresses.",
    ),
    "AGENT_BUSY": Code(
        "world",
        "An agent has as many requests in hand as it takes.",
        "Ask again; end watches that nobody looks at.",
    ),
    "VERSION_MISMATCH": Code(
        "world",
        "An agent's answer cannot be read by this version, or it does not know the request.",
        "Run the same version everywhere; `mrc version` shows them.",
    ),
    "NOT_LEADER": Code(
        "world",
        "The agent does not lead in its region.",
        "Ask the leader; the client does so by itself once.",
    ),
    "LEASE_LOST": Code(
        "world",
        "The agent lost its lease during the effect.",
        "Nothing to do: the next leader goes on.",
    ),
    "STALE_TERM": Code(
        "world",
        "Another agent leads now; this one's write was refused.",
        "Nothing to do: the new leader goes on.",
    ),
    "EFFECT_TIMED_OUT": Code(
        "world",
        "A step did not finish in its time.",
        "See the step's evidence; approve to retry, or abort.",
    ),
    "RECORD_UNEXPECTED": Code(
        "world",
        "The active-region record is not what the running move has left there: somebody else has written it.",
        "`mrc status` shows the record; find out who wrote it, then abort, or approve once it is as the message wants it.",
    ),
    "NOT_VERIFIED": Code(
        "world",
        "A step's effect could not be verified.",
        "See the step's evidence; approve to retry, or abort.",
    ),
    "CAPTURE_BEHIND": Code(
        "world",
        "The agent has not read both logs near to their ends yet, so positions could not be translated quickly.",
        "Wait; `mrc status` shows what is left to read, and a move begins when it is little.",
    ),
    "GROUP_HAS_MEMBERS": Code(
        "world",
        "A consumer group still has members.",
        "Stop its consumers, then ask again; a move that waits goes on with `mrc approve`, or ends with `mrc abort`.",
    ),
    "OPEN_TRANSACTION": Code(
        "world",
        "A producer holds a transaction open behind the fence.",
        "Wait, end the producer or abort its transaction, then approve.",
    ),
    "GARBLED_RECORD": Code(
        "world",
        "A record in one of mrc's own topics or nodes cannot be read.",
        "Nothing is lost: the record is left out and named; find out who wrote it.",
    ),
    "RECORD_TOO_LARGE": Code(
        "world",
        "A topic does not take a record of this size.",
        "Raise the topic's `max.message.bytes`; what was refused is tried again.",
    ),
    "UNSAFE_TO_FENCE": Code(
        "world",
        "The cluster's settings make an ACL fence unsafe.",
        "Resolve the finding; docs/moves.md says why each one matters.",
    ),
    "SANDBOX_FAILED": Code(
        "world",
        "The sandbox could not be brought up.",
        "See the named log file; `mrc sandbox down` cleans up.",
    ),
    "OFFSET_OUT_OF_RANGE": Code(
        "world",
        "A position lies outside of what a partition's log still has.",
        "Nothing was skipped: compare the position with the topic's retention and its topic id.",
    ),
    "POLICY_VIOLATION": Code(
        "world",
        "The cluster refuses a request by a policy of its own, or of the topic's.",
        "The message has the broker's words; records of a topic that is compacted and nothing else are never deleted on request.",
    ),
    "TAIL_UNREAD": Code(
        "world",
        "Groups have not read what a purge of the old log would take from them.",
        "Let the named groups read on in the open region, then approve; or choose another `old_log`.",
    ),
    "HOOK_FAILED": Code(
        "world",
        "A command or a request of the operator's failed or took too long.",
        "Read what it said last; it may be done again by hand.",
    ),
    "ROUTE_UNREACHABLE": Code(
        "world",
        "What sends clients to a region (DNS, HAProxy, a command) did not answer in time, or not so that it can be read.",
        "Look at the server that the message names; mrc sets the route when it answers.",
    ),
    "ROUTE_REFUSED": Code(
        "world",
        "What sends clients to a region refused mrc a reading or a change.",
        "Compare `routing` in the configuration with what the server allows: docs/clients.md says what it must.",
    ),
    "ROUTE_CHANGED": Code(
        "world",
        "A route was changed by somebody else while mrc was about to set it; mrc overwrote nothing.",
        "mrc looks again and sets it, unless it leads to neither region: then set it by hand.",
    ),
    "ROUTE_ELSEWHERE": Code(
        "world",
        "A route leads to neither region, or not to the open one.",
        "mrc sets what leads to the other region; what leads to neither is somebody else's: set it by hand.",
    ),
    "PARTITIONS_DIFFER": Code(
        "world",
        "Topics that are resolved together have not the same partitions, or have other ones than when their state was made.",
        "Give all of them the same number; what was grown after the resolver first ran needs a new start: docs/conflicts.md says how.",
    ),
    "TIMESTAMPS_DIFFER": Code(
        "world",
        "Copies get another timestamp than their originals, so without headers they cannot be told by what marks list.",
        "Set `message.timestamp.type=CreateTime` for the topic in all regions, or let producers stamp their events: `detection: causal`.",
    ),
    "TOPICS_MISSING": Code(
        "world",
        "A topic that the resolver reads does not exist yet.",
        "Let the flows' connectors name the topics and `mrc.watermarks.*` of the other region, and start the resolver there.",
    ),
    "RULES_CHANGED": Code(
        "usage",
        "The rules file has another kind of entity, regions or detection than the resolver's state; or that is of rules not known here.",
        "Go back to the file of before; what else changes in it needs no new start, this does: docs/conflicts.md says how.",
    ),
    "STATE_UNREADABLE": Code(
        "world",
        "A record of the resolver's state is not as this version writes it.",
        "Go back to the version that wrote it, or give the resolver a new start: docs/conflicts.md says how.",
    ),
    "DISK_FAILED": Code(
        "world",
        "The resolver's state on local disk cannot be opened.",
        "Look at the folder that the message names; without it the state is restored from its changelog.",
    ),
    "RESOLVER_FENCED": Code(
        "world",
        "Another resolver has taken this one's name.",
        "Give every process of a region an `--instance` of its own.",
    ),
    "PRODUCERS_CARRIED": Code(
        "usage",
        "A redirect may carry running idempotent producers to the other cluster, which loses records.",
        "Say in `routing.producers` what they are, or attest with --attest-producers-restarted that they start anew: docs/clients.md.",
    ),
    # mrc is wrong
    "INVARIANT": Code(
        "bug",
        "mrc found itself in a state that must not be.",
        "Nothing more was done. Please report it with the trace.",
    ),
}


class MrcError(Exception):
    """An error with a stable code.

    Attributes:
        code: a key of `CODES`.
        message: what happened, in a sentence with the values that matter.
        where: region, topic, partition, file and line: whatever names the place; may be empty.
        retryable: whether the same call may succeed later without anybody's doing.
    """

    def __init__(self, code: str, message: str, *, where: str = "", retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where
        self.retryable = retryable

    @property
    def kind(self) -> Kind:
        """Whose fault it is."""
        return CODES[self.code].kind

    @property
    def reason(self) -> str:
        """The code as readings say it (`mrc.core.model.Unknown`)."""
        return self.code.lower().replace("_", "-")

    @property
    def remedy(self) -> str:
        """What the reader does next."""
        return CODES[self.code].remedy

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.code}: {self.message}{place}"


class InvariantViolation(MrcError):
    """mrc is wrong: a safety property does not hold. Raised instead of going on."""

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__("INVARIANT", message, where=where)
