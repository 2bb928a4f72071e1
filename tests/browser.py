"""A headless Chromium that tests drive over a pipe, by the DevTools protocol: it says what it loaded, ran and drew."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

COMMAND_S = 60.0
NAMES = ("chromium", "chromium-browser", "google-chrome")

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)


class Browser:
    """One browser with one page. Requests, exceptions and complaints of what is shown are kept in the order in which they came."""

    def __init__(self, profile: Path) -> None:
        """Start it. Raises `FileNotFoundError` where there is none: `make setup` installs it."""
        program = next((found for name in NAMES if (found := shutil.which(name))), None)
        if program is None:
            raise FileNotFoundError("these tests need Chromium on the PATH; `make setup` installs it, or says how")
        (read_there, write_here), (read_here, write_there) = os.pipe(), os.pipe()
        # The protocol's pipe is descriptor 3 (in) and 4 (out) of the browser: only a shell can put them there.
        command = [
            "sh",
            "-c",
            f'exec "$0" "$@" 3</dev/fd/{read_there} 4>/dev/fd/{write_there}',
            program,
            *FLAGS,
            f"--user-data-dir={profile}",
        ]
        self._process = subprocess.Popen(
            command,
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "XDG_CONFIG_HOME": str(profile)},  # crash reports are beside no profile
        )
        os.close(read_there)
        os.close(write_there)
        self._in, self._out = write_here, read_here
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []
        target = self._ask("Target.createTarget", {"url": "about:blank"}, "")["targetId"]
        self._session = self._ask("Target.attachToTarget", {"targetId": target, "flatten": True}, "")["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._in)  # without it the browser ends by itself, and takes its temporary files along
        try:
            self._process.wait(COMMAND_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(COMMAND_S)
        os.close(self._out)

    def open(self, page: Path) -> None:
        """Show a file, from its beginning to its load event."""
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        self._until(lambda said: said.get("method") == "Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """Return what an expression comes to in the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, width: int, height: int, *, dark: bool = False) -> bytes:
        """Return the top of the page as PNG."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def requested(self) -> list[str]:
        """Return the addresses of everything that the page has asked for, itself first."""
        return [said["params"]["request"]["url"] for said in self.events if said.get("method") == "Network.requestWillBeSent"]

    def complaints(self) -> list[dict[str, Any]]:
        """Return exceptions, and what was written to the console or the browser's log."""
        methods = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Page.javascriptDialogOpening")
        return [said for said in self.events if said.get("method") in methods]

    # -- the protocol

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._ask(method, parameters, self._session)

    def _ask(self, method: str, parameters: dict[str, Any], session: str) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        os.write(self._in, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda said: said.get("id") == number)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _until(self, wanted: Any) -> dict[str, Any]:
        until_s = time.monotonic() + COMMAND_S
        while True:
            said = self._read(until_s)
            self.events.append(said)
            if wanted(said):
                return said

    def _read(self, until_s: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._out], [], [], max(0.0, until_s - time.monotonic()))
            data = os.read(self._out, 1 << 20) if ready else b""
            if not data:
                raise TimeoutError(f"the browser has not answered within {COMMAND_S:.0f} s, or has ended: {self._process.poll()}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        said: dict[str, Any] = json.loads(line)
        return said
