"""What is decoded: by many threads at once, and what is no JSON."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from mrc.core.model import decode
from mrc.resolver.writing import ConflictRecord

CHILD = """
import sys, threading
import msgspec
from mrc.core.failover.execution import Entry
from mrc.core.failover.ledger import Ledger
from mrc.core.failover.measured import Measured
from mrc.core.failover.plan import Plan
from mrc.core.model import convert, decode

sys.setswitchinterval(1e-6)
go = threading.Event()
said = []

def ask(kind):
    go.wait()
    for form in (lambda: decode(b'{"tails": [{}], "steps": [{}], "event": {"type": "started"}}', kind), lambda: convert({}, kind)):
        try:
            form()
        except msgspec.ValidationError as error:
            said.append(str(error))

threads = [threading.Thread(target=ask, args=(kind,)) for kind in (Entry, Plan, Ledger, Measured) for _ in range(6)]
for thread in threads:
    thread.start()
go.set()
for thread in threads:
    thread.join()
assert len(said) == 2 * len(threads), said
"""


def test_structs_may_be_met_for_the_first_time_by_many_threads_at_once() -> None:
    for _ in range(12):
        done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (done.returncode, done.stderr)


@pytest.mark.parametrize("garbled", [b'{"id": "\xff"}', b'{"other": ' + b"[" * 100_000])
def test_text_that_is_not_utf_8_and_endless_nesting_are_refused_like_all_that_is_no_json(garbled: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(garbled, ConflictRecord)
