"""What operators have mrc do: commands to run, addresses to call."""

from mrc.adapters.routing.command import CommandHook

__all__ = ["CommandHook"]
