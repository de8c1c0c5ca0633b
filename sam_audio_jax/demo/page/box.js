// A box on a frame of the video: the object whose sound is to be separated.

const LEAST = 0.02; // of the picture; a smaller box is a click

export class Box {
  #value = null; // left, top, right, bottom in shares of the picture
  #screen;
  #node;
  #inputs;
  #clear;
  on = false;

  constructor({ screen, node, inputs, clear }) {
    this.#screen = screen;
    this.#node = node;
    this.#inputs = inputs;
    this.#clear = clear;
    screen.addEventListener("pointerdown", (event) => this.#press(event));
    clear.addEventListener("click", () => this.set(null));
    for (const input of inputs) input.addEventListener("change", () => this.#typed());
  }

  get value() {
    return this.on ? this.#value : null;
  }

  enable(on) {
    this.on = on;
    this.#screen.classList.toggle("on", on);
    for (const input of this.#inputs) input.disabled = !on;
    this.set(null);
  }

  set(value) {
    this.#value = value;
    this.#node.hidden = !value;
    this.#clear.disabled = !value;
    this.#inputs.forEach((input, side) => {
      input.value = value ? Math.round(value[side] * 100) : "";
    });
    if (!value) return;
    const [left, top, right, bottom] = value.map((side) => 100 * side);
    Object.assign(this.#node.style, {
      left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%`,
    });
  }

  #typed() {
    const sides = this.#inputs.map((input) => Number(input.value) / 100);
    const filled = this.#inputs.every((input) => input.value !== "" && input.checkValidity());
    if (filled && sides[0] < sides[2] && sides[1] < sides[3]) this.set(sides);
  }

  #press(event) {
    if (!this.on || event.button !== 0) return;
    event.preventDefault();
    this.#screen.setPointerCapture(event.pointerId);
    const place = ({ clientX, clientY }) => {
      const { left, top, width, height } = this.#screen.getBoundingClientRect();
      const share = (value) => Math.min(Math.max(value, 0), 1);
      return [share((clientX - left) / width), share((clientY - top) / height)];
    };
    const [x, y] = place(event);
    const drag = (moved) => {
      const [u, v] = place(moved);
      const sides = [Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)];
      this.set(sides[2] - sides[0] > LEAST && sides[3] - sides[1] > LEAST ? sides : null);
    };
    this.#screen.addEventListener("pointermove", drag);
    this.#screen.addEventListener("pointerup", () => {
      this.#screen.removeEventListener("pointermove", drag);
    }, { once: true });
  }
}
