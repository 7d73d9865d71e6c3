// Gradient descent on a product of square layers, and the layers seen in the invariant frames (Yaras et al. 2023).

const OVERFLOW = 1e15; // A run whose weights pass this will not come back.

/** The frames V_1, U_1 = V_2, .., U_L: each the one before, carried on by the layer's orthogonal start. */
function carriedFrames(first, starts, n) {
  const frames = [first];
  for (const start of starts) frames.push(multiply(start, frames.at(-1), n));
  return frames;
}

/** The layer between two frames, U^T W V. */
function inFrames(weight, left, right, n) {
  return transposedTimes(left, multiply(weight, right, n), n);
}

/** Equation 4: the next numbers of the inert blocks from the present ones. */
function nextInert(rho, { lr, decay }) {
  return rho.map((one, l) => one * (1 - lr * decay - lr * rho.reduce((product, other, k) => (k === l ? product : product * other * other), 1)));
}

/** Largest entries of a matrix off its two blocks and in the lower block less `level` times the identity; the mean of its diagonal. */
function blockMeasures(matrix, n, size, level) {
  let off = 0;
  let rest = 0;
  let sum = 0;
  for (let i = 0; i < n; i += 1) {
    for (let j = 0; j < n; j += 1) {
      const value = matrix[i * n + j];
      if (i < size !== j < size) off = Math.max(off, Math.abs(value));
      else if (i >= size) rest = Math.max(rest, Math.abs(value - (i === j ? level : 0)));
      if (i === j && i >= size) sum += value;
    }
  }
  return { off, rest, mean: sum / (n - size) };
}

/** A step of gradient descent in all layers at once, Equation 9; `mask` (or null) says which entries are seen. */
function descend(weights, { target, mask, lr, decay, n }) {
  const before = [null]; // W_{l-1} .. W_1, the identity where null
  for (const weight of weights) before.push(before.at(-1) ? multiply(weight, before.at(-1), n) : weight);
  const error = before.pop().map((value, i) => (mask && !mask[i] ? 0 : value - target[i]));
  let back = error; // W_{L:l+1}^T times the error
  return weights
    .map((_, i) => weights.length - 1 - i)
    .map((l) => {
      const slope = before[l] ? timesTransposed(back, before[l], n) : back;
      back = l > 0 ? transposedTimes(weights[l], back, n) : back;
      return weights[l].map((value, i) => (1 - lr * decay) * value - lr * slope[i]);
    })
    .reverse();
}

/**
 * A run that is computed bit by bit: `advance(until)` trains until the clock says so, or a step is reached, and keeps the
 * weights at each of the moments, with Equation 4's numbers and the singular values.
 */
function layerRun(setup) {
  const { starts, scales, moments, n } = setup;
  let weights = starts.map((start, l) => start.map((value) => scales[l] * value));
  let rho = [...scales];
  let step = 0;
  const run = { setup, kept: [], step: 0, lost: false, complete: false };
  run.advance = (until, last = Infinity) => {
    while (!run.complete && performance.now() < until) {
      if (moments[run.kept.length] === step) {
        run.kept.push({ step, weights, rho, values: weights.map((weight) => singularValues(weight, n)) });
        if (run.kept.length === moments.length || step >= last) break;
      }
      weights = descend(weights, setup);
      rho = nextInert(rho, setup);
      step += 1;
      run.step = step;
      if (!weights.every((weight) => largest(weight) < OVERFLOW)) {
        run.lost = true;
        break;
      }
    }
    run.complete = run.lost || run.kept.length === moments.length;
  };
  return run;
}
