"""``mrc rules``: check conflict rules and try them on stories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mrc.cli.exits import Exit
from mrc.cli.output import emit, grid

if TYPE_CHECKING:
    from mrc.config.conflicts import EntityRules
    from mrc.config.rule_cases import Case
    from mrc.core.conflict.story import Ending

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
    lines = [f"{'conflict ' + one.id + ' (' + one.type + ')'}: {'; '.join(one.steps)}" for one in end.conflicts]
    return lines or ["no conflict: every event had seen those before it"]
