"""The page that `rtsep export --format web` makes: its WebAssembly in node, and all of it in a browser."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile as sf
from browser import browser, require_browser
from jackd import needs
from models import tiny_dual_path
from signals import voices

import rtsep
from rtsep.cli import main
from rtsep.estimators import Speech
from rtsep.export.web import write_page
from rtsep.phase import OMISI

BOUND = 5e-6  # of the peak: no fused multiply-add in WebAssembly, and networks remember what it changes
SIZES = (1, 1000, 64, 7, 333, 160, 2, 481)
pytestmark = pytest.mark.skipif(not importlib.util.find_spec("ziglang"), reason="no linker (pip install ziglang)")

# Samples of each channel in, of each channel of each source out.
NODE = """
import { readFileSync, writeFileSync } from "node:fs";
import { Separator } from "./rtsep.js";
const separator = new Separator(readFileSync("rtsep.wasm")), other = new Separator(readFileSync("rtsep.wasm"));
const x = new Float32Array(readFileSync("in.f32").buffer), n = x.length / separator.channels;
const y = new Float32Array(separator.sources * x.length), sizes = [SIZES];
other.process(Array(separator.channels).fill(x.subarray(0, 1000)));
for (let at = 0, k = 0; at < n; k++) {
  const end = Math.min(at + sizes[k % sizes.length], n);
  const block = Array.from({length: separator.channels}, (_, c) => x.subarray(c * n + at, c * n + end));
  separator.process(block).flat().forEach((row, i) => y.set(row, i * n + at));
  at = end;
}
writeFileSync("out.f32", y);
console.log(JSON.stringify([separator.rate, separator.latency, separator.names]));
"""
CASES = [
    ("denoise", OMISI(n_iter=5), 16000, 2),
    ("speech", None, 48000, 1),
    (Speech(weights="int8"), None, 16000, 1),
    (Speech(tiny_dual_path(Speech)), None, 16000, 1),
    ("hpss", None, 44100, 1),
]


@pytest.mark.parametrize(("estimator", "phase", "sr", "n_channels"), CASES)
def test_node_computes_the_samples_of_the_engine(estimator, phase, sr, n_channels, tmp_path):
    needs(shutil.which("node") is not None, "no node (apt install nodejs)")
    separator = rtsep.Separator(rtsep.StreamConfig(sr, n_channels=n_channels), estimator, phase)
    site = tmp_path / "site"
    write_page(separator, site)
    x = voices(sr, sr, n_channels, seed=1)
    (site / "package.json").write_text('{"type": "module"}')
    (site / "main.js").write_text(NODE.replace("SIZES", ", ".join(map(str, SIZES))))
    x.tofile(site / "in.f32")
    ran = subprocess.run(["node", "main.js"], cwd=site, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    y = np.fromfile(site / "out.f32", np.float32).reshape(separator.n_src, n_channels, sr)
    expected = separator.process(x if n_channels > 1 else x[0]).reshape(y.shape)
    assert np.abs(y - expected).max() <= BOUND * np.abs(expected).max()
    assert ran.stdout.split() == [f'[{sr},{separator.latency},["{separator.sources[0]}","{separator.sources[1]}"]]']


# Keeps all outputs of the separator, from its first sample on: all of it starts at once, when the page resumes.
RECORD = """
const Node = AudioWorkletNode, Context = AudioContext, {addModule} = AudioWorklet.prototype;
AudioContext = class extends Context { constructor(options) { super(options); this.suspend(); } };
AudioWorklet.prototype.addModule = async function(url) {
  await addModule.call(this, "recorder.js");
  await addModule.call(this, url);
};
AudioWorkletNode = class extends Node {
  constructor(context, name, options) {
    super(context, name, options);
    const recorder = new Node(context, "recorder", {numberOfInputs: this.numberOfOutputs});
    window.recorded = [];
    window.text = id => document.getElementById(id).textContent;
    recorder.port.onmessage = ({data}) => recorded.push(data);
    for (let i = 0; i < this.numberOfOutputs; i++) this.connect(recorder, i, i);
    recorder.connect(context.destination);
  }
};
"""
RECORDER = """
registerProcessor("recorder", class extends AudioWorkletProcessor {
  process(inputs) {
    this.port.postMessage(inputs.map(([samples]) => samples ? samples.slice() : new Float32Array(128)));
    return true;
  }
});
"""
RECORDED = """(() => {
  const rows = recorded.length ? recorded[0].map((_, i) => recorded.map(blocks => blocks[i])) : [];
  const bytes = new Uint8Array(new Float32Array(rows.flatMap(row => row.flatMap(block => [...block]))).buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
})()"""


@contextmanager
def served(folder):
    """Its address, from the web server that the documentation names."""
    line = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), "0"]
    server = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield re.search(r"http://\S+?/", server.stdout.readline())[0]
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


async def rows_of(page, n_rows):
    data = base64.b64decode(await page.value(RECORDED))
    return np.frombuffer(data, np.float32).reshape(n_rows, -1)


def test_a_browser_separates_its_microphone_and_files(tmp_path):
    pytest.importorskip("aiohttp")
    require_browser()
    separator = rtsep.Separator(rtsep.StreamConfig(16000), "denoise")
    site, take = tmp_path / "site", tmp_path / "take.wav"
    write_page(separator, site)
    (site / "recorder.js").write_text(RECORDER)
    sf.write(take, voices(3 * 16000, seed=2).sum(0), 16000)
    microphone = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    microphone.append(f"--use-file-for-fake-audio-capture={take}")

    async def run(url):
        async with browser(*microphone) as page:
            await page.call("Page.enable")
            await page.call("Page.addScriptToEvaluateOnNewDocument", source=RECORD)
            await page.open(url)
            await page.until("document.getElementById('load')?.rows.length")
            await page.click("#microphone")
            await page.until("window.recorded?.length > 4 * 125 && text('load').includes('real time')")
            heard, mixture, *sources = await rows_of(page, 4)
            assert np.array_equal(heard, sources[0])
            assert await page.value("text('state')") == "running"

            # The row of the mixture is as late as the sources.
            x = mixture[separator.latency :]
            expected = separator.process(x)
            assert np.abs(x).max() > 0.1
            assert np.abs(np.array(sources)[:, : x.size] - expected).max() <= BOUND * np.abs(expected).max()

            await page.click("#bypass")
            await page.until("window.recorded.length > 6 * 125")
            heard, mixture, *_ = await rows_of(page, 4)
            assert np.array_equal(heard[-8000:], mixture[-8000:])
            await page.click("#bypass")
            await page.click("#microphone")
            await page.until("text('state') === 'stopped'")

            root = (await page.call("DOM.getDocument"))["root"]["nodeId"]
            field = (await page.call("DOM.querySelector", nodeId=root, selector="#file"))["nodeId"]
            await page.call("DOM.setFileInputFiles", nodeId=field, files=[str(take)])
            await page.until("window.recorded?.length > 2 * 125")
            _, mixture, *sources = await rows_of(page, 4)
            separator.reset()
            x = mixture[separator.latency :]
            expected = separator.process(x)
            assert np.abs(x).max() > 0.1
            assert np.abs(np.array(sources)[:, : x.size] - expected).max() <= BOUND * np.abs(expected).max()
            assert await page.value("text('problem')") == ""
            await page.until("text('state') === 'ended'")  # of three seconds

            await page.call("DOM.setFileInputFiles", nodeId=field, files=[str(site / "style.css")])
            await page.until(
                "text('problem') === 'style.css: this browser cannot play it' && text('state') === 'stopped'"
            )
            assert page.console == []

    with served(site) as url:
        asyncio.run(run(url))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "aarch64-linux-gnu"], "it takes neither --target nor --cpu"),
        (["-o", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_what_cannot_become_a_page_is_refused_in_one_line(options, message, tmp_path, capsys):
    assert main(["export", "denoise", "--format", "web", "-o", str(tmp_path / "site"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "site").exists()
