"""Run mrc as its users do: as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(*arguments: str, cwd: Path | None = None, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``mrc`` with these arguments, without a configuration in the environment."""
    given = {name: value for name, value in os.environ.items() if name not in {"MRC_CONFIG", "COLUMNS"}}
    return subprocess.run(
        [sys.executable, "-m", "mrc", *arguments],
        cwd=cwd,
        env={**given, "PYTHONPATH": str(Path(__file__).parents[2]), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
