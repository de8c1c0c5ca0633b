// A wave and its spectrogram, with a playhead and, on the recording, the spans that are marked.

import { player } from "./player.js";

const FREE = 4; // pixels that a pointer may move in a click
const LEAST_S = 0.02; // the shortest span

// From black over violet and orange to a light yellow; even steps of brightness.
const STOPS = [[0, 0, 4], [40, 17, 89], [114, 31, 129], [182, 54, 121], [241, 96, 93],
  [254, 175, 119], [252, 253, 191]];
const COLOURS = Array.from({ length: 256 }, (_, level) => {
  const place = (level / 255) * (STOPS.length - 1);
  const low = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[low].map((part, i) => part + (STOPS[low + 1][i] - part) * (place - low));
});

export function clock(seconds) {
  const tenths = Math.floor(seconds * 10 + 1e-6);
  const rest = String(Math.floor((tenths % 600) / 10)).padStart(2, "0");
  return `${Math.floor(tenths / 600)}:${rest}.${tenths % 10}`;
}

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function drawWave(canvas, bytes, columns) {
  const height = 116;
  Object.assign(canvas, { width: columns, height });
  const context = canvas.getContext("2d");
  context.fillStyle = "#b9b0ff";
  for (let column = 0; column < columns; column++) {
    const low = (bytes[column] - 128) / 127;
    const high = (bytes[columns + column] - 128) / 127;
    const top = ((1 - high) / 2) * height;
    context.fillRect(column, top, 1, Math.max(1.5, ((high - low) / 2) * height));
  }
}

function drawSpectrogram(canvas, levels, bands, frames) {
  Object.assign(canvas, { width: frames, height: bands });
  const context = canvas.getContext("2d");
  const image = context.createImageData(frames, bands);
  for (let band = 0; band < bands; band++) {
    for (let frame = 0; frame < frames; frame++) {
      const colour = COLOURS[levels[band * frames + frame]];
      const pixel = ((bands - 1 - band) * frames + frame) * 4;
      image.data.set(colour, pixel);
      image.data[pixel + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

export class Track {
  #spans = element("div");
  #playhead = element("div", { className: "playhead" });

  // `drawing` are the bytes and shape of the server's picture; `name` is the player's.
  constructor({ name, label, seconds, sampleRate, drawing, colour, link }) {
    Object.assign(this, { name, seconds });
    const wave = element("canvas", { className: "wave" });
    const spectrogram = element("canvas", { className: "spectrogram" });
    const { columns, bands, frames } = drawing.shape;
    const bytes = new Uint8Array(drawing.bytes);
    drawWave(wave, bytes, columns);
    drawSpectrogram(spectrogram, bytes.subarray(2 * columns), bands, frames);
    this.surface = element("div", {
      className: "surface", role: "slider", tabIndex: 0, "aria-label": `Position in ${label}`,
      "aria-valuemin": 0, "aria-valuemax": seconds.toFixed(1),
    }, wave, spectrogram, this.#spans, this.#playhead,
      element("span", { className: "hertz" }, `0 – ${+(sampleRate / 2000).toFixed(2)} kHz`));
    this.listen = element("button", {
      type: "button", className: "listen", onclick: () => player.listen(name),
      "aria-label": `Listen to ${label}`,
    }, "Listen");
    const side = element("div", { className: "side" },
      element("span", { className: "label" }, label), this.listen);
    if (link) side.append(element("a", { href: link, download: "" }, "Download"));
    this.node = element("div", { className: "track" }, side, this.surface);
    if (colour) this.node.style.setProperty("--colour", colour);
    this.surface.addEventListener("keydown", (event) => this.#key(event));
  }

  // Without spans a click or a drag moves the playhead.
  still() {
    this.node.classList.add("still");
    const seek = (event) => event.buttons & 1 && player.seek(this.timeOf(event));
    this.surface.addEventListener("pointerdown", (event) => {
      this.surface.setPointerCapture(event.pointerId);
      seek(event);
    });
    this.surface.addEventListener("pointermove", seek);
    return this;
  }

  timeOf(event) {
    const { left, width } = this.surface.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - left) / width, 0), 1) * this.seconds;
  }

  move(position) {
    this.#playhead.style.left = `${(100 * position) / this.seconds}%`;
    this.surface.setAttribute("aria-valuenow", position.toFixed(1));
    this.surface.setAttribute("aria-valuetext", clock(position));
  }

  #key(event) {
    if (event.target !== this.surface) return;
    const step = event.shiftKey ? 5 : 0.5;
    const steps = { ArrowLeft: -step, ArrowRight: step, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    player.seek(player.position + steps[event.key]);
  }

  // Lets spans be drawn, moved, resized and removed; `marks` is the model (prompts.js).
  editable(marks) {
    this.marks = marks;
    marks.addEventListener("change", () => this.#show());
    this.surface.addEventListener("pointerdown", (event) => this.#press(event));
    this.surface.addEventListener("contextmenu", (event) => event.preventDefault());
    this.#show();
    return this;
  }

  #press(event) {
    if (event.button !== 0) return;
    const node = event.target.closest(".span");
    const span = node && this.marks.spanOf(node.dataset.key);
    const edge = event.target.dataset.edge;
    const from = this.timeOf(event);
    const before = span && { ...span };
    let drawn = null;
    this.surface.setPointerCapture(event.pointerId);
    const drag = (moved) => {
      if (!drawn && Math.abs(moved.clientX - event.clientX) < FREE) return;
      const time = this.timeOf(moved);
      if (!span) {
        drawn ??= this.marks.addSpan(from, from + LEAST_S, moved.shiftKey);
        const [start, end] = [Math.min(from, time), Math.max(from, time)];
        this.marks.change(drawn, { start, end: Math.max(end, start + LEAST_S) });
        return;
      }
      drawn = span;
      if (edge === "start") {
        this.marks.change(span, { start: Math.min(time, span.end - LEAST_S) });
      } else if (edge === "end") {
        this.marks.change(span, { end: Math.max(time, span.start + LEAST_S) });
      } else {
        const length = before.end - before.start;
        const start = Math.min(Math.max(before.start + time - from, 0), this.seconds - length);
        this.marks.change(span, { start, end: start + length });
      }
    };
    const end = (lifted) => {
      this.surface.removeEventListener("pointermove", drag);
      if (drawn) this.#node(drawn)?.focus({ preventScroll: true });
      else player.seek(this.timeOf(lifted));
    };
    this.surface.addEventListener("pointermove", drag);
    this.surface.addEventListener("pointerup", end, { once: true });
  }

  #node(span) {
    return this.#spans.querySelector(`[data-key="${span.key}"]`);
  }

  #show() {
    const kept = new Set();
    for (const { span, colour, active, text } of this.marks.all()) {
      let node = this.#node(span);
      if (!node) {
        node = element("button", {
          type: "button", className: "span", onkeydown: (event) => this.#spanKey(event, span),
        }, element("i", { className: "edge start" }), element("i", { className: "edge end" }));
        node.dataset.key = span.key;
        node.firstChild.dataset.edge = "start";
        node.lastChild.dataset.edge = "end";
        this.#spans.append(node);
      }
      kept.add(node);
      const minus = span.token === "-";
      node.classList.toggle("minus", minus);
      node.classList.toggle("other", !active);
      node.dataset.sign = minus ? "−" : "+";
      if (!minus) node.style.setProperty("--colour", colour);
      else node.style.removeProperty("--colour");
      node.style.left = `${(100 * span.start) / this.seconds}%`;
      node.style.width = `${(100 * (span.end - span.start)) / this.seconds}%`;
      node.setAttribute("aria-label", `${text || "the sound"} ${minus ? "does not sound" : "sounds"}` +
        ` from ${span.start.toFixed(2)} to ${span.end.toFixed(2)} seconds. Arrows move it, with` +
        " Shift its end; Delete removes it, + and - change its sign.");
    }
    for (const node of [...this.#spans.children]) if (!kept.has(node)) node.remove();
  }

  #spanKey(event, span) {
    const step = { ArrowLeft: -0.05, ArrowRight: 0.05 }[event.key];
    if (step && event.shiftKey) {
      const end = Math.max(span.end + step, span.start + LEAST_S);
      this.marks.change(span, { end });
    } else if (step) {
      const length = span.end - span.start;
      const start = Math.min(Math.max(span.start + step, 0), this.seconds - length);
      this.marks.change(span, { start, end: start + length });
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.marks.removeSpan(span);
      this.surface.focus();
    } else if (event.key === "+" || event.key === "-") {
      this.marks.change(span, { token: event.key });
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

// Marks of time below a track.
export function ruler(seconds) {
  const least = seconds / 10;
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600].find((s) => s >= least) ?? 600;
  const node = element("div", { className: "ruler", "aria-hidden": "true" });
  for (let time = 0; time <= seconds * 0.97; time += step) {
    const words = step < 1 ? `${time.toFixed(1)} s` : clock(time).slice(0, -2);
    const mark = element("span", {}, words);
    mark.style.left = `${(100 * time) / seconds}%`;
    node.append(mark);
  }
  return node;
}
