// Square matrices of size d, row by row in a Float64Array: products into given memory, and singular values.

/**
 * out = transpose(a); out is not a.
 *
 * @param {Float64Array} out
 * @param {Numbers} a
 * @param {number} d
 */
function transpose(out, a, d) {
  for (let i = 0; i < d; i += 1) for (let j = 0; j < d; j += 1) out[j * d + i] = a[i * d + j];
}

/**
 * out = a b; out is neither. Four columns at a time, which is three times as fast as one.
 *
 * @param {Float64Array} out
 * @param {Numbers} a
 * @param {Numbers} b
 * @param {number} d
 */
function multiply(out, a, b, d) {
  const blocks = d - (d % 4);
  for (let i = 0; i < d; i += 1) {
    for (let j = 0; j < blocks; j += 4) {
      let [s, t, u, v] = [0, 0, 0, 0];
      for (let k = 0, p = i * d, q = j; k < d; k += 1, p += 1, q += d) {
        s += a[p] * b[q];
        t += a[p] * b[q + 1];
        u += a[p] * b[q + 2];
        v += a[p] * b[q + 3];
      }
      const place = i * d + j;
      out[place] = s;
      out[place + 1] = t;
      out[place + 2] = u;
      out[place + 3] = v;
    }
    for (let j = blocks; j < d; j += 1) {
      let sum = 0;
      for (let k = 0; k < d; k += 1) sum += a[i * d + k] * b[k * d + j];
      out[i * d + j] = sum;
    }
  }
}

const ORTHOGONAL = 1e-12; // cosine of two rows that counts as zero: far above rounding, far below what can be seen
const MOST_SWEEPS = 40; // about eight are needed for d = 20; not a number in the matrix would never end

/**
 * Singular values in descending order by one-sided Jacobi rotations (Hestenes): rows are made orthogonal in pairs, and
 * their norms are the singular values. Unlike eigenvalues of transpose(W) W this is accurate for small values too.
 *
 * @param {Float64Array} values receives them.
 * @param {Numbers} matrix
 * @param {Float64Array} scratch of the matrix's size.
 * @param {number} d
 */
function singularValues(values, matrix, scratch, d) {
  scratch.set(matrix);
  for (let sweep = 0, turned = true; turned && sweep < MOST_SWEEPS; sweep += 1) {
    turned = false;
    for (let p = 0; p < d * d; p += d) for (let q = p + d; q < d * d; q += d) turned = orthogonalise(scratch, p, q, d) || turned;
  }
  for (let p = 0; p < d; p += 1) {
    let square = 0;
    for (let k = p * d; k < (p + 1) * d; k += 1) square += scratch[k] * scratch[k];
    values[p] = Math.sqrt(square);
  }
  values.sort().reverse();
}

/**
 * Turn the rows that begin at p and q within their plane, unless they are orthogonal; says whether it did.
 *
 * @param {Float64Array} rows
 * @param {number} p
 * @param {number} q
 * @param {number} d
 * @returns {boolean}
 */
function orthogonalise(rows, p, q, d) {
  let [first, second, both] = [0, 0, 0];
  for (let k = 0; k < d; k += 1) {
    const x = rows[p + k];
    const y = rows[q + k];
    first += x * x;
    second += y * y;
    both += x * y;
  }
  if (!(Math.abs(both) > ORTHOGONAL * Math.sqrt(first) * Math.sqrt(second))) return false;
  const zeta = (second - first) / (2 * both);
  const tangent = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
  const cosine = 1 / Math.sqrt(1 + tangent * tangent);
  const sine = cosine * tangent;
  for (let k = 0; k < d; k += 1) {
    const x = rows[p + k];
    const y = rows[q + k];
    rows[p + k] = cosine * x - sine * y;
    rows[q + k] = sine * x + cosine * y;
  }
  return true;
}

/**
 * Effective rank of Roy and Vetterli: the exponential of the entropy of the values divided by their sum.
 *
 * @param {Float64Array} values
 */
function effectiveRank(values) {
  let sum = 0;
  for (const value of values) sum += value;
  let entropy = 0;
  for (const value of values) if (value > 0) entropy -= (value / sum) * Math.log(value / sum);
  return Math.exp(entropy);
}
