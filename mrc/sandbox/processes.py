"""The processes of one sandbox: started detached, found again by what they carry, ended within bounds.

Owns no record of pids. Each process is started with the state folder and its part's name in its environment, which the
kernel shows in ``/proc``; whoever carries them belongs to the sandbox, however mrc itself ended. Signals go through a
pidfd that was opened before the environment was read, so a pid that was given to somebody else is never signalled.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from mrc.core.errors import MrcError

FOLDER_MARK = "MRC_SANDBOX_PROCESS_OF"
PART_MARK = "MRC_SANDBOX_PART"
KILL_WAIT_S = 60.0


class Process(msgspec.Struct, frozen=True):
    """A live process of the sandbox.

    Attributes:
        part: the name it was started under; its children carry the same.
        pid: its process id now.
        leads: whether it is the part itself rather than a child of it.
        rss_mb: resident memory in MiB.
    """

    part: str
    pid: int
    leads: bool
    rss_mb: int


def spawn(folder: Path, part: str, argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> int:
    """Start ``argv`` in a session of its own, its output appended to ``log``, and return its pid. Survives this process.

    It inherits no other open file: whoever called mrc may hold a lock on one, which would last as long as the servers.

    Raises ``SANDBOX_FAILED`` when the program cannot be started, or where there is no ``/proc`` to find it again.
    """
    if not Path("/proc/self/environ").exists():
        raise MrcError("SANDBOX_FAILED", "the sandbox runs on Linux only: it finds its processes through /proc")
    log.parent.mkdir(parents=True, exist_ok=True)
    carried = {**marked(folder, part), **(environment or {})}
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    quiet = os.open(os.devnull, os.O_RDONLY)
    try:
        streams = [(os.POSIX_SPAWN_DUP2, quiet, 0), (os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, out, 2)]
        actions = [*streams, *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited())]
        # Ctrl-C of the terminal must not reach it, and nobody's ignored signals are handed down.
        defaults = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE]
        pid = os.posix_spawn(argv[0], list(argv), carried, file_actions=actions, setsid=True, setsigdef=defaults, setsigmask=[])
    except OSError as error:
        raise MrcError("SANDBOX_FAILED", f"cannot start {argv[0]}: {error.strerror}", where=part) from error
    finally:
        os.close(out)
        os.close(quiet)
    _await_marks(pid)
    return pid


def _inherited() -> list[int]:
    """Return the descriptors, the standard streams aside, that a child of this process would find open."""
    return [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and _is_inheritable(fd)]


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False  # closed meanwhile, as the listing's own


def _await_marks(pid: int) -> None:
    """Wait until the process shows its environment: the kernel sets that up a moment after the program was started."""
    for _ in range(400):
        try:
            if Path(f"/proc/{pid}/environ").read_bytes() or os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
        except (OSError, ChildProcessError):
            return  # gone already: whoever waits for the part to work says so
        time.sleep(0.005)


def marked(folder: Path, part: str) -> dict[str, str]:
    """Return this process's environment with the marks that make whoever carries them a process of the sandbox."""
    return {**os.environ, FOLDER_MARK: str(folder), PART_MARK: part}


def find(folder: Path) -> list[Process]:
    """Return every live process of the sandbox at ``folder``, sorted by part."""
    found = []
    for pid in _pids():
        part = _part_of(pid, folder)
        if part is not None:
            found.append(Process(part, pid, _session(pid) == pid, _rss_mb(pid)))
    return sorted(found, key=lambda process: (process.part, not process.leads, process.pid))


def running(folder: Path) -> dict[str, Process]:
    """Return the live process of each part; children are left out."""
    return {process.part: process for process in find(folder) if process.leads}


def end(folder: Path, parts: Iterable[str] | None = None, *, grace_s: float) -> list[Process]:
    """End the processes of ``parts`` (None: of all, whatever their name) and return them once all are gone.

    TERM first, then KILL after ``grace_s``; with 0 KILL at once. Takes at most ``grace_s`` plus 10 s per pass, and looks
    again for what was started meanwhile. Raises ``SANDBOX_FAILED`` when something outlives KILL.
    """
    wanted = None if parts is None else set(parts)
    ended: list[Process] = []
    for _ in range(3):
        victims = [process for process in find(folder) if wanted is None or process.part in wanted]
        if not victims:
            return ended
        held = [(fd, victim) for victim in victims if (fd := _hold(victim, folder)) is not None]
        try:
            _end_held([fd for fd, _ in held], grace_s)
        finally:
            for fd, _ in held:
                os.close(fd)
        ended += [victim for _, victim in held]
    left = [process for process in find(folder) if wanted is None or process.part in wanted]
    if left:
        raise MrcError("SANDBOX_FAILED", f"could not end {', '.join(f'{p.part} (pid {p.pid})' for p in left)}", where=str(folder))
    return ended


def send(folder: Path, parts: Iterable[str], number: signal.Signals) -> None:
    """Send a signal to those of ``parts`` that run."""
    wanted = set(parts)
    held = [fd for process in find(folder) if process.part in wanted and (fd := _hold(process, folder)) is not None]
    try:
        _send(held, number)
    finally:
        for fd in held:
            os.close(fd)


def stopped(pid: int) -> bool:
    """Whether a process stands still because of SIGSTOP."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


def _hold(victim: Process, folder: Path) -> int | None:
    """Return a pidfd that is certain to be the victim's; None where it is gone."""
    try:
        fd = os.pidfd_open(victim.pid)
    except ProcessLookupError:
        return None
    # From here on the descriptor names one process for ever; only now does reading the environment prove which.
    if _part_of(victim.pid, folder) == victim.part:
        return fd
    os.close(fd)
    return None


def _end_held(fds: list[int], grace_s: float) -> None:
    left = fds
    if grace_s > 0:
        _send(left, signal.SIGTERM)
        left = _wait_gone(left, grace_s)
    _send(left, signal.SIGKILL)
    left = _wait_gone(left, KILL_WAIT_S)
    for fd in set(fds) - set(left):
        _reap(fd)


def _send(fds: Iterable[int], number: signal.Signals) -> None:
    for fd in fds:
        try:
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            continue


def _wait_gone(fds: Iterable[int], timeout_s: float) -> list[int]:
    """Return those of ``fds`` whose process still lives at the end of the wait."""
    left = set(fds)
    watch = select.poll()
    for fd in left:
        watch.register(fd, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while left and (rest_s := deadline - time.monotonic()) > 0:
        for fd, _ in watch.poll(rest_s * 1000):
            watch.unregister(fd)
            left.discard(fd)
    return list(left)


def _reap(fd: int) -> None:
    """Take the exit status of a child of this process, so that it does not stay behind as a zombie."""
    try:
        os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return


def _pids() -> list[int]:
    own = os.getpid()
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and int(entry.name) != own]


def _part_of(pid: int, folder: Path) -> str | None:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None  # gone, or somebody else's
    carried = dict(entry.split(b"=", 1) for entry in environ.split(b"\0") if b"=" in entry)
    if carried.get(FOLDER_MARK.encode()) != os.fsencode(folder):
        return None
    return os.fsdecode(carried.get(PART_MARK.encode(), b"")) or None


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _rss_mb(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // (1 << 20)
