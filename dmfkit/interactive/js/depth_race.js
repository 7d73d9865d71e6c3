// The race of depths: gradient descent on a small completion task, all depths from the same scale, in the page itself.

const SHARE_OF_FRAME = 10; // milliseconds of work between two frames, so that the page stays responsive
const FRAMES = 240; // a run takes at least this many frames, so that it can be watched
const KEPT = 5; // earlier runs that are listed

/**
 * @param {Root} root
 * @param {Content<RaceSettings, RaceArrays>} content
 */
start = (root, content) => {
  const { settings } = content;
  const stableRates = new Map();
  const { d, rank, depths, every } = settings;
  /** @param {number[]} list */
  const numbered = (list) => Object.fromEntries(list.map((_, number) => [String(number + 1), number]));
  /** @param {number} n */
  const percent = (n) => `${Math.round((100 * n) / (d * d))} % (${n})`;
  const observed = slider({ label: "observed entries", values: settings.n_observed_choices, value: settings.n_observed, show: percent, change: renew });
  const scale = slider({ label: "initial scale", values: settings.init_scales, value: settings.init_scale, change: renew });
  const rate = slider({ label: "learning rate", values: settings.lrs, value: settings.lr, change: renew });
  const goal = slider({ label: "run to step", values: settings.n_steps_choices, value: settings.n_steps, show: String, change: update });
  const task = choice({ label: "matrix", options: numbered(settings.tasks), value: 0, change: renew, inline: true });
  const seed = choice({ label: "random start", options: numbered(settings.seeds), value: 0, change: renew, inline: true });
  const go = button({ label: "Run", press: () => (frameNumber ? pause() : run()) });
  const one = button({ label: "+1", name: "+1 step", press: () => advance(1) });
  const hundred = button({ label: "+100", name: "+100 steps", press: () => advance(100) });
  const again = button({ label: "Reset", press: renew });
  const where = make("span", { class: "dmfkit-x-value" });
  const buttons = { element: make("div", { class: "dmfkit-x-buttons" }, ...[go, one, hundred, again].map((b) => b.element), where) };

  const multiples = spectra(depths);
  const axis = choice({
    label: "singular values",
    options: { linear: false, log: true },
    value: false,
    change: (log) => ((multiples.logarithmic.value = log), update()),
    inline: true,
  });
  const all = curves(depths);
  const quantity = choice({
    label: "curves",
    options: Object.fromEntries(Object.keys(RACE_QUANTITIES).map((name) => [name, name])),
    value: all.quantity.value,
    change: (name) => ((all.quantity.value = name), update()),
    inline: true,
  });
  const depth = choice({
    label: "depth",
    options: Object.fromEntries(depths.map((n, i) => [String(n), i])),
    value: Math.max(0, depths.indexOf(3)),
    change: update,
    inline: true,
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

  /** @type {Race} */
  let race;
  let summary = "";
  /** @type {string[]} */
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
    race = lineUp({ ...content, stableRates }, { task: task.value, seed: seed.value, nObserved: observed.value, scale: scale.value, lr: rate.value });
    update();
  }

  const last = lastOf(settings.n_steps_choices);
  const over = () => race.step >= last || race.records.every((record) => record.run.diverged);
  const ended = () => over() || race.step >= goal.value;

  function step() {
    for (const record of race.records) record.step(race.set.lr);
    race.step += 1;
  }

  /** @param {number} count */
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
    let quota = Math.ceil(goal.value / FRAMES);
    while (quota > 0 && !ended() && performance.now() - begin < SHARE_OF_FRAME) {
      step();
      quota -= 1;
    }
    if (ended()) return pause();
    frameNumber = requestAnimationFrame(work);
    // Painting takes at most a quarter of the time, on a slow machine too.
    if (begin - painted.at > Math.max(60, 4 * painted.cost)) {
      const before = performance.now();
      update();
      painted = { at: begin, cost: performance.now() - before };
    }
  }

  function update() {
    const chosen = depth.value;
    const running = frameNumber !== 0;
    const { set } = race;
    const presents = race.records.map((record) => record.present());
    const moment = chosen > 0 ? firstAhead(race.records[chosen - 1], race.records[chosen], 10, every) : NaN;
    const shared = {
      records: race.records,
      presents,
      every,
      d,
      end: Math.max(goal.value, race.step),
      chosen,
      truth: race.spectrum,
      stableRates: race.stableRates,
      moment,
    };
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
    keys.element.replaceChildren(legend(depths.map((n, i) => ({ text: `depth ${n}`, series: i, dash: DASHES_OF_DEPTHS[i % DASHES_OF_DEPTHS.length] }))));
    go.rename(running ? "Pause" : "Run");
    go.enable(running || !ended());
    one.enable(!over());
    hundred.enable(!over());
    where.textContent = `step ${race.step}${running ? "" : ended() ? " (end)" : race.step ? " (paused)" : ""}`;
    const errors = presents.map((present) => say(present.heldOut, 2)).join(", ");
    summary = `${percent(set.nObserved)} observed, scale ${say(set.scale)}, rate ${say(set.lr)}, matrix ${set.task + 1}, start ${set.seed + 1}, ${race.step} steps: held-out error ${errors} at depths ${depths.join(", ")}.`;
    const ending = over() ? "over" : ended() ? "goal" : "";
    view.say(raceWords({ race, goal: goal.value, presents, chosen, moment, depths, d, rank, ending }), valuesOf({ presents, chosen, moment, running }));
  }

  /** @param {{ presents: Measurements[], chosen: number, moment: number, running: boolean }} state */
  function valuesOf({ presents, chosen, moment, running }) {
    return {
      step: race.step,
      running,
      ended: ended(),
      n_observed: race.set.nObserved,
      init_scale: race.set.scale,
      lr: race.set.lr,
      n_steps: goal.value,
      logarithmic: axis.value,
      curves: quantity.value,
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
};
