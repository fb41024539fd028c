"""The server of the browser panel: one page and one WebSocket, for this machine and who knows the token.

It runs in a thread of its own, and the audio thread knows nothing of it: it reads what a stream reports, and sets what
every program may set while a stream runs.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtsep.errors import ConfigError, LiveError
from rtsep.web.remote import KINDS, Remote

try:
    from aiohttp import WSMsgType, web
except ModuleNotFoundError as problem:
    raise ConfigError('the panel in the browser needs aiohttp: pip install "rtsep[web]"') from problem

if TYPE_CHECKING:
    from rtsep.live import LiveStream

HOST = "127.0.0.1"  # loopback alone
INTERVAL_S = 0.1  # between two states
MAX_CLIENTS = 8
MAX_MESSAGE = 4096  # bytes
RATE, BURST = 50.0, 200.0  # messages a second that a client may send, and how many at once
WAITING = 8  # messages for a client that does not read them; of more, the oldest are left out
PATIENCE_S = 5.0
TOO_MANY = 1008  # close code of RFC 6455: policy violation
PAGE = Path(__file__).parent / "page"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Serves a stream on the loopback interface, from `start` to `close`; a context manager.

    Parameters
    ----------
    stream : LiveStream
        Running.
    port : int
        0 for any that is free.

    Attributes
    ----------
    token : str
        Without it nothing is answered.
    url : str
        Of the page, with the token; known after `start`.
    """

    def __init__(self, stream: LiveStream, port: int = 0) -> None:
        self.token, self.url = secrets.token_urlsafe(16), ""
        self._stream, self._port = stream, port
        self._remote = Remote(stream)
        self._clients: set[_Client] = set()
        self._hosts: set[str] = set()  # names of this host that a request may be for
        self._started = threading.Event()
        self._problem: str | None = None
        # One looks, one acts: what takes its time, as a new latency does, keeps nobody else waiting.
        self._looking, self._acting = (
            ThreadPoolExecutor(1, thread_name_prefix=f"rtsep web {name}") for name in ("looks", "acts")
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="rtsep web", daemon=True)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Serve. Raises `LiveError` if the port is not free."""
        self._thread.start()
        self._started.wait()
        if self._problem is not None:
            raise LiveError(f"the panel cannot be served on port {self._port}: {self._problem}")

    def close(self) -> None:
        """Serve no more. Harmless the second time."""
        if self._loop is not None and self._ending is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._ending.set)
        if self._thread.is_alive():
            self._thread.join(PATIENCE_S)
        for executor in (self._looking, self._acting):
            executor.shutdown(wait=False, cancel_futures=True)
        self._remote.look_away()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as problem:
            self._problem = getattr(problem, "strerror", None) or str(problem)
            if self._started.is_set():
                self._stream.say(f"the panel in the browser ended: {type(problem).__name__}: {problem}")
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_MESSAGE)
        app.router.add_get("/", self._page)
        app.router.add_get("/ws", self._talk)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, HOST, self._port)
            await site.start()
            port = runner.addresses[0][1]
            self._hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
            self.url = f"http://{HOST}:{port}/?token={self.token}"
            self._started.set()
            telling = asyncio.create_task(self._tell())
            ending = asyncio.create_task(self._ending.wait())
            await asyncio.wait({telling, ending}, return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
            telling.cancel()
            for client in list(self._clients):
                await client.socket.close(code=1001, message=b"the stream ends")
        finally:
            await runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let in who comes from here and knows the token.

        A page from elsewhere has another origin, and one that got at this address by a name of its own another host.
        """
        origin = request.headers.get("Origin")
        given = request.query.get("token", "")
        if request.headers.get("Host") not in self._hosts:
            return web.Response(status=403, text="another host\n")
        if origin is not None and origin not in {f"http://{host}" for host in self._hosts}:
            return web.Response(status=403, text="another origin\n")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return web.Response(status=403, text="the address that `rtsep live --web` printed has the token\n")
        return await handler(request)

    async def _page(self, request: web.Request) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        parts = {name: (PAGE / name).read_text("utf-8") for name in ("page.html", "style.css", "panel.js")}
        text = parts["page.html"].replace("{nonce}", nonce)
        text = text.replace("{style}", parts["style.css"]).replace("{script}", parts["panel.js"])
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
            f"connect-src ws://{request.host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        headers = {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        if len(self._clients) >= MAX_CLIENTS:
            return web.Response(status=503, text=f"{MAX_CLIENTS} others look on already\n")
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, heartbeat=30, compress=False, timeout=1.0)
        client = _Client(socket)
        self._clients.add(client)
        sending = None
        try:
            await socket.prepare(request)
            client.tell(self._remote.hello())
            client.tell(await self._look(self._remote.messages))
            sending = asyncio.create_task(client.send())
            async for message in socket:
                if not client.may_speak(time.monotonic()):
                    await socket.close(code=TOO_MANY, message=b"too many messages")
                elif message.type != WSMsgType.TEXT:
                    await socket.close(code=TOO_MANY, message=b"JSON in text messages only")
                else:
                    await socket.send_str(json.dumps(await self._answer(client, message.data)))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._clients.discard(client)
            if sending:
                sending.cancel()
        return socket

    async def _answer(self, client: _Client, text: str) -> dict[str, Any]:
        """Do what a message says; the answer to it."""
        answer: dict[str, Any] = {"type": "answer"}
        try:
            try:
                command = json.loads(text)
            except (ValueError, RecursionError):
                raise ConfigError("this is not JSON") from None
            if not isinstance(command, dict):
                raise ConfigError("a command is an object")
            if "id" in command:
                answer["id"] = command.pop("id")
            if set(command) == {"watch"}:
                client.watch(command["watch"])
            else:
                await asyncio.get_running_loop().run_in_executor(self._acting, self._remote.obey, command)
        except (ConfigError, LiveError, OverflowError) as problem:
            return answer | {"error": str(problem)}
        return answer | {"done": True}

    async def _look(self, look: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._looking, look)

    async def _tell(self) -> None:
        """Tell the clients, again and again, what they watch."""
        told: Any = None
        while True:
            wanted = {kind for client in self._clients for kind in client.kinds}
            if "state" in wanted:
                self._spread("state", await self._look(self._remote.state))
                messages = await self._look(self._remote.messages)
                if told is not None and messages != told:
                    self._spread("state", messages)
                told = messages
            if "spectra" in wanted:
                spectra = await self._look(self._remote.spectra)
                if spectra:
                    self._spread("spectra", spectra)
            else:
                self._remote.look_away()
            await asyncio.sleep(INTERVAL_S)

    def _spread(self, kind: str, message: dict[str, Any]) -> None:
        text = json.dumps(message, separators=(",", ":"), allow_nan=False)
        for client in self._clients:
            if kind in client.kinds:
                client.tell(text)


class _Client:
    """Who is at the other end of a WebSocket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket, self.kinds = socket, {"state"}
        self._waiting: asyncio.Queue[str] = asyncio.Queue(WAITING)
        self._allowance, self._heard = BURST, time.monotonic()

    def watch(self, kinds: Any) -> None:
        """Kinds of messages to get from now on. Raises `ConfigError`."""
        if not isinstance(kinds, list) or not all(kind in KINDS for kind in kinds):
            raise ConfigError(f"watch={kinds!r} is not a list of {', '.join(KINDS)}")
        self.kinds = set(kinds)

    def may_speak(self, now: float) -> bool:
        """Whether another message, at the time `now` in seconds, is not one too many."""
        self._allowance = min(BURST, self._allowance + RATE * (now - self._heard)) - 1
        self._heard = now
        return self._allowance >= 0

    def tell(self, message: str | dict[str, Any]) -> None:
        """Send it, when the client gets to it."""
        if self._waiting.full():
            self._waiting.get_nowait()
        self._waiting.put_nowait(message if isinstance(message, str) else json.dumps(message))

    async def send(self) -> None:
        """Send what is waiting, until it is cancelled or nobody listens any more."""
        with suppress(ConnectionError):
            while True:
                await self.socket.send_str(await self._waiting.get())
