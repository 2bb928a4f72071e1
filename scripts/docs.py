"""Make those documents, and parts of documents, that the code itself can tell; with --check only name what is stale.

`docs/cli.md` is made as a whole, from the commands. In `docs/moves.md` and `docs/operations.md` what stands between the markers
``<!-- BEGIN name ... -->`` and ``<!-- END name -->`` is made: the mover's states and actions, the error codes, the metrics.
Nothing here starts a server or reads anything but this repository; the same code gives the same text.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # the code beside this script is meant, whatever is installed

from mrc.cli.exits import MEANINGS  # noqa: E402 - needs the path above
from mrc.cli.main import cli  # noqa: E402
from mrc.core.errors import CODES, InvariantViolation  # noqa: E402
from mrc.core.failover import diagram  # noqa: E402
from mrc.core.failover.actions import ACTIONS, Action  # noqa: E402

METRICS = ROOT / "mrc" / "telemetry" / "metrics.py"

HOW = "made by `make docs`; changed in the code, never here"

Row = tuple[str, ...]


class Stale(Exception):
    """A document cannot be made; the message says what is wrong with it."""


# ---------------------------------------------------------------- Markdown


def table(heads: Row, rows: Iterable[Row]) -> str:
    """Return a Markdown table."""
    lines = [heads, tuple("---" for _ in heads), *(tuple(map(cell, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """Return text that may stand in a table's cell."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def code(text: str) -> str:
    """Return text as code, empty where there is none."""
    return f"`{text}`" if text else ""


def listed(names: Iterable[str]) -> str:
    """Return names as code, with commas."""
    return ", ".join(map(code, names))


# ---------------------------------------------------------------- commands


def commands() -> str:
    """Return the reference of every command."""
    context = click.Context(cli, info_name="mrc")
    parts = [
        f"<!-- {HOW} -->",
        "# Commands",
        "Data goes to stdout, talk and errors to stderr. `mrc COMMAND --help` shows the same as this page.",
        "## Exit codes",
        table(("code", "means"), ((str(int(exit_code)), meaning) for exit_code, meaning in MEANINGS.items())),
        (
            "An error tells its [code](operations.md#error-codes), its place and what to do next; with `--output json` it is one object on"
            " stderr with `code`, `message`, `where`, `retryable` and `next`."
        ),
        "## Options of every command",
        "They may stand before or after a command.",
        options(cli, context),
    ]
    parts += [part for command, below in children(cli, context) for part in reference(command, below, 2)]
    return "\n\n".join(parts) + "\n"


def children(group: click.Group, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a group's commands in the order of its help, each with its context."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            raise Stale(f"the command {name} is listed and not there")
        yield command, click.Context(command, info_name=name, parent=context)


def reference(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    """Yield the parts of one command's reference, then those of its subcommands."""
    yield f"{'#' * level} {context.command_path}"
    prose, examples = explained(command.help or "")
    yield f"    {context.command_path} {' '.join(command.collect_usage_pieces(context))}"
    yield from prose
    own = options(command, context)
    if own:
        yield own
    for example in examples:
        yield f"```sh\n{example}\n```"
    if isinstance(command, click.Group):
        for child, below in children(command, context):
            yield from reference(child, below, level + 1)


def options(command: click.Command, context: click.Context) -> str:
    """Return the table of a command's visible options; empty where it has none."""
    own = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    records = [record for option in own if (record := option.get_help_record(context)) is not None]
    return table(("option", "meaning"), ((code(names), meaning) for names, meaning in records)) if records else ""


def explained(text: str) -> tuple[list[str], list[str]]:
    """Return a help text's paragraphs and its examples, which follow a line with a backspace (or what stands for one in raw text)."""
    prose: list[str] = []
    examples: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        mark, _, rest = paragraph.partition("\n")
        if mark.strip() != "\b":
            prose.append(" ".join(paragraph.split()))
            continue
        head, _, body = rest.partition("\n")
        if head.strip() not in ("Example:", "Examples:"):
            raise Stale(f"what is {head.strip()!r} in a help text?")
        lines = body.splitlines()
        margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        examples.append("\n".join(line[margin:].rstrip() for line in lines).replace("\\\\\n", "\\\n"))
    return prose, examples


# ---------------------------------------------------------------- the mover


def states() -> str:
    """Return the diagram of an execution's phases, drawn from the table of transitions."""
    try:
        return f"```mermaid\n{diagram.machine()}\n```"
    except InvariantViolation as error:
        raise Stale(str(error)) from error


def actions() -> str:
    """Return the table of the actions that runbooks are made of."""
    heads = ("action", "in", "what it does", "needs first", "gives", "undo", "")
    return table(heads, (_action(name, action) for name, action in ACTIONS.items()))


def _action(name: str, action: Action) -> Row:
    moves = [f"{kind}{'' if kind in action.required else ' (optional)'}" for kind in action.needs]
    needs = {kind: listed(sorted(facts)) or "nothing" for kind, facts in action.needs.items()}
    needed = needs.popitem()[1] if len(set(needs.values())) == 1 else "; ".join(f"{kind}: {facts}" for kind, facts in needs.items())
    marks = ["**point of no return**"] if action.opens else []
    marks += ["proved again after a take-over"] if action.proof else []
    undo = action.undo or f"none: {action.why_no_undo}"
    return code(name), ", ".join(moves), action.does, needed, listed(sorted(action.gives)), undo, "; ".join(marks)


# ---------------------------------------------------------------- errors and metrics


FAULTS = {"usage": "you asked wrongly", "world": "the world failed", "bug": "mrc is wrong"}


def errors() -> str:
    """Return the table of every error code."""
    return table(
        ("code", "whose fault", "what happened", "what to do"),
        ((code(name), FAULTS[row.kind], row.means, row.remedy) for name, row in sorted(CODES.items())),
    )


def metrics(path: Path = METRICS) -> str:
    """Return the table of every metric that the module makes, as its source says. Raises `Stale` for one that it cannot read."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    scopes: list[ast.AST] = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    rows = {row[0]: row for scope in [module, *scopes] for row in _families(scope)}
    if not rows:
        raise Stale(f"{path.name} makes no metric")
    return table(("metric", "type", "labels", "what it says"), (rows[name] for name in sorted(rows)))


def _families(scope: ast.AST) -> Iterator[Row]:
    """Yield a row per metric made right in this function (or module), whose labels may be a list that it has named before."""
    named: dict[str, list[str]] = {}
    for node in _own(scope):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.List):
            named[node.targets[0].id] = _words(node.value, named)
    for node in _own(scope):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("MetricFamily")):
            continue
        if len(node.args) < 2 or not all(isinstance(one, ast.Constant) for one in node.args[:2]):
            raise Stale(f"the metric made in line {node.lineno} of {METRICS.name} has no plain name and text")
        name, says = (str(one.value) for one in node.args[:2] if isinstance(one, ast.Constant))
        labels = next((_words(word.value, named) for word in node.keywords if word.arg == "labels"), [])
        yield code(name), node.func.id.removesuffix("MetricFamily").lower(), listed(labels), says


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield what lies in a scope, without the functions in it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from _own(child)


def _words(node: ast.expr, named: Mapping[str, list[str]]) -> list[str]:
    match node:
        case ast.Constant(value=str(word)):
            return [word]
        case ast.Name(id=name) if name in named:
            return named[name]
        case ast.Starred(value=inner):
            return _words(inner, named)
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [word for part in parts for word in _words(part, named)]
    raise Stale(f"the labels in line {node.lineno} of {METRICS.name} are no plain list")


# ---------------------------------------------------------------- documents

WHOLE: Mapping[str, Callable[[], str]] = {"docs/cli.md": commands}
PARTS: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "docs/moves.md": {"states": states, "actions": actions},
    "docs/operations.md": {"errors": errors, "metrics": metrics},
}


def fill(text: str, parts: Mapping[str, Callable[[], str]], where: str) -> str:
    """Return a document with each part made anew between its markers. Raises `Stale` where a marker is missing or there twice."""
    for name, make in parts.items():
        begin, end = f"<!-- BEGIN {name}: {HOW} -->", f"<!-- END {name} -->"
        between = re.compile(rf"<!-- BEGIN {name}[^>]*-->.*?<!-- END {name} -->", re.DOTALL)
        if len(between.findall(text)) != 1:
            raise Stale(f"{where} has not one pair of markers {begin} and {end}")
        at = between.search(text)
        if at is not None:
            text = f"{text[: at.start()]}{begin}\n\n{make()}\n\n{end}{text[at.end() :]}"
    return text


def documents(root: Path) -> dict[Path, str]:
    """Return every document below ``root`` as it should be. Raises `Stale` for one that cannot be made."""
    found = {root / name: make() for name, make in WHOLE.items()}
    for name, parts in PARTS.items():
        path = root / name
        if not path.is_file():
            raise Stale(f"{name} is missing")
        found[path] = fill(path.read_text(encoding="utf-8"), parts, name)
    return found


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write what has changed, or with --check name it; 1 where something is stale or cannot be made."""
    try:
        made = documents(root)
    except Stale as error:
        print(f"the documents cannot be made: {error}", file=sys.stderr)
        return 1
    stale = {path: text for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text}
    if arguments == ["--check"]:
        if stale:
            names = ", ".join(sorted(str(path.relative_to(root)) for path in stale))
            print(f"not what the code says (run `make docs`): {names}", file=sys.stderr)
        return 1 if stale else 0
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
