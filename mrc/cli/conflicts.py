"""``mrc conflicts``: what the resolvers have decided, why, and whether the regions agree."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from mrc.cli.exits import Exit
from mrc.cli.explaining import explained
from mrc.cli.invocation import invocation
from mrc.cli.output import emit, grid
from mrc.cli.times import SINCE_HELP, Since, Spoken, moment
from mrc.core.errors import MrcError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mrc.control.dockets import AgentsDocket
    from mrc.core.model import Region
    from mrc.resolver.audit import Filter, Stats
    from mrc.resolver.comparing import Comparison, Stands
    from mrc.resolver.deciding import Answer
    from mrc.resolver.docket import Docket
    from mrc.resolver.writing import CandidateRecord, ConflictRecord

LIMIT_MAX = 10_000
WAIT_S = 10.0

_topic = click.option("--topic", metavar="TOPIC", help="Only events of this topic, by its name in the region that writes there.")
_region = click.option("--region", metavar="REGION", help="The region that is asked; the replication group's first when left out.")
_agents = click.option(
    "--agents", is_flag=True, help="Ask the region's agents instead of its Kafka: for machines that reach no Kafka, and have no rules file."
)


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        _topic,
        click.option("--entity", default="", metavar="KEY", help="Only about this entity: the record's key, or KIND/KEY."),
        click.option("--rule", default="", metavar="ID", help="Only what this rule has decided."),
        click.option(
            "--outcome",
            default="",
            metavar="REGION|open|superseded",
            help="Only where this region's event stands, a person is asked, or was.",
        ),
        click.option("--since", "since_ms", type=Since(), help=f"Only where the latest event is not older: {SINCE_HELP}"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def conflicts() -> None:
    """What resolvers have decided where two regions wrote about the same entity.

    They read what resolvers write (mrc.conflicts.TOPIC and its neighbours) from the regions' Kafka, or with --agents through the region's
    agents; nothing is changed but by `resolve`. Every region writes the same conflicts, with the same ids; only when differs.
    """


@conflicts.command("list")
@_filters
@click.option("--open", "waiting", is_flag=True, help="Only those about which a person is asked, with the time up to which.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=20, show_default=True, help="At most so many.")
@_region
@_agents
@click.pass_context
def list_(ctx: click.Context, /, topic: str | None, region: str | None, agents: bool, limit: int, waiting: bool, **wanted: Any) -> None:
    """List the conflicts that were decided last, newest first.

    Each is shown with what its sides compete with and which of them stands; `mrc conflicts show ID` explains one. Topics are read
    backwards from their ends, so the newest cost little however long the topics are. Agents list 200 at most.

    \b
    Examples:
      mrc conflicts list
      mrc conflicts list --entity order/17 --region west
      mrc conflicts list --open
      mrc conflicts list --rule refunds-by-hand --outcome superseded --since 7d --output json
    """
    if waiting and wanted["outcome"] not in ("", "open"):
        raise click.UsageError("--open and another --outcome: no conflict is both", ctx)
    wanted["outcome"] = "open" if waiting else wanted["outcome"]
    asked = _Asked(ctx, topic, [region], agents=agents)
    filters = asked.filter(wanted)
    with asked.docket() as docket:
        found = docket.newest(filters, limit)
    emit(ctx, [_row(one) for one in found], table=lambda _: _list_table(found))
    if not found and invocation(ctx).output == "table":
        click.echo("no conflict is like that: every event that was resolved had seen those before it, or nothing is final yet", err=True)


@conflicts.command()
@click.argument("id")
@_topic
@click.option("--region", metavar="REGION", help="Ask this region alone; all when left out.")
@_agents
@click.pass_context
def show(ctx: click.Context, id: str, topic: str | None, region: str | None, agents: bool) -> int:
    """Explain the conflict ID: both sides, how they were found concurrent, each step of the rules, what stands in each region.

    Leaves with 3 where regions have decided it differently. A region that has not written it yet, or does not answer, is named.
    `mrc conflicts explain` is the same.

    \b
    Examples:
      mrc conflicts show 0e8dd75a3d6b4c5f3c41
      mrc conflicts explain 0e8dd75a3d6b4c5f3c41 --region west --output json
    """
    from mrc.wiring.estates import unit

    call = invocation(ctx)
    regions = [region] if region else list(unit(call.group(call.settings())).regions)
    asked = _Asked(ctx, topic, regions, agents=agents)
    said: dict[Region, ConflictRecord | MrcError | None] = {}
    with asked.dockets() as dockets:
        for name, docket in dockets.items():
            try:
                said[name] = docket.find(id)
            except MrcError as error:
                if error.kind != "world":
                    raise
                said[name] = error
    found = [one for one in said.values() if one is not None and not isinstance(one, MrcError)]
    if not found:
        for failed in said.values():
            if isinstance(failed, MrcError):
                raise failed
        raise MrcError("UNKNOWN_CONFLICT", f"no conflict {id} in {', '.join(said)}")
    one = found[0]
    data = {**_row(one), "regions": {name: _in_region(what, one) for name, what in said.items()}}
    emit(ctx, data, table=lambda _: _show_table(one, data["regions"]))
    return Exit.OK if all(_same(one, other) for other in found) else Exit.FINDINGS


explain = copy.copy(show)
explain.params, explain.hidden = list(show.params), True
conflicts.add_command(explain, "explain")


@conflicts.command()
@click.argument("id")
@click.option(
    "--winner", required=True, metavar="EVENT|REGION", help="The event that shall stand: its id, or the region it was written in."
)
@click.option("--reason", default="", help="Why; kept with the conflict.")
@click.option("--actor", metavar="NAME", help="Who decides; else the user of this machine. Kept with the conflict.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0, 3600), default=30.0, show_default=True, metavar="S", help="For what becomes of it."
)
@_topic
@_region
@_agents
@click.pass_context
def resolve(
    ctx: click.Context,
    id: str,
    winner: str,
    reason: str,
    actor: str | None,
    yes: bool,
    wait_s: float,
    topic: str | None,
    region: str | None,
    agents: bool,
) -> int:
    """Decide the open conflict ID: the event that --winner names stands, in every region.

    Rules of the kind `manual` ask a person: `mrc conflicts list --open` shows about what, and until when. A decision is written beside
    the marks of the region where it is given, is copied with them, and takes its place among the events, the same in every region. Where
    people contradict each other, in one region or in two, the first one by that order counts, everywhere. What
    loses is kept in the conflict, and asks for its compensation now (`on_loss`).

    A decision that comes to nothing is told here: later events have left nothing to decide, somebody was faster, or time is over. That
    is known once all regions' marks have passed it, seconds after it was given, or when a cut link is back; without --wait, or after it,
    `mrc conflicts show ID` tells. An agent waits 30 s at most, and keeps its caller's name beside --actor.

    Leaves with 0 when the decision stands in the region where it was given, with 3 where it came to nothing, and with 4 where that is
    not known yet.

    \b
    Examples:
      mrc conflicts resolve 0e8dd75a3d6b4c5f3c41 --winner east --reason "refund was paid"
      mrc conflicts resolve 0e8dd75a3d6b4c5f3c41 --winner order-17/shipped --region west --yes --wait 0
    """
    import getpass
    import uuid

    from mrc.cli.standby import confirm
    from mrc.core.failover.markup import visible
    from mrc.resolver.deciding import ACTOR_CHARACTERS_MAX, REASON_CHARACTERS_MAX, chosen
    from mrc.resolver.docket import unknown

    who = actor or ("" if agents else getpass.getuser())
    if len(who) > ACTOR_CHARACTERS_MAX or len(reason) > REASON_CHARACTERS_MAX:
        raise click.UsageError(f"--actor takes {ACTOR_CHARACTERS_MAX} characters, --reason {REASON_CHARACTERS_MAX}", ctx)
    asked = _Asked(ctx, topic, [region], agents=agents)
    with asked.docket() as docket:
        here, one = docket.here, docket.find(id)
        if one is None:
            raise unknown(id, here)
        event = chosen(one, winner)
        if not yes:
            click.echo(visible("  ".join(_cells(one))), err=True)
            confirm(ctx, event, f"let it stand for {one.entity}, in every region")
        answer = docket.decide(id, event, uuid.uuid4().hex, who, reason, wait_s)
    data = {"state": answer.state, "decision": answer.decision.id, "winner": event, "why": answer.why, "region": here}
    emit(ctx, data, table=lambda _: _answer_text(answer, one))
    return {"decided": Exit.OK, "refused": Exit.FINDINGS, "waits": Exit.RUNNING}[answer.state]


@conflicts.command()
@_topic
@click.option("--since", "since_ms", type=Since(), help=f"Count from then on: {SINCE_HELP}")
@_region
@_agents
@click.pass_context
def stats(ctx: click.Context, topic: str | None, since_ms: int | None, region: str | None, agents: bool) -> None:
    """Count conflicts per topic, rule and outcome, compensations per template, and dead letters per reason.

    Compensations are those of REGION alone: each is asked for in the region that wrote the losing event. Everything is read once;
    with --since, what is older is not.

    \b
    Examples:
      mrc conflicts stats
      mrc conflicts stats --since 24h --region west --output json
    """
    with _Asked(ctx, topic, [region], agents=agents).docket() as docket:
        found = docket.stats(since_ms)
    emit(ctx, found, table=_stats_table)


@conflicts.command()
@_filters
@_region
@_agents
@click.pass_context
def tail(ctx: click.Context, /, topic: str | None, region: str | None, agents: bool, **wanted: Any) -> None:
    """Show conflicts as they are decided, a line each, until Ctrl-C; with --since also those that were decided already.

    With --output json each line is one conflict as a whole. An agent that goes is replaced by another one, which goes on where it was.

    \b
    Examples:
      mrc conflicts tail
      mrc conflicts tail --since 1h --output json | jq .winner
    """
    import msgspec

    from mrc.core.failover.markup import visible

    asked = _Asked(ctx, topic, [region], agents=agents)
    filters = asked.filter(wanted)
    call = invocation(ctx)
    with asked.docket() as docket:
        click.echo("conflicts that are decided from now on; Ctrl-C ends it", err=True)
        try:
            for news in docket.follow(filters):
                one = news.conflict
                if one is None:
                    continue
                if call.output == "table":
                    click.echo(visible("  ".join(_cells(one))).replace("\n", "\\n"))
                elif call.output == "json":
                    click.echo(msgspec.json.encode(_row(one)).decode())
                else:
                    click.echo("---")
                    emit(ctx, _row(one), table=lambda _: "")
        except KeyboardInterrupt:
            click.echo("", err=True)


@conflicts.command()
@_topic
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 3600),
    default=WAIT_S,
    show_default=True,
    metavar="S",
    help="How long what differs is asked again.",
)
@click.pass_context
def compare(ctx: click.Context, topic: str | None, wait_s: float) -> int:
    """Compare what stands for every entity in both regions: the last record of each in mrc.resolved.TOPIC.

    Regions are read up to the ends that their topics have at the start. What differs then may be under way; it is asked again, once a
    second, until it is the same or --wait is over. `differs`: both regions call their results final and made of the same events, and
    they are not alike, which must not be. `under way`: one of them has not decided yet what the other has; ask again, when writers
    rest or a cut link is back.

    Leaves with 0 where both regions say the same of every entity, with 3 where they do not, and where there is nothing to compare. Memory
    stays bounded: partitions are read one by one, and the largest in several passes.

    \b
    Examples:
      mrc conflicts compare
      mrc conflicts compare --topic orders --wait 60 && echo alike
    """
    from mrc.wiring import conflicts as wiring

    call = invocation(ctx)
    settings = call.settings()
    group = call.group(settings)
    found = wiring.compare(settings, group, wiring.chosen(settings, group, topic), wait_s, Spoken())
    data = {
        "agrees": found.agrees,
        "entities": found.entities,
        "provisional": found.provisional,
        "beyond": found.beyond,
        "differences": [
            {
                "topic": one.topic,
                "key": one.key,
                "state": one.state,
                "regions": {
                    name: said and {"event": said.event, "vector": said.vector, "final": said.final, "deleted": said.deleted}
                    for name, said in one.regions.items()
                },
            }
            for one in found.differences
        ],
    }
    emit(ctx, data, table=lambda _: _compare_table(found))
    if not found.entities:
        click.echo("nothing was compared: no region has written anything that stands", err=True)
        return Exit.FINDINGS
    if found.beyond:
        click.echo(f"{found.beyond} more differed and were not asked again: compare again, by topic", err=True)
    return Exit.OK if found.agrees else Exit.FINDINGS


# ---------------------------------------------------------------- asking


class _Asked:
    """Which kinds of entities and which regions a call is about, and who is asked: their Kafka, or their agents."""

    def __init__(self, ctx: click.Context, topic: str | None, regions: Sequence[str | None], *, agents: bool) -> None:
        from mrc.wiring import conflicts as wiring

        call = invocation(ctx)
        self._wiring = wiring
        self._settings = call.settings()
        self._group = call.group(self._settings)
        self._topic = topic
        self._kinds = None if agents else wiring.chosen(self._settings, self._group, topic)
        self._regions = [wiring.region_of(self._group, name) for name in regions]

    def filter(self, wanted: dict[str, Any]) -> Filter:
        """Return what is wanted; earlier rules may have had any name."""
        from mrc.resolver.audit import Filter

        rule = wanted["rule"]
        rules = [one.id for kind in self._kinds or () for one in kind.rules.set.rules]
        if rule and rules and rule not in rules:
            click.echo(f"the rules of now have no {rule}; they have {', '.join(rules)}", err=True)
        return Filter(**wanted)

    @contextmanager
    def docket(self) -> Iterator[Docket | AgentsDocket]:
        """Give the docket of the one region that is asked."""
        with self.dockets() as dockets:
            (one,) = dockets.values()
            yield one

    @contextmanager
    def dockets(self) -> Iterator[Mapping[Region, Docket | AgentsDocket]]:
        """Give what each region has decided."""
        if self._kinds is not None:
            with self._wiring.dockets(self._settings, self._kinds, self._regions, _say, Spoken()) as found:
                yield found
            return
        from mrc.control.client import Client
        from mrc.control.dockets import AgentsDocket

        with Client(self._settings) as client:
            yield {region: AgentsDocket(client, region, self._group.name, self._topic or "") for region in self._regions}


def _say(words: str) -> None:
    click.echo(words, err=True)


# ---------------------------------------------------------------- showing


def _row(one: ConflictRecord) -> dict[str, Any]:
    import msgspec

    return {**msgspec.to_builtins(one), "at_ms": one.at_ms, "outcome": one.outcome}


def _cells(one: ConflictRecord) -> tuple[str, ...]:
    between = " / ".join(f"{side.origin} {_event(side)}" for side in one.candidates)
    winner = next(side for side in one.candidates if side.id == one.winner)
    stands = f"{winner.origin} {_event(winner)}"
    if one.open:
        stands += f" until a person decides, before {moment(one.until_ms)}"
    elif one.decision is not None:
        stands += f", as {one.decision.actor} decided"
    elif one.closed == "superseded":
        stands = f"superseded: {stands} stood until then"
    return moment(one.at_ms), one.id, one.entity, between, one.rule, stands


def _answer_text(answer: Answer, one: ConflictRecord) -> RenderableType:
    from rich.text import Text

    from mrc.core.failover.markup import visible

    said = answer.decision
    match answer.state:
        case "decided":
            words = f"{said.winner} stands for {one.entity}, as {said.actor} decided"
        case "refused":
            words = f"the decision comes to nothing: {answer.why}"
        case _:
            words = f"given in {said.region}, and not decided yet; `mrc conflicts show {one.id}` tells when it is"
    return Text(visible(words))


def _event(side: CandidateRecord) -> str:
    return side.competes_as or ("deletion" if side.deleted else "event")


def _list_table(found: list[ConflictRecord]) -> RenderableType:
    return grid(("when (UTC)", "conflict", "entity", "between", "rule", "stands"), [_cells(one) for one in found])


def _same(one: ConflictRecord, other: ConflictRecord) -> bool:
    """Whether they are alike as they are written: to Python 1, 1.0 and true are the same value."""
    from mrc.core.model import encode

    return encode(one) == encode(other)


def _in_region(said: ConflictRecord | MrcError | None, one: ConflictRecord) -> dict[str, Any]:
    if isinstance(said, MrcError):
        return {"state": "no answer", "detail": str(said)}
    if said is None:
        return {"state": "not decided yet"}
    return {"state": "the same" if _same(said, one) else "differs", "winner": said.winner, "rule": said.rule, "rules_hash": said.rules_hash}


def _show_table(one: ConflictRecord, regions: dict[str, dict[str, Any]]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from mrc.core.failover.markup import visible

    def seen(side: CandidateRecord) -> str:
        others = [
            f"{other.origin} up to {side.seen[other.origin]}" if other.origin in side.seen else f"nothing of {other.origin}"
            for other in one.candidates
            if other is not side
        ]
        return ", ".join(others)

    def since(side: CandidateRecord) -> str:
        return "its beginning" if side.unseen_since < 0 else f"behind {side.unseen_since}"

    def text(value: object) -> str:
        from mrc.core.model import encode

        return "" if value is None else encode(value).decode()

    sides = one.candidates
    rows: list[tuple[str, ...]] = [
        ("last event", *(f"{side.id} ({side.type or 'no type'}{', deletes it' if side.deleted else ''})" for side in sides)),
        ("number", *(str(side.number) for side in sides)),
        ("written", *(f"{moment(side.at_ms)}, clock {side.hlc}" for side in sides)),
        ("had seen", *map(seen, sides)),
        ("its branch, unseen by others, from", *map(since, sides)),
        ("types in the branch", *(", ".join(side.types) for side in sides)),
        ("competes as", *map(_event, sides)),
        ("fields that rules merge", *(text(dict(side.fields)) if side.fields else "" for side in sides)),
        ("value", *(text(side.value) for side in sides)),
        ("outcome", *(_fate(side, one) for side in sides)),
    ]
    where = [(name, said["state"], said.get("winner", ""), said.get("rule", ""), said.get("detail", "")) for name, said in regions.items()]
    return Group(
        grid(("", *(side.origin for side in sides)), rows, title=f"{one.entity} in {one.topic}, {moment(one.at_ms)} UTC"),
        Text(visible("\n" + "\n".join(explained(one)) + f"\n  rules {one.rules_hash}{_by_person(one)}\n")),
        grid(("region", "decision", "stands", "rule", ""), where),
    )


def _by_person(one: ConflictRecord) -> str:
    said = one.decision
    if said is None:
        return ""
    return f"\n  decided by {said.actor} in {said.region}, {moment(said.at_ms)} UTC: {said.reason or 'no reason was given'}"


def _fate(side: CandidateRecord, one: ConflictRecord) -> str:
    if one.closed == "superseded":
        return "superseded; kept here"
    if side.id != one.winner:
        return "lost; kept here"
    return f"stands until a person decides, before {moment(one.until_ms)}" if one.open else "stands"


def _stats_table(found: Stats) -> RenderableType:
    from rich.console import Group

    return Group(
        grid(
            ("topic", "rule", "stands", ">conflicts"),
            [(one.topic, one.what, one.outcome, one.count) for one in found.conflicts],
            title=f"conflicts, as {found.region} has decided them",
        ),
        grid(
            ("topic", "template", ">compensations"),
            [(one.topic, one.what, one.count) for one in found.compensations],
            title=f"\ncompensations for events of {found.region} that lost",
        ),
        grid(
            ("topic", "reason", ">dead letters"),
            [(one.topic, one.what, one.count) for one in found.dead_letters],
            title=f"\ndead letters in {found.region}",
        ),
    )


def _compare_table(found: Comparison) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    same = found.entities - len(found.differences) - found.beyond
    said = f"{found.entities} entities: {same} the same" + (f", {found.provisional} of them not final" if found.provisional else "")
    if not found.differences:
        return Text(said)
    regions = list(found.differences[0].regions)
    rows = [(one.topic, one.key, one.state, *(_stands(one.regions[name]) for name in regions)) for one in found.differences]
    return Group(Text(f"{said}, {len(found.differences)} not\n"), grid(("topic", "entity", "state", *regions), rows))


def _stands(said: Stands | None) -> str:
    if said is None:
        return "nothing"
    return f"{said.event}{', deleted' if said.deleted else ''}{'' if said.final else ', not final'}, made of {said.vector}"
