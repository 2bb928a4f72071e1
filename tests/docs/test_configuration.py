"""The examples have no error, and the tables of keys say what the code does, key by key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import yaml

from mrc.config import check
from mrc.config.settings import Settings
from mrc.core.failover.runbook import Runbook
from tests.docs.reading import ROOT, blocks, rows

FILES = (
    "secrets/mrc",
    "secrets/probe",
    "ca.pem",
    "tls/agent.pem",
    "tls/agent.key",
    "tls/ca.pem",
    "runbooks/failover.yaml",
    "conflicts.yaml",
)


class Key(NamedTuple):
    """A key as the code has it: its default as a table writes it, and words that its row must hold (allowed values, bounds)."""

    name: str
    default: str
    words: tuple[str, ...]


def text(name: str = "configuration") -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def examples() -> list[str]:
    return [block.text for block in blocks(text()) if block.language == "yaml"]


def keys(kind: type[msgspec.Struct]) -> Iterator[Key]:
    """Every key of a file, without those that the loader fills."""
    described = msgspec.inspect.type_info(kind)
    assert isinstance(described, msgspec.inspect.StructType)
    return (key for key in _of(described, "") if key.name not in ("base", "left_out"))


def _of(struct: msgspec.inspect.StructType, prefix: str) -> Iterator[Key]:
    for field in struct.fields:
        yield from _under(field.type, f"{prefix}{field.encode_name}", _default(field))


def _under(kind: msgspec.inspect.Type, name: str, default: str) -> Iterator[Key]:
    match kind:
        case msgspec.inspect.StructType():
            yield from _of(kind, f"{name}.")
        case msgspec.inspect.DictType(value_type=msgspec.inspect.StructType() as inner):
            yield from _of(inner, f"{name}.NAME.")
        case msgspec.inspect.VarTupleType(item_type=msgspec.inspect.StructType() as inner):
            yield from _of(inner, f"{name}[].")
        case msgspec.inspect.UnionType(types=(msgspec.inspect.BoolType(), msgspec.inspect.StructType() as inner)):
            yield Key(name, default, ())
            yield from _of(inner, f"{name}.")
        case msgspec.inspect.UnionType():
            real = next(one for one in kind.types if not isinstance(one, msgspec.inspect.NoneType))
            if isinstance(real, msgspec.inspect.StructType):
                yield Key(name, default, ())
            yield from _under(real, name, default)
        case msgspec.inspect.LiteralType():
            yield Key(name, default, tuple(map(str, kind.values)))
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            bounds = (kind.ge, kind.gt, kind.le, kind.lt)
            yield Key(name, default, tuple(f"{bound:g}" for bound in bounds if bound is not None))
        case _:
            yield Key(name, default, ())


def _default(field: msgspec.inspect.Field) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    match value:
        case None | "" | () | {}:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case tuple():
            return json.dumps(value)
    return str(value)


def documented(kind: type[msgspec.Struct]) -> dict[str, tuple[str, ...]]:
    """The rows of a file's own table of keys, by key."""
    keys_of_runbooks = text("runbooks").partition("\n## Every key\n")[2].partition("\n## When a step fails\n")[0]
    told = text() if kind is Settings else keys_of_runbooks
    return {row[0].strip("`"): row for row in rows(told) if row[0].startswith("`")}


@pytest.mark.parametrize("kind", [Settings, Runbook])
def test_every_key_has_a_row_with_its_default_its_allowed_values_and_its_bounds(kind: type[msgspec.Struct]) -> None:
    table = documented(kind)
    there = {key.name: key for key in keys(kind)}
    assert set(table) == set(there)
    for name, key in there.items():
        assert table[name][2] == key.default, name
        assert [word for word in key.words if word not in table[name][1]] == [], name


def test_the_example_of_the_configuration_has_no_error_and_names_every_key(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "secrets" / "dns.key").write_text('key "mrc" { algorithm hmac-sha256; secret "c2VjcmV0"; };')
    path = tmp_path / "mrc.yaml"
    path.write_text(examples()[0])
    settings, problems = check(path)
    assert problems == ()
    assert settings is not None
    assert settings.replication_groups[0].probe is not None
    assert {key.name for key in keys(Settings)} == set(_written(yaml.safe_load(examples()[0])))


def _written(data: object, name: str = "") -> Iterator[str]:
    """The keys of a file in the tables' words."""
    match data:
        case dict() if name == "regions":
            for value in data.values():
                yield from _written(value, "regions.NAME")
        case dict() if name.endswith((".divergence.topics", ".old_logs", ".values", ".servers")):
            yield name
        case dict():
            if name in ("grpc.tls", "replication_groups[].probe", "replication_groups[].routing"):
                yield name
            for key, value in data.items():
                yield from _written(value, f"{name}.{key}" if name else key)
        case [dict(), *_]:
            for value in data:
                yield from _written(value, f"{name}[]")
        case _:
            yield name
