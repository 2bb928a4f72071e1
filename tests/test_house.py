"""What must hold for the repository as a whole."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import mrc

ROOT = Path(__file__).parent.parent


def tracked() -> list[Path]:
    """Every file that belongs to the repository."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.fail("the house is judged by what git tracks")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def code_of(*folders: str) -> dict[str, str]:
    """Hand-written Python below these folders, by path."""
    roots = [ROOT / folder for folder in folders]
    paths = [path for path in tracked() if path.suffix == ".py" and any(path.is_relative_to(root) for root in roots)]
    return {str(path.relative_to(ROOT)): text_of(path) for path in paths if "control/pb/" not in str(path)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_locked_with_hashes_and_without_addresses() -> None:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    lock = text_of(ROOT / "requirements.lock")
    locked = {normal(name) for name in re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.MULTILINE)}
    assert {normal(re.split(r"[<>=~! ;\[]", line)[0]) for line in wanted} <= locked
    assert "://" not in lock
    for entry in re.split(r"\n(?=\S)", lock.strip()):
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_version_is_the_newest_in_the_changes() -> None:
    newest = re.search(r"^## (\S+)", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == mrc.__version__


def test_nothing_is_left_to_do_in_the_code() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    here = str(Path(__file__).relative_to(ROOT))
    found = [path for path, text in code_of("mrc", "tests", "benchmarks").items() if path != here and marks.search(text)]
    assert found == []


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    places = re.compile(r"(/home/|/Users/|/root/|/work/)[a-z]")
    here = Path(__file__)
    found = [str(path.relative_to(ROOT)) for path in tracked() if path != here and places.search(text_of(path))]
    assert found == []


def test_every_link_between_documents_leads_somewhere() -> None:
    links = [
        (path, target)
        for path in tracked()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(path))
        if "://" not in target and not target.startswith("mailto:")
    ]
    assert [f"{path.relative_to(ROOT)}: {target}" for path, target in links if not (path.parent / target).exists()] == []


def test_only_one_place_builds_decoders_of_structs() -> None:
    """Two threads that build one at once kill the process: see `mrc.core.model.decoder`. On import there is one thread."""
    builds = re.compile(r"msgspec\.(?:json\.decode\([^\n]*type=|convert\(|(?:json|yaml|msgpack)\.Decoder\()")
    found = {path: [line for line in text.splitlines() if builds.search(line)] for path, text in code_of("mrc").items()}
    del found["mrc/core/model.py"]
    scalars = "msgspec.convert(value, Any if kind is Path and isinstance(value, str) else wanted)"
    inside = [(path, line) for path, lines in found.items() for line in lines if line.startswith(" ") and scalars not in line]
    assert inside == []
