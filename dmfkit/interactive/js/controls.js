// Controls: native elements, so that mouse, touch, keyboard and screen readers work them without more.

/**
 * What stands in the place of a control that has one value only: nothing to move, and no dead slider.
 *
 * @template Value
 * @param {{ label: string, text: string, value: Value }} options
 * @returns {Choice<Value>}
 */
function fixed({ label, text, value }) {
  const element = make("div", { class: "dmfkit-x-control" }, make("span", { class: "dmfkit-x-label" }, label), make("span", { class: "dmfkit-x-value" }, text));
  return { element, value, set() {}, enable() {}, offer() {} };
}

/**
 * A slider over a list of values; where there is one value only, that value as text.
 *
 * @param {SliderOptions} options
 * @returns {Control<number>}
 */
function slider({ label, values, value, show = say, change }) {
  if (values.length === 1) return fixed({ label, text: show(values[0]), value: values[0] });
  const id = uniqueId("slider");
  const first = Math.max(0, values.indexOf(value));
  const output = make("output", { for: id, class: "dmfkit-x-value" });
  const input = make("input", { id, type: "range", min: 0, max: values.length - 1, step: 1, ".value": String(first) });
  /** @type {Control<number>} */
  const control = {
    element: make("div", { class: "dmfkit-x-control" }, make("label", { for: id }, label), output, input),
    get value() {
      return values[Number(input.value)];
    },
    set(next) {
      input.value = String(Math.max(0, values.indexOf(next)));
      refresh();
    },
    enable(yes) {
      input.disabled = !yes;
    },
  };
  function refresh() {
    const text = show(control.value);
    output.textContent = text;
    input.setAttribute("aria-valuetext", text);
  }
  input.addEventListener("input", () => {
    refresh();
    change?.(control.value);
  });
  refresh();
  return control;
}

/**
 * A choice of one from a few: radio buttons in a row, or where there is only one, its text.
 *
 * @template Value
 * @param {ChoiceOptions<Value>} options
 * @returns {Choice<Value>}
 */
function choice({ label, options, value, change, inline = false }) {
  const name = uniqueId("choice");
  const entries = Object.entries(options);
  if (entries.length === 1) return fixed({ label, text: entries[0][0], value: entries[0][1] });
  const inputs = entries.map(([, one]) => make("input", { type: "radio", name, ".checked": one === value }));
  const labels = entries.map(([text], i) => make("label", {}, inputs[i], make("span", {}, text)));
  /** @type {Choice<Value>} */
  const control = {
    element: make("fieldset", { class: `dmfkit-x-control dmfkit-x-choice${inline ? " dmfkit-x-inline" : ""}` }, make("legend", {}, label), ...labels),
    get value() {
      return entries[
        Math.max(
          0,
          inputs.findIndex((input) => input.checked),
        )
      ][1];
    },
    set(next) {
      inputs.forEach((input, i) => (input.checked = entries[i][1] === next));
    },
    enable(yes) {
      inputs.forEach((input) => (input.disabled = !yes));
    },
    offer(values) {
      inputs.forEach((input, i) => (input.disabled = !values.includes(entries[i][1])));
      if (!values.includes(control.value)) control.set(values[0]);
    },
  };
  for (const input of inputs) input.addEventListener("change", () => change?.(control.value));
  return control;
}

/**
 * Something that is on or off.
 *
 * @param {{ label: string, value?: boolean, change?: (value: boolean) => void }} options
 * @returns {Control<boolean>}
 */
function toggle({ label, value = false, change }) {
  const input = make("input", { type: "checkbox", ".checked": value });
  input.addEventListener("change", () => change?.(input.checked));
  return {
    element: make("label", { class: "dmfkit-x-control dmfkit-x-toggle" }, input, make("span", {}, label)),
    get value() {
      return input.checked;
    },
    set(next) {
      input.checked = next;
    },
    enable(yes) {
      input.disabled = !yes;
    },
  };
}

/**
 * Several controls in a row under one name.
 *
 * @param {{ label: string, controls: Part[] }} options
 * @returns {Part}
 */
function group({ label, controls }) {
  const elements = controls.map((control) => control.element);
  return { element: make("fieldset", { class: "dmfkit-x-control dmfkit-x-group" }, make("legend", {}, label), ...elements) };
}

/**
 * A button; `name`, which contains the label, is for a screen reader where the label alone would say too little.
 *
 * @param {{ label: string, press: () => void, name?: string }} options
 * @returns {Button}
 */
function button({ label, press, name }) {
  const attributes = { type: "button", class: "dmfkit-x-button", "aria-label": name };
  const element = make("button", { ...attributes, onclick: () => press() }, label);
  return {
    element,
    rename(text) {
      element.textContent = text;
    },
    enable(yes) {
      element.disabled = !yes;
    },
  };
}
