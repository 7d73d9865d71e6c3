// The pictures of a run of a grid, as descriptions for a chart and entries for its legend: its spectrum, and its panel.

const INK = "currentColor";
const SOFT = "var(--dmfkit-x-soft)";
const SHOWN = 1; // series of the run that is shown, in every picture
const PINNED = 0;
const CONVEX = 2;
const DASHES_OF_REFERENCES = { pinned: "7 4", convex: "2 3", threshold: "1 4" };
const SHAPES_OF_RUNS = ["square", "triangle", "diamond"];
/** @type {string[]} */
const LOGARITHMIC = ["relative_error", "n_evaluations"];
/** @type {Record<DrawnQuantity, string>} */
const TITLES = { relative_error: "error", n_evaluations: "gradient evaluations", nuclear_norm: "nuclear norm", effective_rank: "effective rank" };

/**
 * One domain for all panels, so that a change of panel is seen to move the points.
 *
 * @param {DrawnQuantity} quantity
 * @param {GridRun[]} runs
 * @param {Reference[]} references
 */
function domainOf(quantity, runs, references) {
  const known = references.map((one) => one[quantity] ?? NaN).filter(Number.isFinite);
  const own = runs.length ? runs.map((run) => run[quantity]) : [1];
  // A reference far below the runs, such as an error of zero, would leave them no room on a logarithmic axis.
  const low = Math.min(...own, ...(LOGARITHMIC.includes(quantity) ? [] : known));
  const high = Math.max(...own, ...known);
  if (LOGARITHMIC.includes(quantity)) return [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high * 1.2))];
  const margin = 0.06 * (high - low || 1);
  return [low - margin, high + margin];
}

/**
 * Singular values of a run, of the truth, of a pinned run and of the completion of least nuclear norm.
 *
 * @param {GridRun} now
 * @param {{ pinned: GridRun | null, best: Reference | undefined, truth: Reference }} others
 * @returns {Picture & { keys: Key[] }}
 */
function spectrumPicture(now, { pinned, best, truth }) {
  const numbers = now.spectrum.map((_, i) => i + 1);
  /** @type {({ text?: string, y: number[], series: number, dash?: string, width?: number } | null | undefined)[]} */
  const known = [
    best && { text: "least nuclear norm", y: best.spectrum, series: CONVEX, dash: DASHES_OF_REFERENCES.convex },
    pinned && { text: "pinned", y: pinned.spectrum, series: PINNED, dash: DASHES_OF_REFERENCES.pinned },
    { text: now.seed === null ? "mean (thin: each seed)" : "this run", y: now.spectrum, series: SHOWN, width: 2.5 },
    ...now.each.map((y) => ({ y, series: SHOWN, width: 0.8 })),
  ];
  const lines = known.filter((line) => !!line).filter((line) => Number.isFinite(line.y[0]));
  const largest = Math.max(...lines.map((line) => line.y[0]), truth.spectrum[0]);
  return {
    keys: [{ text: "truth", colour: INK, shape: "diamond", size: 5 }, ...lines.flatMap(({ text, series, dash }) => (text ? [{ text, series, dash }] : []))],
    x: { label: "number of the singular value", domain: [0.5, numbers.length + 0.5] },
    y: { label: "singular value", domain: [10 ** Math.floor(Math.log10(truth.spectrum[0] * 1e-8)), 10 ** Math.ceil(Math.log10(largest))], log: true },
    lines: lines.map((line) => ({ ...line, x: numbers.slice(0, line.y.length) })),
    marks: [
      ...truth.spectrum.map((y, i) => ({ x: i + 1, y, colour: INK, shape: "diamond", size: 5.5 })),
      ...now.spectrum.map((y, i) => ({ x: i + 1, y, series: SHOWN, shape: "circle", size: 2.8 })),
    ],
  };
}

/**
 * All runs of the panel of one run, that run and a pinned one ringed; on the plane, of all depths.
 *
 * @param {Place} place
 * @param {Place | null} pin
 * @param {DrawnQuantity | "plane"} quantity
 * @param {{ runs: Runs, settings: PanelSettings, domains: Record<DrawnQuantity, number[]> }} panel
 * @returns {Picture & { keys: Key[] }}
 */
function panelPicture(place, pin, quantity, { runs, settings, domains }) {
  const { grid, lrs, truth, convex } = settings;
  const plane = quantity === "plane";
  const kind = plane ? "depth" : "rate";
  const best = convex?.[place.entries];
  const scales = [grid.init_scale[0] / 2.5, lastOf(grid.init_scale) * 2.5];
  /**
   * @param {number} position
   * @param {number} count
   */
  const share = (position, count) => (count > 1 ? position / (count - 1) - 0.5 : 0);

  /**
   * @param {Place} one
   * @returns {{ x: number, y: number, lost?: boolean }}
   */
  function pointOf(one) {
    const run = runs.run(one);
    if (plane) return run.n_converged ? { x: run.nuclear_norm, y: run.effective_rank } : { x: NaN, y: NaN };
    // A point stands beside its c by its method, and a little by its seed, so that equal ones can be told apart.
    const aside = 0.5 * share(one.rate, lrs.length) + (one.seed === MEAN ? 0 : 0.14 * share(one.seed, grid.seed.length));
    const x = grid.init_scale[one.scale] * 10 ** aside;
    if (run.n_converged) return { x, y: run[quantity] };
    // As in the chapter's figure, what did not converge stands at the upper edge, whatever its numbers.
    const [low, high] = domains[quantity];
    return { x, y: LOGARITHMIC.includes(quantity) ? high * (low / high) ** 0.04 : high - 0.04 * (high - low), lost: true };
  }

  /** @param {number} position */
  const look = (position) => (position === place[kind] ? { series: SHOWN } : { colour: SOFT });
  /** @param {number} position */
  const shape = (position) => SHAPES_OF_RUNS[position % SHAPES_OF_RUNS.length];
  const dots = runs.places({ entries: place.entries, depth: plane ? undefined : place.depth }).map((one) => {
    const { lost, ...point } = pointOf(one);
    return { ...point, key: one, shape: lost ? "cross" : shape(one[kind]), size: 4, ...look(one[kind]) };
  });
  const names = plane ? grid.depth.map((n) => `depth ${n}`) : lrs.map((lr) => (lr === null ? "flow" : `lr ${lr}`));
  /** @type {Key[]} */
  const keys = names.map((text, i) => ({ text, shape: shape(i), size: 4.5, ...look(i) }));
  if (dots.some((dot) => dot.shape === "cross")) keys.push({ text: "did not converge", colour: SOFT, shape: "cross", size: 4 });

  /**
   * @param {Place} from
   * @param {Style} style
   * @returns {Line}
   */
  function through(from, style) {
    const points = grid.init_scale
      .map((_, scale) => ({ ...from, scale }))
      .filter((one) => runs.run(one).n_converged)
      .map(pointOf);
    return { x: points.map((point) => point.x), y: points.map((point) => point.y), width: 1.5, ...style };
  }
  const lines = [through(place, { series: SHOWN })];
  /** @type {Mark[]} */
  const rings = [{ ...pointOf(place), series: SHOWN, shape: "ring", size: 9 }];
  if (pin && (!plane || pin.entries === place.entries)) {
    const elsewhere = /** @type {const} */ (["entries", "depth", "rate", "seed"]).some((axis) => pin[axis] !== place[axis]);
    if (elsewhere) lines.push(through(pin, { series: PINNED, dash: DASHES_OF_REFERENCES.pinned }));
    rings.push({ ...pointOf(pin), series: PINNED, shape: "ring", size: 12, dash: "4 2.5" });
  }
  /** @type {(Mark & Key)[]} */
  const references = [];
  if (plane) {
    // There is a plane only where the least nuclear norm was solved.
    const least = /** @type {Reference} */ (best);
    references.push({ text: "least nuclear norm", x: least.nuclear_norm, y: least.effective_rank, series: CONVEX, shape: "circle", size: 6.5 });
    references.push({ text: "truth", x: truth.nuclear_norm, y: truth.effective_rank, colour: INK, shape: "circle", size: 5 });
    keys.push(...references);
  } else {
    const ofTruth = truth[quantity];
    /** @type {((Style & { text: string, y: number, width?: number, opacity?: number }) | false | 0 | undefined)[]} */
    const levels = [
      quantity === "relative_error" && {
        text: "stopping threshold",
        y: settings.stop / settings.mean_square,
        colour: INK,
        dash: DASHES_OF_REFERENCES.threshold,
      },
      best && { text: "least nuclear norm", y: best[quantity] ?? NaN, series: CONVEX, dash: DASHES_OF_REFERENCES.convex },
      ofTruth && { text: "truth", y: ofTruth, colour: INK, width: 5, opacity: 0.45 },
    ];
    for (const level of levels.filter((one) => !!one)) {
      lines.unshift({ ...level, x: scales, y: [level.y, level.y] });
      keys.push(level.y >= domains[quantity][0] ? level : { ...level, text: `${level.text} (below the picture)` });
    }
  }
  return {
    keys,
    x: plane ? { label: "nuclear norm", domain: domains.nuclear_norm } : { label: "initial scale c", domain: scales, log: true },
    y: { label: TITLES[plane ? "effective_rank" : quantity], domain: domains[plane ? "effective_rank" : quantity], log: LOGARITHMIC.includes(quantity) },
    lines,
    marks: [...dots, ...references, ...rings],
  };
}
