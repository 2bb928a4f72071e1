"""A command that sends clients to a region, with another that says where they are sent: a route of the operator's own making."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mrc.core.errors import MrcError
from mrc.core.inventory import Pointing
from mrc.core.model import Region
from mrc.ports import Hook


class CommandRoute:
    """The port `Route`. What was seen is compared right before the command is run: a command knows no compare-and-set.

    Args:
        command: sends clients to the region that its standard input names as ``target``.
        read_back: prints the name of the region that clients are sent to; nothing: to none.
        deadline_s: for each run.
    """

    def __init__(
        self, hook: Hook, command: Sequence[str], read_back: Sequence[str], regions: Collection[Region], deadline_s: float
    ) -> None:
        self.name = f"command {command[0]}"
        self._hook = hook
        self._command = tuple(command)
        self._read_back = tuple(read_back)
        self._regions = frozenset(regions)
        self._deadline_s = deadline_s

    def read(self) -> Pointing:
        """See `Route.read`."""
        said = self._run(self._read_back, {}).strip()[:200]
        return Pointing(region=said if said in self._regions else "", foreign=bool(said) and said not in self._regions, seen=(said,))

    def point(self, region: Region, seen: Pointing, told: Mapping[str, str]) -> None:
        """See `Route.point`."""
        if (now := self.read()).seen != seen.seen:
            raise self._changed(f"it led to {seen.seen[0] or 'nobody'}, and leads to {now.seen[0] or 'nobody'}")
        self._run(self._command, {**told, "source": seen.region, "target": region})
        if (now := self.read()).region != region:
            raise self._changed(f"sent to {region}, and read back it leads to {now.seen[0] or 'nobody'}")

    def _run(self, argv: Sequence[str], facts: Mapping[str, str]) -> str:
        try:
            return self._hook.run(argv, facts, self._deadline_s)
        except MrcError as error:
            if error.code != "HOOK_FAILED":
                raise
            raise MrcError("ROUTE_UNREACHABLE", error.message, where=self.name, retryable=True) from error

    def _changed(self, why: str) -> MrcError:
        return MrcError("ROUTE_CHANGED", why, where=self.name, retryable=True)
