// Brings sound to the separator, and shows what comes out of it.

const COLUMNS = 480, BANDS = 96, LOWEST_HZ = 60, FLOOR_DB = -100, CEILING_DB = -25, METER_DB = -60;
const settings = JSON.parse(document.getElementById("settings").textContent);
const rows = ["mixture", ...settings.sources];
const $ = id => document.getElementById(id);
const made = (tag, text = "", className = "") => Object.assign(document.createElement(tag), {textContent: text, className});
const ms = seconds => `${(1000 * seconds).toFixed(1)} ms`;
const isPressed = button => button.getAttribute("aria-pressed") === "true";

let running = null;  // {context, node, analysers, track of a microphone, audio of a file}
let load = null;
const chosen = {heard: 1, strength_db: settings.strength_db};

// Spectrograms: the frequency axis is even in mel, as in ears.
const mel = hz => 2595 * Math.log10(1 + hz / 700), hertz = m => 700 * (10 ** (m / 2595) - 1);
const highest = Math.min(16000, settings.sr / 2);
const edges = Array.from({length: BANDS + 1}, (_, b) => hertz(mel(LOWEST_HZ) + b / BANDS * (mel(highest) - mel(LOWEST_HZ))));
const n_fft = 2 ** Math.round(Math.log2(0.043 * settings.sr));
const bins = edges.map(hz => Math.round(hz / settings.sr * n_fft));
const STOPS = [[0, 0, 4], [60, 15, 110], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];
const COLOURS = Array.from({length: 256}, (_, value) => {
  const at = value / 255 * (STOPS.length - 1), i = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[i].map((low, c) => Math.round(low + (at - i) * (STOPS[i + 1][c] - low)));
});

const pictures = rows.map(name => {
  const box = made("div", "", "signal"), title = made("h3"), picture = made("div", "", "picture"), canvas = made("canvas");
  const level = made("span", "–", "level"), meter = made("div", "", "meter"), bar = made("div");
  Object.assign(canvas, {width: COLUMNS, height: BANDS});
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `spectrogram of ${name}`);
  picture.append(canvas);
  for (const hz of [200, 1000, 4000].filter(hz => hz < highest)) {
    const label = made("span", hz < 1000 ? `${hz} Hz` : `${hz / 1000} kHz`);
    label.style.bottom = `${100 * edges.findIndex(edge => edge >= hz) / BANDS}%`;
    picture.append(label);
  }
  title.append(made("span", name), level);
  meter.append(bar);
  box.append(title, picture, meter);
  $("signals").append(box);
  return {box, level, bar, context: canvas.getContext("2d", {willReadFrequently: true})};
});
$("signals").style.setProperty("--rows", rows.length);

// Who wants less motion gets a picture that is written from left to right, and stands.
const stands = matchMedia("(prefers-reduced-motion: reduce)");
let column = 0;

function draw() {
  requestAnimationFrame(draw);
  if (running?.context.state !== "running") return;
  const at = stands.matches ? column++ % COLUMNS : COLUMNS - 1;
  pictures.forEach(({context, level, bar}, row) => {
    const analyser = running.analysers[row], powers = new Uint8Array(analyser.frequencyBinCount);
    analyser.getByteFrequencyData(powers);
    const image = context.createImageData(1, BANDS);
    for (let b = 0; b < BANDS; b++) {
      const strongest = Math.max(...powers.subarray(bins[b], Math.max(bins[b] + 1, bins[b + 1])));
      image.data.set([...COLOURS[strongest], 255], 4 * (BANDS - 1 - b));
    }
    if (!stands.matches) context.drawImage(context.canvas, -1, 0);
    context.putImageData(image, at, 0);
    const samples = new Float32Array(analyser.fftSize);
    analyser.getFloatTimeDomainData(samples);
    const db = 10 * Math.log10(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
    level.textContent = db > -99 ? `${db.toFixed(0)} dBFS` : "–";
    bar.style.width = `${100 * Math.min(Math.max(1 - db / METER_DB, 0), 1)}%`;
  });
}

// From a source of sound, which `connect` makes in a context, to the ear. One start is one context.
async function start(connect) {
  await stop();
  if (!globalThis.isSecureContext || !globalThis.AudioWorkletNode)
    throw new Error("open this page as http://localhost:8000 (python -m http.server): elsewhere browsers do not let it hear");
  const context = new AudioContext({sampleRate: settings.sr, latencyHint: "interactive"});
  try {
    const answer = await fetch("rtsep.wasm");
    if (!answer.ok) throw new Error(`rtsep.wasm: ${answer.status} ${answer.statusText}`);
    await context.audioWorklet.addModule("worklet.js");
    const channelCount = settings.channels;
    const node = new AudioWorkletNode(context, "rtsep", {
      numberOfInputs: 1, channelCount, channelCountMode: "explicit",
      numberOfOutputs: 1 + rows.length, outputChannelCount: Array(1 + rows.length).fill(channelCount),
      processorOptions: {bytes: await answer.arrayBuffer()},
    });
    node.onprocessorerror = () => stop().then(() => fail(new Error("the separator failed")));
    node.port.onmessage = ({data}) => { load = load === null ? data.load : 0.7 * load + 0.3 * data.load; figures(); };
    const analysers = rows.map((_, row) => {
      const analyser = new AnalyserNode(context, {fftSize: n_fft, smoothingTimeConstant: 0,
        minDecibels: FLOOR_DB, maxDecibels: CEILING_DB});
      node.connect(analyser, 1 + row);
      return analyser;
    });
    const {source, track, audio} = await connect(context);
    source.connect(node);
    node.connect(context.destination, 0);
    running = {context, node, analysers, track, audio};
    context.onstatechange = show;
    await context.resume();
    tell();
    show();
  } catch (error) {
    await context.close();
    throw error;
  }
}

async function stop() {
  const {context, track} = running ?? {};
  running = load = null;
  track?.stop();
  $("player").replaceChildren();
  show();
  if (context && context.state !== "closed") await context.close();
}

async function microphone(context) {
  const plain = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};
  const stream = await navigator.mediaDevices.getUserMedia({audio: {channelCount: settings.channels, ...plain}});
  const [track] = stream.getAudioTracks();
  track.onended = () => stop().then(() => fail(new Error("the microphone is gone")));
  try {
    return {source: context.createMediaStreamSource(stream), track};
  } catch {
    track.stop();
    throw new Error(`this browser does not bring a microphone of ${track.getSettings().sampleRate} Hz to ${settings.sr} Hz: ` +
      "rtsep export ... --rate makes a page for another rate");
  }
}

const player = file => async context => {
  const audio = Object.assign(made("audio"), {controls: true, src: URL.createObjectURL(file)});
  audio.setAttribute("aria-label", file.name);
  const problem = new Error(`${file.name}: this browser cannot play it`);
  await new Promise((can, cannot) => Object.assign(audio, {oncanplay: can, onerror: () => cannot(problem)}));
  audio.onerror = () => stop().then(() => fail(problem));  // of a part that comes later
  $("player").replaceChildren(audio);
  audio.onplay = audio.onpause = audio.onended = show;
  audio.play().catch(() => {});  // `onerror` says why, and who has to press the button sees it
  return {source: context.createMediaElementSource(audio), audio};
};

function tell() {
  const heard = isPressed($("bypass")) ? 0 : chosen.heard;
  const strength_db = chosen.strength_db >= Number($("strength").max) ? Infinity : chosen.strength_db;
  running?.node.port.postMessage({heard, strength_db});
  pictures.forEach(({box}, row) => box.classList.toggle("heard", row === heard));
  $("strength").nextElementSibling.textContent = strength_db === Infinity ? "full" : `${strength_db} dB`;
}

function show() {
  const {context, audio} = running ?? {};
  const state = audio?.ended ? "ended" : audio?.paused ? "paused" : context?.state ?? "stopped";
  $("state").textContent = state;
  $("state").className = state;
  $("microphone").setAttribute("aria-pressed", Boolean(running?.track));
  figures();
}

function figures() {
  const {context, track} = running ?? {}, told = seconds => seconds === undefined ? "not told" : ms(seconds);
  const parts = [["rtsep", settings.latency / settings.sr]];
  if (track) parts.unshift(["microphone", track.getSettings().latency]);
  if (context) parts.push(["browser, in between", context.baseLatency], ["browser, output", context.outputLatency]);
  const sum = parts.reduce((total, [, seconds]) => total + (seconds ?? 0), 0);
  table("delay", [...parts.map(([name, seconds]) => [name, told(seconds)]), ["sum of the known parts", ms(sum), "sum"]]);
  table("load", [["mean of some seconds", load === null ? "–" : `${(100 * load).toFixed(1)} % of real time`]]);
}

function table(id, lines) {
  $(id).replaceChildren(...lines.map(([name, value, className = ""]) => {
    const line = made("tr", "", className), head = made("th", name);
    head.scope = "row";
    line.append(head, made("td", value));
    return line;
  }));
}

function fail(error) {
  $("problem").textContent = {
    NotAllowedError: "the microphone: not allowed for this page",
    NotFoundError: "there is no microphone",
    NotReadableError: "the microphone is in use or does not answer",
    NotSupportedError: `this browser does not work at ${settings.sr} Hz`,
  }[error.name] ?? error.message;
}

// One after the other: starting takes a while, and a second click is meant for what the first one has made.
let last = Promise.resolve();
const attempt = action => {
  last = last.then(() => { $("problem").textContent = ""; }).then(action).catch(fail);
};

$("microphone").onclick = () => attempt(() => isPressed($("microphone")) ? stop() : start(microphone));
$("file").onchange = ({target}) => {
  const [file] = target.files;
  target.value = "";  // so that the same one can be chosen again
  if (file) attempt(() => start(player(file)));
};
$("bypass").onclick = () => {
  $("bypass").setAttribute("aria-pressed", !isPressed($("bypass")));
  tell();
};
$("strength").value = chosen.strength_db;
$("strength").oninput = ({target}) => {
  chosen.strength_db = Number(target.value);
  tell();
};
settings.sources.forEach((name, i) => {
  const label = made("label", name, "button"), radio = Object.assign(made("input"), {type: "radio", name: "heard"});
  radio.checked = 1 + i === chosen.heard;
  radio.onchange = () => { chosen.heard = 1 + i; tell(); };
  label.append(radio);
  $("sources").append(label);
});
setInterval(() => running && figures(), 1000);  // the browser's figures move
tell();
show();
draw();
