// Inside the weights: one layer through training, in the standard basis and in the invariant frames of Theorem 1.

const SLICE = 10; // milliseconds of training between two looks at the reader
const FIRST = 200; // milliseconds of training before the first picture, at most
const BEAT = 160; // milliseconds between two moments while playing
const RUNS_KEPT = 8;
const MAP_RANGE = [1e-17, 10]; // of colours by size

/**
 * @param {Root} root
 * @param {Content<InsideSettings, InsideArrays>} content
 */
start = (root, { settings, arrays }) => {
  const { n, rank, size, lr, moments, share } = settings;
  const begins = Object.fromEntries(settings.starts.map((one) => [one.name, one]));
  const units = cut(arrays.starts, n);
  const first = new Map(settings.depths.map((depth, i) => [depth, cut(arrays.first, n)[i]]));
  /** @type {Map<string, LayerRun>} */
  const runs = new Map();

  const basis = choice({ label: "look at it in the", options: { "standard basis": false, "invariant frames": true }, value: false, change: answer });
  const layers = Object.fromEntries(units.map((_, l) => [`${l + 1}`, l]));
  const layer = choice({ label: "layer", options: layers, value: 0, change: answer });
  const decay = slider({ label: "weight decay λ", values: settings.weightDecays, value: 0, change: retrain });
  const bySize = toggle({ label: "colours by size, down to rounding", change: answer });
  const step = slider({ label: "step t", values: moments, value: settings.moment, show: (t) => t.toLocaleString("en"), change: look });
  const play = button({ label: "Play", press: () => (timer ? look() : go()) });
  const rate = slider({ label: "step size η", values: settings.stepSizes, value: 1, show: (k) => `${say(k)} × ${say(lr)}`, change: retrain });
  const depth = slider({ label: "depth L", values: settings.depths, value: settings.depth, show: String, change: retrain });
  const scales = choice({ label: "scales of the start", options: begins, value: settings.starts[0], change: retrain });
  const seen = choice({ label: "entries seen", options: { all: false, [`${say(100 * share)} %`]: true }, value: false, change: retrain });

  const map = heatMap({ label: "the layer" });
  const spectrum = chart({ height: 300, neighbour: true, label: "Singular values of the layer against the step" });
  const leak = chart({ height: 210, label: "Largest entry off the blocks against the step" });
  const keys = { element: make("div", { class: "dmfkit-x-place" }) };
  const leakKeys = { element: make("div", { class: "dmfkit-x-place" }) };
  const view = frame(root, {
    name: "inside-weights",
    title: "Inside the weights",
    help: `A product of square layers, d = ${n}, learns a target of rank r = ${rank}; it is trained here, in your browser. Move the step, then change the basis.`,
    controls: [decay, layer, step, play, basis, bySize],
    pictures: [map, spectrum, keys],
    further: [panel({ label: "Train it otherwise", controls: [rate, depth, scales, seen] }), leak, leakKeys],
    redraw: update,
  });

  let timer = 0;
  let request = 0;
  let asked = false; // Before the reader does anything, nothing is computed beyond the first picture.
  /** @type {LayerRun} */
  let run;
  let drawn = 0;

  /** The run that the controls ask for: begun, or remembered with as much of it as is done. */
  function currentRun() {
    const key = [decay.value, rate.value, depth.value, scales.value.name, seen.value].join("|");
    const kept = runs.get(key) ?? layerRun(setupOf());
    runs.delete(key);
    runs.set(key, kept);
    if (runs.size > RUNS_KEPT) runs.delete([...runs.keys()][0]);
    return kept;
  }

  /** @returns {LayerSetup} */
  function setupOf() {
    const starts = units.slice(0, depth.value);
    return {
      n,
      starts,
      moments,
      frames: carriedFrames(/** @type {Float64Array} */ (first.get(depth.value)), starts, n),
      scales: scales.value.scales.slice(0, depth.value),
      target: arrays.target.data,
      mask: seen.value ? arrays.mask.data : arrays.mask.data.map(() => 1),
      masked: seen.value,
      lr: rate.value * lr,
      decay: decay.value,
    };
  }

  function retrain() {
    layer.offer(units.map((_, l) => l).filter((l) => l < depth.value));
    run = currentRun();
    if (!run.kept.length) run.advance(performance.now() + 3 * SLICE);
    answer();
  }

  function answer() {
    asked = true;
    update();
    work();
  }

  function work() {
    if (!request && asked && !run.complete) request = requestAnimationFrame(slice);
  }

  /** @param {number} now */
  function slice(now) {
    request = 0;
    const had = run.kept.length;
    run.advance(performance.now() + SLICE);
    // Redrawing takes as long as many steps: a few times a second is enough.
    if (run.complete || (run.kept.length > had && now - drawn > 150)) {
      drawn = now;
      update();
    }
    work();
  }

  function go() {
    const last = run.complete ? run.kept.length - 1 : moments.length - 1;
    if (moments.indexOf(step.value) >= last) step.set(moments[0]);
    play.rename("Pause");
    timer = setInterval(() => {
      const next = moments.indexOf(step.value) + 1;
      if (next < run.kept.length) step.set(moments[next]);
      if (next >= (run.complete ? run.kept.length : moments.length) - 1) pause();
      update();
    }, BEAT);
    answer();
  }

  function pause() {
    clearInterval(timer);
    timer = 0;
    play.rename("Play");
  }

  function look() {
    pause();
    answer();
  }

  /**
   * The layer at one moment, in both bases, with what is measured in it.
   *
   * @param {LayerMoment} now
   * @param {number} l
   */
  function measured(now, l) {
    const { frames, starts, scales: sigma } = run.setup;
    const raw = now.weights[l];
    const framed = inFrames(raw, frames[l + 1], frames[l], n);
    const most = largest(raw);
    return {
      raw,
      framed,
      inside: blockMeasures(framed, n, size, now.rho[l]),
      outside: blockMeasures(raw, n, size, now.rho[l]),
      most: Math.max(most, largest(framed)),
      moved: raw.filter((value, i) => Math.abs(value - sigma[l] * starts[l][i]) > 1e-12).length / raw.length,
    };
  }

  function update() {
    const l = layer.value;
    const now = run.kept[Math.min(moments.indexOf(step.value), run.kept.length - 1)];
    const found = measured(now, l);
    const all = run.kept.map((one) => {
      one.leaks ??= [];
      one.leaks[l] ??= leaks(measured(one, l));
      return one.leaks[l];
    });
    const shown = basis.value ? found.framed : found.raw;
    const place = basis.value ? `U${below(l + 1)}ᵀ W${below(l + 1)} V${below(l + 1)}` : `W${below(l + 1)}`;
    const range = bySize.value ? [MAP_RANGE[0], MAP_RANGE[1]] : [0, largest(shown) || 1];
    map.show(shown, n, n, range[1], { lowest: range[0], split: size });
    map.caption(
      bySize.value
        ? `${place}: from ${say(range[0])} (ground) to ${say(range[1])} (full colour), in powers of ten`
        : `${place}: from −${say(range[1])} (blue) through 0 (ground) to ${say(range[1])} (red)`,
    );
    keys.element.replaceChildren(drawSpectrum(spectrum, run, now, l, settings));
    leakKeys.element.replaceChildren(drawLeak(leak, run, now, all, basis.value, moments));
    const values = {
      step: now.step,
      wanted: step.value,
      by_size: bySize.value,
      layer: l + 1,
      depth: run.setup.starts.length,
      decay: run.setup.decay,
      lr: run.setup.lr,
      scales: run.setup.scales,
      masked: run.setup.masked,
      in_frames: basis.value,
      matrix: Array.from(shown),
      singular_values: now.values[l],
      rho_measured: found.inside.mean,
      rho_predicted: now.rho[l],
      rest: found.inside.rest,
      off_in_frames: found.inside.off,
      off_in_standard_basis: found.outside.off,
      share_moved: found.moved,
      trained: run.step,
      complete: run.complete,
      lost: run.lost,
      playing: timer !== 0,
    };
    map.describe(
      `Heat map of ${place} at step ${now.step}: ${basis.value && !values.masked ? `a filled ${size} by ${size} corner, a diagonal, and nothing else` : "every entry is filled"}`,
    );
    view.say(insideWords(values, found.most, settings), values);
  }

  /** @param {{ inside: BlockMeasures, outside: BlockMeasures, most: number }} measures */
  function leaks({ inside, outside, most }) {
    return { inside: inside.off / most, outside: outside.off / most };
  }

  run = currentRun();
  // The moment shown at first is an early one; a slow machine shows how far it came and goes on when asked.
  run.advance(performance.now() + FIRST, settings.moment);
  layer.offer(units.map((_, l) => l).filter((l) => l < depth.value));
  update();
  return () => {
    pause();
    cancelAnimationFrame(request);
  };
};

/**
 * The n x n matrices of which a stack is made.
 *
 * @param {NumberArray} stack
 * @param {number} n
 */
function cut({ data, shape }, n) {
  return Array.from({ length: shape[0] }, (_, i) => data.subarray(i * n * n, (i + 1) * n * n));
}
