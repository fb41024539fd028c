"""A page in headless Chromium, by its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from jackd import needs

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 60.0


def require_browser() -> str:
    """Path of the program; skips the test where there is none, and fails with RTSEP_REQUIRE_AUDIO=1."""
    path = next(filter(None, map(shutil.which, PROGRAMS)), None)
    needs(path is not None, "no Chromium (apt install chromium)")
    return str(path)


class Page:
    """What is shown in the only tab."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.console: list[str] = []  # what was logged as an error

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol."""
        number = next(self._numbers)
        await self._socket.send_str(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads((await self._socket.receive(timeout=PATIENCE_S)).data)
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.console.append(json.dumps(message["params"]))
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]

    async def open(self, url: str, width: int = 1280, height: int = 900) -> None:
        await self.call("Page.enable")
        await self.call("Log.enable")
        await self.call("Runtime.enable")
        await self.size(width, height)
        await self.call("Page.navigate", url=url)

    async def size(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def value(self, expression: str) -> Any:
        """Of an expression in JavaScript."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, expression: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not await self.value(expression):
            assert time.monotonic() < end, (expression, self.console, await self.value("document.body.innerText"))
            await asyncio.sleep(0.1)

    async def click(self, selector: str) -> None:
        """As a person does, which lets a page play and listen."""
        box = await self.value(
            f"(element => (element.scrollIntoView(), element.getBoundingClientRect().toJSON()))"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, **where)

    async def picture(self, path: Path) -> None:
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def browser(*options: str):
    """A `Page`; its browser, with more options on its command line, ends with the context."""
    import aiohttp

    program = require_browser()
    with tempfile.TemporaryDirectory(prefix="rtsep", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program,
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
            f"--user-data-dir={profile}",
            *options,
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | {"HOME": profile},
        )
        try:
            opened, end = Path(profile) / "DevToolsActivePort", time.monotonic() + PATIENCE_S
            while not opened.exists() or len(opened.read_text().split()) < 2:
                assert process.returncode is None, f"{program} ended"
                assert time.monotonic() < end, f"{program} does not answer"
                await asyncio.sleep(0.1)
            port = opened.read_text().split()[0]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    (tab,) = [tab for tab in await answer.json() if tab["type"] == "page"]
                async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    yield Page(socket)
        finally:
            process.kill()
            await process.wait()
