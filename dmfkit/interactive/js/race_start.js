// The race of depths at its start: what is observed, the initial factors, and the rates that are stable.

/**
 * Factors of the expected product norm `scale` from normal numbers of variance 1, as dmfkit.initialise makes them.
 *
 * @param {Float64Array} normals
 * @param {number} depth
 * @param {number} d
 * @param {number} scale
 */
function scaledFactors(normals, depth, d, scale) {
  const deviation = (scale / Math.sqrt(d ** (depth + 1))) ** (1 / depth);
  return normals.subarray(0, depth * d * d).map((value) => deviation * value);
}

/**
 * A race at its start, with what was set for it: one recorded run a depth.
 *
 * @param {Content<RaceSettings, RaceArrays> & { stableRates: Map<string, number[]> }} content
 * @param {RaceChoice} set
 */
function lineUp({ settings, arrays, stableRates }, set) {
  const { d, rank, depths, every, fit, blow_up: blowUp } = settings;
  const size = d * d;
  /**
   * @template {Float64Array | Uint16Array} Data
   * @param {NumberArray<Data>} array
   * @param {number} number
   * @returns {Data}
   */
  const item = ({ data, shape }, number) => /** @type {Data} */ (data.subarray(at(shape, number), at(shape, number + 1)));
  const truth = item(arrays.truths, set.task);
  const mask = new Float64Array(size);
  for (const entry of item(arrays.orders, set.task).subarray(0, set.nObserved)) mask[entry] = 1;
  const svd = { left: item(arrays.lefts, set.task), right: item(arrays.rights, set.task), values: item(arrays.spectra, set.task) };
  const spectrum = svd.values;
  const maxSteps = lastOf(settings.n_steps_choices);
  const options = { truth, mask, d, nObserved: set.nObserved, every, fit, maxSteps, grownAt: spectrum[rank - 1] / 10 };
  const problems = depths.map((depth) => ({ depth, d, target: truth, mask }));
  const records = problems.map((problem) => {
    const start = scaledFactors(item(arrays.normals, set.seed), problem.depth, d, set.scale);
    return recorded(descent(start, problem, blowUp), options);
  });
  // A few milliseconds each, so not again for another scale, rate or start.
  const key = `${set.task} ${set.nObserved}`;
  const rates = stableRates.get(key) ?? problems.map((problem) => stableRate(svd, problem));
  stableRates.set(key, rates);
  return { set, truth, mask, spectrum, records, stableRates: rates, step: 0 };
}
