// Compress it: the wide, the compressed and the narrow factorization against iterations and against time.

/** @type {RunKind[]} */
const KINDS = ["wide", "compressed", "narrow"];
/** @type {Record<RunKind, string | undefined>} */
const DASHES_OF_KINDS = { wide: undefined, compressed: "8 4", narrow: "2 4" };
const GAP_POINTS = 16; // drawn between the last record and the end of a run
const CURSORS = Array.from({ length: 201 }, (_, i) => i / 200);

/**
 * @param {Root} root
 * @param {Content<{ rate: number, bound: number, races: StoredRace[] }, Record<string, NumberArray<any>>>} content
 */
start = (root, { settings, arrays }) => {
  /** @type {CompressionRace[]} */
  const races = settings.races.map((race, number) => ({
    ...race,
    curves: race.curves.map((curve) => ({
      ...curve,
      times: arrays[`times${number}`].data.subarray(curve.from, curve.from + curve.count),
      errors: arrays[`errors${number}`].data.subarray(curve.from, curve.from + curve.count),
    })),
  }));
  const rates = [...new Set(races.flatMap((race) => race.rates))].sort((a, b) => a - b);
  const bounds = [...new Set(races.flatMap((race) => race.bounds))].sort((a, b) => a - b);
  const sizes = Object.fromEntries(races.map((one) => [`d = ${one.d}, ${say(100 * one.share)} % seen`, one]));

  let held = 0; // iterations of the wide run at which the reader put the cursor
  const size = choice({ label: "size", options: sizes, value: races[0], change: resize });
  const axis = choice({ label: "against", options: { iterations: false, time: true }, value: false, change: update });
  const rate = slider({ label: "γ, rate of the frames", values: rates, value: settings.rate, show: String, change: update });
  const bound = slider({ label: "bound r̂ of the rank", values: bounds, value: settings.bound, show: String, change: update });
  const curves = Object.fromEntries(KINDS.map((kind) => [kind, toggle({ label: kind, value: kind !== "narrow", change: update })]));
  const cursor = slider({ label: "cursor", values: CURSORS, value: 0.5, show: () => (held ? cursorText() : ""), change: hold });
  const picture = chart({ height: 340, label: "Relative error" });
  const keys = { element: make("div", { class: "dmfkit-x-place" }) };
  const view = frame(root, {
    name: "compress-it",
    title: "Compress it",
    help: "Relative error ‖W − Φ‖² / ‖Φ‖² of factorizations of one matrix: wide, compressed and, where ticked, narrow. Change γ and r̂, then read off at the cursor who is nearer.",
    controls: [size, axis, rate, bound, group({ label: "show", controls: Object.values(curves) }), cursor],
    pictures: [keys, picture],
    redraw: update,
  });

  /**
   * The run of a kind under the present choices, if there is one.
   *
   * @template {RunKind} Kind
   * @param {Kind} kind
   * @returns {Kind extends "narrow" ? Curve | undefined : Curve}
   */
  function find(kind) {
    const compressed = kind === "compressed";
    const run = size.value.curves.find(
      (one) => one.kind === kind && (!compressed || one.rate === rate.value) && (kind === "wide" || one.bound === bound.value),
    );
    // Python sees to it that there is a wide run, and a compressed one for every choice.
    return /** @type {Curve} */ (run);
  }

  function resize() {
    const { rates: theseRates, bounds: these } = size.value;
    if (!theseRates.includes(rate.value)) rate.set(settings.rate);
    if (!these.includes(bound.value)) bound.set(settings.bound);
    bound.enable(these.length > 1);
    curves.narrow.enable(find("narrow") !== undefined);
    // At first, and at another size, the cursor stands where the wide run ends.
    held = lastOf(find("wide").times) / size.value.lr;
    update();
  }

  /**
   * Iterations of the wide run, or seconds, per unit of flow time of a run.
   *
   * @param {Curve} run
   */
  function unit(run) {
    return (axis.value ? run.seconds : 1) / size.value.lr;
  }

  function shownRuns() {
    return KINDS.filter((kind) => curves[kind].value)
      .map(find)
      .filter((run) => run !== undefined);
  }

  function domain() {
    const runs = [find("wide"), find("compressed"), ...shownRuns()];
    const ends = runs.map((run) => lastOf(run.times) * unit(run));
    return [0.6 * Math.min(...ends), 1.2 * Math.max(...ends)];
  }

  /** Where the cursor stands on the axis: where it was put, if that is within the axis. */
  function cursorAt() {
    const [low, high] = domain();
    return Math.min(high, Math.max(low, axis.value ? held * find("wide").seconds : held));
  }

  function cursorText() {
    return axis.value ? seconds(cursorAt()) : `${round(cursorAt())} iterations`;
  }

  /** @param {number} part */
  function hold(part) {
    const [low, high] = domain();
    const x = low * (high / low) ** part;
    held = axis.value ? x / find("wide").seconds : x;
    update();
  }

  function update() {
    const race = size.value;
    const [low, high] = domain();
    const x = cursorAt();
    const part = Math.log(x / low) / Math.log(high / low);
    cursor.set(CURSORS[Math.round(part * (CURSORS.length - 1))]);
    const wide = find("wide");
    const compressed = find("compressed");
    const time = axis.value ? x : x * wide.seconds;
    const iterations = time / wide.seconds;
    const at = {
      iterations,
      seconds: time,
      error_wide: errorAt(wide, iterations * race.lr),
      error_compressed: errorAt(compressed, iterations * race.lr),
      error_compressed_at_equal_time: errorAt(compressed, (time / compressed.seconds) * race.lr),
    };
    const shown = shownRuns();
    const floor = floorOf(compressed);
    const least = Math.min(...race.curves.map((run) => lastOf(run.errors)));
    picture.show({
      x: { label: axis.value ? `seconds on ${race.device}` : "iterations", domain: [low, high], log: true },
      y: { label: "relative error", domain: [least / 3, 2], log: true },
      lines: shown.map((run) => drawn(run)),
      marks: shown.flatMap((run) => marksOf(run, x)),
      rules: [{ x, dash: "3 3" }, ...(floor && curves.compressed.value ? [{ y: floor, dash: "1 4", label: "least possible" }] : [])],
    });
    keys.element.replaceChildren(legend(shown.map((run) => ({ text: nameOf(run), series: KINDS.indexOf(run.kind), dash: DASHES_OF_KINDS[run.kind] }))));
    const outcome = endingOf(race, wide, compressed);
    const text = [outcome, narrowText(race, wide, find("narrow"), curves.narrow.value), reading(race, at, wide, compressed, axis.value)]
      .filter(Boolean)
      .join(" ");
    picture.describe(`Relative error against ${axis.value ? "time" : "iterations"}, both logarithmic. ${outcome}`);
    view.say(text, {
      ...at,
      d: race.d,
      rate: rate.value,
      rank_bound: bound.value,
      against_time: axis.value,
      ratio_at_equal_iterations: at.error_wide / at.error_compressed,
      ratio_at_equal_time: at.error_wide / at.error_compressed_at_equal_time,
      compressed_met: compressed.met,
      wide_met: wide.met,
      end_iterations_wide: lastOf(wide.times) / race.lr,
      end_iterations_compressed: lastOf(compressed.times) / race.lr,
      end_error_compressed: lastOf(compressed.errors),
      floor,
      shown: shown.map((run) => run.kind),
    });
  }

  /**
   * @param {Curve} run
   * @returns {Line}
   */
  function drawn(run) {
    const times = [...run.times];
    const [before, last] = times.slice(-2);
    for (let i = 1; i < GAP_POINTS; i += 1) times.push(before + ((last - before) * i) / GAP_POINTS);
    times.sort((a, b) => a - b);
    return {
      x: times.map((t) => t * unit(run) || NaN),
      y: times.map((t) => errorAt(run, t)),
      series: KINDS.indexOf(run.kind),
      dash: DASHES_OF_KINDS[run.kind],
      width: 2.4,
    };
  }

  /**
   * @param {Curve} run
   * @param {number} x
   * @returns {Mark[]}
   */
  function marksOf(run, x) {
    const series = KINDS.indexOf(run.kind);
    const end = { x: lastOf(run.times) * unit(run), y: lastOf(run.errors), series, shape: "square", size: 5 };
    const now = { x, y: errorAt(run, x / unit(run)), series, shape: "circle", size: 6 };
    // A run that has ended has no more errors to mark.
    return [...(run.met ? [end] : []), ...(x <= end.x * (1 + 1e-9) ? [now] : [])];
  }

  /**
   * What no run with these choices can go below; nothing where there is no such bound.
   *
   * @param {Curve} run
   */
  function floorOf(run) {
    const i = size.value.bounds.indexOf(run.bound);
    if (run.rate === 0) return size.value.missed[i];
    return 2 * run.bound < size.value.rank ? size.value.beyond[i] : null;
  }

  /** @param {Curve} run */
  function nameOf(run) {
    if (run.kind === "wide") return "wide";
    return run.kind === "narrow" ? `narrow, width ${2 * run.bound}` : `compressed, γ = ${run.rate}, r̂ = ${run.bound}`;
  }

  resize();
};

/**
 * Error of a run at a flow time: between records the logarithm is taken as linear, after the end it stays.
 *
 * @param {Curve} curve
 * @param {number} t
 */
function errorAt({ times, errors }, t) {
  const last = times.length - 1;
  if (t >= times[last]) return errors[last];
  let low = 0;
  let high = last;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (times[middle] <= t) low = middle;
    else high = middle;
  }
  const part = (t - times[low]) / (times[high] - times[low]);
  return Math.exp((1 - part) * Math.log(errors[low]) + part * Math.log(errors[high]));
}
