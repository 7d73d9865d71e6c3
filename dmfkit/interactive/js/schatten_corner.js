// The corner that Schatten loses: eigenvalues 1 + eps, 1 - eps, 0, ...; trace and labels stay, every quasi-norm falls.

/**
 * The p-th power of the quasi-norm, (1 + eps)^p + (1 - eps)^p, less 2; accurate for eps near zero.
 *
 * @param {number} epsilon
 * @param {number} p
 */
function schattenChange(epsilon, p) {
  // log1p(-1) is minus infinity, and expm1 of that is -1: an eigenvalue of zero counts nothing.
  return Math.expm1(p * Math.log1p(epsilon)) + Math.expm1(p * Math.log1p(-epsilon));
}

/**
 * @param {Root} root
 * @param {Content<SchattenSettings>} content
 */
start = (root, { settings }) => {
  const { epsilons, exponents } = settings;
  const epsilon = slider({ label: "ε, entries (1,2) and (2,1)", values: epsilons, value: settings.epsilon, change: update });
  const exponent = slider({ label: "exponent p", values: exponents, value: settings.exponent, change: update });
  const curve = chart({ label: "Quasi-norm against epsilon" });
  const keys = { element: make("div", { class: "dmfkit-x-place" }) };
  const view = frame(root, {
    name: "schatten-corner",
    title: "The corner that Schatten loses",
    help: "Move away from the flow’s limit along a direction that no measurement sees. Compare what each norm says.",
    controls: [epsilon, exponent],
    pictures: [keys, curve],
    redraw: update,
  });

  function update() {
    const p = exponent.value;
    const e = epsilon.value;
    const quasi = epsilons.map((one) => 2 + schattenChange(one, p));
    const others = settings.others.filter((q) => q !== p);
    curve.show({
      x: { label: "ε", domain: [0, 1] },
      y: { label: "‖W‖ᵖ, sum of σᵖ", domain: [0.9, 2.1] },
      lines: [
        ...others.map((q) => ({ x: epsilons, y: epsilons.map((one) => 2 + schattenChange(one, q)), colour: "var(--dmfkit-x-soft)", width: 1, dash: "2 3" })),
        { x: [0, 1], y: [2, 2], series: 0 },
        { x: epsilons, y: quasi, series: 1 },
      ],
      marks: [
        { x: 0, y: 2, series: 6, shape: "circle", size: 6 },
        { x: e, y: 2, series: 0 },
        { x: e, y: 2 + schattenChange(e, p), series: 1 },
      ],
    });
    keys.element.replaceChildren(
      legend([
        { text: "nuclear norm (p = 1)", series: 0 },
        { text: `quasi-norm, p = ${say(p)}`, series: 1 },
        { text: `p = ${others.map((q) => say(q)).join(", ")}`, colour: "var(--dmfkit-x-soft)", dash: "2 3" },
      ]),
    );
    const change = schattenChange(e, p);
    const rank = e === 0 || e < 1 ? 2 : 1;
    const verdict =
      e === 0
        ? "This is the limit of the flow. Move ε: the labels stay fitted."
        : `The nuclear norm is still 2. The sum of σᵖ has changed by ${say(change)}, so this neighbour has less of it, and the flow does not go there.`;
    const text = `At ε = ${say(e)} the eigenvalues are ${say(1 + e)}, ${say(1 - e)} and zeros; rank ${rank}. ${verdict}`;
    curve.describe(`Nuclear norm flat at 2; the sum of σ to the power ${say(p)} falls from 2 to ${say(lastOf(quasi))} as ε goes from 0 to 1.`);
    view.say(text, { epsilon: e, p, nuclear: 2, change, quasi_norm_power: 2 + change, rank });
  }
  update();
};
