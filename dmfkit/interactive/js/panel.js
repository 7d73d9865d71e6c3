// Pick a panel: one run of Figures 1 and 2 of Arora et al. among the others of its panel, its spectrum, and a pinned one.

/**
 * @param {Root} root
 * @param {Content<PanelSettings, PanelArrays>} content
 */
start = (root, content) => {
  const { settings } = content;
  const { grid, lrs, rank, stop, truth, convex } = settings;
  const runs = runsOf(content);
  const floor = stop / settings.mean_square;
  /** @type {Record<string, DrawnQuantity | "plane">} */
  const views = convex
    ? { "rank against norm": "plane", error: "relative_error", "nuclear norm": "nuclear_norm", "effective rank": "effective_rank" }
    : { error: "relative_error", "gradient evaluations": "n_evaluations" };
  const converged = runs
    .places()
    .map(runs.run)
    .filter((run) => run.n_converged);
  const quantities = /** @type {DrawnQuantity[]} */ (Object.keys(TITLES));
  const domains = /** @type {Record<DrawnQuantity, number[]>} */ (
    Object.fromEntries(quantities.map((name) => [name, domainOf(name, converged, [truth, ...(convex ?? [])])]))
  );

  /**
   * @template Value
   * @param {Value[]} values
   * @param {(value: Value) => string} text
   */
  const numbered = (values, text = String) => Object.fromEntries(values.map((value, i) => [text(value), i]));
  /**
   * @template Value
   * @param {string} label
   * @param {Record<string, Value>} options
   * @param {Value} value
   */
  const pick = (label, options, value) => choice({ label, options, value, change: update, inline: true });
  const seeds = grid.seed.length > 1 ? { ...numbered(grid.seed), mean: MEAN } : numbered(grid.seed);
  /** @type {Record<keyof Place, Control<number>>} */
  const controls = {
    entries: pick("Known entries", numbered(grid.n_observed), 0),
    depth: pick("Depth", numbered(grid.depth), 0),
    rate: pick(
      "Method",
      numbered(lrs, (lr) => (lr === null ? "flow" : `lr ${lr}`)),
      lrs.length - 1,
    ),
    seed: pick("Seed", seeds, 0),
    scale: slider({
      label: "Initial scale c",
      values: grid.init_scale.map((_, i) => i),
      value: grid.init_scale.length - 1,
      show: (i) => say(grid.init_scale[i]),
      change: () => update(),
    }),
  };
  const view = pick("Show", views, Object.values(views)[0]);

  /** @type {Place | null} */
  let pin = null;
  const axes = /** @type {(keyof Place)[]} */ (Object.keys(controls));
  /** @type {() => Place} */
  const here = () => /** @type {any} */ (Object.fromEntries(axes.map((axis) => [axis, controls[axis].value])));
  const isPinned = () => axes.every((axis) => pin?.[axis] === controls[axis].value);
  /** @param {Place} place */
  function go(place) {
    for (const axis of axes) controls[axis].set(place[axis]);
    update();
  }
  function pinOrUnpin() {
    pin = isPinned() ? null : here();
    update();
  }
  function swap() {
    // The button is off where nothing is pinned.
    const other = /** @type {Place} */ (pin);
    pin = here();
    go(other);
  }
  const pinButton = button({ label: "Pin this run", press: pinOrUnpin });
  const swapButton = button({ label: "Swap the two", press: swap });

  const spectrum = chart({ height: 290, label: "Singular values" });
  const panel = chart({ height: 290, label: "The runs of the panel", pick: go });
  const spectrumKeys = make("div");
  const panelKeys = make("div");
  const table = make("table", { class: "dmfkit-x-beside", role: "table" });
  /** @param {...Element} parts */
  const half = (...parts) => ({ element: make("div", { class: "dmfkit-x-half" }, ...parts) });
  const { entries, depth, rate, seed, scale } = controls;
  const page = frame(root, {
    name: "pick-a-panel",
    title: "Pick a panel",
    help: "Pick a run with the controls, or touch a point among the runs. Pin it, then change one thing.",
    controls: [entries, depth, rate, seed, scale, { element: make("div", { class: "dmfkit-x-pins" }, pinButton.element, swapButton.element) }],
    pictures: [half(spectrum.element, spectrumKeys), half(panel.element, panelKeys, view.element), { element: table }],
    touched: true,
    redraw: update,
  });

  /** @param {[string, GridRun | Reference][]} columns */
  function fillTable(columns) {
    /** @param {GridRun | Reference} one */
    const evaluations = ({ n_evaluations: n }) => (n === undefined ? "–" : Number.isNaN(n) ? "none" : whole(n));
    /** @type {([string, (one: GridRun | Reference) => string] | undefined)[]} */
    const rows = [
      ["error", (one) => say(one.relative_error)],
      convex && ["nuclear norm", (one) => say(one.nuclear_norm, one.nuclear_norm < 1e5 ? 5 : 3)],
      convex && ["effective rank", (one) => say(one.effective_rank)],
      [sigma(rank + 1), (one) => say(one.spectrum[rank] ?? 0)],
      ["evaluations", evaluations],
    ];
    // On narrow screens the rows are laid out as grids, and would be no rows any more for a screen reader.
    /** @param {...Element} cells */
    const row = (...cells) => make("tr", { role: "row" }, ...cells);
    /** @param {string} text */
    const cell = (text) => make("td", { role: "cell" }, text);
    const head = row(cell(""), ...columns.map(([name]) => make("th", { scope: "col", role: "columnheader" }, name)));
    const body = rows
      .filter((one) => one !== undefined)
      .map(([name, text]) => row(make("th", { scope: "row", role: "rowheader" }, name), ...columns.map(([, one]) => cell(text(one)))));
    table.style.setProperty("--dmfkit-x-columns", String(columns.length));
    table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
  }

  /**
   * What the present view adds to the words on a run that converged.
   *
   * @param {GridRun} now
   * @param {GridRun[]} ofPanel
   * @param {Reference} best of least nuclear norm; asked for only where it was solved.
   */
  function aside(now, ofPanel, best) {
    const range = rangeOf(ofPanel, "n_evaluations");
    switch (view.value) {
      case "relative_error":
        return `Its error, ${say(now.relative_error)}, is ${times(now.relative_error / floor)} times the stopping threshold.`;
      case "n_evaluations":
        return range && `Along the line the evaluations of the gradient go ${range}.`;
      case "effective_rank":
        return `Its effective rank is ${offsetOf(now.effective_rank - best.effective_rank)} than that of the matrix of least nuclear norm, and ${offsetOf(now.effective_rank - truth.effective_rank)} than the truth’s.`;
      case "nuclear_norm":
        return `The truth has ${percent(truth.nuclear_norm / best.nuclear_norm - 1)} more nuclear norm than the least, this run ${percent(now.nuclear_norm / best.nuclear_norm - 1)} ${now.nuclear_norm < best.nuclear_norm ? "less" : "more"}.`;
      default:
        return tradeOf(now, best);
    }
  }

  function update() {
    const place = here();
    const now = runs.run(place);
    const pinned = pin && runs.run(pin);
    const best = convex?.[place.entries];
    const ofPanel = grid.init_scale.map((_, i) => runs.run({ ...place, scale: i }));
    pinButton.rename(isPinned() ? "Remove the pin" : "Pin this run");
    swapButton.enable(pin !== null && !isPinned());
    const spectra = spectrumPicture(now, { pinned, best, truth });
    const points = panelPicture(place, pin, view.value, { runs, settings, domains });
    spectrum.show(spectra);
    spectrumKeys.replaceChildren(legend(spectra.keys));
    panel.show(points);
    panelKeys.replaceChildren(legend(points.keys));
    /** @type {([string, GridRun | Reference] | null | undefined)[]} */
    const columns = [["this run", now], pinned && ["pinned", pinned], best && ["least norm", best], ["truth", truth]];
    fillTable(columns.filter((one) => !!one));

    const range = rangeOf(ofPanel, "value_after_rank");
    const tail = `${sigma(rank + 1)}, the first singular value that the truth does not have, is ${say(now.value_after_rank)}${range && `; with c it goes ${range}`}.`;
    const findings = now.n_converged ? [tail, aside(now, ofPanel, /** @type {Reference} */ (best))] : [];
    const said = [`${nameOf(now)}: ${outcomeOf(now, stop)}.`, ...findings, rateOf(now), pinned && comparisonOf(now, pinned, settings)];
    page.say(said.filter(Boolean).join(" "), { ...now, view: view.value, floor, truth, convex: best ?? null, pinned });
    const first = now.spectrum.slice(0, rank + 1).map((value) => say(value));
    spectrum.describe(`Singular values of ${nameOf(now)}, on a logarithmic axis. The first ${rank + 1}: ${first.join(", ")}. The truth has ${rank}.`);
    panel.describe(
      `${points.y.label} against ${points.x.label}, a point for each run with ${now.n_observed} entries${view.value === "plane" ? "" : ` and depth ${now.depth}`}; the run of the text is ringed.`,
    );
  }
  update();
};
