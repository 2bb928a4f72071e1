"""Asks agents: all of them at once, the one that leads in a region, or any of it. Returns views.

Owns the channels and which agent is asked next. Invariant: every call has a deadline, and a dead agent costs at most the time
in which it would have had to say its version.
"""

from __future__ import annotations

import contextlib
import getpass
import queue
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc

import mrc
from mrc.config import Settings, TlsSettings
from mrc.control.api import ANSWER_BYTES_MAX, METHODS, SILENCE, path
from mrc.control.mapping import error_of, read
from mrc.core.errors import MrcError
from mrc.core.views import ExecutionView, VersionView

GREET_S = 1.5
"""How long an agent may take to say its version before the next one is asked."""

CALL_S = 10.0
"""Deadline of a call that is answered from what the agent has at hand."""

OBSERVE_S = 45.0
"""Deadline of a call that looks at clusters anew: `Plan` and `StartMove`."""

ELECTION_EVERY_S = 0.25
ELECTION_MORE_S = 2.0
"""How often a region without a leader is asked again, and for how much longer than a dead leader's session lasts."""

VERIFY_S = 600.0
WATCH_S = 3600.0
"""Deadlines of streams; a watch that runs into its deadline is begun again."""


class Address(NamedTuple):
    """Where an agent is, as the configuration says."""

    region: str
    agent: str
    address: str


class Answer(NamedTuple):
    """What one agent answered: a view, or why there is none."""

    asked: Address
    view: Any
    error: MrcError | None


class Client:
    """Asks the agents of one configuration. A context manager, for one thread.

    Attributes:
        election_s: how long a region whose agents answer may be without a leader before that is an error.
    """

    def __init__(self, settings: Settings, user: str | None = None) -> None:
        """Connect to nothing yet.

        Args:
            settings: whose agents to ask.
            user: what to call oneself where there is no mutual TLS; the operating system's user when left out.
        """
        self.agents = tuple(
            Address(region, agent.id, agent.grpc) for region, written in settings.regions.items() for agent in written.agents
        )
        self.election_s = settings.zookeeper.session_timeout_ms / 1000 + ELECTION_MORE_S
        self._tls = settings.grpc.tls
        self._metadata = (("mrc-user", user or _user()),)
        self._channels: dict[str, grpc.Channel] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close every channel."""
        while self._channels:
            self._channels.popitem()[1].close()

    # -- all agents

    def ask_all(self, method: str, *, deadline_s: float = 1.0, agents: Iterable[Address] | None = None, **fields: Any) -> list[Answer]:
        """Ask the agents (all, if not named) at once and return their answers in the order of the configuration, within ``deadline_s``."""
        asked = self.agents if agents is None else tuple(agents)
        answers = {answer.asked: answer for answer in self._race(method, asked, deadline_s, fields)}
        return [answers[one] for one in asked]

    def ask_any(self, method: str, *, deadline_s: float = CALL_S, **fields: Any) -> Any:
        """Ask all agents at once and return the first answer.

        Raises:
            MrcError: what an agent refused the request with where none answered it; ``AGENT_UNREACHABLE`` where none was there.
        """
        failed = []
        for answer in self._race(method, self.agents, deadline_s, fields):
            if answer.error is None:
                return answer.view
            failed.append(answer)
        raise worst(failed)

    def _race(self, method: str, asked: tuple[Address, ...], deadline_s: float, fields: Mapping[str, Any]) -> Iterator[Answer]:
        """Yield one answer per agent, in the order in which they come."""
        described = METHODS[method]
        done: queue.SimpleQueue[tuple[Address, Any]] = queue.SimpleQueue()
        calls = []
        for one in asked:
            call = self._callable(one.address, method).future(described.request(**fields), timeout=deadline_s, metadata=self._metadata)
            calls.append(call)
            call.add_done_callback(lambda ended, one=one: done.put((one, ended)))
        try:
            for _ in asked:
                one, ended = done.get()  # the deadline ends every call, so that this ends
                try:
                    yield Answer(one, read(ended.result(), described.view), None)
                except grpc.RpcError as failure:
                    yield Answer(one, None, error_of(failure, one.address))
                except MrcError as error:
                    yield Answer(one, None, error)
        finally:
            for call in calls:
                call.cancel()

    # -- one region's leader

    def ask_leader(self, region: str, method: str, *, deadline_s: float = CALL_S, **fields: Any) -> Any:
        """Ask the agent that leads in ``region``: any agent of it first, then where that one points to, then the others.

        Where an agent is there and none leads, or the one that led is gone, the election is waited for, for `election_s` at most.
        Asking again must be harmless, for an agent may die after it did what was asked: a move carries a token.

        Raises:
            MrcError: ``UNKNOWN_REGION``; what the leader refused the request with; ``NOT_LEADER`` where nobody leads;
                ``AGENT_UNREACHABLE`` with the addresses where nobody answers, or the leader does not in time.
        """
        until_s = time.monotonic() + min(deadline_s, self.election_s)
        while True:
            failed: list[Answer] = []
            tried: set[str] = set()
            ahead = self._of(region)
            while ahead:
                one = ahead.pop(0)
                if one.address in tried:
                    continue
                tried.add(one.address)
                try:
                    return self._ask(one.address, method, deadline_s, fields)
                except MrcError as error:
                    if error.code not in ("NOT_LEADER", "AGENT_UNREACHABLE"):
                        raise
                    failed.append(Answer(one, None, error))
                    if error.code == "NOT_LEADER" and error.where and one.agent:
                        ahead.insert(0, Address(region, "", error.where))
            answered = any(answer.error is not None and answer.error.code == "NOT_LEADER" for answer in failed)
            if not answered or time.monotonic() >= until_s:
                raise worst(failed)
            time.sleep(ELECTION_EVERY_S)

    # -- any agent of a region

    def ask_region(self, region: str, method: str, *, deadline_s: float = CALL_S, **fields: Any) -> Any:
        """Ask the agents of ``region``, in the order of the configuration, until one is there and has room. Asking again must be harmless.

        Raises:
            MrcError: ``UNKNOWN_REGION``; what an agent refused the request with; ``AGENT_BUSY``; ``AGENT_UNREACHABLE``.
        """
        (answer,) = self._first_with_room(region, lambda address: iter((self._ask(address, method, deadline_s, fields),)))
        return answer

    def stream_region(self, region: str, method: str, *, deadline_s: float, **fields: Any) -> Iterator[Any]:
        """Yield what the first agent of ``region`` that is there and has room streams.

        Raises as `ask_region`; a stream that breaks is not begun again.
        """
        return self._first_with_room(region, lambda address: self._stream(address, method, deadline_s, fields))

    def _first_with_room(self, region: str, ask: Callable[[str], Iterator[Any]]) -> Iterator[Any]:
        failed: list[Answer] = []
        for one in self._of(region):
            begun = False
            try:
                for view in ask(one.address):
                    begun = True
                    yield view
                return
            except MrcError as error:
                if begun or error.code not in ("AGENT_UNREACHABLE", "AGENT_BUSY"):
                    raise
                failed.append(Answer(one, None, error))
        raise worst(failed)

    # -- one agent

    def _ask(self, address: str, method: str, deadline_s: float, fields: Mapping[str, Any]) -> Any:
        self._greet(address)
        described = METHODS[method]
        try:
            answer = self._callable(address, method)(described.request(**fields), timeout=deadline_s, metadata=self._metadata)
        except grpc.RpcError as failure:
            error = error_of(failure, address)
            if error.code == "AGENT_UNREACHABLE" and failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                late = (
                    f"the agent has said its version, and has not answered {method} within {deadline_s:g} s; it may still do what was asked"
                )
                raise MrcError(error.code, late, where=address, retryable=True) from None
            raise error from None
        return read(answer, described.view)

    def _of(self, region: str) -> list[Address]:
        there = [one for one in self.agents if one.region == region]
        if not there:
            regions = ", ".join(dict.fromkeys(one.region for one in self.agents))
            raise MrcError("UNKNOWN_REGION", f"there is no region {region!r}; configured: {regions}")
        return there

    # -- streams

    def stream_leader(self, region: str, method: str, *, deadline_s: float = VERIFY_S, **fields: Any) -> Iterator[Any]:
        """Yield what the agent leading in ``region`` streams. Raises as `ask_leader`; a broken stream is not begun again."""
        yield from self._stream(self.leader(region).address, method, deadline_s, fields)

    def watch(self, execution: str, region: str) -> Generator[ExecutionView, None, None]:
        """Yield the execution at once and after each change until it has ended, from the agent leading in ``region`` or else any other.

        Raises:
            MrcError: ``UNKNOWN_EXECUTION``; ``AGENT_UNREACHABLE`` when the stream breaks: watch again.
        """
        answers = [a for a in self.ask_all("Version") if a.error is None]
        if not answers:
            raise _nobody(self.agents)
        best = max(answers, key=lambda answer: (answer.asked.region == region, answer.view.leads))
        yield from self._stream(best.asked.address, "WatchExecution", WATCH_S, {"execution_id": execution})

    def leader(self, region: str) -> Address:
        """Return the agent that leads in ``region``; an election is waited for.

        Raises:
            MrcError: ``UNKNOWN_REGION``, ``NOT_LEADER``, ``AGENT_UNREACHABLE``.
        """
        there = self._of(region)
        until_s = time.monotonic() + self.election_s
        while True:
            answers = [a for a in self.ask_all("Version", agents=there) if isinstance(a.view, VersionView)]
            if not answers:
                raise _nobody(there)
            for answer in answers:
                if answer.view.leads:
                    return answer.asked
            if time.monotonic() >= until_s:
                raise MrcError("NOT_LEADER", f"no agent leads in {region} now", where=region, retryable=True)
            time.sleep(ELECTION_EVERY_S)

    def _stream(self, address: str, method: str, deadline_s: float, fields: Mapping[str, Any]) -> Iterator[Any]:
        self._greet(address)
        described = METHODS[method]
        call = self._callable(address, method)(described.request(**fields), timeout=deadline_s, metadata=self._metadata)
        try:
            for message in call:
                yield read(message, described.view)
        except grpc.RpcError as failure:
            raise error_of(failure, address) from None
        finally:
            call.cancel()

    # -- channels

    def _channel(self, address: str) -> grpc.Channel:
        if address not in self._channels:
            options = [
                *SILENCE,
                ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
                ("grpc.primary_user_agent", f"mrc/{mrc.__version__}"),
                # An agent that comes back is found again within a second, not after grpc's usual two minutes.
                ("grpc.initial_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 1000),
                ("grpc.enable_http_proxy", 0),
            ]
            if self._tls is None:
                self._channels[address] = grpc.insecure_channel(address, options)
            else:
                self._channels[address] = grpc.secure_channel(address, _credentials(self._tls), options)
        return self._channels[address]

    def _greet(self, address: str) -> None:
        """Ask for the agent's version first, so that one that is dead, or frozen, is given up long before the call's own deadline."""
        method = METHODS["Version"]
        try:
            self._callable(address, "Version")(method.request(), timeout=GREET_S, metadata=self._metadata)
        except grpc.RpcError as failure:
            raise error_of(failure, address) from None

    def _callable(self, address: str, method: str) -> Any:
        described = METHODS[method]
        channel = self._channel(address)
        make = channel.unary_stream if described.streams else channel.unary_unary
        return make(
            path(method),
            request_serializer=described.request.SerializeToString,
            response_deserializer=described.response.FromString,
        )


def worst(failed: Sequence[Answer]) -> MrcError:
    """Return the error that says most: a refusal, before a leader that is late or silent, before a missing leader, before silence."""
    errors = [(answer, answer.error) for answer in failed if answer.error is not None]
    for _, error in errors:
        if error.code not in ("AGENT_UNREACHABLE", "NOT_LEADER"):
            return error
    silent = {answer.asked.address: error for answer, error in errors if error.code == "AGENT_UNREACHABLE"}
    for answer, error in errors:
        if error.code == "NOT_LEADER" and (late := silent.get(error.where)) is not None:
            said = answer.asked.agent or answer.asked.address
            message = f"{said} says that the agent at {error.where} leads, and that one is not heard: {late.message}. Ask again in a moment"
            return MrcError("AGENT_UNREACHABLE", message, where=error.where, retryable=True)
    for _, error in errors:
        if error.code == "NOT_LEADER":
            return error
    return _nobody([answer.asked for answer in failed], failed)


def _nobody(asked: Iterable[Address], failed: Iterable[Answer] = ()) -> MrcError:
    addresses = ", ".join(one.address for one in asked)
    reasons = dict.fromkeys(answer.error.message for answer in failed if answer.error is not None)
    why = f" ({'; '.join(reasons)})" if reasons else ""
    return MrcError("AGENT_UNREACHABLE", f"no agent answered{why}", where=addresses, retryable=True)


def _user() -> str:
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return "unknown"


def _credentials(tls: TlsSettings) -> grpc.ChannelCredentials:
    try:
        return grpc.ssl_channel_credentials(tls.ca_file.read_bytes(), tls.key_file.read_bytes(), tls.cert_file.read_bytes())
    except OSError as error:
        raise MrcError("CONFIG_INVALID", f"a file of grpc.tls cannot be read: {error}", where="grpc.tls") from None
