"""YAML files that people write: read with the line of every key, checked against a Struct, every error at once.

Owns finding and wording the errors of a file; refuses to guess (an unknown key is an error with a suggestion, never
ignored). Invariant: a value comes out only when there is no problem, so no reader sees a half-valid file.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
import yaml

from mrc.core.errors import MrcError
from mrc.core.model import Value, convert

T = TypeVar("T")

Key = tuple[str | int, ...]
"""A place in a file: mapping keys and list indexes from the top."""

_BYTES_MAX = 1_000_000
_DEPTH_MAX = 20
_NODES_MAX = 50_000


class Problem(Value, frozen=True):
    """One error in a file.

    Attributes:
        file: the file's name, as it was given.
        line: 1 or more; of the key, or of its nearest parent where the key is missing.
        key: dotted, list indexes in brackets; empty for the file as a whole.
        message: what is wrong, and what is allowed.
    """

    file: str
    line: int
    key: str
    message: str

    @property
    def where(self) -> str:
        """``file:line key``."""
        return f"{self.file}:{self.line} {self.key}".rstrip()


class Document:
    """A parsed file that collects its problems.

    Attributes:
        path: where it was read.
        text: what was read.
        data: plain dicts, lists and scalars; None where the file is not YAML.
        problems: in the order of discovery; `sorted_problems` gives the order of lines.
    """

    def __init__(self, path: Path, text: bytes) -> None:
        self.path = path
        self.text = text
        self.data: Any = None
        self.problems: list[Problem] = []
        self._lines: dict[Key, int] = {(): 1}
        self._nodes = 0
        self._parse()

    def problem(self, key: Key, message: str) -> None:
        """Add a problem at ``key``, or at its nearest parent that the file has."""
        at = key
        while at not in self._lines:
            at = at[:-1]
        self.problems.append(Problem(str(self.path), self._lines[at], dotted(key), message))

    @property
    def sorted_problems(self) -> tuple[Problem, ...]:
        """All problems by line; each once."""
        return tuple(sorted(dict.fromkeys(self.problems), key=lambda problem: problem.line))

    def examine(self, kind: type[msgspec.Struct], unwritten: Collection[str] = ()) -> None:
        """Check ``data`` against ``kind``, adding a problem for everything that does not fit.

        Args:
            kind: the Struct that the file should be.
            unwritten: fields at the top that the loader fills; in a file they are unknown keys.
        """
        self._examine(self.data, kind, (), frozenset(unwritten))

    def _parse(self) -> None:
        if len(self.text) > _BYTES_MAX:
            self.problem((), f"the file is larger than {_BYTES_MAX} bytes")
            return
        try:
            node = yaml.compose(self.text, Loader=yaml.SafeLoader)
            self.data = {} if node is None else self._plain(node, (), yaml.SafeLoader(""))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            self.problems.append(Problem(str(self.path), line, "", f"not YAML: {error.problem or error.context}"))
        except yaml.YAMLError as error:
            self.problems.append(Problem(str(self.path), 1, "", f"not YAML: {error}"))

    def _plain(self, node: yaml.Node, key: Key, loader: yaml.SafeLoader) -> Any:
        self._nodes += 1
        if self._nodes > _NODES_MAX or len(key) > _DEPTH_MAX:
            raise yaml.MarkedYAMLError(problem="nested too deeply or too large", problem_mark=node.start_mark)
        self._lines.setdefault(key, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key, loader)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*key, index), loader) for index, item in enumerate(node.value)]
        try:
            return loader.construct_object(node)
        except ValueError as error:
            self.problem(key, str(error))
            return None

    def _mapping(self, node: yaml.MappingNode, key: Key, loader: yaml.SafeLoader) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name_node, value_node in node.value:
            name = name_node.value
            line = name_node.start_mark.line + 1
            if name_node.tag != "tag:yaml.org,2002:str":
                self._lines[(*key, str(name))] = line
                self.problem((*key, str(name)), "a key must be text; put it in quotes")
                continue
            if name in made:
                self.problems.append(
                    Problem(str(self.path), line, dotted((*key, name)), f"written twice; first in line {self._lines[*key, name]}")
                )
                continue
            self._lines[(*key, name)] = line
            made[name] = self._plain(value_node, (*key, name), loader)
        return made

    def _examine(self, value: Any, kind: Any, key: Key, unwritten: frozenset[str]) -> None:
        kind, constraint = _bare(kind)
        if _is_optional(kind):
            if value is None:
                return
            kind, constraint = _bare(next(one for one in get_args(kind) if one is not types.NoneType))
        origin = get_origin(kind)
        if origin in (Union, types.UnionType) and isinstance(value, dict):
            # Of several forms the mapping is meant, where there is one.
            kind = next((one for one in get_args(kind) if isinstance(one, type) and issubclass(one, msgspec.Struct)), kind)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            self._struct(value, kind, key, unwritten)
        elif origin is dict and isinstance(value, dict):
            self._dict(value, kind, constraint, key)
        elif origin is tuple and isinstance(value, list):
            for index, item in enumerate(value):
                self._examine(item, get_args(kind)[0], (*key, index), frozenset())
            self._length(len(value), constraint, key)
        else:
            self._leaf(value, kind, constraint, key)

    def _struct(self, value: Any, kind: type[msgspec.Struct], key: Key, unwritten: frozenset[str]) -> None:
        if not isinstance(value, dict):
            self.problem(key, f"expected a mapping, got {_noun(value)}")
            return
        hints = get_type_hints(kind, include_extras=True)
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind) if field.name not in unwritten}
        for name in value:
            if name not in fields:
                self.problem((*key, name), f"unknown key{_suggest(name, fields)}")
        for name, field in fields.items():
            if name in value:
                self._examine(value[name], hints[field.name], (*key, name), frozenset())
            elif field.required:
                self.problem((*key, name), f"missing; it must be {_allowed(hints[field.name])}")

    def _dict(self, value: dict[str, Any], kind: Any, constraint: Any, key: Key) -> None:
        name_kind, item_kind = get_args(kind)
        for name, item in value.items():
            self._leaf(name, *_bare(name_kind), (*key, name))
            self._examine(item, item_kind, (*key, name), frozenset())
        self._length(len(value), constraint, key)

    def _length(self, length: int, constraint: msgspec.Meta | None, key: Key) -> None:
        if constraint is not None and constraint.min_length is not None and length < constraint.min_length:
            self.problem(key, f"must have at least {constraint.min_length}, has {length}")

    def _leaf(self, value: Any, kind: Any, constraint: msgspec.Meta | None, key: Key) -> None:
        wanted = kind if constraint is None else Annotated[kind, constraint]
        try:
            msgspec.convert(value, Any if kind is Path and isinstance(value, str) else wanted)
        except msgspec.ValidationError as error:
            self.problem(key, _wording(error, value, kind, constraint))


def read(path: Path, missing: str, invalid: str) -> Document:
    """Return the file at ``path``.

    Args:
        path: the file.
        missing: code of the error where there is no such file.
        invalid: code of the error where it cannot be read.
    """
    try:
        return Document(path, path.read_bytes())
    except FileNotFoundError:
        raise MrcError(missing, f"there is no file {path}", where=str(path)) from None
    except OSError as error:
        raise MrcError(invalid, f"{path} cannot be read: {error.strerror}", where=str(path)) from None


def build(data: Mapping[str, Any], kind: type[T], base: Path) -> T:
    """Return examined ``data`` as ``kind``; every Path is made absolute, relative ones against ``base``."""
    return convert(data, kind, dec_hook=_path_hook(base))


def refuse(code: str, problems: tuple[Problem, ...]) -> MrcError:
    """Return the error for a file with ``problems``: the first one, with the others listed below it."""
    first, *others = problems
    lines = [first.message, *(f"also {other.where}: {other.message}" for other in others)]
    return MrcError(code, "\n".join(lines), where=first.where)


def dotted(key: Key) -> str:
    """Return ``key`` as people write it: ``regions.east.agents[0].id``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".")


def did_you_mean(word: str, words: Collection[str]) -> str:
    """Return `` (did you mean X?)`` where one of ``words`` is close to ``word``, else nothing."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def _path_hook(base: Path) -> Callable[[type, Any], Any]:
    def hook(kind: type, value: Any) -> Any:
        if kind is Path:
            return base / value
        raise NotImplementedError(kind)

    return hook


def _bare(kind: Any) -> tuple[Any, msgspec.Meta | None]:
    if get_origin(kind) is not Annotated:
        return kind, None
    bare, *notes = get_args(kind)
    return bare, next((note for note in notes if isinstance(note, msgspec.Meta)), None)


def _is_optional(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType) and types.NoneType in get_args(kind)


def _suggest(name: str, fields: Mapping[str, object]) -> str:
    return did_you_mean(name, fields.keys()) + f"; allowed: {', '.join(fields)}"


def _literals(kind: Any) -> Iterator[str]:
    return (str(one) for one in get_args(kind))


def _allowed(kind: Any) -> str:
    kind, constraint = _bare(kind)
    if get_origin(kind) is Literal:
        return " or ".join(_literals(kind))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_allowed(one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return "a list"
    if get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return "a mapping"
    noun = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}.get(kind, "given")
    return noun + _bounds(constraint)


def _bounds(constraint: msgspec.Meta | None) -> str:
    if constraint is None:
        return ""
    said = {
        "more than": constraint.gt,
        "at least": constraint.ge,
        "less than": constraint.lt,
        "at most": constraint.le,
        "like": constraint.pattern,
    }
    return "".join(f", {word} {value}" for word, value in said.items() if value is not None)


def _noun(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else repr(value)


def _wording(error: msgspec.ValidationError, value: Any, kind: Any, constraint: msgspec.Meta | None) -> str:
    if get_origin(kind) is Literal:
        near = did_you_mean(value, list(_literals(kind))) if isinstance(value, str) else ""
        return f"{_noun(value)} is not allowed{near}; allowed: {', '.join(_literals(kind))}"
    allowed = _allowed(kind if constraint is None else Annotated[kind, constraint])
    if allowed == "given":
        return str(error)
    reason = f": {constraint.description}" if constraint is not None and constraint.description else ""
    return f"expected {allowed}, got {_noun(value)}{reason}"
