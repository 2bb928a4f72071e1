#!/usr/bin/env python3
"""Generate `mrc/control/pb` from `proto/`; with --check, only say whether it would differ.

protoc makes modules that import one another as `mrc.v1`, the name of the API's package. Here they live in
`mrc.control.pb.mrc.v1`, so the import lines are rewritten; nothing else of the output is touched.
"""

from __future__ import annotations

import filecmp
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "proto"
TARGET = ROOT / "mrc" / "control" / "pb"
PACKAGE = "mrc.control.pb"
DOCSTRING = '"""Generated from `proto/` by `make proto`; changed there, never here."""\n'

OURS = re.compile(r"^(\s*)(from|import) (mrc\.v\d)", re.MULTILINE)


def generate(target: Path) -> None:
    """Write the package into the empty folder `target`."""
    protos = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.proto"))
    outputs = [f"--{plugin}_out={target}" for plugin in ("python", "grpc_python", "mypy", "mypy_grpc")]
    plugins = [f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCE}", *plugins, *outputs, *protos],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for path in sorted(target.rglob("*.py*")):
        path.write_text(OURS.sub(rf"\1\2 {PACKAGE}.\3", path.read_text()))
    for folder in (target, *(path for path in target.rglob("*") if path.is_dir())):
        (folder / "__init__.py").write_text(DOCSTRING)


def differences(left: Path, right: Path) -> list[str]:
    """Return the files that are not the same below both folders."""
    names = {str(path.relative_to(side)) for side in (left, right) for path in side.rglob("*.py*") if path.suffix in {".py", ".pyi"}}
    return sorted(name for name in names if not _same(left / name, right / name))


def _same(left: Path, right: Path) -> bool:
    return left.is_file() and right.is_file() and filecmp.cmp(left, right, shallow=False)


def main(arguments: list[str]) -> int:
    """Generate, or check; 1 when the committed code is not what `proto/` says."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        generate(made)
        if arguments == ["--check"]:
            stale = differences(made, TARGET)
            if stale:
                print(f"not what proto/ says (run `make proto`): {', '.join(stale)}", file=sys.stderr)
            return 1 if stale else 0
        shutil.rmtree(TARGET, ignore_errors=True)
        shutil.copytree(made, TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
