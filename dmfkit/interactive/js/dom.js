// Elements, arrays and themes. Text is always set as text, never parsed as markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element: attributes, `on...` listeners and properties given as `.name`; children are nodes or texts.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/**
 * Make an element of a vector drawing.
 *
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * @template {HTMLElement | SVGElement} Kind
 * @param {Kind} element
 * @param {Attributes} attributes
 * @param {Child[]} children
 */
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name.startsWith(".")) Object.assign(element, { [name.slice(1)]: value });
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const ARRAY_TYPES = {
  uint8: Uint8Array,
  uint16: Uint16Array,
  int32: Int32Array,
  float32: Float32Array,
  float64: Float64Array,
};

/**
 * Return name -> {data, shape} for arrays as Python packed them; the bytes are copied, so that they are aligned.
 *
 * @param {Record<string, PackedArray>} packed
 */
function unpack(packed) {
  /** @type {Record<string, NumberArray<TypedArray>>} */
  const arrays = {};
  for (const [name, { type, shape, data }] of Object.entries(packed)) {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
    arrays[name] = { data: new ARRAY_TYPES[type](bytes.buffer), shape };
  }
  return arrays;
}

/**
 * Position of an entry in the data of an array of this shape.
 *
 * @param {number[]} shape
 * @param {...number} indices
 */
function at(shape, ...indices) {
  let position = 0;
  shape.forEach((size, axis) => (position = position * size + (indices[axis] ?? 0)));
  return position;
}

/**
 * The last element of a list that is not empty.
 *
 * @template Value
 * @param {ArrayLike<Value>} list
 */
function lastOf(list) {
  return list[list.length - 1];
}

let count = 0;
/**
 * A name that no other element of the page has.
 *
 * @param {string} stem
 */
function uniqueId(stem) {
  count += 1;
  return `dmfkit-${stem}-${count}-${Math.random().toString(36).slice(2, 8)}`;
}

// The published page, JupyterLab, Colab and Visual Studio Code each say in their own way that they are dark.
function isDark() {
  const html = document.documentElement;
  const body = document.body;
  return (
    html.dataset.theme === "dark" || html.getAttribute("theme") === "dark" || body.dataset.jpThemeLight === "false" || body.classList.contains("vscode-dark")
  );
}

/**
 * Call `react` whenever the page's theme changes; returns a function that ends this.
 *
 * @param {() => void} react
 */
function watchTheme(react) {
  const observer = new MutationObserver(react);
  for (const element of [document.documentElement, document.body]) {
    observer.observe(element, { attributes: true, attributeFilter: ["data-theme", "theme", "data-jp-theme-light", "class"] });
  }
  return () => observer.disconnect();
}

// The colours of the book's figures (Okabe and Ito), and lighter ones for a dark ground; told apart without colour too.
const LIGHT = ["#0072b2", "#c14e00", "#00805c", "#b0568a", "#8a6000", "#2a7ab0", "#000000"];
const DARK = ["#56b4e9", "#ff9a4d", "#2fd6a3", "#e6a3c8", "#f0c14b", "#9ad0f5", "#ffffff"];

/**
 * Colour of the series with this number, from 0, on the present ground.
 *
 * @param {number} number
 */
function colour(number) {
  const palette = isDark() ? DARK : LIGHT;
  return palette[number % palette.length];
}

/**
 * A number for reading: three significant digits, exponent only where it helps, no zeros at the end, a real minus sign.
 *
 * @param {number} value
 * @param {number} [digits]
 */
function say(value, digits = 3) {
  if (Number.isNaN(value)) return "none";
  if (!Number.isFinite(value)) return value > 0 ? "infinite" : "minus infinite";
  const size = Math.abs(value);
  const rounded = Number(value.toPrecision(digits));
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? rounded.toExponential() : String(rounded);
  return text.replace("e+", "e").replace("-", "−").replace("e-", "e−");
}
