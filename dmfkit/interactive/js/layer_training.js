// Gradient descent on a product of square layers, and the layers seen in the invariant frames (Yaras et al. 2023).

const OVERFLOW = 1e15; // A run whose weights pass this will not come back.

/**
 * Largest absolute value; not a number if one of them is none.
 *
 * @param {Float64Array} values
 */
function largest(values) {
  let most = 0;
  for (const value of values) if (!(Math.abs(value) <= most)) most = Math.abs(value);
  return most;
}

/**
 * @param {Numbers} a
 * @param {Numbers} b
 * @param {number} n
 */
function product(a, b, n) {
  const out = new Float64Array(n * n);
  multiply(out, a, b, n);
  return out;
}

/**
 * The frames V_1, U_1 = V_2, .., U_L: each the one before, carried on by the layer's orthogonal start.
 *
 * @param {Float64Array} first
 * @param {Float64Array[]} starts
 * @param {number} n
 */
function carriedFrames(first, starts, n) {
  const frames = [first];
  for (const start of starts) frames.push(product(start, lastOf(frames), n));
  return frames;
}

/**
 * The layer between two frames, U^T W V.
 *
 * @param {Numbers} weight
 * @param {Numbers} left
 * @param {Numbers} right
 * @param {number} n
 */
function inFrames(weight, left, right, n) {
  const turned = new Float64Array(n * n);
  transpose(turned, left, n);
  return product(turned, product(weight, right, n), n);
}

/**
 * Equation 4: the next numbers of the inert blocks from the present ones.
 *
 * @param {number[]} rho
 * @param {{ lr: number, decay: number }} rates
 */
function nextInert(rho, { lr, decay }) {
  return rho.map((one, l) => one * (1 - lr * decay - lr * rho.reduce((product, other, k) => (k === l ? product : product * other * other), 1)));
}

/**
 * Largest entries of a matrix off its two blocks and in the lower block less `level` times the identity; the mean of its diagonal.
 *
 * @param {Numbers} matrix
 * @param {number} n
 * @param {number} size
 * @param {number} level
 * @returns {BlockMeasures}
 */
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

/**
 * A run that is computed bit by bit: `advance(until)` trains until the clock says so, or a step is reached, and keeps the
 * weights at each of the moments, with Equation 4's numbers and the singular values.
 *
 * @param {LayerSetup} setup
 * @returns {LayerRun}
 */
function layerRun(setup) {
  const { starts, scales, moments, n, lr, decay } = setup;
  const size = n * n;
  const state = new Float64Array(starts.length * size);
  starts.forEach((start, l) => start.forEach((value, i) => (state[l * size + i] = scales[l] * value)));
  const here = evaluator(state, { ...setup, d: n, depth: starts.length });
  const scratch = new Float64Array(size);
  let rho = [...scales];
  let step = 0;
  /** @type {LayerRun} */
  const run = { setup, kept: [], step: 0, lost: false, complete: false, advance };

  function keep() {
    const weights = starts.map((_, l) => state.slice(l * size, (l + 1) * size));
    const values = weights.map((weight) => {
      const found = new Float64Array(n);
      singularValues(found, weight, scratch, n);
      return Array.from(found);
    });
    run.kept.push({ step, weights, rho, values });
  }

  /**
   * @param {number} until
   * @param {number} last
   */
  function advance(until, last = Infinity) {
    while (!run.complete && performance.now() < until) {
      if (moments[run.kept.length] === step) {
        keep();
        run.complete = run.kept.length === moments.length;
        if (run.complete || step >= last) break;
      }
      here.evaluate();
      for (let i = 0; i < state.length; i += 1) state[i] = (1 - lr * decay) * state[i] - lr * here.gradient[i];
      rho = nextInert(rho, setup);
      step += 1;
      run.step = step;
      run.lost = !(largest(state) < OVERFLOW);
      run.complete = run.lost;
    }
  }

  return run;
}
