// The runs of a grid: any one of them, or the mean over the seeds of those that converged.

const MEAN = -1; // in the place of a seed
/** @type {GridQuantity[]} */
const GRID_QUANTITIES = ["relative_error", "nuclear_norm", "effective_rank", "mean_square", "rest", "n_steps", "n_evaluations"];

/** @param {number[]} numbers */
function meanOf(numbers) {
  return numbers.length ? numbers.reduce((sum, x) => sum + x, 0) / numbers.length : NaN;
}

/**
 * The number that `numberOf` gives for each quantity.
 *
 * @param {(name: GridQuantity) => number} numberOf
 */
function numbersOf(numberOf) {
  return /** @type {Record<GridQuantity, number>} */ (Object.fromEntries(GRID_QUANTITIES.map((name) => [name, numberOf(name)])));
}

/**
 * Look up runs by their place, positions on the axes of the grid: {entries, depth, scale, rate, seed}.
 *
 * `run(place)` gives its settings, how many runs it stands for and how they ended (`counts`), and its numbers: those of
 * the run as it ended, converged or not, or the means over the runs that converged, which are NaN where none did.
 *
 * @param {Content<PanelSettings, PanelArrays>} content
 * @returns {Runs}
 */
function runsOf({ settings, arrays }) {
  const { grid, lrs, statuses, rank } = settings;
  const shape = arrays.status.shape;
  const leading = lastOf(arrays.spectrum.shape);

  /**
   * @param {Place} place
   * @param {number} seed
   */
  function single(place, seed) {
    const i = at(shape, place.entries, place.depth, place.scale, place.rate, seed);
    return {
      status: statuses[arrays.status.data[i]],
      stable_lr: arrays.stable_lr.data[at(arrays.stable_lr.shape, place.entries, place.depth, place.scale, seed)],
      spectrum: Array.from(arrays.spectrum.data.subarray(i * leading, (i + 1) * leading)),
      ...numbersOf((name) => arrays[name].data[i]),
    };
  }

  /** @param {Place} place */
  function run(place) {
    const mean = place.seed === MEAN;
    const all = mean ? grid.seed.map((_, seed) => single(place, seed)) : [single(place, place.seed)];
    const good = all.filter((one) => one.status === "converged");
    /** @type {Record<string, number>} */
    const counts = {};
    for (const one of all) counts[one.status] = (counts[one.status] ?? 0) + 1;
    const used = mean ? good : all;
    const spectrum = Array.from({ length: leading }, (_, k) => meanOf(used.map((one) => one.spectrum[k])));
    return {
      n_observed: grid.n_observed[place.entries],
      depth: grid.depth[place.depth],
      init_scale: grid.init_scale[place.scale],
      lr: lrs[place.rate],
      seed: mean ? null : grid.seed[place.seed],
      n_runs: all.length,
      n_converged: good.length,
      counts,
      stable_lr: Math.min(...all.map((one) => one.stable_lr)),
      ...numbersOf((name) => meanOf(used.map((one) => one[name]))),
      spectrum,
      value_after_rank: spectrum[rank],
      // For a mean, the spectra that it is the mean of.
      each: mean ? used.map((one) => one.spectrum) : [],
    };
  }

  /**
   * All places that agree with those positions that are given; seeds run over the single ones.
   *
   * @param {Partial<Place>} [fixed]
   * @returns {Place[]}
   */
  function places(fixed = {}) {
    const lengths = { entries: shape[0], depth: shape[1], scale: shape[2], rate: shape[3], seed: shape[4] };
    let found = [/** @type {Place} */ ({})];
    for (const axis of /** @type {(keyof Place)[]} */ (Object.keys(lengths))) {
      const length = lengths[axis];
      const positions = fixed[axis] === undefined ? Array.from({ length }, (_, i) => i) : [fixed[axis]];
      found = found.flatMap((place) => positions.map((position) => ({ ...place, [axis]: position })));
    }
    return found;
  }

  return { run, places };
}
