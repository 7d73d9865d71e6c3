// The frame around every explorable: title, controls, a text that says what they lead to, pictures, and the numbers behind them.

const SPEAK_AFTER = 600; // milliseconds of rest before a screen reader is told, so that it is not told every step

/**
 * Builds the explorable: the last script of each gives its own.
 *
 * @type {Start}
 */
let start;

/**
 * Build the frame inside `root`.
 *
 * @param {Root} root
 * @param {FrameOptions} options
 * @returns {View}
 */
function frame(root, { name, title, help, controls, pictures, further = [], touched = false, redraw }) {
  const heading = uniqueId("title");
  const shown = make("p", { class: "dmfkit-x-text" });
  const spoken = make("p", { class: "dmfkit-x-hidden", role: "status" });
  root.classList.add("dmfkit-x");
  root.dataset.explorable = name;
  root.setAttribute("role", "group");
  root.setAttribute("aria-labelledby", heading);
  root.append(
    make("p", { id: heading, class: "dmfkit-x-title" }, title),
    make("p", { class: "dmfkit-x-help" }, help),
    rows(controls),
    // On a phone pictures fill the screen, and what the controls do must show beside them. But a picture that is itself
    // touched must not move, as it would below a text that has a line more.
    ...(touched ? [gallery(pictures), shown] : [shown, gallery(pictures)]),
    further.length ? gallery(further) : "",
    spoken,
  );
  function ground() {
    root.classList.toggle("dmfkit-x-dark", isDark());
  }
  ground();
  root.endWatch = watchTheme(() => {
    ground();
    redraw();
  });
  let timer = 0;
  let first = true;
  return {
    say(text, values) {
      shown.textContent = text;
      root.values = values;
      root.dispatchEvent(new CustomEvent("dmfkit-change", { bubbles: true, detail: values }));
      clearTimeout(timer);
      // What is there when the page opens is read with the page; only changes are announced.
      if (!first) timer = setTimeout(() => (spoken.textContent = text), SPEAK_AFTER);
      first = false;
    },
  };
}

/** @param {Part[]} controls */
function rows(controls) {
  return make("div", { class: "dmfkit-x-controls" }, ...controls.map((control) => control.element));
}

/**
 * Controls under a heading of their own.
 *
 * @param {{ label: string, controls: Part[] }} options
 * @returns {Part}
 */
function panel({ label, controls }) {
  return { element: make("div", { class: "dmfkit-x-panel" }, make("p", {}, label), rows(controls)) };
}

/** @param {Part[]} pictures */
function gallery(pictures) {
  return make("div", { class: "dmfkit-x-pictures" }, ...pictures.map((picture) => picture.element));
}

/**
 * What Jupyter and the book's own loader call.
 *
 * @param {{ model: { get(name: string): any }, el: HTMLElement }} options
 */
function render({ model, el }) {
  const { settings, arrays } = model.get("content");
  /** @type {Root} */
  const root = make("div");
  el.append(root);
  const end = start(root, { settings, arrays: unpack(arrays) });
  return () => {
    end?.();
    root.endWatch?.();
  };
}
