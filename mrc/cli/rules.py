"""``mrc rules``: check conflict rules, try them on stories and on history."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mrc.cli.exits import Exit
from mrc.cli.explaining import explained
from mrc.cli.invocation import invocation
from mrc.cli.output import emit, grid
from mrc.cli.times import SINCE_HELP, Since, Spoken

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mrc.config.conflicts import EntityRules
    from mrc.config.rule_cases import Case
    from mrc.core.conflict.story import Ending
    from mrc.core.model import Offset, TopicPartition
    from mrc.resolver.replaying import Decision, DryRun, Standing
    from mrc.resolver.versions import TopicRules

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def rules() -> None:
    """Conflict rules: which event stands when two regions wrote about the same entity."""


@rules.command()
@click.argument("file", type=_FILE)
@click.pass_context
def check(ctx: click.Context, file: Path) -> None:
    """Check a rules FILE: its form, and that its rules come to the same answer in every region.

    \b
    Examples:
      mrc rules check conflicts.yaml
    """
    from mrc.config.conflicts import load_conflicts

    found: list[dict[str, Any]] = [
        {"entity": one.written.name, "topics": list(one.written.topics), "rules": len(one.rules.set.rules), "hash": one.rules.hash}
        for one in load_conflicts(file)
    ]
    emit(
        ctx,
        found,
        table=lambda rows: grid(
            ("entity", "topics", ">rules", "hash"), [(r["entity"], ", ".join(r["topics"]), r["rules"], r["hash"]) for r in rows]
        ),
    )


@rules.command()
@click.argument("file", type=_FILE)
@click.argument("cases", type=_FILE)
@click.option("--explain", is_flag=True, help="Say of every case how it was decided, not only of those that fail.")
@click.pass_context
def test(ctx: click.Context, file: Path, cases: Path, *, explain: bool) -> int:
    """Try the rules of FILE on the stories in CASES.

    Leaves with 3 when a story ends otherwise than its case says.

    \b
    Examples:
      mrc rules test conflicts.yaml conflicts.test.yaml
      mrc rules test --explain conflicts.yaml conflicts.test.yaml
    """
    from mrc.config.conflicts import load_conflicts
    from mrc.config.rule_cases import load_cases

    kinds = {one.written.name: one for one in load_conflicts(file)}
    found = [_tried(case, kinds, cases) for case in load_cases(cases)]
    emit(
        ctx,
        found,
        table=lambda rows: grid(
            ("case", "result", "winner", "rule"),
            [(r["case"], "; ".join(r["wrong"]) or "as expected", r["winner"], r["rule"]) for r in rows],
        ),
    )
    for row in found:
        if explain or row["wrong"]:
            click.echo("\n".join([f"{row['case']}:", *(f"  {line}" for line in row["explanation"])]), err=True)
    return Exit.FINDINGS if any(row["wrong"] for row in found) else Exit.OK


def _tried(case: Case, kinds: dict[str, EntityRules], path: Path) -> dict[str, Any]:
    from mrc.core.conflict.story import ending
    from mrc.core.errors import MrcError

    if case.entity not in kinds:
        raise MrcError("RULES_INVALID", f"case {case.name!r} is about {case.entity!r}; the rules know {', '.join(kinds)}", where=str(path))
    try:
        end = ending(case.events, f"{case.entity}/{case.name}", kinds[case.entity].rules)
    except MrcError as error:
        raise MrcError(error.code, f"case {case.name!r}: {error.message}", where=str(path)) from None
    rule = end.outcome.conflict.rule if end.outcome.conflict else "none"
    return {
        "case": case.name,
        "winner": end.outcome.winner.id,
        "rule": rule,
        "wrong": _wrong(case, end, rule),
        "explanation": _explained(end),
    }


def _wrong(case: Case, end: Ending, rule: str) -> list[str]:
    want, outcome = case.expect, end.outcome
    found = []
    if outcome.winner.id != want.winner:
        found.append(f"{outcome.winner.id} stands, not {want.winner}")
    if want.rule is not None and rule != want.rule:
        found.append(f"decided by {rule}, not by {want.rule}")
    stands = {**outcome.winner.fields, **(outcome.fields or {})}
    found += [f"{name} is {stands.get(name)!r}, not {value!r}" for name, value in want.fields.items() if stands.get(name) != value]
    waits = outcome.conflict is not None and outcome.conflict.open
    if want.waits is not None and waits != want.waits:
        found.append("a person is asked" if waits else "nobody is asked")
    return found


def _explained(end: Ending) -> list[str]:
    return [line for one in end.conflicts for line in explained(one)] or ["no conflict: every event had seen those before it"]


class Position(click.ParamType["tuple[TopicPartition, Offset]"]):
    """``TOPIC-PARTITION=OFFSET``."""

    name = "TOPIC-PARTITION=OFFSET"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[TopicPartition, Offset]:
        """Return the partition and the offset."""
        from mrc.core.model import Offset, TopicPartition

        found = re.fullmatch(r"(.+)-(\d{1,9})=(\d{1,18})", value)
        if found is None:
            self.fail(f"{value!r} is not TOPIC-PARTITION=OFFSET, such as orders-0=1200", param, ctx)
        return TopicPartition(found[1], int(found[2])), Offset(int(found[3]))


@rules.command("dry-run")
@click.argument("file", type=_FILE)
@click.option("--since", "since_ms", type=Since(), help=f"Read from then on; else from the first records that there are. {SINCE_HELP}")
@click.option("--offset", "offsets", type=Position(), multiple=True, help="Begin this partition of a topic or a copy there; any number.")
@click.option("--region", metavar="REGION", help="The region whose history is read; the replication group's first when left out.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="Changes of each sort that the tables show.")
@click.pass_context
def dry_run(
    ctx: click.Context,
    file: Path,
    since_ms: int | None,
    offsets: tuple[tuple[TopicPartition, Offset], ...],
    region: str | None,
    limit: int,
) -> int:
    """Resolve a region's history by the rules of FILE, and show what would be otherwise. Nothing is written.

    Topics, copies and marks are read from the log and resolved by what the resolver itself does, with the rules of now and with those
    of FILE. Where the rules of now come to what was resolved, what FILE comes to is shown; where they do not, history is missing or
    still being written, and nothing is judged. With --since or --offset less is read and less can be judged; `assumed` are conflicts
    with a branch that may have begun before.

    Leaves with 0 where nothing that was judged would change, with 3 where something would, and where there is history and nothing of it
    could be judged. Scripts look at `unjudged_conflicts` and `unjudged_entities` too.

    \b
    Examples:
      mrc rules dry-run new-conflicts.yaml
      mrc rules dry-run new-conflicts.yaml --since 24h --region west --output json
      mrc rules dry-run new-conflicts.yaml --offset orders-0=120000 --offset west.orders-0=98000
    """
    from mrc.wiring import conflicts as wiring

    call = invocation(ctx)
    settings = call.settings()
    group = call.group(settings)
    here = wiring.region_of(group, region)
    found, beside = wiring.dry_run(settings, group, file, here, since_ms, dict(offsets), Spoken())
    if beside:
        click.echo(f"not replayed, for only one of the two files is about them: {', '.join(beside)}", err=True)
    emit(ctx, found, table=lambda _: _dry_run_table(found, limit))
    blind = not (found.conflicts or found.entities) and bool(found.unjudged_conflicts or found.unjudged_entities)
    if blind:
        click.echo("nothing could be judged: history is missing or still being written", err=True)
    return Exit.FINDINGS if found.changed or blind else Exit.OK


@rules.command()
@click.pass_context
def status(ctx: click.Context) -> int:
    """Say which rules each region's resolvers have, and by which they decide.

    Rules are changed so: put the new file beside the configuration in every region (`mrc rules check`, `test` and `dry-run` try it before),
    and restart the resolvers there, one by one, in any order. Each tells the others of its file in its marks. Where the regions have not
    the same, deciding is suspended: nothing is lost, what comes is shown as provisional and waits. Once all have the same, what waited and
    what comes is decided by it, from the same place on in every region; what stands already is not decided again. Going back is the
    same: restart with the old file.

    `agreed`: all decide by what all have. `changing`: all have the same, and some region has not come to it yet; that takes a second
    while links work. `suspended`: they have not the same. `unknown`: a region does not answer, or no resolver has written there yet.
    Versions are those that `mrc rules check FILE` shows.

    Leaves with 0 where all topics are agreed, else with 3.

    \b
    Examples:
      mrc rules status
      mrc rules status --output json | jq -r '.[].state'
    """
    from mrc.wiring import conflicts as wiring

    call = invocation(ctx)
    settings = call.settings()
    found = wiring.rules_status(settings, call.group(settings))
    data = [{**_plain(one), "state": one.state} for one in found]
    emit(ctx, data, table=lambda _: _status_table(found))
    return Exit.OK if all(one.state == "agreed" for one in found) else Exit.FINDINGS


def _plain(found: TopicRules) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(found)
    return plain


def _status_table(found: list[TopicRules]) -> RenderableType:
    from mrc.cli.times import moment

    rows: list[tuple[str, ...]] = []
    for one in found:
        for region, said in one.regions.items():
            if not said:
                rows.append((one.topic, one.state, region, "no answer" if said is None else "no mark", "", "", ""))
                continue
            has, by = ({getattr(mark, name) for mark in said.values()} for name in ("has", "by"))
            here = "yes" if has == {one.file} else "no"
            rows.append((one.topic, one.state, region, _some(has), _some(by), here, moment(min(mark.at_ms for mark in said.values()))))
    return grid(("topic", "state", "region", "has", "decides by", "as the file here", "said at (UTC)"), rows)


def _some(versions: set[str]) -> str:
    return ", ".join(sorted(versions))


def _dry_run_table(found: DryRun, limit: int) -> RenderableType:
    from rich.console import Group

    def asked(counts: Mapping[str, int]) -> str:
        return ", ".join(f"{count} {template}" for template, count in sorted(counts.items())) or "none"

    rows = [
        ("events replayed", found.events),
        ("conflicts judged", found.conflicts),
        ("  of them assumed to begin in what was read", found.assumed),
        ("  another event would stand", found.winners),
        ("  another rule would decide, for the same event", found.rules),
        ("entities judged", found.entities),
        ("  something else would stand", found.standings),
        ("compensations asked for here", asked(found.compensations)),
        ("  would be", asked(found.compensations_would)),
        ("dead letters", found.dead_letters),
        ("  would be", found.dead_letters_would),
        ("conflicts not judged", found.unjudged_conflicts),
        ("entities not judged", found.unjudged_entities),
        ("events that are not final", found.pending),
    ]
    parts = [grid(("", ">"), rows)]
    if found.decisions[:limit]:
        cells = [
            (one.topic, one.key, one.conflict, _decision(one.was), _decision(one.would), "yes" if one.assumed else "")
            for one in found.decisions[:limit]
        ]
        title = f"\nconflicts, {len(cells)} of {found.winners + found.rules}"
        parts.append(grid(("topic", "entity", "conflict", "stands by", "would stand by", "assumed"), cells, title=title))
    if found.changes[:limit]:
        stands = [
            (one.topic, one.key, _standing(one.was), _standing(one.would), "yes" if one.assumed else "") for one in found.changes[:limit]
        ]
        parts.append(
            grid(("topic", "entity", "stands", "would stand", "assumed"), stands, title=f"\nentities, {len(stands)} of {found.standings}")
        )
    return Group(*parts)


def _decision(one: Decision | None) -> str:
    return "no conflict" if one is None else f"{one.winner} of {one.outcome} by {one.rule}"


def _standing(one: Standing | None) -> str:
    return "nothing" if one is None else one.event + (f" with {one.fields}" if one.fields != "{}" else "")
