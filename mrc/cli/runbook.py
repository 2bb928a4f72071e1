"""``mrc runbook``: the files that people read and mrc executes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mrc.cli.exits import Exit
from mrc.cli.invocation import invocation
from mrc.cli.output import emit, grid

if TYPE_CHECKING:
    from mrc.core.failover.runbook import Runbook


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
    """Show the steps of the runbook NAME (or of a file) and what each does.

    \b
    Examples:
      mrc runbook show switchover
    """
    from mrc.core.failover.actions import ACTIONS
    from mrc.core.failover.page import approval

    emit(
        ctx,
        _named(ctx, name)[1],
        table=lambda book: grid(
            ("step", "action", ">time-out s", ">retries", "approval", "on failure", "what it does"),
            [
                (
                    step.name,
                    step.action,
                    f"{step.timeout_s:g}",
                    step.retries,
                    approval(step) if step.approval else "",
                    step.on_failure,
                    ACTIONS[step.action].does if step.action in ACTIONS else "unknown",
                )
                for step in book.steps
            ],
        ),
    )


def _named(ctx: click.Context, name: str) -> tuple[Path, Runbook, str]:
    """Return a runbook with its file and the file's hash: the file ``name`` where it is one, else the replication group's of that name."""
    from mrc.config.runbook import load_runbook
    from mrc.core.errors import MrcError

    if name.endswith((".yaml", ".yml")):
        book, digest = load_runbook(Path(name))
        return Path(name), book, digest
    names = []
    for path in _files(ctx):
        book, digest = load_runbook(path)
        if book.runbook == name:
            return path, book, digest
        names.append(book.runbook)
    raise MrcError("RUNBOOK_INVALID", f"there is no runbook {name!r}; there are: {', '.join(names) or 'none'}")


def _good(ctx: click.Context, name: str) -> tuple[Runbook, str]:
    """Return a runbook whose steps are known and in a safe order. Raises ``RUNBOOK_INVALID`` with file and line for another."""
    from mrc.core.errors import MrcError
    from mrc.core.failover.plan import lint as judge

    path, book, digest = _named(ctx, name)
    for finding in judge(book):
        raise MrcError("RUNBOOK_INVALID", finding.message, where=located(path, finding.where))
    return book, digest


@runbook.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.pass_context
def lint(ctx: click.Context, file: Path | None) -> int:
    """Judge FILE, else all runbooks. Exit code 3 on a finding.

    Unknown actions, wrong parameters, missing steps and an unsafe order forbid a move. That a step says nothing about why, how by hand,
    how to check and what can go wrong is an error here too, and forbids none: nobody should be kept in a dead region by a missing text.

    \b
    Examples:
      mrc runbook lint
      mrc runbook lint my-switchover.yaml
    """
    from mrc.config.runbook import load_runbook
    from mrc.core.failover.plan import lint as judge
    from mrc.core.failover.plan import unexplained

    books = [(path, load_runbook(path)[0]) for path in ([file] if file else _files(ctx))]
    found = [(path, finding) for path, book in books for finding in (*judge(book), *unexplained(book))]
    emit(
        ctx,
        [{"file": str(path), "code": f.code, "where": located(path, f.where), "message": f.message} for path, f in found],
        table=lambda rows: grid(("where", "finding"), [(r["where"], r["message"]) for r in rows]),
    )
    return Exit.FINDINGS if found else Exit.OK


@runbook.command()
@click.argument("name")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the page to this file, else to stdout.")
@click.pass_context
def render(ctx: click.Context, name: str, out: Path | None) -> None:
    """Make a page for people of the runbook NAME (or of a file), in Markdown.

    Of each step: what it does, why, how to do it by hand, how to check it, what can go wrong, its limits, its approval, and whether
    there is a way back. Print it: when it is wanted, little else may answer.

    \b
    Examples:
      mrc runbook render switchover
      mrc runbook render failover --out failover.md
      mrc runbook render my-switchover.yaml
    """
    from mrc.core.failover.page import markdown

    _text(ctx, "markdown", markdown(*_good(ctx, name)), out)


@runbook.command()
@click.argument("name", required=False)
@click.option("--machine", is_flag=True, help="Draw the states of every execution instead of a runbook's steps.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the drawing to this file, else to stdout.")
@click.pass_context
def diagram(ctx: click.Context, name: str | None, machine: bool, out: Path | None) -> None:
    """Draw the steps of the runbook NAME (or of a file) with what follows a failure, or the mover's states, in Mermaid.

    \b
    Examples:
      mrc runbook diagram switchover
      mrc runbook diagram --machine
    """
    from mrc.core.failover import diagram as drawn

    if machine == (name is not None):
        raise click.UsageError("name a runbook, or say --machine, and not both", ctx)
    _text(ctx, "mermaid", drawn.machine() if name is None else drawn.steps(_good(ctx, name)[0]), out)


def _text(ctx: click.Context, key: str, text: str, out: Path | None) -> None:
    """Write a text to a file or to stdout, there as it is or as the one key of an object."""
    from mrc.core.errors import MrcError

    if out is not None:
        try:
            out.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8")
        except OSError as error:
            raise MrcError("BAD_REQUEST", f"the file cannot be written: {error.strerror}", where=str(out)) from None
        click.echo(f"written to {out}", err=True)
    elif invocation(ctx).output == "table":
        click.echo(text.rstrip("\n"))
    else:
        emit(ctx, {key: text}, table=lambda made: made[key])


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
