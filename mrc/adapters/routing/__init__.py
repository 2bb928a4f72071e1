"""Redirecting clients by the operator's own command."""

from mrc.adapters.routing.command import CommandHook

__all__ = ["CommandHook"]
