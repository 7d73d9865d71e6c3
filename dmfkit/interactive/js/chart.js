// A line chart as a vector drawing that follows the width of its place, and a heat map of a matrix.

const FONT = 13; // pixels, on every width: a chart is laid out anew and not scaled
const REACH = 24; // pixels from a mark within which a touch is meant for it
const MARGIN = { left: 62, right: 12, top: 10, bottom: 46 };
const SMALL_MARGIN = { left: 42, right: 18, top: 24, bottom: 24 }; // room for a title and none for axis labels

/**
 * @param {number[]} domain
 * @param {number} from
 * @param {number} to
 * @param {boolean} [log]
 */
function scaleOf([low, high], from, to, log) {
  const f = log ? Math.log10 : (/** @type {number} */ x) => x;
  const a = f(low);
  const b = f(high);
  return (/** @type {number} */ value) => from + ((f(value) - a) / (b - a || 1)) * (to - from);
}

/**
 * Positions of ticks with their texts: powers of ten on a logarithmic axis, round numbers on a linear one.
 *
 * @param {number[]} domain
 * @param {boolean | undefined} log
 * @param {number} most
 * @returns {Tick[]}
 */
function ticksOf([low, high], log, most) {
  if (log) {
    const first = Math.ceil(Math.log10(low) - 1e-9);
    const last = Math.floor(Math.log10(high) + 1e-9);
    /** @type {Tick[]} */
    const powers = [];
    const stride = Math.max(1, Math.ceil((last - first + 1) / most));
    for (let k = first; k <= last; k += stride) powers.push({ value: 10 ** k, power: k });
    if (powers.length >= 2) return powers;
    const values = [];
    for (let k = first - 1; k <= last; k += 1) for (const m of [1, 2, 5]) values.push(m * 10 ** k);
    return values
      .filter((value) => value >= low * 0.999 && value <= high * 1.001)
      .map((value) => ({ value, text: value < 1000 || value >= 1e6 ? say(value) : value.toLocaleString("en") }));
  }
  const rough = (high - low) / Math.max(1, most) || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * ([1, 2, 5].find((m) => m * unit >= rough) ?? 10);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) {
    const value = Number((k * step).toPrecision(12));
    ticks.push({ value, text: say(value, 4) });
  }
  return ticks;
}

/**
 * @param {Tick} tick
 * @param {number} x
 * @param {number} y
 * @param {string} anchor
 */
function tickText({ power, text }, x, y, anchor) {
  const node = draw("text", { x, y, "text-anchor": anchor, class: "dmfkit-x-tick" });
  if (power === undefined) node.append(text ?? "");
  else if (power === 0 || power === 1) node.append(power ? "10" : "1");
  else node.append("10", draw("tspan", { dy: "-0.45em", "font-size": "0.75em" }, String(power).replace("-", "−")));
  return node;
}

/**
 * A chart. `show` draws it from a description.
 *
 * @param {ChartOptions} options
 * @returns {Chart}
 */
function chart({ height = 300, label, margin = MARGIN, pick, neighbour = false }) {
  const svg = draw("svg", { class: "dmfkit-x-chart", role: "img", "aria-label": label, height });
  const element = make("div", { class: neighbour ? "dmfkit-x-neighbour" : "dmfkit-x-place" }, svg);
  /** @type {Picture | null} */
  let latest = null;
  let width = 0;
  /** @type {{ key: any, at: number[] }[]} */
  let targets = [];
  const clip = uniqueId("clip");

  function paint() {
    if (!latest || !width) return;
    const { x, y, lines = [], marks = [], rules = [], title } = latest;
    const right = width - margin.right;
    const bottom = height - margin.bottom;
    const sx = scaleOf(x.domain, margin.left, right, x.log);
    const sy = scaleOf(y.domain, bottom, margin.top, y.log);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", String(width));
    const grid = draw("g", { class: "dmfkit-x-grid" });
    const texts = draw("g", { "font-size": FONT });
    for (const tick of ticksOf(x.domain, x.log, width / 70)) {
      const at = sx(tick.value);
      grid.append(draw("line", { x1: at, x2: at, y1: margin.top, y2: bottom }));
      // The last number of an axis would reach beyond a narrow picture.
      const beyond = at + 0.3 * FONT * (tick.text ?? "100").length > width;
      texts.append(tickText(tick, beyond ? width : at, bottom + 18, beyond ? "end" : "middle"));
    }
    for (const tick of ticksOf(y.domain, y.log, height / 45)) {
      const at = sy(tick.value);
      grid.append(draw("line", { x1: margin.left, x2: right, y1: at, y2: at }));
      texts.append(tickText(tick, margin.left - 6, at + 4, "end"));
    }
    const middle = (margin.top + bottom) / 2;
    if (x.label) texts.append(draw("text", { x: (margin.left + right) / 2, y: height - 8, "text-anchor": "middle" }, x.label));
    if (y.label) texts.append(draw("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(13 ${middle}) rotate(-90)` }, y.label));
    if (title) texts.append(draw("text", { x: 2, y: margin.top - 8, "font-weight": 650, "font-size": FONT - 1 }, title));
    const frame = { x: margin.left, y: margin.top, width: right - margin.left, height: bottom - margin.top };
    const inside = draw("g", { "clip-path": `url(#${clip})` });
    for (const rule of rules) {
      const vertical = rule.x !== undefined;
      const at = rule.x !== undefined ? sx(rule.x) : sy(rule.y ?? NaN);
      if (!Number.isFinite(at)) continue;
      const ends = vertical ? { x1: at, x2: at, y1: margin.top, y2: bottom } : { x1: margin.left, x2: right, y1: at, y2: at };
      inside.append(draw("line", { ...ends, class: "dmfkit-x-rule", "stroke-dasharray": rule.dash ?? "4 4" }));
      if (rule.label) {
        const late = at > (margin.left + right) / 2;
        const beside = { x: late ? at - 4 : at + 4, y: margin.top + FONT, "text-anchor": late ? "end" : "start" };
        const place = vertical ? beside : { x: right - 4, y: at - 5, "text-anchor": "end" };
        inside.append(draw("text", { ...place, "font-size": FONT }, rule.label));
      }
    }
    for (const line of lines) inside.append(path(line, sx, sy));
    targets = [];
    const marked = draw("g", {});
    for (const mark of marks) {
      const at = [sx(mark.x), sy(mark.y)];
      // A mark on the edge of the frame is drawn whole, one beyond it not at all.
      const within = at[0] >= margin.left - 1 && at[0] <= right + 1 && at[1] >= margin.top - 1 && at[1] <= bottom + 1;
      if (!at.every(Number.isFinite) || !within) continue;
      marked.append(markNode(mark, at));
      if (mark.key !== undefined) targets.push({ key: mark.key, at });
    }
    svg.replaceChildren(draw("defs", {}, draw("clipPath", { id: clip }, draw("rect", frame))), grid, texts, inside, marked);
  }

  if (pick) {
    svg.classList.add("dmfkit-x-pick");
    svg.addEventListener("click", (event) => {
      const box = svg.getBoundingClientRect();
      const distance = (/** @type {{ at: number[] }} */ { at }) => Math.hypot(at[0] - (event.clientX - box.left), at[1] - (event.clientY - box.top));
      const nearest = targets.reduce((best, one) => (best && distance(best) <= distance(one) ? best : one), targets[0]);
      if (nearest && distance(nearest) < REACH) pick(nearest.key);
    });
  }
  const resize = new ResizeObserver(() => {
    const now = Math.floor(element.clientWidth);
    if (now !== width) {
      width = now;
      paint();
    }
  });
  resize.observe(element);
  return {
    element,
    show(description) {
      latest = description;
      paint();
    },
    describe(text) {
      svg.setAttribute("aria-label", text);
    },
    paint,
  };
}

/**
 * @param {Line} line
 * @param {(value: number) => number} sx
 * @param {(value: number) => number} sy
 */
function path(line, sx, sy) {
  let d = "";
  let pen = "M";
  for (let i = 0; i < line.x.length; i += 1) {
    const px = sx(line.x[i]);
    const py = sy(line.y[i]);
    if (Number.isFinite(px) && Number.isFinite(py)) {
      // Far outside the frame a coordinate need not be exact, but some browsers refuse large ones.
      d += `${pen}${px.toFixed(2)} ${Math.min(1e5, Math.max(-1e5, py)).toFixed(2)}`;
      pen = "L";
    } else pen = "M";
  }
  return draw("path", {
    d,
    fill: "none",
    stroke: line.colour ?? colour(line.series ?? 0),
    "stroke-width": line.width ?? 2,
    "stroke-dasharray": line.dash,
    "stroke-linejoin": "round",
    opacity: line.opacity,
  });
}

const SHAPES = ["circle", "square", "triangle", "diamond"];
/**
 * @param {MarkStyle} mark
 * @param {number[]} place
 */
function markNode(mark, [x, y]) {
  const shape = mark.shape ?? SHAPES[(mark.series ?? 0) % SHAPES.length];
  const paint = { fill: mark.colour ?? colour(mark.series ?? 0), stroke: "var(--dmfkit-x-ground)", "stroke-width": 1 };
  const r = mark.size ?? 5;
  if (shape === "ring") return draw("circle", { cx: x, cy: y, r, fill: "none", stroke: paint.fill, "stroke-width": 2.5, "stroke-dasharray": mark.dash });
  if (shape === "cross")
    return draw("path", { d: `M${x - r} ${y - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`, stroke: paint.fill, "stroke-width": 1.8 });
  /** @type {Record<string, number[]>} */
  const corners = { square: [-1, -1, 1, -1, 1, 1, -1, 1], triangle: [0, -1.2, 1.1, 0.9, -1.1, 0.9], diamond: [0, -1.3, 1.3, 0, 0, 1.3, -1.3, 0] };
  const node =
    shape === "circle"
      ? draw("circle", { cx: x, cy: y, r, ...paint })
      : draw("polygon", { points: corners[shape].map((c, i) => (i % 2 ? y : x) + c * r).join(" "), ...paint });
  if (!mark.label) return node;
  return draw("g", {}, node, draw("text", { x: x + r + 3, y: y + 4, "font-size": FONT }, mark.label));
}

/**
 * A legend: for each entry {text, series, dash}, or with a shape {text, series, shape, size}.
 *
 * @param {Key[]} entries
 */
function legend(entries) {
  const items = entries.map(({ text, series, dash, shape, size, colour: own }) => {
    if (shape)
      return make("li", {}, draw("svg", { width: 16, height: 14, "aria-hidden": "true" }, markNode({ series, shape, size, colour: own }, [8, 7])), text);
    const line = draw("line", { x1: 1, x2: 25, y1: 7, y2: 7, "stroke-width": 3, "stroke-dasharray": dash, stroke: own ?? colour(series ?? 0) });
    return make("li", {}, draw("svg", { width: 26, height: 14, "aria-hidden": "true" }, line), text);
  });
  return make("ul", { class: "dmfkit-x-legend" }, ...items);
}

/**
 * Colour of a number between -1 and 1: blue, the ground, red; not a number is grey.
 *
 * @param {number} value
 * @param {boolean} dark
 */
function diverging(value, dark) {
  if (!Number.isFinite(value)) return dark ? [70, 74, 80] : [205, 205, 205];
  const t = Math.min(1, Math.abs(value)) ** 0.8;
  const ground = dark ? [24, 27, 31] : [255, 255, 255];
  const full = value > 0 ? (dark ? [255, 122, 92] : [178, 24, 43]) : dark ? [86, 180, 255] : [33, 102, 172];
  return ground.map((low, i) => Math.round(low + (full[i] - low) * t));
}

/**
 * Position of a size between `lowest` and `limit` on a logarithmic scale, as a number that `diverging` colours.
 *
 * @param {number} value
 * @param {number} lowest
 * @param {number} limit
 */
function sizeOnScale(value, lowest, limit) {
  return -Math.min(1, Math.max(0, Math.log(Math.abs(value) / lowest) / Math.log(limit / lowest)));
}

/**
 * A picture of a matrix. `show(data, rows, columns, limit, {lowest, split})` draws it with colours from -limit to limit;
 * with `lowest` above zero by size instead, from there to the limit, logarithmically. Lines set off the first `split`
 * rows and columns.
 *
 * @param {{ label: string }} options
 * @returns {HeatMap}
 */
function heatMap({ label }) {
  const canvas = make("canvas", { class: "dmfkit-x-heat", role: "img", "aria-label": label });
  const lines = draw("svg", { class: "dmfkit-x-split", "aria-hidden": "true", preserveAspectRatio: "none" });
  const caption = make("figcaption", {}, label);
  /** @type {({ data: Numbers, rows: number, columns: number, limit: number } & HeatMapOptions) | null} */
  let latest = null;
  function paint() {
    if (!latest) return;
    const { data, rows, columns, limit, lowest = 0, split = 0 } = latest;
    if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const image = context.createImageData(columns, rows);
    const dark = isDark();
    /** @param {number} value */
    const place = (value) => (lowest > 0 ? sizeOnScale(value, lowest, limit) : value / limit);
    for (let i = 0; i < rows * columns; i += 1) image.data.set([...diverging(place(data[i]), dark), 255], 4 * i);
    context.putImageData(image, 0, 0);
    lines.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
    const d = split ? `M${split} 0V${rows}M0 ${split}H${columns}` : "";
    lines.replaceChildren(draw("path", { d, "vector-effect": "non-scaling-stroke" }));
  }
  return {
    element: make("figure", { class: "dmfkit-x-map" }, make("div", {}, canvas, lines), caption),
    show(data, rows, columns, limit, options = {}) {
      latest = { data, rows, columns, limit, ...options };
      paint();
    },
    describe(text) {
      canvas.setAttribute("aria-label", text);
    },
    caption(text) {
      caption.textContent = text;
    },
    paint,
  };
}
