// The race of depths in words.

/** @param {number} number */
const subscript = (number) => [...String(number)].map((digit) => "₀₁₂₃₄₅₆₇₈₉"[Number(digit)]).join("");

/** @param {(string | number)[]} items */
function list(items) {
  return items.length < 2 ? items.join() : `${items.slice(0, -1).join(", ")} and ${lastOf(items)}`;
}

/**
 * Which singular values have grown, and when.
 *
 * @param {RecordedRun} record
 * @param {Measurements} present
 */
function arrivalWords({ arrivals }, { grown }) {
  const came = [...arrivals].filter((step) => !Number.isNaN(step));
  if (!came.length) return "No singular value has grown yet.";
  const listed = came.slice(0, 5).map((step, r) => `σ${subscript(r + 1)} by step ${step}`);
  const more = came.length > 5 ? `, and ${came.length - 5} more by step ${lastOf(came)}` : "";
  const left = grown < came.length ? ` (${grown} of them are left)` : "";
  return `${came.length === 1 ? "One singular value has" : `${came.length} singular values have`} grown${left}: ${listed.join(", ")}${more}.`;
}

/**
 * How the held-out error compares with that of the next shallower depth.
 *
 * @param {number} error
 * @param {number} other
 * @param {number} shallower
 * @param {number} moment
 */
function comparison(error, other, shallower, moment) {
  const times = other / error;
  const how = say(times) === "1" ? "the same as" : times > 1 ? `${say(times)} times below` : `${say(1 / times)} times above`;
  const since = Number.isNaN(moment) ? "up to here it was never 10 times below" : `it was first 10 times below at step ${moment}`;
  return `Its held-out error is ${how} that of depth ${shallower}; ${since}.`;
}

/**
 * Which depths have diverged, and for which the learning rate is too large.
 *
 * @param {Race} race
 * @param {number[]} depths
 */
function rateWords({ records, set, stableRates }, depths) {
  const numbers = depths.map((_, n) => n);
  const lost = numbers.filter((n) => records[n].run.diverged);
  const fast = numbers.filter((n) => set.lr > stableRates[n]);
  const said = lost.map((n) => `Depth ${depths[n]} diverged at step ${records[n].run.steps}.`);
  if (!fast.length) return said;
  const limits = list(fast.map((n) => say(stableRates[n])));
  return [
    ...said,
    `The learning rate is too large for depth ${list(fast.map((n) => depths[n]))} to settle near the target, where up to ${limits} is stable: take a smaller one.`,
  ];
}

/**
 * The text above the pictures; `ending` is "over", "goal" where the run has come to its step, or empty.
 *
 * @param {{ race: Race, goal: number, presents: Measurements[], chosen: number, moment: number, depths: number[], d: number, rank: number, ending: string }} state
 */
function raceWords({ race, goal, presents, chosen, moment, depths, d, rank, ending }) {
  const { nObserved, scale, lr } = race.set;
  const parts = [];
  if (race.step === 0) {
    parts.push(
      `At the start: ${nObserved} of ${d * d} entries are observed, and every product has the expected norm ${say(scale)}. Press Run for ${goal} steps at the learning rate ${say(lr)}.`,
    );
  } else {
    const record = race.records[chosen];
    const present = presents[chosen];
    const fitted = Number.isNaN(record.fitted) ? "not fitted yet" : `fitted at step ${record.fitted}`;
    parts.push(
      `Step ${race.step}. Depth ${depths[chosen]}: training loss ${say(present.meanSquare)} (${fitted}), ` +
        `held-out error ${say(present.heldOut)}${present.heldOut > 1 ? " (above 1: worse than predicting zeros)" : ""}, effective rank ${say(present.effectiveRank)}.`,
    );
    if (!record.run.diverged) {
      parts.push(arrivalWords(record, present));
      if (chosen > 0) parts.push(comparison(present.heldOut, presents[chosen - 1].heldOut, depths[chosen - 1], moment));
    }
  }
  const unknowns = rank * (2 * d - rank);
  if (nObserved < unknowns) {
    parts.push(`A matrix of rank ${rank} has ${unknowns} degrees of freedom, more than there are observed entries: nothing can find it for sure.`);
  }
  parts.push(...rateWords(race, depths));
  if (ending === "over") parts.push("The race is over: Reset, or change a setting.");
  // Where every depth is fitted, little changes any more.
  const all = race.records.every((record) => !Number.isNaN(record.fitted));
  if (ending === "goal") parts.push(all ? "All depths are fitted; more steps change little." : "To go on, raise “run to step”.");
  return parts.join(" ");
}
