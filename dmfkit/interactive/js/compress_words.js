// What the reader of Compress it is told.

/**
 * What stands at the cursor, at equal iterations and at equal time.
 *
 * @param {CompressionRace} race
 * @param {Reading} at
 * @param {Curve} wide
 * @param {Curve} compressed
 * @param {boolean} againstTime
 */
function reading(race, at, wide, compressed, againstTime) {
  /**
   * @param {Curve} run
   * @param {number} iterations
   */
  const ended = (run, iterations) => run.met && iterations * race.lr >= lastOf(run.times);
  /**
   * @param {number} error
   * @param {number} iterations
   */
  const versus = (error, iterations) =>
    ended(wide, at.iterations) && ended(compressed, iterations) ? "both have met the rule" : compare(at.error_wide, error);
  const equal = `${say(at.error_compressed)}: ${versus(at.error_compressed, at.iterations)}.`;
  const timed = `${say(at.error_compressed_at_equal_time)}: ${versus(at.error_compressed_at_equal_time, at.seconds / compressed.seconds)}.`;
  const wideIs = `${ended(wide, at.iterations) ? "has ended" : "is"} at ${say(at.error_wide)}`;
  return againstTime
    ? `At ${seconds(at.seconds)} the wide run ${wideIs}, ${round(at.iterations)} iterations on, and the compressed one is at ${timed} After equally many iterations the compressed one is at ${equal}`
    : `After ${round(at.iterations)} iterations the wide run ${wideIs} and the compressed one at ${equal} In the time that this takes the wide run, ${seconds(at.seconds)}, the compressed one comes to ${timed}`;
}

/**
 * How the compressed run ends, and if badly, why.
 *
 * @param {CompressionRace} race
 * @param {Curve} wide
 * @param {Curve} run
 */
function endingOf(race, wide, run) {
  const ratio = lastOf(run.times) / lastOf(wide.times);
  const inTime = (ratio * run.seconds) / wide.seconds;
  const spare = `2r̂ = ${2 * run.bound}`;
  const texts = [];
  if (!wide.met) texts.push("The wide run does not meet the stopping rule within its time, so there is nothing to keep up with.");
  else if (run.met && run.bound >= race.rank)
    texts.push(
      `Compressed, γ = ${run.rate}, r̂ = ${run.bound}: it meets the stopping rule after ${timesText(ratio)} the wide run’s iterations and ${timesText(inTime)} its time.`,
    );
  else if (run.met)
    texts.push(
      `r̂ = ${run.bound} is below the rank ${race.rank}: the frames begin without all directions, and the run stands still on the way. As ${spare} leaves room for them it meets the rule in the end, after ${timesText(ratio)} the wide run’s iterations.`,
    );
  else texts.push(`It fails. ${whyFailed(race, run)} After ${timesText(ratio)} the wide run’s iterations its error is ${say(lastOf(run.errors))}.`);
  if (race.lr > run.stable)
    texts.push(
      `And the step ${say(race.lr)} is above the largest stable one along this run, ${say(run.stable)}: gradient descent would not follow this curve, which is the gradient flow’s.`,
    );
  return texts.join(" ");
}

/**
 * @param {CompressionRace} race
 * @param {Curve} run
 */
function whyFailed(race, run) {
  const i = race.bounds.indexOf(run.bound);
  const low = run.bound < race.rank ? ` That r̂ = ${run.bound} is below the rank ${race.rank} makes them miss more.` : "";
  if (run.rate === 0)
    return `With γ = 0 the frames never turn, and they miss ${say(100 * race.missed[i])} % of ‖Φ‖², which no core repairs: this is for good.${low}`;
  if (2 * run.bound < race.rank)
    return `Cores of 2r̂ = ${2 * run.bound} rows make no matrix of rank ${race.rank}; the nearest of rank ${2 * run.bound} is ${say(race.beyond[i])} away: this is for good.`;
  if (run.bound < race.rank)
    return `r̂ = ${run.bound} is below the rank ${race.rank}, so the frames begin without some directions and have not found them in this time; cores of 2r̂ = ${2 * run.bound} rows leave room for them, so no bound says that they never will.`;
  return `At γ = ${run.rate} the frames turn too slowly to meet the rule in this time.`;
}

/**
 * How the narrow run ends, if there is one and it is shown.
 *
 * @param {CompressionRace} race
 * @param {Curve} wide
 * @param {Curve | undefined} run
 * @param {boolean} shown
 */
function narrowText(race, wide, run, shown) {
  if (race.bounds.length === 1 && !run) return `At this size only r̂ = ${race.bounds[0]} was run, and no narrow factorization.`;
  if (!run || !shown || !wide.met) return "";
  const ratio = lastOf(run.times) / lastOf(wide.times);
  const end = run.met ? "meets the rule after" : `fails, at ${say(lastOf(run.errors))} after`;
  return `A narrow factorization of hidden width ${2 * run.bound} ${end} ${timesText(ratio)} the wide run’s iterations and ${timesText((ratio * run.seconds) / wide.seconds)} its time.`;
}

/**
 * @param {number} wide
 * @param {number} other
 */
function compare(wide, other) {
  const ratio = wide / other;
  if (Math.abs(Math.log(ratio)) < 0.05) return "as near as the wide one";
  return ratio > 1 ? `${timesText(ratio)} nearer` : `${timesText(1 / ratio)} farther off`;
}

/** @param {number} ratio */
function timesText(ratio) {
  if (ratio >= 1e6) return `${say(ratio / 1e6, 2)} million times`;
  return `${ratio < 1000 ? say(ratio) : round(Number(ratio.toPrecision(2)))} times`;
}

/** @param {number} value */
function round(value) {
  return Math.round(value).toLocaleString("en");
}

/** @param {number} value */
function seconds(value) {
  return value < 120 ? `${say(value)} s` : value < 7200 ? `${say(value / 60)} minutes` : `${say(value / 3600)} hours`;
}
