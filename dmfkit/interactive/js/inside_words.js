// What the reader of Inside the weights is told: the numbers behind the picture, in sentences.

/**
 * The text above the pictures; `about` has the settings of the explorable.
 *
 * @param {InsideValues} values
 * @param {number} most
 * @param {InsideSettings} about
 */
function insideWords(values, most, about) {
  const { n, rank, size } = about;
  const off = values.in_frames ? values.off_in_frames : values.off_in_standard_basis;
  const relative = say(off / most, 2);
  const texts = [
    `Layer ${values.layer} of ${values.depth} after ${values.step.toLocaleString("en")} ${values.step === 1 ? "step" : "steps"}, in the ${values.in_frames ? "invariant frames" : "standard basis"}.`,
  ];
  const { above, below: under } = aroundInert(values);
  if (!values.in_frames) {
    texts.push(
      `${Math.round(100 * values.share_moved)} % of its entries have moved, and those off the two marked blocks reach ${relative} of the largest entry: no structure to be seen.`,
    );
  } else if (values.masked) {
    texts.push(
      `What is trained on is no longer of rank ${rank}, so the theorem says nothing: entries off the blocks reach ${relative} of the largest one, and the lower block is off by ${say(values.rest, 2)}.`,
    );
  } else {
    texts.push(
      `Off the blocks no entry is larger than ${relative} of the largest one. The ${size} × ${size} corner learns; the other ${n - size} directions carry one number, ρ = ${say(values.rho_measured, 10)}, and Equation 4 says ${say(values.rho_predicted, 10)}.`,
    );
    texts.push(`${above} singular values are above it and ${under} below.`);
  }
  if (values.lost) texts.push(`At this step size the run blows up: weights pass 10¹⁵ at step ${values.trained}.`);
  else if (values.wanted > values.step)
    texts.push(`On the way to step ${values.wanted.toLocaleString("en")}, trained to ${values.trained.toLocaleString("en")}.`);
  return texts.join(" ");
}

/**
 * How many singular values lie above and below the inert number, by more than rounding.
 *
 * @param {InsideValues} values
 */
function aroundInert({ singular_values: all, rho_predicted: rho }) {
  const margin = 1e-9 * all[0];
  const level = Math.abs(rho);
  return { above: all.filter((s) => s > level + margin).length, below: all.filter((s) => s < level - margin).length };
}

/**
 * A number as a subscript.
 *
 * @param {number} number
 */
function below(number) {
  return String(number).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[Number(digit)]);
}
