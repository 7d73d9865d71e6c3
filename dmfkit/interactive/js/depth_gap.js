// The gap that depth opens: Equation 11 of Arora et al., one singular value as a function of another.

/**
 * Equation 11: the first singular value when the second has come to `second`, from starts first0 and second0.
 *
 * @param {number} second
 * @param {GapChoice} choice
 */
function firstSingularValue(second, { alpha, depth, first0, second0 }) {
  if (depth === 1) return first0 + alpha * (second - second0);
  if (depth === 2) return first0 * (second / second0) ** alpha;
  const p = 1 - 2 / depth;
  const base = first0 ** -p + alpha * (second ** -p - second0 ** -p);
  return base > 0 ? base ** (-1 / p) : Infinity;
}

/**
 * What the first singular value tends to as the second grows; infinite where there is no such level.
 *
 * @param {GapChoice} choice
 */
function saturationLevel({ alpha, depth, first0, second0 }) {
  if (depth < 3) return Infinity;
  const p = 1 - 2 / depth;
  const share = 1 - alpha * (first0 / second0) ** p;
  return share > 0 ? first0 * share ** (-1 / p) : Infinity;
}

/**
 * How far the second singular value has to grow for the first to be infinite; nothing where it stays finite.
 *
 * @param {GapChoice} choice
 */
function divergesAt({ alpha, depth, first0, second0 }) {
  if (depth < 3) return null;
  const p = 1 - 2 / depth;
  const left = second0 ** -p - first0 ** -p / alpha;
  return left > 0 ? left ** (-1 / p) : null;
}

// How depths 1, 2 and 3 are drawn beside the chosen one.
const OTHERS = [
  { series: 0, dash: "1 3" },
  { series: 2, dash: "5 4" },
  { series: 3, dash: "9 3" },
];

/**
 * @param {Root} root
 * @param {Content<GapSettings>} content
 */
start = (root, { settings }) => {
  const { second0, reach } = settings;
  const grid = Array.from({ length: 200 }, (_, i) => second0 * (reach / second0) ** (i / 199));
  const change = () => update();
  const alpha = slider({ label: "α, ratio of strengths", values: settings.alphas, value: settings.alpha, change });
  const depth = slider({ label: "depth N", values: settings.depths, value: settings.depth, show: String, change });
  const ratio = slider({ label: "ratio of starts σ₁(0)/σ₂(0)", values: settings.ratios, value: settings.ratio, change });
  const second = slider({
    label: "how far σ₂ has grown",
    values: settings.growths,
    value: settings.growth,
    show: (value) => `${say(value)} times`,
    change,
  });
  const curve = chart({ height: 320, label: "First singular value against the second" });
  const keys = { element: make("div", { class: "dmfkit-x-place" }) };
  const view = frame(root, {
    name: "depth-gap",
    title: "The gap that depth opens",
    help: "Let the second singular value grow and see how far it takes the first one along, at each depth.",
    controls: [depth, alpha, ratio, second],
    pictures: [keys, curve],
    redraw: update,
  });

  function update() {
    const now = { alpha: alpha.value, depth: depth.value, second0, first0: ratio.value * second0 };
    const s2 = second.value * second0;
    const s1 = firstSingularValue(s2, now);
    const level = saturationLevel(now);
    const pole = divergesAt(now);
    const others = [1, 2, 3].filter((n) => n !== now.depth);
    const curves = [...others, now.depth].map((n) => {
      const chosen = n === now.depth;
      const end = divergesAt({ ...now, depth: n });
      // A curve that becomes infinite leaves the picture at its top, and not between two points of the grid.
      const x = end ? [...grid.filter((s) => s < end), end * (1 - 1e-12)] : grid;
      return { x, y: x.map((s) => firstSingularValue(s, { ...now, depth: n })), ...(chosen ? { series: 1, width: 3 } : { ...OTHERS[n - 1], width: 1.6 }) };
    });
    const low = 10 ** Math.floor(Math.log10(Math.min(now.first0, second0)));
    curve.show({
      x: { label: "σ₂", domain: [second0, reach], log: true },
      y: { label: "σ₁", domain: [low, reach], log: true },
      lines: curves,
      marks: [{ x: s2, y: s1, series: 1 }],
      rules: [...(Number.isFinite(level) ? [{ y: level, label: "level", dash: "2 4" }] : []), ...(pole ? [{ x: pole, label: "infinite", dash: "2 4" }] : [])],
    });
    keys.element.replaceChildren(legend([{ text: `depth ${now.depth}`, series: 1 }, ...others.map((n) => ({ text: `depth ${n}`, ...OTHERS[n - 1] }))]));
    const gap = s2 / s1;
    const before = saturationLevel({ ...now, depth: now.depth - 1 });
    const shallower = Number.isFinite(before) ? `; at depth ${now.depth - 1} that is ${say(before)}` : "";
    const where = Number.isFinite(s1)
      ? `the first one, from ${say(now.first0)}, has come to ${say(s1)}: ${gap < 1 ? `${say(1 / gap)} times larger` : `${say(gap)} times smaller`} than the second.`
      : `the first one is already infinite, since the second was ${say(pole ?? Infinity)}: it outgrows the second.`;
    const ending =
      now.depth === 1
        ? "At depth 1 it keeps growing in proportion."
        : now.depth === 2
          ? "At depth 2 it keeps growing, like a power of the second."
          : Number.isFinite(level)
            ? `It never passes its saturation level ${say(level)}, ${say(level / now.first0)} times its start${shallower}.`
            : "From these starts there is no saturation level.";
    view.say(`Depth ${now.depth}, α = ${say(now.alpha)}. When the second singular value has grown from ${say(second0)} to ${say(s2)}, ${where} ${ending}`, {
      ...now,
      second: s2,
      first: s1,
      level,
      pole,
      gap,
    });
    curve.describe(`First singular value against the second for depth ${now.depth} and for depths ${others.join(" and ")}; ${ending}`);
  }
  update();
};
