"""An agent's gRPC server: checks requests, names the actor, bounds what is in hand, and turns errors into rich statuses.

Refuses to listen beyond loopback without mutual TLS. Invariant: neither a stream, reflection's neither, nor a call that reads logs holds
the last worker, so that a call that answers at once is answered however many people watch and look things up.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from mrc.config import TlsSettings
from mrc.control.api import (
    ANSWER_BYTES_MAX,
    CONFLICT_SERVICE,
    CONFLICTS,
    COORDINATOR,
    METHODS,
    REQUEST_BYTES_MAX,
    SERVICE,
    SILENCE,
    Method,
    check,
)
from mrc.control.mapping import respond, status_of
from mrc.control.service import Caller, Dockets, Service
from mrc.core.errors import InvariantViolation, MrcError

_CALLS_MAX = 8
_STREAMS_MAX = 24
_WAITING_MAX = 32
_REFLECTIONS_MAX = 2
_ACTOR_CHARACTERS_MAX = 128
_USER_METADATA = "mrc-user"

_log = structlog.get_logger("mrc.control")


class Server:
    """The API of one agent, on one address.

    ``start`` once, ``stop`` as often as you like.
    """

    def __init__(self, service: Service, dockets: Dockets, address: str, tls: TlsSettings | None = None) -> None:
        """Prepare a server of ``service`` and ``dockets`` at ``address`` (host:port; port 0: a free one).

        Raises:
            MrcError: ``CONFIG_INVALID`` where the address is beyond loopback and there is no TLS, or a file of it cannot be read.
        """
        if tls is None and not _loopback(address):
            raise MrcError("CONFIG_INVALID", f"{address} is reachable from other machines; that needs grpc.tls", where="grpc.tls")
        self._address = address
        self._tls = tls
        self._streams = threading.BoundedSemaphore(_STREAMS_MAX)
        self._at_once = {name: threading.BoundedSemaphore(method.at_once) for name, method in METHODS.items() if method.at_once}
        self._stopping = threading.Event()
        self._workers = futures.ThreadPoolExecutor(_CALLS_MAX + _STREAMS_MAX, thread_name_prefix="grpc")
        self._health = health.HealthServicer()
        self._server = grpc.server(
            self._workers,
            handlers=[self._handlers(SERVICE, COORDINATOR, service), self._handlers(CONFLICT_SERVICE, CONFLICTS, dockets)],
            maximum_concurrent_rpcs=_CALLS_MAX + _STREAMS_MAX + _WAITING_MAX,
            options=[
                *SILENCE,
                ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
                ("grpc.max_send_message_length", ANSWER_BYTES_MAX),
                # Two agents on one port would each get half of the calls, and nobody would notice.
                ("grpc.so_reuseport", 0),
            ],
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(_Reflection(), self._server)

    def start(self) -> str:
        """Listen and serve; return the address with its real port. Raises ``CONFIG_INVALID`` where it is taken."""
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(self._address)
            else:
                port = self._server.add_secure_port(self._address, _credentials(self._tls))
        except RuntimeError as error:
            raise MrcError("CONFIG_INVALID", f"cannot listen on {self._address}: {error}", where=self._address) from None
        self._server.start()
        for name in ("", SERVICE, CONFLICT_SERVICE):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return f"{self._address.rpartition(':')[0]}:{port}"

    def stop(self, grace_s: float = 2.0) -> None:
        """Take no more calls, let those in hand end within ``grace_s``, then cut them off."""
        self._stopping.set()
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait(grace_s + 1.0)
        self._workers.shutdown(wait=False, cancel_futures=True)

    # -- one call

    def _handlers(self, service: str, methods: Mapping[str, Method[Any]], served: object) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            service, {name: self._handler(name, method, served) for name, method in methods.items()}
        )

    def _handler(self, name: str, method: Method[Any], served: object) -> grpc.RpcMethodHandler[Any, Any]:
        make = grpc.unary_stream_rpc_method_handler if method.streams else grpc.unary_unary_rpc_method_handler
        behaviour: Callable[..., Any] = (self._stream if method.streams else self._unary)(name, method, served)
        return make(behaviour, request_deserializer=method.request.FromString, response_serializer=method.response.SerializeToString)

    def _unary(self, name: str, method: Method[Any], served: object) -> Callable[[Message, grpc.ServicerContext], Message]:
        def call(request: Message, context: grpc.ServicerContext) -> Message:
            try:
                check(request)
                with self._room(name):
                    return respond(method.response, method.answer(served, request, self._caller(context)))
            except Exception as error:  # noqa: BLE001 - the funnel of one call
                self._refuse(error, context, method)

        return call

    def _stream(self, name: str, method: Method[Any], served: object) -> Callable[[Message, grpc.ServicerContext], Iterator[Message]]:
        def call(request: Message, context: grpc.ServicerContext) -> Iterator[Message]:
            try:
                check(request)
                with self._room(name):
                    for view in method.answer(served, request, self._caller(context)):
                        if not context.is_active():
                            return
                        yield respond(method.response, view)
                        self._require_running()
            except Exception as error:  # noqa: BLE001 - the funnel of one call
                self._refuse(error, context, method)

        return call

    @contextmanager
    def _room(self, name: str) -> Iterator[None]:
        """Take a place among the streams, and among the calls of a method that are served at a time. Raises ``AGENT_BUSY``."""
        method = METHODS[name]
        with ExitStack() as taken:
            for semaphore, words in (
                (self._streams if method.streams else None, f"{_STREAMS_MAX} streams are open"),
                (self._at_once.get(name), f"{method.at_once} calls of {name} are served"),
            ):
                if semaphore is not None:
                    if not semaphore.acquire(blocking=False):
                        raise MrcError("AGENT_BUSY", words, retryable=True)
                    taken.callback(semaphore.release)
            yield

    def _caller(self, context: grpc.ServicerContext) -> Caller:
        def check() -> None:
            self._require_running()
            if not context.is_active():
                raise MrcError("AGENT_UNREACHABLE", "the caller is gone")

        return Caller(self._actor(context), check)

    def _require_running(self) -> None:
        if self._stopping.is_set():
            raise MrcError("AGENT_UNREACHABLE", "the agent is stopping", retryable=True)

    def _refuse(self, error: Exception, context: grpc.ServicerContext, method: Method[Any]) -> NoReturn:
        """End the call; grpc does so by an exception of its own."""
        if not isinstance(error, MrcError) or isinstance(error, InvariantViolation):
            _log.error("call failed", method=method.request.DESCRIPTOR.name, exc_info=error)
            error = InvariantViolation("the agent found itself in a state that must not be; its log says more")
        context.abort_with_status(status_of(error))

    def _actor(self, context: grpc.ServicerContext) -> str:
        if self._tls is not None:
            return _certified(context)
        said = next((value for key, value in context.invocation_metadata() or () if key == _USER_METADATA), "")
        name = said if isinstance(said, str) and said.isprintable() else ""
        return f"{name[:_ACTOR_CHARACTERS_MAX] or 'unknown'} (unauthenticated)"


class _Reflection(reflection.ReflectionServicer):  # type: ignore[misc]  # it has no types
    """Tells which services there are, few callers at a time: each holds a worker for as long as he stays."""

    def __init__(self) -> None:
        super().__init__((SERVICE, CONFLICT_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME))
        self._room = threading.BoundedSemaphore(_REFLECTIONS_MAX)

    def ServerReflectionInfo(self, request_iterator: Iterator[Message], context: grpc.ServicerContext) -> Iterator[Message]:  # noqa: N802
        if not self._room.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_REFLECTIONS_MAX} others are told")
        try:
            yield from super().ServerReflectionInfo(request_iterator, context)
        finally:
            self._room.release()


def _certified(context: grpc.ServicerContext) -> str:
    """Return the name in the client's certificate: its common name, else its first alternative name."""
    proved = context.auth_context()
    for key in ("x509_common_name", "x509_subject_alternative_name"):
        for name in proved.get(key, ()):
            if name:
                return bytes(name).decode(errors="replace")[:_ACTOR_CHARACTERS_MAX]
    raise MrcError("UNAUTHENTICATED", "the client's certificate carries no name")


def _loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _credentials(tls: TlsSettings) -> grpc.ServerCredentials:
    try:
        pair, ca = (tls.key_file.read_bytes(), tls.cert_file.read_bytes()), tls.ca_file.read_bytes()
    except OSError as error:
        raise MrcError("CONFIG_INVALID", f"a file of grpc.tls cannot be read: {error}", where="grpc.tls") from None
    return grpc.ssl_server_credentials([pair], root_certificates=ca, require_client_auth=True)
