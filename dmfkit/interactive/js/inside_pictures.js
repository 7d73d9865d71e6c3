// The charts of Inside the weights.

const ROUNDING = 1e-18; // lower end of the axis of what is left by rounding

/**
 * All singular values of a layer against the step, with Equation 4 and the present moment; returns the legend.
 *
 * @param {Chart} spectrum
 * @param {LayerRun} run
 * @param {LayerMoment} now
 * @param {number} l
 * @param {InsideSettings} settings
 */
function drawSpectrum(spectrum, run, now, l, { n, rank, moments }) {
  const later = run.kept.filter((one) => one.step > 0);
  const x = later.map((one) => one.step);
  const level = later.map((one) => Math.abs(one.rho[l]));
  const top = Math.max(...run.kept.map((one) => one.values[l][0]));
  const lines = now.values[l].map((_, i) => ({
    x,
    y: later.map((one) => one.values[l][i]),
    series: i < rank ? 0 : i >= n - rank ? 1 : 3,
    dash: i >= n - rank ? "6 3" : undefined,
    width: 1.5,
  }));
  spectrum.show({
    x: { label: "step", domain: [0.8, lastOf(moments)], log: true },
    y: { label: `singular values of W${below(l + 1)}`, domain: run.lost ? [1e-2, 10 * top] : [0, 1.06 * top], log: run.lost },
    lines: [...lines, { x, y: level, series: 6, dash: "2 5", width: 3 }],
    marks: now.step ? now.values[l].map((value, i) => ({ x: now.step, y: value, size: 3, shape: "circle", series: i < rank ? 0 : i >= n - rank ? 1 : 3 })) : [],
    rules: [{ x: Math.max(0.8, now.step), dash: "3 3" }],
  });
  spectrum.describe(
    `Singular values of layer ${l + 1} against the step, with the present step marked: ${rank} on top, ${rank} below, ${n - 2 * rank} in the middle, and Equation 4 dotted.`,
  );
  return legend([
    { text: `${rank} largest`, series: 0 },
    { text: `${n - 2 * rank} in the middle`, series: 3 },
    { text: `${rank} smallest`, series: 1, dash: "6 3" },
    { text: "|ρ| by Equation 4", series: 6, dash: "2 5" },
  ]);
}

/**
 * What lies off the blocks, of all kept moments, in both bases; returns the legend.
 *
 * @param {Chart} leak
 * @param {LayerRun} run
 * @param {LayerMoment} now
 * @param {{ inside: number, outside: number }[]} all
 * @param {boolean} framed
 * @param {number[]} moments
 */
function drawLeak(leak, run, now, all, framed, moments) {
  const x = run.kept.map((one) => Math.max(0.8, one.step));
  /** @type {{ key: "inside" | "outside", text: string, series: number, dash?: string, chosen: boolean }[]} */
  const lines = [
    { key: "inside", text: "in the invariant frames", series: 2, dash: undefined, chosen: framed },
    { key: "outside", text: "in the standard basis", series: 1, dash: "6 3", chosen: !framed },
  ];
  leak.show({
    x: { label: "step", domain: [0.8, lastOf(moments)], log: true },
    y: { label: "off the blocks", domain: [ROUNDING, 10], log: true },
    lines: lines.map((line) => ({
      x,
      y: all.map((one) => Math.max(ROUNDING, one[line.key])),
      series: line.series,
      dash: line.dash,
      width: line.chosen ? 3 : 1.2,
    })),
    rules: [{ x: Math.max(0.8, now.step), dash: "3 3" }],
  });
  leak.describe(
    `Largest entry off the blocks, over the largest entry, against the step: at the present step ${say(all[run.kept.indexOf(now)].inside, 2)} in the frames and ${say(all[run.kept.indexOf(now)].outside, 2)} in the standard basis.`,
  );
  return legend(lines);
}
