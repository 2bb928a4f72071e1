"""The estate that commands are tried on: the control plane's own, agents on real sockets with answers from memory."""

from __future__ import annotations

from tests.control.conftest import estate

__all__ = ["estate"]
