// Linked views of the same samples: scatters (the map, the plane) and a distribution.
//
// The server decides what is shown and kept, and answers every gesture with new data; until then a
// drawn shape or range dims the points here at once. Gestures go out as one trigger, `gesture`:
//   {do: "shape", view, corners}   a shape drawn by dragging in a scatter
//   {do: "range", view, low, high} a range of the distribution, drawn or dragged by an end
//   {do: "budget", view, percent}  the line where the budget ends, dragged or moved by keys
//   {do: "clear", view}            a double click, or Escape
//   {do: "open", id}               a click on a point, Enter on the marked one
//   {do: "nearest", view, value}   a click on a bar

const AROUND = { left: 44, right: 12, top: 10, bottom: 34 }; // pixels around axes
const BARE = { left: 6, right: 6, top: 6, bottom: 6 }; // around a map, which has none
const REACH = 9; // pixels from which a pointer finds a point or an end of a range
const DRAGGED = 4; // pixels that make a press a drag
const WHOLE = [0, 1]; // an axis from end to end
const STEP = 0.01; // of the axis, that an arrow key moves an end of a range
const BUDGET = "budget"; // among what is dragged, beside the ends of a range: 0 and 1

const mounted = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  let views = mounted.get(parentElement);
  if (!views) mounted.set(parentElement, (views = new Views(parentElement)));
  views.show(data, (gesture) => setTriggerValue("gesture", gesture));
  return () => views.pause();
}

class Views {
  constructor(parent) {
    this.root = parent.querySelector(".views");
    this.tip = parent.querySelector(".tip");
    this.said = parent.querySelector(".said");
    this.views = new Map();
    this.resized = new ResizeObserver(() => this.draw());
    this.themed = new MutationObserver(() => this.draw());
  }

  show(data, send) {
    this.data = data;
    this.send = send;
    this.trial = null; // what was drawn and not answered yet: a test of a point's number
    for (const [name, view] of this.views) {
      if (data.views.some((one) => one.name === name)) continue;
      view.box.remove();
      this.views.delete(name);
    }
    data.views.forEach((one, place) => {
      if (!this.views.has(one.name)) {
        const kind = one.kind === "scatter" ? Scatter : Distribution;
        this.views.set(one.name, new kind(this, one.name));
      }
      const { box } = this.views.get(one.name);
      const there = this.root.children[place];
      if (there !== box) this.root.insertBefore(box, there || null); // moved, it would lose the focus
      this.views.get(one.name).take(one);
    });
    this.resized.observe(this.root);
    const host = document.querySelector(".stApp") || document.body;
    this.themed.observe(host, { attributes: true, attributeFilter: ["class", "style"] });
    this.draw();
  }

  pause() {
    this.resized.disconnect();
    this.themed.disconnect();
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      const style = getComputedStyle(this.root);
      const of = (name, otherwise) => style.getPropertyValue(name).trim() || otherwise;
      this.ink = of("--st-text-color", "#31333f");
      this.paper = of("--st-background-color", "#ffffff");
      this.font = of("--st-font", "sans-serif");
      for (const view of this.views.values()) view.draw();
    });
  }

  // Whether point i passes what the server filters by, and what was just drawn.
  passes(i) {
    return this.data.points.shown[i] && (!this.trial || this.trial(i));
  }

  tell(x, y, lines) {
    this.tip.hidden = !lines;
    if (!lines) return;
    this.tip.textContent = lines.join("\n");
    const { width, height } = this.root.getBoundingClientRect();
    const room = this.tip.getBoundingClientRect();
    this.tip.style.left = `${Math.max(Math.min(x + 12, width - room.width), 0)}px`;
    this.tip.style.top = `${y + 16 + room.height > height ? y - room.height - 10 : y + 16}px`;
  }

  describe(i) {
    const { id, text, kept, group } = this.data.points;
    const words = this.data.words;
    const parts = [filled(words.row, { number: id[i] })];
    if (kept) parts.push(kept[i] ? words.kept : words.aside);
    const name = this.data.groups[group[i]].name;
    if (!kept || (name !== words.kept && name !== words.aside)) parts.push(name);
    return text[i] ? [parts.join(" · "), text[i]] : [parts.join(" · ")];
  }
}

// What scatters and distributions share: a titled canvas, its scale, and how it hears a pointer.
class View {
  constructor(views, name) {
    this.views = views;
    this.name = name;
    this.box = document.createElement("figure");
    this.box.className = name;
    this.title = document.createElement("figcaption");
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.box.append(this.title, this.canvas);
    const on = (kind, does) => this.canvas.addEventListener(kind, does);
    on("pointerdown", (event) => this.press(event));
    on("pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.release(event));
    on("pointercancel", () => this.drop());
    on("pointerleave", () => this.views.tell(0, 0, null));
    on("dblclick", () => this.clear());
    on("keydown", (event) => this.key(event));
    on("blur", () => this.blur());
  }

  take(data) {
    this.data = data;
    this.title.textContent = data.title;
    this.canvas.setAttribute("aria-label", data.alt);
  }

  measure(around) {
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = this.canvas.getBoundingClientRect();
    if (this.canvas.width !== Math.round(width * ratio)) this.canvas.width = Math.round(width * ratio);
    if (this.canvas.height !== Math.round(height * ratio)) this.canvas.height = Math.round(height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    this.left = around.left;
    this.top = around.top;
    this.wide = Math.max(width - around.left - around.right, 1);
    this.high = Math.max(height - around.top - around.bottom, 1);
    return pen;
  }

  // From the unit square of the axes to pixels, and back.
  px(u) { return this.left + u * this.wide; }
  py(v) { return this.top + (1 - v) * this.high; }
  ux(x) { return (x - this.left) / this.wide; }
  uy(y) { return 1 - (y - this.top) / this.high; }

  place(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  // Beside the pointer, in the pixels of all views.
  tell(x, y, lines) {
    const own = this.canvas.getBoundingClientRect();
    const all = this.views.root.getBoundingClientRect();
    this.views.tell(x + own.left - all.left, y + own.top - all.top, lines);
  }

  press(event) {
    if (event.button !== 0) return;
    this.tapped = this.place(event);
    // A finger scrolls and taps, and drags what can be gripped.
    if (event.pointerType === "touch" && !this.grips(this.tapped)) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.start = this.place(event);
    this.dragged = false;
    this.began(this.start);
  }

  move(event) {
    const at = this.place(event);
    if (!this.start) return this.hover(at);
    const far = Math.hypot(at[0] - this.start[0], at[1] - this.start[1]);
    this.dragged ||= far > DRAGGED;
    if (this.dragged) this.drag(at);
  }

  release(event) {
    const at = this.place(event);
    const near = this.tapped && Math.hypot(at[0] - this.tapped[0], at[1] - this.tapped[1]) <= DRAGGED;
    const dragged = this.start && this.dragged;
    this.start = this.tapped = null;
    if (dragged) this.dropped();
    else if (near) this.click(at);
  }

  drop() {
    this.start = null;
    this.views.trial = null;
    this.views.draw();
  }

  grips() { return false; }
  clear() { this.views.send({ do: "clear", view: this.name }); }
  blur() {}

  axes(pen) {
    const { ink, font } = this.views;
    pen.font = `12px ${font}`;
    pen.fillStyle = pen.strokeStyle = ink;
    pen.globalAlpha = 0.65;
    const [x0, x1] = this.data.across;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (const tick of ticks(x0, x1, this.wide / 70)) {
      pen.fillText(short(tick), this.px((tick - x0) / (x1 - x0)), this.top + this.high + 4);
    }
    pen.fillText(this.data.x, this.left + this.wide / 2, this.top + this.high + 19, this.wide);
    const [y0, y1] = this.data.up;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const tick of ticks(y0, y1, this.high / 40)) {
      pen.fillText(short(tick), this.left - 5, this.py((tick - y0) / (y1 - y0)));
    }
    pen.save();
    pen.translate(9, this.top + this.high / 2);
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "center";
    pen.fillText(this.data.y, 0, 0, this.high);
    pen.restore();
    pen.globalAlpha = 0.25;
    pen.strokeRect(this.left, this.top, this.wide, this.high);
    pen.globalAlpha = 1;
  }
}

class Scatter extends View {
  take(data) {
    super.take(data);
    if (!this.start) this.drawn = null; // what is being drawn stays
    const { id } = this.views.data.points;
    this.at = id.map((_, i) => [data.px[i] / 1e4, data.py[i] / 1e4]);
    this.shade = null;
  }

  draw() {
    const views = this.views;
    const pen = this.measure(this.data.bare ? BARE : AROUND);
    if (!this.data.bare) this.axes(pen);
    if (this.data.density) this.background(pen);
    const { points, groups } = views.data;
    const full = (i) => !points.kept || points.kept[i]; // what is set aside is a ring
    const passing = [];
    for (let i = 0; i < this.at.length; i++) {
      if (views.passes(i)) passing.push(i);
      else this.dot(pen, i, { alpha: 0.16, colour: views.data.neutral, full: full(i) });
    }
    // What is kept lies on top.
    const order = points.kept ? passing.sort((a, b) => points.kept[a] - points.kept[b]) : passing;
    for (const i of order) {
      this.dot(pen, i, { alpha: 0.85, colour: groups[points.group[i]].colour, full: full(i) });
    }
    if (this.data.names) this.labels(pen);
    const shape = this.drawn || this.data.shape;
    if (shape && shape.length > 1) this.outline(pen, shape);
    const open = this.data.open;
    if (open) this.ring(pen, open.map((value) => value / 1e4), 8, views.ink);
    if (this.marked != null && this.at[this.marked]) this.ring(pen, this.at[this.marked], 6, views.data.accent);
  }

  background(pen) {
    if (!this.shade) {
      const { cells, values } = this.data.density;
      this.shade = new OffscreenCanvas(cells, cells);
      const brush = this.shade.getContext("2d");
      const image = brush.createImageData(cells, cells);
      values.forEach((value, k) => image.data.set([139, 145, 156, value], 4 * k));
      brush.putImageData(image, 0, 0);
    }
    pen.save();
    pen.translate(this.left, this.top + this.high);
    pen.scale(1, -1);
    pen.drawImage(this.shade, 0, 0, this.wide, this.high);
    pen.restore();
  }

  dot(pen, i, { alpha, colour, full }) {
    const [u, v] = this.at[i];
    const radius = this.at.length > 1500 ? 2.4 : 3.4;
    pen.globalAlpha = alpha;
    pen.beginPath();
    pen.arc(this.px(u), this.py(v), radius, 0, 2 * Math.PI);
    if (full) {
      pen.fillStyle = colour;
      pen.fill();
    } else {
      pen.strokeStyle = colour;
      pen.lineWidth = 1.2;
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }

  ring(pen, [u, v], radius, colour) {
    pen.strokeStyle = colour;
    pen.lineWidth = 2.2;
    pen.beginPath();
    pen.arc(this.px(u), this.py(v), radius, 0, 2 * Math.PI);
    pen.stroke();
  }

  // Names of topics on the map, and how many each keeps: those that are kept from first, beside
  // their places, with a line to them, where they would cover one another.
  labels(pen) {
    const { ink, paper, font } = this.views;
    pen.font = `600 12px ${font}`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.lineWidth = 3;
    pen.lineJoin = "round";
    const taken = [];
    for (const { name, told, none, at } of [...this.data.names].sort((a, b) => a.none - b.none)) {
      const text = name + told;
      const half = pen.measureText(text).width / 2;
      const x = Math.min(Math.max(this.px(at[0]), this.left + half), this.left + this.wide - half);
      const own = this.py(at[1]);
      const free = (y) =>
        Math.abs(y - this.top - this.high / 2) < this.high / 2 - 8 &&
        !taken.some((t) => Math.abs(t.x - x) < t.half + half + 6 && Math.abs(t.y - y) < 16);
      const y = (none ? [own] : [0, -17, 17, -34, 34, -51, 51].map((by) => own + by)).find(free);
      if (y == null || 2 * half > this.wide) continue;
      taken.push({ x, y, half });
      pen.globalAlpha = none ? 0.5 : 0.9; // a topic of which nothing is kept stands back
      pen.strokeStyle = pen.fillStyle = ink;
      if (y !== own) this.leader(pen, [this.px(at[0]), own], [x, y + (y < own ? 7 : -7)]);
      pen.strokeStyle = paper;
      pen.strokeText(text, x, y);
      pen.fillText(text, x, y);
    }
    pen.globalAlpha = 1;
  }

  leader(pen, from, to) {
    pen.save();
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(...to);
    pen.stroke();
    pen.beginPath();
    pen.arc(...from, 2, 0, 2 * Math.PI);
    pen.fill();
    pen.restore();
  }

  outline(pen, shape) {
    pen.beginPath();
    shape.forEach(([u, v], k) => pen[k ? "lineTo" : "moveTo"](this.px(u), this.py(v)));
    pen.closePath();
    pen.fillStyle = pen.strokeStyle = this.views.data.accent;
    pen.globalAlpha = 0.1;
    pen.fill();
    pen.globalAlpha = 1;
    pen.lineWidth = 1.2;
    pen.setLineDash([4, 3]);
    pen.stroke();
    pen.setLineDash([]);
  }

  began([x, y]) { this.drawn = [[this.ux(x), this.uy(y)]]; }

  drag([x, y]) {
    this.views.tell(0, 0, null);
    this.drawn.push([this.ux(x), this.uy(y)]);
    const shape = this.drawn;
    this.views.trial = (i) => inside(this.at[i], shape);
    this.views.draw();
  }

  dropped() {
    if (this.drawn.length < 3) return this.drop();
    this.views.send({ do: "shape", view: this.name, corners: this.drawn });
  }

  drop() {
    this.drawn = null;
    super.drop();
  }

  nearest(x, y) {
    let best = null;
    let reach = REACH * REACH;
    for (let i = 0; i < this.at.length; i++) {
      if (!this.views.passes(i)) continue;
      const far = (this.px(this.at[i][0]) - x) ** 2 + (this.py(this.at[i][1]) - y) ** 2;
      if (far < reach) [best, reach] = [i, far];
    }
    return best;
  }

  hover([x, y]) {
    const i = this.nearest(x, y);
    this.canvas.style.cursor = i == null ? "crosshair" : "pointer";
    this.tell(x, y, i == null ? null : this.views.describe(i));
  }

  click([x, y]) {
    this.drawn = null;
    const i = this.nearest(x, y);
    if (i != null) this.views.send({ do: "open", id: this.views.data.points.id[i] });
    this.views.draw();
  }

  // Arrows go to the next point that way, Enter opens it, Escape takes the shape off.
  key(event) {
    const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.key === "Escape") return this.clear();
    if (event.key === "Enter" && this.marked != null) {
      this.views.send({ do: "open", id: this.views.data.points.id[this.marked] });
    }
    if (!ways[event.key]) return;
    event.preventDefault();
    const from = this.marked == null ? [0.5, 0.5] : this.at[this.marked];
    const [across, up] = ways[event.key];
    let best = null;
    let least = Infinity;
    for (let i = 0; i < this.at.length; i++) {
      const along = (this.at[i][0] - from[0]) * across + (this.at[i][1] - from[1]) * up;
      const beside = Math.abs((this.at[i][0] - from[0]) * up) + Math.abs((this.at[i][1] - from[1]) * across);
      if (along > 1e-6 && along + 2 * beside < least && this.views.passes(i)) [best, least] = [i, along + 2 * beside];
    }
    if (best == null) return;
    this.marked = best;
    const lines = this.views.describe(best);
    this.views.said.textContent = lines.join(". ");
    this.tell(this.px(this.at[best][0]), this.py(this.at[best][1]), lines);
    this.views.draw();
  }

  blur() {
    this.marked = null;
    this.views.tell(0, 0, null);
    this.views.draw();
  }
}

class Distribution extends View {
  take(data) {
    super.take(data);
    // What is moved and not yet reported stays, and what moves it.
    const moved = this.start || this.later != null;
    if (!moved) this.range = null;
    const steps = data.cut ? data.cut.steps.length : 0;
    if (!moved || this.step >= steps) this.step = null; // of the budget, as it is dragged
    if (!this.handles().includes(this.held)) this.held = null; // what is dragged
  }

  draw() {
    const pen = this.measure({ ...AROUND, bottom: 36 });
    const { bars, across, up, curve } = this.data;
    const count = bars[0].counts.length;
    const most = up[1] || 1;
    const ends = this.range || this.data.range;
    const within = this.within(ends);
    for (let k = 0; k < count; k++) {
      let below = 0;
      for (const { counts, colour, faint, full } of bars) {
        const [y0, y1] = [this.py(below / most), this.py((below + counts[k]) / most)];
        below += counts[k];
        if (!counts[k]) continue;
        const [x0, x1] = [this.px(k / count), this.px((k + 1) / count)];
        pen.globalAlpha = (faint ? 0.2 : full ? 0.95 : 0.45) * (within((k + 0.5) / count) ? 1 : 0.45);
        pen.fillStyle = colour;
        pen.fillRect(x0 + 0.5, y1, Math.max(x1 - x0 - 1, 0.5), y0 - y1);
      }
    }
    pen.globalAlpha = 0.7;
    pen.strokeStyle = this.views.data.curve;
    pen.lineWidth = 1.5;
    pen.beginPath();
    curve.forEach((value, k) => {
      pen[k ? "lineTo" : "moveTo"](this.px((k + 0.5) / curve.length), this.py(Math.min(value / most, 1)));
    });
    pen.stroke();
    pen.globalAlpha = 1;
    this.axes(pen);
    if (this.data.open != null) this.line(pen, this.data.open, this.views.ink, [2, 2]);
    if (ends) this.limits(pen, ends);
    else if (this.data.ranged) for (const end of WHOLE) this.line(pen, end, this.views.data.accent, []);
    if (this.data.cut) this.budget(pen);
  }

  // Whether a place lies in the range and, while the budget is dragged, in the budget.
  within(ends) {
    const { cut } = this.data;
    const at = this.step == null ? null : cut.steps[this.step][1];
    return (u) =>
      (!ends || (u >= ends[0] && u <= ends[1])) && (at == null || (cut.way > 0 ? u >= at : u <= at));
  }

  limits(pen, ends) {
    const { across } = this.data;
    pen.fillStyle = this.views.data.accent;
    pen.globalAlpha = 0.08;
    pen.fillRect(this.px(ends[0]), this.top, this.wide * (ends[1] - ends[0]), this.high);
    pen.globalAlpha = 1;
    ends.forEach((end, k) => this.line(pen, end, this.views.data.accent, [], k === this.held));
    pen.fillStyle = this.views.ink;
    pen.font = `12px ${this.views.font}`;
    pen.textBaseline = "top";
    ends.forEach((end, k) => {
      const outside = k === 0 ? end > 0.1 : end < 0.9; // beside the range, where there is room
      pen.textAlign = (k === 0) === outside ? "right" : "left";
      const value = across[0] + end * (across[1] - across[0]);
      pen.fillText(short(value), this.px(end) + (pen.textAlign === "left" ? 5 : -5), this.top + 2);
    });
  }

  // The line where the budget ends, with its percentage and value beside it.
  budget(pen) {
    const { ink, paper, font } = this.views;
    const { at, percent, value } = this.ending();
    this.line(pen, at, ink, [7, 3], this.held === BUDGET);
    pen.fillStyle = ink;
    pen.font = `600 12px ${font}`;
    pen.textBaseline = "top";
    pen.textAlign = at > 0.5 ? "right" : "left";
    const text = (percent == null ? "" : `${percent}% · `) + short(value);
    const place = [text, this.px(at) + (at > 0.5 ? -5 : 5), this.top + 16];
    pen.strokeStyle = paper;
    pen.lineWidth = 3;
    pen.strokeText(...place);
    pen.fillText(...place);
  }

  // Where the budget ends: as it is dragged, else as the server says.
  ending() {
    const { cut, across } = this.data;
    if (this.step == null) return cut;
    const [percent, at] = cut.steps[this.step];
    return { percent, at, value: across[0] + at * (across[1] - across[0]) };
  }

  line(pen, u, colour, dash, thick = false) {
    pen.strokeStyle = colour;
    pen.lineWidth = thick ? 4 : 2;
    pen.setLineDash(dash);
    pen.beginPath();
    pen.moveTo(this.px(u), this.top);
    pen.lineTo(this.px(u), this.top + this.high);
    pen.stroke();
    pen.setLineDash([]);
  }

  // Where the lines stand that are dragged: at the ends of the axis until a range is drawn.
  ends() { return this.data.range || WHOLE; }

  // What can be dragged, or moved by keys: the line of the budget and the ends of the range.
  handles() { return [...(this.data.cut ? [BUDGET] : []), ...(this.data.ranged ? [0, 1] : [])]; }

  grips([x]) { return this.handle(x) != null; }

  handle(x) {
    const far = (one) => Math.abs(this.px(one === BUDGET ? this.ending().at : this.ends()[one]) - x);
    const nearest = this.handles().reduce((a, b) => (a != null && far(a) <= far(b) ? a : b), null);
    return nearest != null && far(nearest) <= REACH ? nearest : null;
  }

  began([x]) {
    this.held = this.handle(x);
    this.from = [0, 1].includes(this.held) ? this.ends()[1 - this.held] : this.ux(x);
  }

  drag([x]) {
    this.views.tell(0, 0, null);
    if (this.held === BUDGET) this.reach(this.nearest(this.ux(x)));
    else if (this.data.ranged) this.set([this.from, this.ux(x)]);
  }

  // The step of the budget whose line is nearest to a place.
  nearest(u) {
    const far = this.data.cut.steps.map(([, at]) => Math.abs(at - u));
    return far.indexOf(Math.min(...far));
  }

  // Hold a step of the budget.
  reach(step) {
    const { steps } = this.data.cut;
    if (!steps.length) return;
    this.range = null;
    this.step = Math.min(Math.max(step, 0), steps.length - 1);
    this.views.draw();
  }

  set(ends) {
    this.step = null;
    this.range = ends.map((u) => Math.min(Math.max(u, 0), 1)).sort((a, b) => a - b);
    const [low, high] = this.range;
    const { at } = this.data;
    this.views.trial = this.data.limits ? null : (i) => at[i] >= low * 1e4 && at[i] <= high * 1e4;
    this.views.draw();
  }

  dropped() {
    this.report();
    this.held = null;
  }

  drop() {
    this.range = this.step = this.held = null;
    super.drop();
  }

  report() {
    this.later = null;
    if (this.step != null) {
      return this.views.send({ do: "budget", view: this.name, percent: this.ending().percent });
    }
    if (!this.range) return;
    const [x0, x1] = this.data.across;
    const [low, high] = this.range.map((u) => x0 + u * (x1 - x0));
    this.views.send({ do: "range", view: this.name, low, high });
  }

  hover([x, y]) {
    const handle = this.handle(x);
    const { bars, across } = this.data;
    const free = this.data.ranged ? "crosshair" : "pointer";
    this.canvas.style.cursor = handle == null ? free : "ew-resize";
    const u = this.ux(x);
    if (this.marks(handle) || u < 0 || u >= 1) return this.tell(0, 0, null);
    const count = bars[0].counts.length;
    const k = Math.floor(u * count);
    const from = across[0] + (k / count) * (across[1] - across[0]);
    const to = across[0] + ((k + 1) / count) * (across[1] - across[0]);
    const { words } = this.views.data;
    const parts = bars
      .filter((bar) => bar.counts[k])
      .map((bar) => filled(words.count, { number: bar.counts[k].toLocaleString(), group: bar.name }));
    const reach = filled(words.range, { column: this.data.x, low: short(from), high: short(to) });
    this.tell(x, y, [reach, parts.join(", ") || words.nothing]);
  }

  // Whether a handle is a line that stands for something, not an end of the axis.
  marks(handle) { return handle === BUDGET || (handle != null && this.data.range != null); }

  click([x]) {
    const handle = this.handle(x);
    this.held = null;
    if (this.marks(handle)) return this.views.draw();
    const [x0, x1] = this.data.across;
    this.views.send({ do: "nearest", view: this.name, value: x0 + this.ux(x) * (x1 - x0) });
  }

  // Arrows move the line of the budget or an end of the range, Tab goes to the next of them; Escape
  // takes the range off.
  key(event) {
    if (event.key === "Escape") return this.clear();
    const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    const handles = this.handles();
    const next = this.held == null ? null : handles[handles.indexOf(this.held) + 1];
    if (event.key === "Tab" && !event.shiftKey && next != null) {
      this.held = next;
      event.preventDefault();
      this.views.draw();
    }
    if (!way || !handles.length) return;
    event.preventDefault();
    this.held ??= handles[0];
    if (this.held === BUDGET) this.spend(way);
    else this.shift(way);
    clearTimeout(this.later);
    this.later = setTimeout(() => this.report(), 250);
  }

  // The line of the budget a step of it that way, told to who does not see it.
  spend(way) {
    const { words } = this.views.data;
    const { cut } = this.data;
    const now = cut.steps.findIndex(([percent]) => percent === this.ending().percent);
    this.reach((now < 0 ? this.nearest(this.ending().at) : now) - way * cut.way);
    const { percent, value } = this.ending();
    const text = cut.way > 0 ? words.budget : words["up to"];
    this.views.said.textContent = filled(text, { percent, value: short(value) });
  }

  shift(way) {
    const ends = [...(this.range || this.ends())];
    ends[this.held] += way * STEP;
    this.set(ends);
  }

  blur() {
    this.held = null;
    this.views.draw();
  }
}

// A text with its braces filled in.
function filled(text, values) {
  return text.replace(/{(\w+)}/g, (_, name) => values[name]);
}

function inside([x, y], corners) {
  let found = false;
  for (let i = 0, j = corners.length - 1; i < corners.length; j = i++) {
    const [[xi, yi], [xj, yj]] = [corners[i], corners[j]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) found = !found;
  }
  return found;
}

function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(wanted, 1);
  if (!(rough > 0)) return [];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((size) => size >= rough);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found;
}

function short(value) {
  if (Math.abs(value) >= 1e4) return value.toLocaleString(undefined, { maximumFractionDigits: 0 });
  return String(Number(value.toPrecision(3)));
}
