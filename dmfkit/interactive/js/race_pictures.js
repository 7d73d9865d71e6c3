// The pictures of the race of depths: spectra side by side, curves of all depths, matrices, and a table.

const DASHES_OF_DEPTHS = ["1 4", "7 4", undefined, "11 4 2 4", "4 2", "2 2"]; // by place in the race, so that colour is not needed
const MOST_POINTS = 160; // of a line, more than a phone's screen can tell apart
const DRAWN_VALUES = 8; // of a spectrum; what comes later is smaller still

/**
 * A recorded quantity against the step, thinned, with the present value at its end.
 *
 * @param {RecordedRun} record
 * @param {number} every
 * @param {(k: number) => number} valueAt
 * @param {number} presentValue
 */
function track({ count, run }, every, valueAt, presentValue) {
  const stride = Math.max(1, Math.ceil(count / MOST_POINTS));
  const x = [];
  const y = [];
  for (let k = 0; k < count; k += stride) {
    x.push(k * every);
    y.push(valueAt(k));
  }
  if (run.steps > lastOf(x)) {
    x.push(run.steps);
    y.push(presentValue);
  }
  return { x, y };
}

/**
 * Singular values of every depth against the step, one small chart a depth.
 *
 * @param {number[]} depths
 */
function spectra(depths) {
  const charts = depths.map((depth) => chart({ height: 170, label: `Singular values at depth ${depth}`, margin: SMALL_MARGIN }));
  const logarithmic = { value: false };
  return {
    element: make("div", { class: "dmfkit-x-multiples" }, ...charts.map((one) => one.element)),
    logarithmic,
    /** @param {RaceState & { floor: number }} state */
    show({ records, presents, every, d, truth, end, chosen, floor }) {
      records.forEach((record, n) => {
        /** @type {Line[]} */
        const lines = [];
        for (let r = 0; r < Math.min(d, DRAWN_VALUES); r += 1) {
          const wanted = r < truth.length;
          const style = wanted ? { series: n, width: 2.2 } : { colour: "var(--dmfkit-x-soft)", width: 1.2, dash: "4 2" };
          lines.push({ ...track(record, every, (k) => record.values[k * d + r], presents[n].values[r]), ...style });
        }
        const y = logarithmic.value ? { domain: [floor, 2 * truth[0]], log: true } : { domain: [0, 1.2 * truth[0]] };
        charts[n].show({
          title: `${n === chosen ? "▸" : ""}depth ${depths[n]}${record.run.diverged ? " diverged" : ""}`,
          x: { domain: [0, end] },
          y,
          lines: lines.reverse(), // the large ones on top
          rules: [...truth].map((value) => ({ y: value, dash: "1 3" })),
        });
        const grown = [...presents[n].values].slice(0, truth.length + 1).map((value) => say(value));
        charts[n].describe(`Singular values at depth ${depths[n]} against the step; the largest are now ${grown.join(", ")}.`);
      });
    },
  };
}

/** @type {Record<string, { name: RaceQuantity, log: boolean }>} */
const RACE_QUANTITIES = {
  "held-out error": { name: "heldOut", log: true },
  "training loss": { name: "meanSquare", log: true },
  "effective rank": { name: "effectiveRank", log: false },
};

/**
 * The decades that hold these values, at least two of them.
 *
 * @param {number[]} values
 */
function decades(values) {
  const logs = values.filter((value) => value > 0 && Number.isFinite(value)).map(Math.log10);
  const low = Math.max(-12, Math.floor(Math.min(-1, ...logs)));
  return [10 ** low, 10 ** Math.min(4, Math.max(low + 2, Math.ceil(Math.max(...logs))))];
}

/**
 * One quantity against the step, all depths in one chart.
 *
 * @param {number[]} depths
 */
function curves(depths) {
  const curve = chart({ height: 260, label: "All depths against the step", margin: { ...MARGIN, right: 24 } });
  const quantity = { value: "held-out error" };
  return {
    element: curve.element,
    quantity,
    /** @param {RaceState} state */
    show({ records, presents, every, d, end, chosen, moment }) {
      const { name, log } = RACE_QUANTITIES[quantity.value];
      const lines = records.map((record, n) => ({
        ...track(record, every, (k) => record[name][k], presents[n][name]),
        series: n,
        dash: DASHES_OF_DEPTHS[n % DASHES_OF_DEPTHS.length],
        width: n === chosen ? 3 : 2,
      }));
      curve.show({
        x: { label: "step", domain: [0, end] },
        y: { label: quantity.value, log, domain: log ? decades(lines.flatMap((line) => line.y)) : [0, d] },
        lines,
        rules: Number.isFinite(moment) ? [{ x: moment, label: `10× at ${moment}` }] : [],
      });
      const last = depths.map((depth, n) => `${say(presents[n][name])} at depth ${depth}`);
      curve.describe(`${quantity.value} against the step for every depth; now ${last.join(", ")}.`);
    },
  };
}

/**
 * The largest size of an entry; what is not a number, because it is not shown, does not count.
 *
 * @param {Float64Array} matrix
 */
function largestEntry(matrix) {
  return matrix.reduce((most, value) => (Math.abs(value) > most ? Math.abs(value) : most), 0);
}

/** Target, product, and what is wrong with the product where it was observed and where it was not. */
function matrices() {
  const maps = ["target", "product", "residual", "error"].map((label) => heatMap({ label }));
  return {
    element: make("div", { class: "dmfkit-x-maps" }, ...maps.map((map) => map.element)),
    /** @param {{ product: Float64Array, truth: Float64Array, mask: Float64Array, d: number, depth: number }} state */
    show({ product, truth, mask, d, depth }) {
      const limit = largestEntry(truth);
      const wrong = product.map((value, i) => value - truth[i]);
      const shown = [
        { data: truth, caption: "target", words: `The matrix to be found, ${d} by ${d}` },
        { data: product, caption: "product", words: `The product matrix at depth ${depth}` },
        { data: wrong.map((value, i) => (mask[i] ? value : NaN)), caption: "residual, observed", words: "Product less target where observed" },
        { data: wrong.map((value, i) => (mask[i] ? NaN : value)), caption: "error, held out", words: "Product less target where held out" },
      ];
      shown.forEach(({ data, caption, words }, n) => {
        const size = say(largestEntry(data), 2);
        maps[n].show(data, d, d, limit);
        maps[n].caption(`${caption}: up to ${size}`);
        maps[n].describe(`${words}; entries up to ${size} in size, colours up to ${say(limit, 2)}`);
      });
    },
  };
}

const ROWS = ["training loss", "held-out error", "effective rank", "values grown", "fitted at step", "stable rate"];

/**
 * The present numbers: a column a depth. The style sheet makes it another layout on a phone, so roles are named.
 *
 * @param {number[]} depths
 */
function standings(depths) {
  /** @param {...Element} cells */
  const row = (...cells) => make("tr", { role: "row" }, ...cells);
  const head = row(make("td", { role: "cell" }), ...depths.map((depth) => make("th", { scope: "col", role: "columnheader" }, `depth ${depth}`)));
  const cells = ROWS.map(() => depths.map(() => make("td", { role: "cell" })));
  const rows = ROWS.map((name, i) => row(make("th", { scope: "row", role: "rowheader" }, name), ...cells[i]));
  const groups = [make("thead", { role: "rowgroup" }, head), make("tbody", { role: "rowgroup" }, ...rows)];
  return {
    element: make("table", { class: "dmfkit-x-beside", role: "table", style: `--dmfkit-x-columns: ${depths.length}` }, ...groups),
    /** @param {RaceState} state */
    show({ records, presents, stableRates }) {
      records.forEach((record, n) => {
        const { meanSquare, heldOut, effectiveRank: rank, grown } = presents[n];
        const fitted = Number.isNaN(record.fitted) ? (record.run.diverged ? "never" : "no") : String(record.fitted);
        [say(meanSquare, 2), say(heldOut, 2), rank.toFixed(1), String(grown), fitted, say(stableRates[n], 2)].forEach(
          (text, i) => (cells[i][n].textContent = text),
        );
      });
    },
  };
}
