"""``mrc conflicts``: what the resolvers have decided, why, and whether the regions agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    from mrc.core.model import Region
    from mrc.resolver.audit import Filter, Stats
    from mrc.resolver.comparing import Comparison, Stands
    from mrc.resolver.kinds import Kind
    from mrc.resolver.writing import CandidateRecord, ConflictRecord

LIMIT_MAX = 10_000
WAIT_S = 10.0

_topic = click.option("--topic", metavar="TOPIC", help="Only events of this topic, by its name in the region that writes there.")
_region = click.option("--region", metavar="REGION", help="The region that is asked; the replication group's first when left out.")


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        _topic,
        click.option("--entity", default="", metavar="KEY", help="Only about this entity: the record's key, or KIND/KEY."),
        click.option("--rule", default="", metavar="ID", help="Only what this rule has decided."),
        click.option("--outcome", default="", metavar="REGION|open", help="Only where this region's event stands, or a person is asked."),
        click.option("--since", "since_ms", type=Since(), help=f"Only where the latest event is not older: {SINCE_HELP}"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def conflicts() -> None:
    """What resolvers have decided where two regions wrote about the same entity.

    They read what resolvers write (mrc.conflicts.TOPIC and its neighbours) from the regions' Kafka: no agent is asked, nothing is
    changed. Every region writes the same conflicts, with the same ids; only when differs.
    """


@conflicts.command("list")
@_filters
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=20, show_default=True, help="At most so many.")
@_region
@click.pass_context
def list_(ctx: click.Context, /, topic: str | None, region: str | None, limit: int, **wanted: Any) -> None:
    """List the conflicts that were decided last, newest first.

    Each is shown with what its sides compete with and which of them stands; `mrc conflicts show ID` explains one. Topics are read
    backwards from their ends, so the newest cost little however long the topics are.

    \b
    Examples:
      mrc conflicts list
      mrc conflicts list --entity order/17 --region west
      mrc conflicts list --rule refunds-by-hand --outcome open --since 7d --output json
    """
    asked = _Asked(ctx, topic, [region])
    filters = asked.filter(wanted)
    with asked.audits() as audits:
        found = next(iter(audits.values())).newest(filters, limit)
    emit(ctx, [_row(one) for one in found], table=lambda _: _list_table(found))
    if not found and invocation(ctx).output == "table":
        click.echo("no conflict is like that: every event that was resolved had seen those before it, or nothing is final yet", err=True)


@conflicts.command()
@click.argument("id")
@_topic
@click.option("--region", metavar="REGION", help="Ask this region alone; all when left out.")
@click.pass_context
def show(ctx: click.Context, id: str, topic: str | None, region: str | None) -> int:
    """Explain the conflict ID: both sides, how they were found concurrent, each step of the rules, what stands in each region.

    Leaves with 3 where regions have decided it differently. A region that has not written it yet, or does not answer, is named.

    \b
    Examples:
      mrc conflicts show 0e8dd75a3d6b4c5f3c41
      mrc conflicts show 0e8dd75a3d6b4c5f3c41 --region west --output json
    """
    from mrc.wiring.estates import unit

    call = invocation(ctx)
    regions = [region] if region else list(unit(call.group(call.settings())).regions)
    asked = _Asked(ctx, topic, regions)
    said: dict[Region, ConflictRecord | MrcError | None] = {}
    with asked.audits() as audits:
        for name, audit in audits.items():
            try:
                said[name] = audit.find(id)
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


@conflicts.command()
@_topic
@click.option("--since", "since_ms", type=Since(), help=f"Count from then on: {SINCE_HELP}")
@_region
@click.pass_context
def stats(ctx: click.Context, topic: str | None, since_ms: int | None, region: str | None) -> None:
    """Count conflicts per topic, rule and outcome, compensations per template, and dead letters per reason.

    Compensations are those of REGION alone: each is asked for in the region that wrote the losing event. Everything is read once;
    with --since, what is older is not.

    \b
    Examples:
      mrc conflicts stats
      mrc conflicts stats --since 24h --region west --output json
    """
    asked = _Asked(ctx, topic, [region])
    with asked.audits() as audits:
        found = next(iter(audits.values())).stats(since_ms)
    emit(ctx, found, table=_stats_table)


@conflicts.command()
@_filters
@_region
@click.pass_context
def tail(ctx: click.Context, /, topic: str | None, region: str | None, **wanted: Any) -> None:
    """Show conflicts as they are decided, a line each, until Ctrl-C; with --since also those that were decided already.

    With --output json each line is one conflict as a whole.

    \b
    Examples:
      mrc conflicts tail
      mrc conflicts tail --since 1h --output json | jq .winner
    """
    import msgspec

    from mrc.core.failover.markup import visible

    asked = _Asked(ctx, topic, [region])
    filters = asked.filter(wanted)
    call = invocation(ctx)
    with asked.audits() as audits:
        click.echo("conflicts that are decided from now on; Ctrl-C ends it", err=True)
        try:
            for batch in next(iter(audits.values())).follow(filters):
                for one in batch:
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

    Leaves with 0 where both regions say the same of every entity, with 3 where they do not. Memory stays bounded: partitions are read
    one by one, and the largest in several passes.

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
    if found.beyond:
        click.echo(f"{found.beyond} more differed and were not asked again: compare again, by topic", err=True)
    return Exit.OK if found.agrees else Exit.FINDINGS


# ---------------------------------------------------------------- asking


class _Asked:
    """Which kinds of entities and which regions a call is about."""

    def __init__(self, ctx: click.Context, topic: str | None, regions: Sequence[str | None]) -> None:
        from mrc.wiring import conflicts as wiring

        call = invocation(ctx)
        self._wiring = wiring
        self._settings = call.settings()
        self._group = call.group(self._settings)
        self._kinds: list[Kind] = wiring.chosen(self._settings, self._group, topic)
        self._regions = [wiring.region_of(self._group, name) for name in regions]

    def filter(self, wanted: dict[str, Any]) -> Filter:
        """Return what is wanted. Raises ``BAD_REQUEST`` for an outcome that there is not; earlier rules may have had any name."""
        from mrc.resolver.audit import Filter

        rule, outcome = wanted["rule"], wanted["outcome"]
        outcomes = sorted({"open", *(region for kind in self._kinds for region in kind.regions)})
        if outcome and outcome not in outcomes:
            raise MrcError("BAD_REQUEST", f"--outcome {outcome}: there are {', '.join(outcomes)}")
        rules = [one.id for kind in self._kinds for one in kind.rules.set.rules]
        if rule and rule not in rules:
            click.echo(f"the rules of now have no {rule}; they have {', '.join(rules)}", err=True)
        return Filter(**wanted)

    def audits(self) -> Any:
        """Give what each region has written of conflicts, see `mrc.wiring.conflicts.audits`."""
        return self._wiring.audits(self._settings, self._kinds, self._regions, lambda words: click.echo(words, err=True), Spoken())


# ---------------------------------------------------------------- showing


def _row(one: ConflictRecord) -> dict[str, Any]:
    import msgspec

    return {**msgspec.to_builtins(one), "at_ms": one.at_ms, "outcome": one.outcome}


def _cells(one: ConflictRecord) -> tuple[str, ...]:
    between = " / ".join(f"{side.origin} {_event(side)}" for side in one.candidates)
    winner = next(side for side in one.candidates if side.id == one.winner)
    stands = f"{winner.origin} {_event(winner)}" + (" until a person decides" if one.open else "")
    return moment(one.at_ms), one.id, one.entity, between, one.rule, stands


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
        Text(visible("\n" + "\n".join(explained(one)) + f"\n  rules {one.rules_hash}\n")),
        grid(("region", "decision", "stands", "rule", ""), where),
    )


def _fate(side: CandidateRecord, one: ConflictRecord) -> str:
    if side.id != one.winner:
        return "lost; kept here"
    return "stands until a person decides" if one.open else "stands"


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
