"use strict";
// Draws what the server tells, and sends what is chosen. docs/live.md describes the messages.

const COLUMNS = 400, LIGHT_MS = 1500, PROBLEM_MS = 6000, SEND_MS = 50, FALL_DB = -60;
const FULL = 41;  // right end of the strength: the source alone
const $ = id => document.getElementById(id);
const made = (tag, text = "", className = "") => {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = className;
  return element;
};
const press = (button, on) => button.setAttribute("aria-pressed", on);
const isPressed = button => button.getAttribute("aria-pressed") === "true";
const db = value => value === null || value <= -99 ? "–" : value.toFixed(1);
const signed = value => (value > 0 ? "+" : "") + Math.round(value) + " dB";

let socket = null, hello = null, rows = {}, pending = [], lit = {}, counts = {}, touched = {};

// Colours of the levels, dark to light.
const STOPS = [[0, 0, 4], [60, 15, 110], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];
const colour = share => {
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1), i = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[i].map((low, c) => low + (at - i) * (STOPS[i + 1][c] - low));
};

function connect() {
  const opened = new WebSocket(`ws://${location.host}/ws${location.search}`);
  socket = opened;
  opened.onopen = () => { pending = []; watch(); };
  opened.onmessage = event => { const message = JSON.parse(event.data); hear[message.type]?.(message); };
  opened.onclose = event => {
    document.body.classList.add("away");
    $("state").className = "";
    $("state").textContent = event.reason || "not connected";
    setTimeout(connect, 1000);
  };
}

function send(command) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(command));
}

// A page that nobody sees needs no pictures.
const watch = () => send({watch: document.hidden ? ["state"] : ["state", "spectra"]});
document.addEventListener("visibilitychange", watch);

const last = {}, later = {};
function set(name, value) {
  touched[name] = performance.now();
  clearTimeout(later[name]);
  const wait = (last[name] ?? -Infinity) + SEND_MS - performance.now();
  if (wait > 0) { later[name] = setTimeout(set, wait, name, value); return; }
  last[name] = performance.now();
  send({set: {[name]: value}});
}

const hear = {
  hello(message) {
    document.body.classList.remove("away");
    hello = message;
    rows = {};
    $("signals").replaceChildren(...["mixture", ...hello.sources].map(signal), heard());
    $("signals").style.setProperty("--rows", 1 + hello.sources.length);
    $("sources").replaceChildren(
      ...hello.sources.map(name => choice(name, () => send({set: {solo: name, bypass: false}}))),
      choice("bypass", event => send({set: {bypass: !isPressed(event.currentTarget)}})));
    $("latencies").replaceChildren(...hello.latencies_ms.map(ms => choice(`${ms} ms`, () => send({set: {latency_ms: ms}}))));
  },

  state(message) {
    const {stats, settings} = message, running = stats.state === "running";
    const clock = new Date(1000 * stats.elapsed_s).toISOString().slice(11, 19);
    $("state").textContent = `${stats.state} ${clock}`;
    $("state").className = stats.state;
    $("devices").textContent = `${message.input} → ${message.output}, ${hello.sr} Hz`;
    const recording = message.recording !== null;
    press($("record"), recording);
    $("record").textContent = recording ? `Stop recording ${stats.recorded_s.toFixed(0)} s` : "Record";
    $("record").title = message.recording ?? "to a folder on the computer that rtsep runs on";

    lights({mixture: stats.clipped, heard: stats.limited});
    for (const [name, row] of Object.entries(rows)) {
      const level = name === "heard" ? stats.heard_db : stats.levels_db[name];
      meter(row, running ? level : null);
      row.light.classList.toggle("lit", (lit[name] ?? 0) > performance.now());
      const here = running && name !== "heard" && name === (settings.bypass ? "mixture" : settings.solo);
      row.box.classList.toggle("heard", here);
      row.mark.textContent = here ? "▶" : "";
      if (name in stats.presence) row.there.textContent = `${Math.round(100 * stats.presence[name])} % there`;
    }
    for (const button of $("sources").children)
      press(button, button === $("sources").lastChild
        ? settings.bypass : !settings.bypass && button.textContent === settings.solo);
    for (const button of $("latencies").children)
      press(button, Math.abs(parseFloat(button.textContent) - settings.latency_ms) < 0.05 * settings.latency_ms);

    dial("strength", settings.strength_db === null ? FULL : Math.min(settings.strength_db, FULL - 1),
         settings.strength_db === null ? "full" : `${Math.round(settings.strength_db)} dB`);
    dial("input_gain_db", settings.input_gain_db, signed(settings.input_gain_db));
    dial("output_gain_db", settings.output_gain_db, signed(settings.output_gain_db));
    dial("min_presence", settings.min_presence,
         settings.min_presence ? `${Math.round(100 * settings.min_presence)} %` : "never");
    dial("gate_hold_ms", settings.gate_hold_ms, `${Math.round(settings.gate_hold_ms)} ms`);

    const delay = Object.entries(message.ledger).filter(([, samples]) => samples);
    const sum = delay.reduce((total, [, samples]) => total + samples, 0), ms = n => (1000 * n / hello.sr).toFixed(1) + " ms";
    table("ledger", [...delay.map(([name, n]) => [name, ms(n)]), ["sum", ms(sum), "sum"]]);
    const faults = [["late hops", stats.late_hops], ["xruns", stats.xruns], ["shed iterations", stats.shed_iterations],
      ["clipped samples", stats.clipped], ["limited samples", stats.limited], ["muted samples", stats.muted],
      ["howls", stats.howls], ["reconnects", stats.reconnects]];
    table("load", [
      ...Object.entries(stats.hop_share).map(([name, share]) => [name.replace("p999", "99.9 %"), (100 * share).toFixed(1) + " %",
        share >= 0.8 ? "bad" : ""]),
      ...faults.filter(([name, n]) => n || name === "late hops" || name === "xruns").map(([name, n]) => [name, n, n ? "bad" : ""]),
    ]);
  },

  spectra(message) {
    const n = message.columns.mixture.length;
    for (let i = 0; i < n; i++) pending.push(Object.entries(message.columns).map(([name, columns]) => [name, columns[i]]));
    pending.splice(0, Math.max(0, pending.length - COLUMNS));
  },

  messages(message) {
    $("messages").replaceChildren(...message.messages.reverse().map(({time, text}) =>
      made("li", `${new Date(1000 * time).toLocaleTimeString()} ${text}`)));
  },

  answer(message) {
    if (!message.error) return;
    $("problem").textContent = message.error;
    setTimeout(() => { if ($("problem").textContent === message.error) $("problem").textContent = ""; }, PROBLEM_MS);
  },
};

function head(name, light) {
  const box = made("div", "", "signal"), title = made("h3");
  const row = {box, mark: made("span", "", "mark"), light: made("span", light, "light"), there: made("span", "", "there"),
    level: made("span", "–", "level"), bar: made("div")};
  const track = made("div", "", "meter");
  track.append(row.bar);
  title.append(made("span", name), row.mark, row.there, row.light, row.level);
  box.append(title);
  rows[name] = row;
  return [row, track];
}

function signal(name) {
  const [row, track] = head(name, "CLIP"), picture = made("div", "", "picture"), canvas = made("canvas");
  canvas.width = COLUMNS;
  canvas.height = hello.spectra.frequencies_hz.length;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `spectrogram of ${name}`);
  row.context = canvas.getContext("2d");
  picture.append(canvas);
  for (const hz of [200, 1000, 4000]) {
    const bands = hello.spectra.frequencies_hz, at = bands.findIndex(f => f >= hz);
    if (at < 0) continue;
    const label = made("span", hz < 1000 ? `${hz} Hz` : `${hz / 1000} kHz`, "hz");
    label.style.bottom = `${100 * at / bands.length}%`;
    picture.append(label);
  }
  row.box.append(picture, track);
  return row.box;
}

function heard() {
  const [row, track] = head("heard", "LIMIT");
  row.box.id = "heard";
  row.box.append(track);
  return row.box;
}

function choice(text, act) {
  const button = made("button", text);
  button.type = "button";
  button.addEventListener("click", act);
  return button;
}

function meter(row, level) {
  row.level.textContent = level === null ? "–" : `${db(level)} dBFS`;
  row.bar.style.width = level === null ? 0 : `${100 * Math.min(Math.max(1 - level / FALL_DB, 0), 1)}%`;
  row.bar.className = level > -6 ? "hot" : level > -18 && row.box.matches(".heard, #heard") ? "warm" : "";
}

function lights(now) {
  for (const [name, count] of Object.entries(now)) {
    if (name in counts && count > counts[name]) lit[name] = performance.now() + LIGHT_MS;
    counts[name] = count;
  }
}

// What is just being moved stays under the finger.
function dial(id, value, text) {
  if (performance.now() - (touched[id === "strength" ? "strength_db" : id] ?? -Infinity) < 500) return;
  $(id).value = value;
  $(id).nextElementSibling.textContent = text;
}

for (const id of ["input_gain_db", "output_gain_db", "min_presence", "gate_hold_ms"])
  $(id).addEventListener("input", event => set(id, Number(event.target.value)));
$("strength").addEventListener("input", event => {
  const value = Number(event.target.value);
  set("strength_db", value >= FULL ? null : value);
});
$("record").addEventListener("click", () => send({record: !isPressed($("record"))}));

function table(id, lines) {
  $(id).replaceChildren(...lines.map(([name, value, className = ""]) => {
    const row = made("tr", "", className);
    row.append(made("td", name), made("td", String(value)));
    return row;
  }));
}

// Columns come ten times a second, a handful at once; they are drawn evenly.
function draw() {
  for (let n = Math.ceil(pending.length / 8); n > 0; n--)
    for (const [name, levels] of pending.shift()) {
      const context = rows[name]?.context;
      if (!context) continue;
      const {width, height} = context.canvas, column = context.createImageData(1, height), floor = hello.spectra.floor_db;
      levels.forEach((level, band) =>
        column.data.set([...colour((level - floor - 10) / (-25 - floor)), 255], 4 * (height - 1 - band)));
      context.drawImage(context.canvas, -1, 0);
      context.putImageData(column, width - 1, 0);
    }
  requestAnimationFrame(draw);
}

connect();
draw();
