// What is said about a run of a grid: which one, how it ended, how large its numbers are, and what another one changes.

/** @type {Record<string, string>} */
const ENDINGS = { converged: "converged", limit: "ran out of steps", diverged: "diverged", horizon: "reached its time" };

/** @param {number} value */
const whole = (value) => Math.round(value).toLocaleString("en-US");
/** @param {number} share */
const percent = (share) => `${say(100 * Math.abs(share))} %`;
/** @param {number | null} lr */
const methodOf = (lr) => (lr === null ? "gradient flow" : `learning rate ${lr}`);
/** @param {number} number */
const sigma = (number) => `σ${[...String(number)].map((digit) => "₀₁₂₃₄₅₆₇₈₉"[Number(digit)]).join("")}`;
/** @param {number} ratio */
const times = (ratio) => (ratio < 10_000 ? say(ratio) : whole(Number(ratio.toPrecision(3))));

/** @param {GridRun} run */
function nameOf(run) {
  const seed = run.seed === null ? `mean over ${run.n_runs} seeds` : `seed ${run.seed}`;
  return `Depth ${run.depth}, ${run.n_observed} entries, c = ${say(run.init_scale)}, ${methodOf(run.lr)}, ${seed}`;
}

/**
 * @param {GridRun} run
 * @param {number} stop
 */
function outcomeOf(run, stop) {
  const steps = run.lr === null ? `${whole(run.n_evaluations)} evaluations of the gradient` : `${whole(run.n_steps)} steps`;
  if (run.seed === null) {
    const lost = Object.entries(run.counts).filter(([status]) => status !== "converged");
    const ends = lost.map(([status, count]) => `${count} ${ENDINGS[status]}`).join(", ");
    if (!run.n_converged) return `none converged (${ends}), so there is no mean and no spectrum to show`;
    if (!lost.length) return `all converged, after ${steps} on average`;
    return `${run.n_converged} of ${run.n_runs} converged, after ${steps} on average (${ends}); the numbers are means over those that converged`;
  }
  if (run.counts.converged) return `converged after ${steps}`;
  if (run.counts.diverged) {
    const there = Number.isFinite(run.spectrum[0])
      ? `shown is where it stood then, with a largest singular value of ${say(run.spectrum[0])}`
      : "its entries were no longer finite, and there is no spectrum to show";
    return `diverged and was given up after ${steps}. It has no result; ${there}`;
  }
  const when = run.counts.limit ? `ran out of steps after ${steps}` : `reached the end of its time after ${steps}`;
  return `${when}, without converging: it fits the known entries to a mean square of ${say(run.mean_square)}, not to ${say(stop)}. Shown is where it stood then`;
}

/**
 * How the rate compares with the largest one with which descent can follow the flow from the same factors.
 *
 * @param {GridRun} run
 */
function rateOf(run) {
  if (!Number.isFinite(run.stable_lr)) return "";
  if (run.lr === null) return `Descent can follow it at rates up to ${say(run.stable_lr)}.`;
  const whose = run.seed === null ? "from the most demanding of these starts" : "from the same start";
  const ratio = run.lr / run.stable_lr;
  const ending = ratio > 1 && run.n_converged === run.n_runs ? "; it converged all the same" : "";
  return `Its rate is ${times(ratio)} times the largest with which descent can follow the flow ${whose}${ending}.`;
}

/**
 * From where to where a quantity goes over the initial scales of a panel, as far as its runs converged.
 *
 * @param {GridRun[]} runs
 * @param {"n_evaluations" | "value_after_rank"} quantity
 */
function rangeOf(runs, quantity) {
  const known = runs.filter((run) => run.n_converged);
  if (known.length < 2) return "";
  const [first, last] = [lastOf(known), known[0]];
  return `from ${say(first[quantity])} at c = ${say(first.init_scale)} to ${say(last[quantity])} at c = ${say(last.init_scale)}`;
}

/**
 * The nuclear norm and the effective rank of a run beside those of the completion of least nuclear norm.
 *
 * @param {GridRun} run
 * @param {Reference} best
 */
function tradeOf(run, best) {
  const norm = run.nuclear_norm / best.nuclear_norm - 1;
  const rank = `an effective rank ${offsetOf(run.effective_rank - best.effective_rank)}`;
  if (norm < 0)
    return `Its nuclear norm is ${percent(norm)} below the least, as it can be, since it fits the known entries only to the stopping threshold; it has ${rank}.`;
  const ending = norm < 2e-3 ? "" : run.effective_rank < best.effective_rank ? ": it gives up norm for rank" : ": more of both";
  return `Compared with the matrix of least nuclear norm it has ${percent(norm)} more nuclear norm and ${rank}${ending}.`;
}

/** @param {number} difference */
function offsetOf(difference) {
  return `${say(Math.abs(difference))} ${difference < 0 ? "lower" : "higher"}`;
}

/**
 * @param {number} now
 * @param {number} then
 */
function ratioOf(now, then) {
  const ratio = now / then;
  if (Math.abs(ratio - 1) < 0.005) return "the same to 0.5 %";
  return ratio > 1 ? `${times(ratio)} times as large` : `${times(1 / ratio)} times smaller`;
}

/**
 * What changed from a pinned run to the present one, in settings and in numbers.
 *
 * @param {GridRun} run
 * @param {GridRun} pinned
 * @param {PanelSettings} settings
 */
function comparisonOf(run, pinned, { rank, convex }) {
  const parts = [
    [run.depth !== pinned.depth, `depth ${pinned.depth}`],
    [run.n_observed !== pinned.n_observed, `${pinned.n_observed} entries`],
    [run.init_scale !== pinned.init_scale, `c = ${say(pinned.init_scale)}`],
    [run.lr !== pinned.lr, methodOf(pinned.lr)],
    [run.seed !== pinned.seed, pinned.seed === null ? "mean over seeds" : `seed ${pinned.seed}`],
  ];
  const changed = parts.filter(([differs]) => differs).map(([, words]) => words);
  if (!changed.length) return "This is the pinned run: change a control to compare.";
  const other = `Against the pinned run (${changed.join(", ")})`;
  if (!run.n_converged || !pinned.n_converged) {
    const who = run.n_converged ? "that one did not converge" : pinned.n_converged ? "this one did not converge" : "neither converged";
    return `${other}: nothing to compare, since ${who}.`;
  }
  const findings = [
    `error ${ratioOf(run.relative_error, pinned.relative_error)}`,
    `${sigma(rank + 1)} ${ratioOf(run.value_after_rank, pinned.value_after_rank)}`,
  ];
  if (convex) {
    findings.push(`nuclear norm ${offsetOf(run.nuclear_norm - pinned.nuclear_norm)}`);
    findings.push(`effective rank ${offsetOf(run.effective_rank - pinned.effective_rank)}`);
  }
  const work = run.n_evaluations / pinned.n_evaluations;
  findings.push(work >= 1 ? `${times(work)} times as many evaluations` : `${times(1 / work)} times fewer evaluations`);
  return `${other}: ${findings.join(", ")}.`;
}
