// Gradient descent on a deep factorization W = W_N ... W_1 for matrix completion with the half-sum loss: the method of
// dmfkit.gradient_descent, in the same float64 numbers. All memory is taken at the beginning.

/**
 * Loss and gradient at `state`, the factors W_1, W_2, ... behind each other, which may change between calls.
 *
 * @param {Float64Array} state
 * @param {CompletionProblem} problem
 */
function evaluator(state, { depth, d, target, mask }) {
  const size = d * d;
  /** @param {Float64Array} all */
  const views = (all) => Array.from({ length: depth }, (_, j) => all.subarray(j * size, (j + 1) * size));
  const factors = views(state);
  const before = factors.map((factor, j) => (j === 0 ? factor : new Float64Array(size))); // before[j] = W_{j+1} ... W_1
  const residual = new Float64Array(size);
  const gradient = new Float64Array(depth * size);
  const parts = views(gradient);
  const after = [new Float64Array(size), new Float64Array(size)];
  const turned = new Float64Array(size);
  return {
    product: before[depth - 1],
    gradient,
    /** Evaluate product, residual and gradient; returns the sum of squared residuals. */
    evaluate() {
      for (let j = 1; j < depth; j += 1) multiply(before[j], factors[j], before[j - 1], d);
      const product = before[depth - 1];
      let squares = 0;
      for (let i = 0; i < size; i += 1) {
        residual[i] = (product[i] - target[i]) * mask[i];
        squares += residual[i] * residual[i];
      }
      let part = residual; // transpose(W_N ... W_{j+1}) residual
      for (let j = depth - 1; j > 0; j -= 1) {
        transpose(turned, before[j - 1], d);
        multiply(parts[j], part, turned, d);
        transpose(turned, factors[j], d);
        multiply(after[j % 2], turned, part, d);
        part = after[j % 2];
      }
      parts[0].set(part);
      return squares;
    },
  };
}

/**
 * One run of gradient descent from `start`, which is copied.
 *
 * @param {Numbers} start
 * @param {CompletionProblem} problem
 * @param {number} blowUp a run is given up when its squared residuals are this many times the initial ones.
 */
function descent(start, problem, blowUp) {
  const state = Float64Array.from(start);
  const here = evaluator(state, problem);
  const firstSquares = here.evaluate();
  const run = {
    product: here.product,
    squares: firstSquares,
    steps: 0,
    diverged: false,
    /**
     * Take one step, unless the run has diverged.
     *
     * @param {number} lr
     */
    step(lr) {
      if (run.diverged) return;
      for (let i = 0; i < state.length; i += 1) state[i] -= lr * here.gradient[i];
      run.steps += 1;
      run.squares = here.evaluate();
      run.diverged = !(run.squares <= blowUp * firstSquares);
    },
  };
  return run;
}

/** @param {Numbers} vector */
function norm(vector) {
  let sum = 0;
  for (let i = 0; i < vector.length; i += 1) sum += vector[i] * vector[i];
  return Math.sqrt(sum);
}

const MOST_ITERATIONS = 300;

/**
 * Largest curvature of the loss at `state`: power iteration with the Hessian, taken as a difference of gradients.
 *
 * @param {Float64Array} state
 * @param {CompletionProblem} problem
 */
function largestCurvature(state, problem) {
  const here = evaluator(state, problem);
  here.evaluate();
  const shifted = new Float64Array(state.length);
  const there = evaluator(shifted, problem);
  const length = 1e-6 * (1 + norm(state));
  // Any direction that is not orthogonal to the one sought; the same every time.
  const direction = state.map((_, i) => Math.cos(i));
  let largest = norm(direction);
  for (let k = 0, before = 0; k < MOST_ITERATIONS && Math.abs(largest - before) > 1e-7 * largest; k += 1) {
    for (let i = 0; i < state.length; i += 1) {
      direction[i] /= largest;
      shifted[i] = state[i] + length * direction[i];
    }
    there.evaluate();
    for (let i = 0; i < state.length; i += 1) direction[i] = (there.gradient[i] - here.gradient[i]) / length;
    before = largest;
    largest = norm(direction);
  }
  return largest;
}

/**
 * Largest stable learning rate, 2 / curvature, where the product is the target and the factors are balanced: from small
 * initial scales descent comes near to there, if it finds the target.
 *
 * @param {Decomposition} svd of the target.
 * @param {CompletionProblem} problem
 */
function stableRate({ left, right, values }, problem) {
  const { d, depth } = problem;
  const rank = values.length;
  const state = new Float64Array(depth * d * d);
  for (let r = 0; r < rank; r += 1) {
    const root = values[r] ** (1 / depth);
    // Between U and transpose(V) stand diagonal factors; at depth 1 there is one factor, the target.
    for (let j = 1; j < depth - 1; j += 1) state[j * d * d + r * d + r] = root;
    for (let i = 0; i < d && depth > 1; i += 1) {
      state[r * d + i] = root * right[i * rank + r];
      state[(depth - 1) * d * d + i * d + r] = root * left[i * rank + r];
    }
  }
  if (depth === 1) state.set(problem.target);
  return 2 / largestCurvature(state, problem);
}
