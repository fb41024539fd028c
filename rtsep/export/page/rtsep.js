// A separator in WebAssembly: the functions of rtsep.h, for pages, audio worklets and node.
//
//     const separator = new Separator(bytes);                   // the content of rtsep.wasm
//     const [[speech], [residual]] = separator.process([samples]);
//
// One instance is one stream. Nothing here waits, and memory is taken when it is made.

const WASM_PAGE = 65536, ALIGNMENT = 64;

export class Separator {
  #functions; #state; #in; #out; #blocks = new Map();

  // longest: samples of the longest block that `process` is going to be given.
  constructor(bytes, longest = 1024) {
    const {exports} = new WebAssembly.Instance(new WebAssembly.Module(bytes), {});
    exports._initialize?.();
    this.#functions = exports;
    this.rate = exports.rtsep_rate();          // Hz
    this.channels = exports.rtsep_channels();
    this.latency = exports.rtsep_latency();    // samples by which the sources are behind the mixture
    this.longest = longest;
    const n = exports.rtsep_sources(), row = Float32Array.BYTES_PER_ELEMENT * this.channels * longest;
    const aligned = at => Math.ceil(at / ALIGNMENT) * ALIGNMENT;
    this.#state = aligned(exports.__heap_base.value);
    this.#in = aligned(this.#state + exports.rtsep_memory_bytes());
    this.#out = this.#in + row;
    const lacking = this.#out + n * row - exports.memory.buffer.byteLength;
    if (lacking > 0) exports.memory.grow(Math.ceil(lacking / WASM_PAGE));
    this.sources = n;
    this.reset();
  }

  // Names of the sources.
  get names() {
    const memory = new Uint8Array(this.#functions.memory.buffer);
    return Array.from({length: this.sources}, (_, i) => {
      const start = this.#functions.rtsep_source(i);
      return new TextDecoder().decode(memory.slice(start, memory.indexOf(0, start)));
    });
  }

  // Separate the next samples.
  //
  // mixture: a Float32Array for each channel, full scale is 1, all of one length, at most `longest`
  // Returns an array of channels for each source; they are overwritten by the next call.
  process(mixture) {
    const n = mixture[0].length;
    if (mixture.length !== this.channels || n === undefined)
      throw new RangeError(`${mixture.length} channels; the separator has ${this.channels}, each a Float32Array`);
    if (n > this.longest) throw new RangeError(`a block of ${n} samples; the longest is ${this.longest}`);
    const {channels, sources} = this.#views(n);
    channels.forEach((channel, c) => channel.set(mixture[c]));
    this.#functions.rtsep_process(this.#state, this.#in, this.#out, n);
    return sources;
  }

  // Back to the start, settings included.
  reset() {
    this.#functions.rtsep_init(this.#state);
  }

  // Lower what does not belong to a source in its output by so many dB: 0, the mixture, to Infinity.
  setStrength(db) {
    this.#functions.rtsep_set_strength(this.#state, db);
  }

  // The memory of a block of n samples. Blocks of a device have the same size again and again.
  #views(n) {
    if (!this.#blocks.has(n)) {
      const {buffer} = this.#functions.memory, size = Float32Array.BYTES_PER_ELEMENT * n;
      const rows = start => Array.from({length: this.channels}, (_, c) => new Float32Array(buffer, start + c * size, n));
      const sources = Array.from({length: this.sources}, (_, s) => rows(this.#out + s * this.channels * size));
      this.#blocks.set(n, {channels: rows(this.#in), sources});
    }
    return this.#blocks.get(n);
  }
}
