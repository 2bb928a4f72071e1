"""The Java side of the sandbox: one folder of jars, fetched once by Maven from the pom beside this file.

Owns the cache folder. A folder that exists is complete: it is filled under another name and renamed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from mrc.core.errors import MrcError

POM = Path(__file__).with_name("pom.xml")
LOGGING = Path(__file__).with_name("log4j2.properties")
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
FETCH_TIMEOUT_S = 600.0


def folder(pom: Path = POM) -> Path:
    """Return where a pom's jars are or will be: below ``MRC_CACHE`` (default ``~/.cache/mrc``)."""
    cache = Path(os.environ.get("MRC_CACHE") or Path.home() / ".cache" / "mrc")
    return cache / "jars" / hashlib.sha256(pom.read_bytes()).hexdigest()[:16]


def java() -> str:
    """Return the path of ``java``. Raises ``SANDBOX_FAILED`` where there is none."""
    return _tool("java", "openjdk-17-jre-headless")


def fetch(say: Callable[[str], None], pom: Path = POM) -> Path:
    """Return the folder of a pom's jars, filling it first where it is missing (about 60 MB, once per pom).

    Safe beside another fetch: whoever renames first wins. Raises ``SANDBOX_FAILED`` without Java or Maven, when Maven
    fails, and where the cache cannot be written.
    """
    target = folder(pom)
    java()
    if target.is_dir():
        return target
    maven = _tool("mvn", "maven")
    say(f"fetching the jars of {'Kafka and ZooKeeper' if pom == POM else pom.parent.name} with Maven (once)")
    filling = _empty_beside(target)
    try:
        _run([maven, "-B", "-q", "-f", str(pom), COPY, f"-DoutputDirectory={filling}"])
        filling.chmod(0o755)
        _publish(filling, target)
    finally:
        shutil.rmtree(filling, ignore_errors=True)
    return target


def _empty_beside(target: Path) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".filling-", dir=target.parent))
    except OSError as error:
        what = f"no jars can be kept here: {error.strerror}; name another folder with MRC_CACHE"
        raise MrcError("SANDBOX_FAILED", what, where=str(target.parent)) from error


def _publish(filling: Path, target: Path) -> None:
    try:
        filling.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as expired:
        raise MrcError("SANDBOX_FAILED", f"Maven did not finish in {FETCH_TIMEOUT_S:.0f} s", where=str(POM), retryable=True) from expired
    if done.returncode != 0:
        said = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
        what = f"Maven failed; see that it reaches its repository, and run this again: {said[0] if said else 'it said nothing'}"
        raise MrcError("SANDBOX_FAILED", what, where=str(POM), retryable=True)


def _tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MrcError("SANDBOX_FAILED", f"`{name}` is not installed; on Debian: apt-get install {package}")
    return found
