"""A real headless Chromium, spoken to over the DevTools protocol: opening pages, running scripts, saving files."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.clients import program

# --no-sandbox: its sandbox refuses root. The rest keeps it from looking for anything but what it is told to open.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
]
WITHIN_S = 30.0


class Browser:
    """A running one. ``call`` sends one command of the protocol; ``events`` are what it reported of the last step."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of one command. Events that come meanwhile are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        await self._socket.send_json(message if session is None else {**message, "sessionId": session})
        while True:
            answer = await self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    async def event(self, method: str, **wanted: str) -> dict[str, Any]:
        """Wait for an event with these parameters."""
        while True:
            for one in self.events:
                params: dict[str, Any] = one["params"]
                if one["method"] == method and all(params.get(key) == value for key, value in wanted.items()):
                    return params
            await self._receive()

    async def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._socket.receive_json(timeout=WITHIN_S)
        if "method" in message:
            self.events.append(message)
        return message

    async def open(self, url: str) -> str:
        """A new page; the session that speaks to it, when it has loaded."""
        self.events.clear()
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        session: str = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        await self.call("Page.enable", session)
        await self.call("Page.navigate", session, url=url)
        await self.event("Page.loadEventFired")
        return session

    async def script(self, session: str, expression: str) -> Any:
        """The value a promise of the page comes to."""
        got = await self.call("Runtime.evaluate", session, expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in got, got
        return got["result"].get("value")

    async def save(self, url: str, folder: Path) -> Path:
        """Download what ``url`` is into ``folder`` as a click on a link does; the file's path, when it is complete."""
        self.events.clear()
        await self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), eventsEnabled=True)
        await self.call("Target.createTarget", url=url)
        begun = await self.event("Browser.downloadWillBegin", url=url)
        await self.event("Browser.downloadProgress", guid=begun["guid"], state="completed")
        return folder / str(begun["suggestedFilename"])


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Chromium with a profile of its own; ended by its own pid, with everything it started."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program("chromium"),
            *FLAGS,
            f"--user-data-dir={profile}",
            "about:blank",
            env={**os.environ, "HOME": profile},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port, path = await _where(Path(profile) / "DevToolsActivePort", process)
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket,
            ):
                one = Browser(socket)
                yield one
                await one.call("Browser.close")
            async with asyncio.timeout(10):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _where(file: Path, process: asyncio.subprocess.Process) -> tuple[str, str]:
    """The DevTools port and path, which it writes when it listens."""
    async with asyncio.timeout(WITHIN_S):
        while not (file.exists() and len(lines := file.read_text().splitlines()) == 2):
            assert process.returncode is None, "chromium ended at its start"
            await asyncio.sleep(0.05)
    return lines[0], lines[1]
