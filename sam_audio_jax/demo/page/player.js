// One transport for all waves: they start at the same instant of the audio clock and run on
// together, one of them audible. Switching changes volumes alone, so it never loses the place.

const SOON_S = 0.03; // between the call and the sound, so that all sources are ready
const FADE_S = 0.006;

class Player extends EventTarget {
  #context = null;
  #master = null;
  #waves = new Map(); // name -> {buffer, gain, source}
  #startedAt = 0; // of the audio clock
  #offset = 0; // of the recording, in seconds, at that instant
  #volume = 1;
  playing = false;
  loop = false;
  audible = null;

  get duration() {
    const lengths = [...this.#waves.values()].map((wave) => wave.buffer.duration);
    return lengths.length ? Math.min(...lengths) : 0;
  }

  get position() {
    if (!this.playing) return this.#offset;
    const elapsed = Math.max(0, this.#context.currentTime - this.#startedAt);
    const position = this.#offset + elapsed;
    return this.loop && this.duration ? position % this.duration : Math.min(position, this.duration);
  }

  // Begins anew, with a clock of the recording's own rate where the browser has it.
  reset(sampleRate) {
    this.stop();
    this.#context?.close();
    this.#waves.clear();
    this.#offset = 0;
    this.audible = null;
    try {
      this.#context = new AudioContext({ sampleRate });
    } catch {
      this.#context = new AudioContext();
    }
    this.#master = this.#context.createGain();
    this.#master.connect(this.#context.destination);
    this.volume = this.#volume;
  }

  // Decodes the bytes of a sound file under a name.
  async add(name, bytes) {
    const context = this.#context;
    const buffer = await context.decodeAudioData(bytes);
    if (context !== this.#context) return; // another recording came meanwhile
    const gain = context.createGain();
    gain.gain.value = 0;
    gain.connect(this.#master);
    this.#waves.set(name, { buffer, gain, source: null });
    if (this.audible === null) this.listen(name);
    if (this.playing) this.#start(this.position);
    this.dispatchEvent(new Event("change"));
  }

  // Drops all waves but one.
  keepOnly(name) {
    for (const [other, wave] of this.#waves) {
      if (other === name) continue;
      wave.source?.stop();
      wave.gain.disconnect();
      this.#waves.delete(other);
    }
    if (!this.#waves.has(this.audible)) this.listen(name);
  }

  has(name) {
    return this.#waves.has(name);
  }

  listen(name) {
    this.audible = name;
    for (const [other, { gain }] of this.#waves) {
      gain.gain.setTargetAtTime(other === name ? 1 : 0, this.#context.currentTime, FADE_S);
    }
    this.dispatchEvent(new Event("change"));
  }

  set volume(value) {
    this.#volume = value;
    this.#master?.gain.setTargetAtTime(value * value, this.#context.currentTime, FADE_S);
  }

  async play() {
    if (!this.#waves.size) return;
    await this.#context.resume();
    if (this.#offset >= this.duration - 0.01) this.#offset = 0;
    this.playing = true;
    this.#start(this.#offset);
    this.dispatchEvent(new Event("change"));
  }

  stop() {
    if (!this.playing) return;
    this.#offset = this.position;
    this.playing = false;
    this.#silence();
    this.dispatchEvent(new Event("change"));
  }

  seek(seconds) {
    this.#offset = Math.min(Math.max(0, seconds), this.duration);
    if (this.playing) this.#start(this.#offset);
    this.dispatchEvent(new Event("change"));
  }

  setLoop(loop) {
    const here = this.position;
    this.loop = loop;
    if (this.playing) this.#start(here);
  }

  // What runs at the moment, for tests: each wave's instant of start and offset.
  get running() {
    return [...this.#waves].map(([name, wave]) => ({
      name, at: wave.at, offset: wave.offset, loudness: wave.gain.gain.value,
    }));
  }

  #silence() {
    for (const wave of this.#waves.values()) {
      if (wave.source) wave.source.onended = null;
      wave.source?.stop();
      wave.source = null;
    }
  }

  #start(offset) {
    this.#silence();
    const at = this.#context.currentTime + SOON_S;
    const duration = this.duration;
    this.#startedAt = at;
    this.#offset = offset;
    for (const wave of this.#waves.values()) {
      const source = this.#context.createBufferSource();
      source.buffer = wave.buffer;
      source.loop = this.loop;
      source.loopEnd = duration;
      source.connect(wave.gain);
      source.start(at, offset);
      Object.assign(wave, { source, at, offset });
    }
    const [first] = this.#waves.values();
    first.source.onended = () => {
      if (!this.playing || this.loop) return;
      this.stop();
      this.seek(0);
    };
  }
}

export const player = new Player();
