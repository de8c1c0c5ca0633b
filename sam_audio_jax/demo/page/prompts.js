// The sounds that are asked for: a text and spans each. One of them is active: drags mark it.

import { element } from "./track.js";

const COLOURS = ["#34d399", "#60a5fa", "#fbbf24", "#f472b6", "#a78bfa", "#22d3ee"];

export class Prompts extends EventTarget {
  #rows = [];
  #active = null;
  #keys = 0;
  #node;
  seconds = 0;
  token = "+"; // of the next span
  most = COLOURS.length;

  constructor(node) {
    super();
    this.#node = node;
  }

  reset(seconds) {
    this.seconds = seconds;
    this.#rows = [];
    this.#node.replaceChildren();
    this.add();
  }

  get count() {
    return this.#rows.length;
  }

  colourOf(number) {
    return this.#rows[number]?.colour;
  }

  // The prompts as the server takes them.
  values() {
    return this.#rows.map(({ input, spans }) => ({
      text: input.value,
      spans: spans.map(({ token, start, end }) => [token, start, end]),
    }));
  }

  // Fills the first prompt.
  fill(text, spans) {
    const [row] = this.#rows;
    row.input.value = text;
    for (const [token, start, end] of spans) this.#push(row, token, start, end);
  }

  add() {
    if (this.#rows.length >= this.most) return;
    const free = COLOURS.find((colour) => !this.#rows.some((row) => row.colour === colour));
    const row = { colour: free, spans: [] };
    row.input = element("input", {
      type: "text", maxLength: 1000, placeholder: "for example: dog barking",
      "aria-label": "The sound in words", onfocus: () => this.#activate(row),
      oninput: () => this.#changed(),
    });
    row.chips = element("ul", { className: "chips", "aria-label": "Its spans" });
    row.remove = element("button", {
      type: "button", className: "plain", "aria-label": "Remove this sound",
      onclick: () => this.#drop(row),
    }, "×");
    row.node = element("li", { className: "prompt", onclick: () => this.#activate(row) },
      element("div", { className: "row" }, row.input, row.remove), row.chips);
    row.node.style.setProperty("--colour", row.colour);
    this.#rows.push(row);
    this.#node.append(row.node);
    this.#active = row;
    this.#changed();
  }

  focus() {
    this.#active?.input.focus();
  }

  #drop(row) {
    this.#rows = this.#rows.filter((other) => other !== row);
    row.node.remove();
    if (!this.#rows.length) this.add();
    if (this.#active === row) this.#active = this.#rows[0];
    this.#changed();
    this.focus();
  }

  #activate(row) {
    if (this.#active === row || !this.#rows.includes(row)) return;
    this.#active = row;
    this.#changed();
  }

  // What a track needs of spans.

  all() {
    return this.#rows.flatMap((row) => row.spans.map((span) => ({
      span, colour: row.colour, active: row === this.#active, text: row.input.value,
    })));
  }

  spanOf(key) {
    return this.all().find(({ span }) => span.key === key)?.span;
  }

  addSpan(start, end, opposite = false) {
    const other = this.token === "+" ? "-" : "+";
    return this.#push(this.#active, opposite ? other : this.token, start, end);
  }

  #push(row, token, start, end) {
    const span = { key: String(++this.#keys), token, start: 0, end: 0 };
    row.spans.push(span);
    this.change(span, { start, end });
    return span;
  }

  change(span, fields) {
    const owner = this.#rows.find((row) => row.spans.includes(span));
    if (owner) this.#active = owner;
    Object.assign(span, fields);
    span.start = Math.min(Math.max(span.start, 0), this.seconds);
    span.end = Math.min(Math.max(span.end, span.start), this.seconds);
    this.#changed();
  }

  removeSpan(span) {
    for (const row of this.#rows) row.spans = row.spans.filter((other) => other !== span);
    this.#changed();
  }

  #changed() {
    for (const row of this.#rows) {
      row.node.classList.toggle("active", row === this.#active);
      row.remove.hidden = this.#rows.length === 1;
      this.#showChips(row);
    }
    this.dispatchEvent(new Event("change"));
  }

  #showChips(row) {
    const kept = new Set();
    for (const span of row.spans) {
      const node = row.chips.querySelector(`[data-key="${span.key}"]`) ?? this.#chip(row, span);
      kept.add(node);
      node.classList.toggle("minus", span.token === "-");
      const [sign, start, end] = [".sign", ".from", ".to"].map((name) => node.querySelector(name));
      sign.textContent = span.token === "-" ? "−" : "+";
      sign.ariaLabel = span.token === "-" ? "Does not sound: change" : "Sounds: change";
      if (document.activeElement !== start) start.value = span.start.toFixed(2);
      if (document.activeElement !== end) end.value = span.end.toFixed(2);
    }
    for (const node of [...row.chips.children]) if (!kept.has(node)) node.remove();
  }

  #chip(row, span) {
    const number = (name, label, key) => element("input", {
      type: "number", className: name, min: 0, max: this.seconds, step: 0.05, "aria-label": label,
      onchange: (event) => this.change(span, { [key]: Number(event.target.value) }),
      onblur: () => this.#changed(),
    });
    const node = element("li", { className: "chip" },
      element("button", {
        type: "button", className: "sign",
        onclick: () => this.change(span, { token: span.token === "+" ? "-" : "+" }),
      }),
      number("from", "From, in seconds", "start"), "–", number("to", "To, in seconds", "end"), "s",
      element("button", {
        type: "button", "aria-label": "Remove this span", onclick: () => this.removeSpan(span),
      }, "×"));
    node.dataset.key = span.key;
    row.chips.append(node);
    return node;
  }
}
