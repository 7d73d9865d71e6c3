// Square matrices, row by row in a Float64Array, and what a script that trains them needs.

/** The product of two n x n matrices, into `out`. */
function multiply(a, b, n, out = new Float64Array(n * n)) {
  out.fill(0);
  for (let i = 0; i < n; i += 1) {
    for (let k = 0; k < n; k += 1) {
      const factor = a[i * n + k];
      for (let j = 0; j < n; j += 1) out[i * n + j] += factor * b[k * n + j];
    }
  }
  return out;
}

/** The transpose of `a` times `b`. */
function transposedTimes(a, b, n, out = new Float64Array(n * n)) {
  out.fill(0);
  for (let k = 0; k < n; k += 1) {
    for (let i = 0; i < n; i += 1) {
      const factor = a[k * n + i];
      for (let j = 0; j < n; j += 1) out[i * n + j] += factor * b[k * n + j];
    }
  }
  return out;
}

/** `a` times the transpose of `b`. */
function timesTransposed(a, b, n, out = new Float64Array(n * n)) {
  for (let i = 0; i < n; i += 1) {
    for (let j = 0; j < n; j += 1) {
      let sum = 0;
      for (let k = 0; k < n; k += 1) sum += a[i * n + k] * b[j * n + k];
      out[i * n + j] = sum;
    }
  }
  return out;
}

/** Largest absolute value; not a number if one of them is none. */
function largest(values) {
  let most = 0;
  for (const value of values) if (!(Math.abs(value) <= most)) most = Math.abs(value);
  return most;
}

/**
 * Singular values of an n x n matrix, descending, by one-sided Jacobi rotations: rows are turned, two at a time, until
 * all are orthogonal to each other; their lengths are then the singular values. Small ones keep their digits.
 */
function singularValues(matrix, n) {
  const rows = Float64Array.from(matrix);
  const most = 40;
  for (let sweep = 0; sweep < most; sweep += 1) {
    let turned = false;
    for (let p = 0; p < n - 1; p += 1) for (let q = p + 1; q < n; q += 1) if (makeOrthogonal(rows, p * n, q * n, n)) turned = true;
    if (!turned) break;
  }
  const lengths = Array.from({ length: n }, (_, i) => Math.hypot(...rows.subarray(i * n, (i + 1) * n)));
  return lengths.sort((a, b) => b - a);
}

/** Turn the rows that begin at p and q so that they are orthogonal; false if they already are, to rounding. */
function makeOrthogonal(rows, p, q, n) {
  let pp = 0;
  let qq = 0;
  let pq = 0;
  for (let k = 0; k < n; k += 1) {
    const x = rows[p + k];
    const y = rows[q + k];
    pp += x * x;
    qq += y * y;
    pq += x * y;
  }
  if (!(Math.abs(pq) > 1e-15 * Math.sqrt(pp * qq))) return false;
  const zeta = (qq - pp) / (2 * pq);
  const t = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
  const c = 1 / Math.sqrt(1 + t * t);
  for (let k = 0; k < n; k += 1) {
    const x = rows[p + k];
    rows[p + k] = c * (x - t * rows[q + k]);
    rows[q + k] = c * (t * x + rows[q + k]);
  }
  return true;
}
