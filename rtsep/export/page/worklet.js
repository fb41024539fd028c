// The separator on the browser's audio thread.
//
// Outputs: what is heard, then rows: the mixture, as late as the sources, and each source.
import { Separator } from "./rtsep.js";

const FADE_S = 0.01, NEAR = 1e-4;
// Not every browser has a fine clock on this thread; whole milliseconds are right in the mean.
const clock = globalThis.performance ?? Date;

class Processor extends AudioWorkletProcessor {
  constructor({processorOptions}) {
    super();
    this.separator = new Separator(processorOptions.bytes);
    this.late = Array.from({length: this.separator.channels}, () => new Float32Array(this.separator.latency));
    this.at = 0;
    this.silence = this.late.map(() => new Float32Array(this.separator.longest));
    this.heard = 1;
    this.shares = Array.from({length: 1 + this.separator.sources}, (_, row) => Number(row === this.heard));
    this.spent_ms = this.samples = 0;
    this.port.onmessage = ({data}) => {
      if ("strength_db" in data) this.separator.setStrength(data.strength_db);
      if ("heard" in data) this.heard = data.heard;
    };
  }

  process([mixture], [heard, ...rows]) {
    const start = clock.now(), n = heard[0].length;
    const input = mixture.length ? mixture : this.silence.map(channel => channel.subarray(0, n));
    this.#delay(input, rows[0]);
    this.separator.process(input).forEach((source, s) => source.forEach((samples, c) => rows[1 + s][c].set(samples)));
    this.#mix(rows, heard);
    this.spent_ms += clock.now() - start;
    this.samples += n;
    if (this.samples >= sampleRate) {
      this.port.postMessage({load: this.spent_ms / 1000 / (this.samples / sampleRate)});
      this.spent_ms = this.samples = 0;
    }
    return true;
  }

  #delay(input, output) {
    let at = 0;
    this.late.forEach((ring, c) => {
      at = this.at;
      for (let i = 0; i < output[c].length; i++) {
        output[c][i] = ring[at];
        ring[at] = input[c][i];
        at = at + 1 < ring.length ? at + 1 : 0;
      }
    });
    this.at = at;
  }

  // Shares of rows go to the one that is heard, all by the same rule, so that they sum to one on the way.
  #mix(rows, heard) {
    const {shares} = this, target = row => Number(row === this.heard), rate = 1 / (FADE_S * sampleRate);
    if (shares.every((share, row) => Math.abs(share - target(row)) < NEAR)) {
      shares.forEach((_, row) => { shares[row] = target(row); });
      heard.forEach((samples, c) => samples.set(rows[this.heard][c]));
      return;
    }
    for (let i = 0; i < heard[0].length; i++) {
      for (let row = 0; row < shares.length; row++) shares[row] += rate * (target(row) - shares[row]);
      heard.forEach((samples, c) => { samples[i] = rows.reduce((sum, row, r) => sum + shares[r] * row[c][i], 0); });
    }
  }
}

registerProcessor("rtsep", Processor);
