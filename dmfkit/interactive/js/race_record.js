// What a run leaves behind: its measurements at every so many steps, and the moments at which something happened.

/**
 * Squared error on the entries that are not observed, relative to that of the matrix of zeros.
 *
 * @param {Numbers} product
 * @param {Numbers} truth
 * @param {Numbers} mask
 */
function heldOutError(product, truth, mask) {
  let wrong = 0;
  let all = 0;
  for (let i = 0; i < truth.length; i += 1) {
    if (mask[i]) continue;
    wrong += (product[i] - truth[i]) ** 2;
    all += truth[i] ** 2;
  }
  return wrong / all;
}

/**
 * A run with its record.
 *
 * @param {DescentRun} run
 * @param {RecordOptions} options
 */
function recorded(run, { truth, mask, d, nObserved, every, maxSteps, grownAt, fit }) {
  const room = Math.floor(maxSteps / every) + 1;
  const values = new Float64Array(room * d);
  const scratch = new Float64Array(d * d);
  const now = new Float64Array(d);
  const self = {
    run,
    count: 0, // records so far; number k is of step k * every
    values, // values[k * d + r]: singular value r at record k
    meanSquare: new Float64Array(room),
    heldOut: new Float64Array(room),
    effectiveRank: new Float64Array(room),
    arrivals: new Float64Array(d).fill(NaN), // step by which singular value r had grown, to `every` steps
    fitted: NaN, // first step at which the entries were fitted
    fittedError: NaN, // the held-out error there
    /** @param {number} lr */
    step(lr) {
      run.step(lr);
      self.look();
    },
    look() {
      if (Number.isNaN(self.fitted) && run.squares / nObserved < fit) {
        self.fitted = run.steps;
        self.fittedError = heldOutError(run.product, truth, mask);
      }
      if (run.steps === self.count * every && self.count < room && !run.diverged) self.record();
    },
    record() {
      const present = self.present();
      values.set(now, self.count * d);
      for (const name of /** @type {const} */ (["meanSquare", "heldOut", "effectiveRank"])) self[name][self.count] = present[name];
      for (let r = 0; r < d; r += 1) if (now[r] >= grownAt && Number.isNaN(self.arrivals[r])) self.arrivals[r] = run.steps;
      self.count += 1;
    },
    /** Measurements at the present step. */
    present() {
      singularValues(now, run.product, scratch, d);
      return {
        values: now.slice(),
        meanSquare: run.squares / nObserved,
        heldOut: heldOutError(run.product, truth, mask),
        effectiveRank: effectiveRank(now),
        grown: now.reduce((count, value) => count + (value >= grownAt ? 1 : 0), 0),
      };
    },
  };
  self.look();
  return self;
}

/**
 * First recorded step at which the second run's held-out error was `factor` times below the first's; or NaN.
 *
 * @param {RecordedRun} behind
 * @param {RecordedRun} ahead
 * @param {number} factor
 * @param {number} every
 */
function firstAhead(behind, ahead, factor, every) {
  const count = Math.min(behind.count, ahead.count);
  for (let k = 0; k < count; k += 1) if (behind.heldOut[k] >= factor * ahead.heldOut[k]) return k * every;
  return NaN;
}
