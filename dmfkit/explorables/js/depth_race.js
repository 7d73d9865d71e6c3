// The race of depths: gradient descent on a small completion task, all depths from the same scale, in the page itself.

const SLICE = 10; // milliseconds of work between two frames, so that the page stays responsive
const FRAMES = 240; // a run takes at least this many frames, so that it can be watched
const KEPT = 5; // earlier runs that are listed

const subscript = (number) => [...String(number)].map((digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]).join("");

/** Factors of the expected product norm `scale` from normal numbers of variance 1, as dmfkit.initialise makes them. */
function scaledFactors(normals, depth, d, scale) {
  const deviation = (scale / Math.sqrt(d ** (depth + 1))) ** (1 / depth);
  return normals.subarray(0, depth * d * d).map((value) => deviation * value);
}

/** A race at its start, with what was set for it: one recorded run a depth. */
function lineUp({ settings, arrays }, set) {
  const { d, rank, depths, every, fit, blow_up: blowUp } = settings;
  const size = d * d;
  const item = ({ data, shape }, number) => data.subarray(at(shape, number), at(shape, number + 1));
  const truth = item(arrays.truths, set.task);
  const mask = new Float64Array(size);
  for (const entry of item(arrays.orders, set.task).subarray(0, set.nObserved)) mask[entry] = 1;
  const svd = { left: item(arrays.lefts, set.task), right: item(arrays.rights, set.task), values: item(arrays.spectra, set.task) };
  const spectrum = svd.values;
  const maxSteps = settings.n_steps_choices.at(-1);
  const options = { truth, mask, d, nObserved: set.nObserved, every, fit, maxSteps, grownAt: spectrum[rank - 1] / 10 };
  const problems = depths.map((depth) => ({ depth, d, target: truth, mask }));
  const records = problems.map((problem) => {
    const start = scaledFactors(item(arrays.normals, set.seed), problem.depth, d, set.scale);
    return recorded(descent(start, problem, blowUp), options);
  });
  const stableRates = problems.map((problem) => stableRate(svd, problem));
  return { set, truth, mask, spectrum, records, stableRates, step: 0 };
}

function start(root, content) {
  const { settings } = content;
  const { d, rank, depths, every } = settings;
  const numbered = (list) => Object.fromEntries(list.map((_, number) => [String(number + 1), number]));
  const percent = (n) => `${Math.round((100 * n) / (d * d))} % (${n})`;
  const observed = slider({ label: "observed entries", values: settings.n_observed_choices, value: settings.n_observed, show: percent, change: renew });
  const scale = slider({ label: "initial scale", values: settings.init_scales, value: settings.init_scale, change: renew });
  const rate = slider({ label: "learning rate", values: settings.lrs, value: settings.lr, change: renew });
  const goal = slider({ label: "run to step", values: settings.n_steps_choices, value: settings.n_steps, show: String, change: update });
  const task = choice({ label: "matrix", options: numbered(settings.tasks), value: 0, change: renew });
  const seed = choice({ label: "random start", options: numbered(settings.seeds), value: 0, change: renew });
  const go = button({ label: "Run", press: () => (frameNumber ? pause() : run()) });
  const one = button({ label: "+1", name: "+1 step", press: () => advance(1) });
  const hundred = button({ label: "+100", name: "+100 steps", press: () => advance(100) });
  const again = button({ label: "Reset", press: renew });
  const where = make("span", { class: "dmfkit-x-value" });
  const buttons = { element: make("div", { class: "dmfkit-x-buttons" }, ...[go, one, hundred, again].map((b) => b.element), where) };

  const multiples = spectra(depths);
  const axis = choice({
    label: "scale of singular values",
    options: { linear: false, logarithmic: true },
    value: false,
    change: (log) => ((multiples.logarithmic.value = log), update()),
  });
  const all = curves(depths);
  const quantity = choice({
    label: "curves",
    options: Object.fromEntries(Object.keys(QUANTITIES).map((name) => [name, name])),
    value: all.quantity.value,
    change: (name) => ((all.quantity.value = name), update()),
  });
  const depth = choice({
    label: "matrices and text: depth",
    options: Object.fromEntries(depths.map((n, i) => [String(n), i])),
    value: Math.max(0, depths.indexOf(3)),
    change: update,
  });
  const maps = matrices();
  const table = standings(depths);
  const spectrumKeys = { element: make("div", { class: "dmfkit-x-place" }) };
  const keys = { element: make("div", { class: "dmfkit-x-place" }) };
  const earlier = { element: make("div", { class: "dmfkit-x-place" }) };
  const view = frame(root, {
    name: "depth-race",
    title: "Depth race",
    help: "Gradient descent runs in this page, all depths step by step from the same scale. A change of a setting begins anew.",
    controls: [observed, scale, rate, goal, task, seed, buttons],
    pictures: [axis, multiples, spectrumKeys, quantity, all, keys, table, depth, maps, earlier],
    redraw: update,
  });

  let race;
  let summary = "";
  const summaries = [];
  let frameNumber = 0;
  let painted = { at: 0, cost: 0 };

  function renew() {
    halt();
    if (race?.step) {
      summaries.unshift(summary);
      summaries.length = Math.min(summaries.length, KEPT);
      const items = summaries.map((text) => make("li", {}, text));
      earlier.element.replaceChildren(make("p", { class: "dmfkit-x-help" }, "Earlier runs"), make("ul", { class: "dmfkit-x-earlier" }, ...items));
    }
    race = lineUp(content, { task: task.value, seed: seed.value, nObserved: observed.value, scale: scale.value, lr: rate.value });
    update();
  }

  const last = settings.n_steps_choices.at(-1);
  const over = () => race.step >= last || race.records.every((record) => record.run.diverged);

  function step() {
    for (const record of race.records) record.step(race.set.lr);
    race.step += 1;
  }

  function advance(count) {
    halt();
    for (let i = 0; i < count && !over(); i += 1) step();
    update();
  }

  function run() {
    frameNumber = requestAnimationFrame(work);
    update();
  }

  function halt() {
    cancelAnimationFrame(frameNumber);
    frameNumber = 0;
  }

  function pause() {
    halt();
    update();
  }

  function work() {
    const begin = performance.now();
    for (let quota = Math.ceil(goal.value / FRAMES); quota > 0; quota -= 1) {
      if (over() || race.step >= goal.value) return pause();
      step();
      if (performance.now() - begin > SLICE) break;
    }
    frameNumber = requestAnimationFrame(work);
    // Painting takes at most a quarter of the time, on a slow machine too.
    if (begin - painted.at > Math.max(60, 4 * painted.cost)) {
      update();
      painted = { at: begin, cost: performance.now() - begin };
    }
  }

  function update() {
    const chosen = depth.value;
    const running = frameNumber !== 0;
    const { set } = race;
    const presents = race.records.map((record) => record.present());
    const moment = chosen > 0 ? firstAhead(race.records[chosen - 1], race.records[chosen], 10, every) : NaN;
    const shared = { records: race.records, presents, every, d, end: Math.max(goal.value, race.step), chosen, truth: race.spectrum, stableRates: race.stableRates, moment };
    multiples.show({ ...shared, floor: 10 ** (Math.floor(Math.log10(set.scale)) - 2) });
    all.show(shared);
    maps.show({ ...race, product: race.records[chosen].run.product, d, depth: depths[chosen] });
    table.show(shared);
    spectrumKeys.element.replaceChildren(
      legend([
        { text: `σ₁ to σ${subscript(rank)}`, colour: "currentColor" },
        { text: `σ${subscript(rank + 1)} to σ${subscript(Math.min(d, DRAWN_VALUES))}`, colour: "var(--dmfkit-x-soft)", dash: "4 2" },
        { text: "the target’s", colour: "currentColor", dash: "1 3" },
      ]),
    );
    keys.element.replaceChildren(legend(depths.map((n, i) => ({ text: `depth ${n}`, series: i, dash: DASHES[i % DASHES.length] }))));
    const ended = over() || race.step >= goal.value;
    go.rename(running ? "Pause" : "Run");
    go.enable(running || !ended);
    one.enable(!over());
    hundred.enable(!over());
    where.textContent = `step ${race.step}${running ? "" : ended ? " (end)" : race.step ? " (paused)" : ""}`;
    const errors = presents.map((present) => say(present.heldOut, 2)).join(", ");
    summary = `${percent(set.nObserved)} observed, scale ${say(set.scale)}, rate ${say(set.lr)}, matrix ${set.task + 1}, start ${set.seed + 1}, ${race.step} steps: held-out error ${errors} at depths ${depths.join(", ")}.`;
    view.say(words({ presents, chosen, moment, ended }), valuesOf({ presents, chosen, moment, running, ended }));
  }

  function words({ presents, chosen, moment, ended }) {
    const parts = [];
    const unknowns = rank * (2 * d - rank);
    if (race.step === 0) parts.push(`At the start: ${race.set.nObserved} of ${d * d} entries are observed, and every product has the expected norm ${say(race.set.scale)}. Press Run.`);
    if (race.set.nObserved < unknowns) parts.push(`A matrix of rank ${rank} has ${unknowns} degrees of freedom, more than there are observed entries: nothing can find it for sure.`);
    if (race.step > 0) {
      const record = race.records[chosen];
      const present = presents[chosen];
      const fitted = Number.isNaN(record.fitted) ? "not fitted yet" : `fitted at step ${record.fitted}`;
      parts.unshift(`Step ${race.step}. Depth ${depths[chosen]}: training loss ${say(present.meanSquare)} (${fitted}), held-out error ${say(present.heldOut)}, effective rank ${say(present.effectiveRank)}.`);
      parts.push(arrivalWords(record, present));
      if (chosen > 0) parts.push(comparison(present.heldOut, presents[chosen - 1].heldOut, depths[chosen - 1], moment));
    }
    parts.push(...rateWords());
    if (ended) parts.push(over() ? "The race is over: Reset, or change a setting." : "To go on, raise “run to step”.");
    return parts.join(" ");
  }

  /** Which depths have diverged, and which cannot settle at this learning rate. */
  function rateWords() {
    const said = ({ run }, n) => {
      const limit = `near the target rates up to ${say(race.stableRates[n])} are stable`;
      if (run.diverged) return `Depth ${depths[n]} diverged at step ${run.steps}: ${limit}, and yours is ${say(race.set.lr)}. Take a smaller one; this begins anew.`;
      return `At depth ${depths[n]} the learning rate is too large to settle: ${limit}.`;
    };
    return race.records.map(said).filter((_, n) => race.records[n].run.diverged || race.set.lr > race.stableRates[n]);
  }

  function valuesOf({ presents, chosen, moment, running, ended }) {
    return {
      step: race.step,
      running,
      ended,
      n_observed: race.set.nObserved,
      init_scale: race.set.scale,
      lr: race.set.lr,
      data_seed: settings.tasks[race.set.task],
      seed: settings.seeds[race.set.seed],
      depth: depths[chosen],
      tenfold_at: moment,
      product: Array.from(race.records[chosen].run.product),
      runs: race.records.map((record, n) => ({
        depth: depths[n],
        n_steps: record.run.steps,
        diverged: record.run.diverged,
        fitted: record.fitted,
        fitted_error: record.fittedError,
        mean_square: presents[n].meanSquare,
        held_out: presents[n].heldOut,
        effective_rank: presents[n].effectiveRank,
        grown: presents[n].grown,
        arrivals: Array.from(record.arrivals),
        stable_lr: race.stableRates[n],
        singular_values: Array.from(presents[n].values),
      })),
    };
  }

  renew();
  return () => cancelAnimationFrame(frameNumber);
}

/** Which singular values have grown, and when. */
function arrivalWords({ arrivals }, { grown }) {
  const came = [...arrivals].filter((step) => !Number.isNaN(step));
  if (!came.length) return "No singular value has grown yet.";
  const listed = came.slice(0, 5).map((step, r) => `σ${subscript(r + 1)} by step ${step}`);
  const more = came.length > 5 ? `, and ${came.length - 5} more by step ${came.at(-1)}` : "";
  const left = grown < came.length ? ` (${grown} of them are left)` : "";
  return `${came.length === 1 ? "One singular value has" : `${came.length} singular values have`} grown${left}: ${listed.join(", ")}${more}.`;
}

/** How the held-out error compares with that of the next shallower depth. */
function comparison(error, other, shallower, moment) {
  const times = other / error;
  const how = times >= 1 ? `${say(times)} times below` : `${say(1 / times)} times above`;
  const since = Number.isNaN(moment) ? "it has not been 10 times below yet" : `it was first 10 times below at step ${moment}`;
  return `Its held-out error is ${how} that of depth ${shallower}; ${since}.`;
}
