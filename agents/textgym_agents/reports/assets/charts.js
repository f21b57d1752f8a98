// Curves in SVG: one chart per panel, with intervals, a cross-hair and a reading for the keyboard.
const MARGIN = { top: 8, right: 10, bottom: 22, left: 46 };
const DASHES = ["", "6 4", "2 3", "9 3 2 3"];

function niceTicks(low, high, count, factors = [1, 2, 2.5, 5, 10]) {
  const raw = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = factors.map((factor) => factor * power).find((candidate) => candidate >= raw * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) ticks.push(Math.abs(k * step) < step * 1e-9 ? 0 : k * step);
  return ticks;
}

function extent(series) {
  const box = { x0: Infinity, x1: -Infinity, y0: Infinity, y1: -Infinity };
  for (const { curve, faint } of series) {
    curve.x.forEach((x, i) => {
      if (curve.y[i] === null) return;
      const bounds = curve.low && !faint && curve.low[i] !== null ? [curve.low[i], curve.high[i]] : [curve.y[i]];
      box.x0 = Math.min(box.x0, x);
      box.x1 = Math.max(box.x1, x);
      box.y0 = Math.min(box.y0, ...bounds);
      box.y1 = Math.max(box.y1, ...bounds);
    });
  }
  if (box.x1 === box.x0) box.x1 = box.x0 + 1;
  const pad = (box.y1 - box.y0) * 0.06 || Math.abs(box.y1) * 0.1 || 1;
  return { ...box, y0: box.y0 - pad, y1: box.y1 + pad };
}

function runsOf(curve) {
  const runs = [];
  let run = [];
  curve.y.forEach((y, i) => {
    if (y !== null) run.push(i);
    else if (run.length) { runs.push(run); run = []; }
  });
  if (run.length) runs.push(run);
  return runs;
}

class Chart {
  constructor(panel) {
    this.panel = panel;
    this.svg = draw("svg", { role: "img", tabindex: "0", "aria-label": this.summary() });
    this.tip = make("div", { class: "tip", hidden: true });
    const legend = panel.series.filter((each) => each.label).map((each) => make("span", {},
      make("span", { class: "key", style: { "border-color": each.color, "border-top-style": each.dash ? "dashed" : "solid" } }), each.label));
    this.node = make("figure", { class: "chart" },
      make("figcaption", {}, make("span", {}, panel.title), make("span", { class: "legend" }, legend)), this.svg, this.tip);
    this.steps = [...new Set(panel.series.flatMap((each) => each.curve.x))].sort((a, b) => a - b);
    this.at = null;
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.read(null));
    this.svg.addEventListener("blur", () => this.read(null));
    this.svg.addEventListener("keydown", (event) => this.press(event));
    new ResizeObserver(() => this.render()).observe(this.svg);
  }

  summary() {
    const { title, series, share } = this.panel;
    return `${title}. ` + series.filter((each) => !each.faint).map(({ label, curve }) => {
      const known = curve.y.map((y, i) => [curve.x[i], y]).filter(([, y]) => y !== null);
      const [first, last] = [known[0], known[known.length - 1]];
      return `${label || "curve"}: ${figure(first[1], share)} at ${figure(first[0])}, ${figure(last[1], share)} at ${figure(last[0])}`;
    }).join("; ") + ". Arrow keys read single values.";
  }

  render() {
    const { width, height } = this.svg.getBoundingClientRect();
    if (!width) return;
    const { share, series } = this.panel;
    const box = extent(series);
    const across = width - MARGIN.left - MARGIN.right, down = height - MARGIN.top - MARGIN.bottom;
    this.sx = (x) => MARGIN.left + ((x - box.x0) / (box.x1 - box.x0)) * across;
    this.sy = (y) => MARGIN.top + (1 - (y - box.y0) / (box.y1 - box.y0)) * down;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const ys = niceTicks(box.y0, box.y1, height < 150 ? 3 : 5);
    const xs = niceTicks(box.x0, box.x1, Math.max(2, Math.floor(across / 48)), [1, 2, 5, 10]).filter(Number.isInteger);
    const shown = (y) => (share ? `${Math.round(1000 * y) / 10} %`.replace("-", "−") : figure(y));
    this.cross = draw("g", {});
    empty(this.svg,
      ys.map((y) => [
        draw("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: this.sy(y), y2: this.sy(y) }),
        draw("text", { x: MARGIN.left - 7, y: this.sy(y) + 4, "text-anchor": "end" }, shown(y))]),
      xs.map((x) => draw("text", { x: Math.min(this.sx(x), width - 3 - 3 * figure(x).length), y: height - 5, "text-anchor": "middle" }, figure(x))),
      series.map((each) => this.band(each)), series.map((each) => this.line(each)), this.cross);
  }

  band({ curve, color, faint }) {
    if (!curve.low || faint) return null;
    return runsOf({ y: curve.low }).map((run) => {
      const top = run.map((i) => `${this.sx(curve.x[i])},${this.sy(curve.high[i])}`);
      const bottom = run.map((i) => `${this.sx(curve.x[i])},${this.sy(curve.low[i])}`).reverse();
      if (run.length === 1) return draw("line", { class: "band", stroke: color, "stroke-width": 6, x1: this.sx(curve.x[run[0]]), x2: this.sx(curve.x[run[0]]), y1: this.sy(curve.low[run[0]]), y2: this.sy(curve.high[run[0]]) });
      return draw("polygon", { class: "band", fill: color, points: [...top, ...bottom].join(" ") });
    });
  }

  line({ curve, color, dash, faint }) {
    const marks = !faint && curve.x.length <= 24;
    return runsOf(curve).map((run) => [
      draw("polyline", { class: faint ? "line faint" : "line", stroke: color, "stroke-dasharray": dash || null,
        points: run.map((i) => `${this.sx(curve.x[i])},${this.sy(curve.y[i])}`).join(" ") }),
      marks || run.length === 1 ? run.map((i) => draw("circle", { cx: this.sx(curve.x[i]), cy: this.sy(curve.y[i]), r: 2.4, fill: color })) : null]);
  }

  point(event) {
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    let best = 0;
    this.steps.forEach((step, i) => { if (Math.abs(this.sx(step) - x) < Math.abs(this.sx(this.steps[best]) - x)) best = i; });
    this.read(best);
  }

  press(event) {
    const last = this.steps.length - 1;
    const moves = { ArrowLeft: (this.at ?? last + 1) - 1, ArrowRight: (this.at ?? -1) + 1, Home: 0, End: last };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.read(Math.min(last, Math.max(0, moves[event.key])));
    byId("chart-reading").textContent = `${this.panel.title}, ${this.tip.textContent}`;
  }

  read(at) {
    this.at = at;
    this.tip.hidden = at === null;
    if (!this.cross) return;
    if (at === null) return void empty(this.cross);
    const step = this.steps[at], { series, share, unit } = this.panel;
    const found = series.map((each) => ({ each, i: each.curve.x.lastIndexOf(step) }))
      .filter(({ each, i }) => i >= 0 && each.curve.y[i] !== null);
    const x = this.sx(step);
    empty(this.cross, draw("line", { class: "cross", x1: x, x2: x, y1: MARGIN.top, y2: this.svg.clientHeight - MARGIN.bottom }),
      found.map(({ each, i }) => draw("circle", { cx: x, cy: this.sy(each.curve.y[i]), r: 3.4, fill: each.color })));
    empty(this.tip, make("div", {}, `${unit} ${figure(step)}`), found.map(({ each, i }) => {
      const { low, high, y } = each.curve;
      const spread = low && low[i] !== null && !each.faint ? ` (${between({ low: low[i], high: high[i] }, share)})` : "";
      return make("div", {}, `${each.full || each.label ? (each.full || each.label) + ": " : ""}${figure(y[i], share)}${spread}`);
    }));
    const frame = this.node.clientWidth, box = this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(4, Math.min(frame - box - 4, x + 16 - box / 2))}px`;
  }
}
