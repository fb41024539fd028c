"""The panel in the browser: its server, its protocol, its page, on a JACK server without hardware."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from jackd import JackServer, Player, require_audio
from signals import voices
from test_panel import Terminal

from rtsep import Separator, StreamConfig
from rtsep.estimators import Oracle, Passthrough
from rtsep.live import LiveError, LiveStream

aiohttp = pytest.importorskip("aiohttp", reason='aiohttp is not installed (pip install "rtsep[web]")')
from browser import browser, require_browser  # noqa: E402

from rtsep.web import Server  # noqa: E402
from rtsep.web.server import MAX_CLIENTS  # noqa: E402
from rtsep.web.spectra import N_BANDS, Spectra  # noqa: E402

SR, PERIOD = 16_000, 1024  # long: what a busy machine does to the server is not what is tested
DEMO = Path(__file__).parents[1] / "demos" / "remote.py"


@pytest.fixture(scope="module")
def server():
    require_audio()
    with JackServer(SR, PERIOD) as jack_server:
        yield jack_server


@pytest.fixture
def stream(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with LiveStream(Separator(StreamConfig(SR), Oracle(voices(SR)))) as made:
        yield made


@pytest.fixture
def panel(stream):
    with Server(stream) as made:
        yield made


class Client:
    """A remote control."""

    def __init__(self, socket):
        self.socket = socket

    async def hear(self, kind, seconds=20.0):
        """The next message of a kind."""
        end = time.monotonic() + seconds
        while True:
            message = await self.socket.receive(timeout=max(end - time.monotonic(), 0.01))
            assert message.type == aiohttp.WSMsgType.TEXT, message
            heard = json.loads(message.data)
            if heard["type"] == kind:
                return heard

    async def ask(self, **command):
        await self.socket.send_str(json.dumps(command))
        return await self.hear("answer")


def with_client(panel, talk, **options):
    """What `await talk(client)` gives."""

    async def run():
        async with aiohttp.ClientSession() as session, session.ws_connect(address(panel), **options) as socket:
            return await talk(Client(socket))

    return asyncio.run(run())


def address(panel, token=None):
    return panel.url.replace("/?", "/ws?").replace(panel.token, panel.token if token is None else token)


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# The protocol


def test_a_remote_control_hears_the_state_and_sets_what_is_heard(panel, stream):
    async def talk(client):
        hello = await client.hear("hello")
        assert (hello["protocol"], hello["sr"], hello["sources"]) == (1, SR, ["source1", "source2"])
        state = await client.hear("state")
        assert state["settings"] == {
            "solo": "source1",
            "strength_db": None,
            "bypass": False,
            "input_gain_db": 0,
            "output_gain_db": 0,
            "min_presence": 0,
            "gate_hold_ms": 250,
            "latency_ms": 16,
        }
        assert state["ledger"]["window"] == 256
        assert set(state["stats"]["levels_db"]) == {"mixture", "source1", "source2"}
        wanted = {
            "solo": "source2",
            "strength_db": 12,
            "bypass": True,
            "input_gain_db": 3,
            "output_gain_db": -4.5,
            "min_presence": 0.4,
            "gate_hold_ms": 100,
            "latency_ms": 8,
        }
        assert await client.ask(set=wanted, id="mine") == {"type": "answer", "id": "mine", "done": True}
        while (state := await client.hear("state"))["settings"]["solo"] != "source2":
            pass
        return wanted, state

    wanted, state = with_client(panel, talk)
    assert state["settings"] == pytest.approx(wanted)
    assert stream.choice["strength"] == pytest.approx(1 - 10 ** (-12 / 20))
    assert stream.separator.gate.min_presence == 0.4
    assert stream.separator.latency == state["ledger"]["window"] == 128


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no JSON", "this is not JSON"),
        ("[" * 4000, "this is not JSON"),
        ("[]", "a command is an object"),
        ("{}", "a command is"),
        ('{"set": 3}', "a command is"),
        ('{"set": {}, "record": true}', "a command is"),
        ('{"record": "/etc/passwd"}', "a command is"),
        ('{"record": false}', "nothing is being recorded"),
        ('{"watch": ["audio"]}', "is not a list of state, spectra"),
        ('{"watch": [["state"]]}', "is not a list of state, spectra"),
        ('{"set": {"solo": "drums"}}', "solo='drums' is not one of source1, source2"),
        ('{"set": {"solo": 1}}', "solo=1 is not the name of a source"),
        ('{"set": {"strength_db": -1}}', "strength_db=-1 is not 0 dB or more"),
        ('{"set": {"strength_db": NaN}}', "strength_db=nan"),
        ('{"set": {"strength_db": "12"}}', "strength_db='12' is not a number"),
        ('{"set": {"bypass": 1}}', "bypass=1 is neither true nor false"),
        ('{"set": {"output_gain_db": 1e400}}', "output_gain_db=inf"),
        ('{"set": {"input_gain_db": true}}', "input_gain_db=True is not a number"),
        ('{"set": {"min_presence": null}}', "min_presence needs a value"),
        ('{"set": {"latency_ms": 1}}', "latency_ms=1 is not one of 16, 8, 4, 2"),
        ('{"set": {"latency_ms": [16]}}', "is not one of 16, 8, 4, 2"),
        ('{"set": {"n_iter": 1000000}}', "'n_iter' cannot be set from here"),
        ('{"set": {"solo": "source2", "bypass": null}}', "bypass needs a value"),
    ],
)
def test_what_cannot_be_is_answered_in_one_line_and_changes_nothing(panel, stream, text, reason):
    before = stream.choice, stream.separator.gate, stream.separator.config

    async def talk(client):
        await client.socket.send_str(text)
        return await client.hear("answer")

    answer = with_client(panel, talk)
    assert reason in answer["error"]
    assert "\n" not in answer["error"]
    assert (stream.choice, stream.separator.gate, stream.separator.config) == before
    assert stream.recording is None


def test_spectra_are_sent_to_who_watches_them_and_the_audio_thread_works_for_nobody_else(panel, server, stream):
    n = 3 * SR
    tone = 0.1 * np.sin(2 * np.pi * 1_000 / SR * np.arange(n))[None].astype(np.float32)

    async def talk(client):
        hello = await client.hear("hello")
        await client.hear("state")
        assert not stream.scope.open
        await client.ask(watch=["spectra"])
        await client.hear("spectra")
        playing = asyncio.get_running_loop().run_in_executor(None, lambda: Player(server, tone).run(freewheel=False))
        heard = [await client.hear("spectra")]
        while not (playing.done() and np.max(heard[-1]["columns"]["mixture"]) < -50):  # the tone is over
            heard.append(await client.hear("spectra"))
        await playing
        await client.ask(watch=["state"])
        await client.hear("state")
        await client.hear("state")
        assert not stream.scope.open
        return hello["spectra"], heard

    about, heard = with_client(panel, talk)
    columns = np.concatenate([message["columns"]["mixture"] for message in heard])
    assert columns.dtype.kind == "i"
    assert columns.shape[1] == len(about["frequencies_hz"]) == N_BANDS
    at = np.unravel_index(columns.argmax(), columns.shape)
    assert about["frequencies_hz"][at[1]] == pytest.approx(1_000, rel=0.04)
    assert -24 <= columns[at] <= -20
    assert set(heard[0]["columns"]) == {"mixture", "source1", "source2"}


def test_spectra_do_not_depend_on_the_size_of_blocks():
    x = voices(SR, n_src=3)[:, None]
    whole = Spectra(3, SR)
    expected = np.concatenate([whole.add(x[:, :, start : start + SR // 4]) for start in range(0, SR, SR // 4)], 1)
    assert expected.shape == (3, 49, N_BANDS)
    pieces = Spectra(3, SR)
    actual = np.concatenate([pieces.add(x[:, :, start : start + 77]) for start in range(0, SR, 77)], 1)
    assert np.array_equal(actual, expected)
    assert pieces.column == whole.column == 49
    for hz, level in ((60, -30), (440, 0), (6_000, -60)):
        sine = 10 ** (level / 20) * np.sin(2 * np.pi * hz / SR * np.arange(SR // 2))
        spectra = Spectra(1, SR)
        columns = spectra.add(sine[None, None].astype(np.float32))[0]
        assert np.abs(columns.max(1) - level).max() <= 3
        assert spectra.frequencies_hz[columns[0].argmax()] == pytest.approx(hz, rel=0.1, abs=25)
    assert (Spectra(1, SR).add(np.zeros((1, 2, SR), np.float32)) == -100).all()


def test_a_recording_begins_and_ends_by_remote_control(panel, stream, tmp_path):
    async def talk(client):
        assert (await client.ask(record=True))["done"]
        assert "has not ended" in (await client.ask(record=True))["error"]
        while (state := await client.hear("state"))["stats"]["recorded_s"] < 0.2:
            assert state["recording"].startswith("rtsep-")
        assert (await client.ask(record=False))["done"]
        told = await client.hear("messages")
        return [message["text"] for message in told["messages"]]

    told = with_client(panel, talk)
    assert told[0].startswith("recording to rtsep-")
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {"mixture.wav", "source1.wav", "source2.wav"}
    assert sf.info(folder / "mixture.wav").duration > 0.2


# Who is let in


def status(panel, url=None, **headers):
    async def run():
        async with aiohttp.ClientSession() as session, session.get(url or panel.url, headers=headers) as answer:
            return answer.status, dict(answer.headers), await answer.text()

    return asyncio.run(run())


def test_only_who_comes_from_here_and_knows_the_token_is_let_in(panel):
    here = re.match(r"http://127\.0\.0\.1:(\d+)/", panel.url)
    code, headers, text = status(panel)
    assert (code, headers["Referrer-Policy"], headers["Cache-Control"]) == (200, "no-referrer", "no-store")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert panel.token not in text
    assert status(panel, Host=f"localhost:{here[1]}", Origin=f"http://localhost:{here[1]}")[0] == 200
    socket = address(panel).replace("ws:", "http:")
    refused = {
        "no token": (here[0], {}),
        "an empty one": (here[0] + "?token=", {}),
        "a wrong one": (panel.url[:-1] + "_", {}),
        "no ASCII": (here[0] + "?token=ü%F6", {}),
        "a foreign origin": (panel.url, {"Origin": "http://example.com"}),
        "another port": (panel.url, {"Origin": "http://127.0.0.1:1"}),
        "a page without one": (panel.url, {"Origin": "null"}),
        "another name of this host": (panel.url, {"Host": f"example.com:{here[1]}"}),
    }
    for what, (url, sent) in refused.items():
        for target in (url, url.replace("/?", "/ws?")):
            code, _, text = status(panel, target, **sent)
            assert code == 403, what
            assert panel.token not in text
    assert status(panel, here[0] + "etc/passwd")[0] == 403
    assert status(panel, here[0] + f"../../server.py?token={panel.token}")[0] == 404
    assert status(panel, socket)[0] == 400  # no WebSocket


def test_it_listens_on_loopback_alone(panel):
    port = int(re.search(r":(\d+)/", panel.url)[1])
    listening = [
        line.split()[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    assert [place for place in listening if place.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_a_port_that_is_taken_is_one_line(panel, stream):
    port = int(re.search(r":(\d+)/", panel.url)[1])
    with pytest.raises(LiveError, match=f"the panel cannot be served on port {port}: .*in use"):
        Server(stream, port).start()


def test_a_second_browser_sees_the_same_and_a_ninth_is_refused(panel):
    async def run():
        async with aiohttp.ClientSession() as session:
            clients = [Client(await session.ws_connect(address(panel))) for _ in range(MAX_CLIENTS)]
            await clients[0].ask(set={"output_gain_db": -7})
            for client in clients:
                while (await client.hear("state"))["settings"]["output_gain_db"] != -7:
                    pass
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await session.ws_connect(address(panel))
            assert refusal.value.status == 503
            await clients[-1].socket.close()
            while True:
                try:
                    another = Client(await session.ws_connect(address(panel)))
                    break
                except aiohttp.WSServerHandshakeError:
                    await asyncio.sleep(0.05)
            assert (await another.hear("state"))["settings"]["output_gain_db"] == -7

    asyncio.run(run())


# Nothing that a browser does stops the sound


def flood(panel, n, text):
    """Messages that were sent, and how the server ended that."""

    async def run():
        async with aiohttp.ClientSession() as session, session.ws_connect(address(panel)) as socket:
            sent = 0
            try:
                while sent < n:
                    await socket.send_str(text)
                    sent += 1
            except ConnectionError:
                pass
            while not socket.closed:
                await socket.receive(timeout=60)
            return sent, socket.close_code

    return asyncio.run(run())


def test_ten_thousand_messages_are_refused_and_every_sample_is_heard(server, tmp_path, monkeypatch):
    """Played and recorded by a compiled client of the server, at the server's own pace, while they come."""
    monkeypatch.chdir(tmp_path)
    x = voices(5 * SR).sum(0, keepdims=True)
    texts = ['{"set": {"gate_hold_ms": 100}}', '{"record": false}', '{"watch": ["spectra", "state"]}', "x" * 4_000]
    with (
        LiveStream(Separator(StreamConfig(SR), Passthrough()), late="wait", howling=False, fade_in_ms=0) as stream,
        Server(stream) as panel,
        ThreadPoolExecutor(1) as pool,
    ):
        player, before = Player(server, x, tail=SR), stream.stats
        playing = pool.submit(player.run, freewheel=False)
        sent, refused = 0, 0
        for text in cycle(texts):
            if sent > 10_000 and refused > 5 and playing.done():
                break
            n, code = flood(panel, 10_000, text)
            assert code in (1008, 1006)  # policy violation; or the connection ended before that was read
            sent, refused = sent + n, refused + 1
        assert flood(panel, 1, "x" * 100_000)[1] in (1009, 1006)  # too big
        settled = with_client(panel, lambda client: client.ask(set={"gate_hold_ms": 50}))
        heard, after, latency = playing.result()[0], stream.stats, stream.latency
    assert settled["done"]
    assert (after.state, after.reconnects) == ("running", 0)
    assert after.callbacks - before.callbacks >= player.total // server.period
    if after.xruns == before.xruns:  # the server itself skips periods where the machine is busy with something else
        assert np.allclose(heard[latency:][: x.shape[1]], x[0], atol=1e-6)


def test_a_client_that_does_not_read_is_let_be(panel, stream):
    async def run():
        async with aiohttp.ClientSession() as session:
            socket = await session.ws_connect(address(panel), max_msg_size=0)
            await socket.send_str('{"watch": ["state", "spectra"]}')
            await asyncio.sleep(3)  # nothing is taken out
            other = Client(await session.ws_connect(address(panel)))
            assert (await other.ask(set={"bypass": True}))["done"]
            assert (await other.hear("state", 2.0))["settings"]["bypass"]
            await socket.close()

    asyncio.run(run())


def test_a_stream_that_ends_tells_its_clients_and_a_server_that_is_closed_twice_does_no_harm(stream):
    panel = Server(stream)
    panel.start()

    async def talk(client):
        await client.hear("state")
        closing = asyncio.get_running_loop().run_in_executor(None, panel.close)
        while (message := await client.socket.receive(timeout=10)).type == aiohttp.WSMsgType.TEXT:
            pass
        await closing
        return message

    ended = with_client(panel, talk, autoclose=False)
    assert (ended.type, ended.data) == (aiohttp.WSMsgType.CLOSE, 1001)
    panel.close()
    assert stream.stats.state == "running"
    assert not stream.scope.open


# The command and the page


@pytest.fixture
def live(server, tmp_path):
    """`rtsep live --web` with the address that it printed."""
    command = [
        sys.executable,
        "-m",
        "rtsep",
        "live",
        "--plain",
        "--estimator",
        "denoise",
        "--phase",
        "mixture",
        "--web",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        while not (found := re.match(r"panel: (http://127\.0\.0\.1:\d+/\?token=\S+)$", process.stdout.readline())):
            assert process.poll() is None
        yield process, found[1]
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(timeout=30) == 143
    finally:
        process.kill()
        process.wait()


def test_the_page_shows_the_stream_and_its_buttons_change_it(live, tmp_path):
    process, url = live
    require_browser()

    async def run():
        async with browser() as page:
            await page.open(url)
            await page.until("document.querySelector('#state')?.textContent.startsWith('running')")
            sources = await page.value("[...document.querySelectorAll('#sources button')].map(b => b.textContent)")
            assert sources == ["speech", "noise", "bypass"]
            await press(page, "#sources button:nth-child(2)")
            await press(page, "#sources button:nth-child(3)")
            await press(page, "#latencies button:nth-child(3)")
            await page.until("document.querySelector('#ledger').textContent.includes('window4.0 ms')")
            await slide(page, "output_gain_db", -6, "-6 dB")
            await slide(page, "min_presence", 0.5, "50 %")
            await slide(page, "strength", 12, "12 dB")
            await press(page, "#record")
            await page.until("/Stop recording [1-9]/.test(document.querySelector('#record').textContent)")
            await page.value("document.querySelector('#record').click()")
            await page.until("document.querySelector('#messages').textContent.includes('recorded to rtsep-')")
            drawn = "(c => c.getContext('2d').getImageData(c.width - 1, 0, 1, c.height).data[3])"
            await page.until(f"[...document.querySelectorAll('canvas')].every(c => {drawn}(c) === 255)")
            for width in (420, 1280):
                await page.size(width, 900)
                assert await page.value("document.documentElement.scrollWidth <= window.innerWidth")
            assert page.console == []

    async def press(page, button):
        await page.value(f"document.querySelector('{button}').click()")
        await page.until(f"document.querySelector('{button}').getAttribute('aria-pressed') === 'true'")

    async def slide(page, dial, value, shown):
        await page.value(
            f"(d => {{ d.value = {value}; d.dispatchEvent(new Event('input')); }})(document.getElementById('{dial}'))"
        )
        await page.until(f"document.getElementById('{dial}').nextElementSibling.textContent === '{shown}'")

    asyncio.run(run())
    (folder,) = tmp_path.glob("rtsep-*")
    assert sf.info(folder / "noise.wav").duration > 0.5
    assert process.poll() is None


def test_the_panel_in_the_terminal_says_where_the_page_is_and_goes_on(server):
    command = [sys.executable, "-m", "rtsep", "live", "--estimator", "denoise", "--phase", "mixture", "--web"]
    with Terminal(command) as terminal:
        terminal.until("panel: http://127.0.0.1:", "?token=", "q quit")
        url = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S{22}(?=\s)", terminal.text)[0]

        async def run():
            async with aiohttp.ClientSession() as session, session.ws_connect(url.replace("/?", "/ws?")) as socket:
                assert (await Client(socket).ask(set={"solo": "noise", "input_gain_db": 5}))["done"]

        asyncio.run(run())
        terminal.until("Hearing  noise", "in +5 dB")
        terminal.type("q")
        assert terminal.finish()[0] == 0
        terminal.assert_restored()


def test_the_demo_is_a_remote_control(live):
    _, url = live
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, str(DEMO), url, "solo=noise", "output_gain_db=-3"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    assert "'solo': 'noise'" in run.stdout
    assert "'output_gain_db': -3" in run.stdout
    run = subprocess.run([*command[:3], "solo=drums"], capture_output=True, text=True, timeout=60, check=False)
    assert "solo='drums' is not one of speech, noise" in run.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--web", "70000"], "--web=70000 is not between 0 and 65535"), (["--web", "x"], "argument --web")],
)
def test_ports_that_cannot_be_are_one_line(server, options, message):
    command = [sys.executable, "-m", "rtsep", "live", *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 2
    assert message in run.stderr


def test_without_aiohttp_the_command_says_what_to_install(server, tmp_path):
    (tmp_path / "aiohttp.py").write_text("raise ModuleNotFoundError('none here')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}"}
    command = [sys.executable, "-m", "rtsep", "live", "--web", "--seconds", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert run.returncode == 2
    assert 'rtsep: the panel in the browser needs aiohttp: pip install "rtsep[web]"' in run.stderr.splitlines()
