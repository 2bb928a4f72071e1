"""``mrc runbook``: the files that people read and mrc executes."""

from __future__ import annotations

from pathlib import Path

import click

from mrc.cli.exits import Exit
from mrc.cli.invocation import invocation
from mrc.cli.output import emit, grid


@click.group()
def runbook() -> None:
    """Runbooks: the order of a move's steps."""


def _files(ctx: click.Context) -> list[Path]:
    from mrc.wiring.estates import runbook_folder

    call = invocation(ctx)
    settings = call.settings()
    return sorted(runbook_folder(settings, call.group(settings).name).glob("*.yaml"))


@runbook.command("list")
@click.pass_context
def list_(ctx: click.Context) -> None:
    """List the runbooks of the replication group.

    \b
    Examples:
      mrc runbook list
    """
    from mrc.config.runbook import load_runbook

    rows = [
        {"file": str(path), "runbook": book.runbook, "hash": digest, "steps": len(book.steps)}
        for path in _files(ctx)
        for book, digest in [load_runbook(path)]
    ]
    emit(
        ctx,
        rows,
        table=lambda found: grid(
            ("runbook", ">steps", "hash", "file"), [(r["runbook"], r["steps"], str(r["hash"])[:12], r["file"]) for r in found]
        ),
    )


@runbook.command()
@click.argument("name")
@click.pass_context
def show(ctx: click.Context, name: str) -> None:
    """Show a runbook's steps and what each does.

    \b
    Examples:
      mrc runbook show switchover
    """
    from mrc.config.runbook import load_runbook
    from mrc.core.errors import MrcError
    from mrc.core.failover.actions import ACTIONS

    for path in _files(ctx):
        book, _ = load_runbook(path)
        if book.runbook == name:
            emit(
                ctx,
                book,
                table=lambda b: grid(
                    ("step", "action", ">time-out s", ">retries", "what it does"),
                    [
                        (s.name, s.action, f"{s.timeout_s:g}", s.retries, ACTIONS[s.action].does if s.action in ACTIONS else "unknown")
                        for s in b.steps
                    ],
                ),
            )
            return
    raise MrcError("RUNBOOK_INVALID", f"there is no runbook {name!r}")


@runbook.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.pass_context
def lint(ctx: click.Context, file: Path | None) -> int:
    """Judge FILE, else all runbooks: unknown actions, missing steps, an unsafe order. Exit code 3 on a finding.

    \b
    Examples:
      mrc runbook lint my-switchover.yaml
    """
    from mrc.config.runbook import load_runbook
    from mrc.core.failover.plan import lint as judge

    found = [(path, finding) for path in ([file] if file else _files(ctx)) for finding in judge(load_runbook(path)[0])]
    emit(
        ctx,
        [{"file": str(path), "code": f.code, "where": located(path, f.where), "message": f.message} for path, f in found],
        table=lambda rows: grid(("where", "finding"), [(r["where"], r["message"]) for r in rows]),
    )
    return Exit.FINDINGS if found else Exit.OK


def located(path: Path, where: str) -> str:
    """Return the place that the linter names (``step drain``) as people find it: ``FILE:LINE step drain``.

    The line is the step's own; the file's first where the finding is about the runbook as a whole.
    """
    from mrc.config.located import read

    document = read(path, missing="RUNBOOK_INVALID", invalid="RUNBOOK_INVALID")
    steps = document.data.get("steps", []) if isinstance(document.data, dict) else []
    at = [index for index, step in enumerate(steps) if isinstance(step, dict) and where == f"step {step.get('name')}"]
    # Of two steps with one name the second is the one too many.
    document.problem(("steps", at[-1]) if at else (), "")
    return f"{path}:{document.problems[-1].line} {where}"
