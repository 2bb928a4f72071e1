"""`Shelves` in RocksDB: one database per partition; a batch and the offset behind it are one write.

The write-ahead log is not synced with each batch: what a power cut takes, the changelog gives back, for the offset goes with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from rocksdict import Options, Rdict, WriteBatch

from mrc.core.errors import MrcError
from mrc.core.model import Offset

_OFFSET = b"\x00offset"
_IDENTITY = b"\x00identity"


class RocksShelf:
    """See `Shelf`."""

    def __init__(self, database: Rdict) -> None:
        self._database: Rdict | None = database

    def offset(self) -> Offset:
        """See `Shelf.offset`."""
        return Offset(int(self._open().get(_OFFSET) or b"0"))

    def get(self, key: bytes) -> bytes | None:
        """See `Shelf.get`."""
        found: bytes | None = self._open().get(key)
        return found

    def items(self, prefix: bytes, begin: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """See `Shelf.items`."""
        for key, value in self._open().items(from_key=max(prefix, begin)):
            if not isinstance(key, bytes) or not key.startswith(prefix):
                return
            yield key, value

    def apply(self, writes: Mapping[bytes, bytes | None], offset: Offset) -> None:
        """See `Shelf.apply`."""
        batch = WriteBatch(raw_mode=True)
        for key, value in writes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(_OFFSET, str(offset).encode())
        self._open().write(batch)

    def close(self) -> None:
        """See `Shelf.close`."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def note(self, identity: str) -> None:
        """Write down for what the shelf was made."""
        self._open()[_IDENTITY] = identity.encode()

    def identity(self) -> str:
        """Return for what the shelf was made; empty: it is new."""
        return (self._open().get(_IDENTITY) or b"").decode()

    def _open(self) -> Rdict:
        if self._database is None:
            raise MrcError("INVARIANT", "a closed shelf was used")
        return self._database


class RocksShelves:
    """See `Shelves`: the databases below one folder, which belongs to one process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, name: str, identity: str) -> RocksShelf:
        """See `Shelves.open`. Raises ``DISK_FAILED``, also where another process has the folder."""
        shelf = self._opened(name)
        if shelf.identity() not in ("", identity):
            shelf.close()
            self.wipe(name)
            shelf = self._opened(name)
        shelf.note(identity)
        return shelf

    def wipe(self, name: str) -> None:
        """See `Shelves.wipe`."""
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def _opened(self, name: str) -> RocksShelf:
        path = self._folder / name
        try:
            path.mkdir(parents=True, exist_ok=True)
            return RocksShelf(Rdict(str(path), _options()))
        except Exception as error:
            message = f"the state cannot be opened, or another process has it: {error}"
            raise MrcError("DISK_FAILED", message, where=str(path)) from error


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)  # noqa: FBT003 - the driver's signature
    options.set_write_buffer_size(32 << 20)
    options.set_max_write_buffer_number(3)
    options.set_keep_log_file_num(2)
    return options
