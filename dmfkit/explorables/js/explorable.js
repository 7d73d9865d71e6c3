// The frame around every explorable: title, controls, picture, a text that follows it, and the numbers behind it.

const SPEAK_AFTER = 600; // milliseconds of rest before a screen reader is told, so that it is not told every step

/**
 * Build the frame inside `root`.
 *
 * @param {object} options name, by which pages and tests find it; title; help, how to use it in a sentence;
 *   controls and pictures, arrays of what the functions of controls.js and chart.js returned; redraw, called when the
 *   theme changes.
 * @returns {{say: function(string, object)}} `say` sets the text below the picture and, as `root.values`, the numbers.
 */
function frame(root, { name, title, help, controls, pictures, redraw }) {
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
    make("div", { class: "dmfkit-x-controls" }, ...controls.map((control) => control.element)),
    make("div", { class: "dmfkit-x-pictures" }, ...pictures.map((picture) => picture.element)),
    shown,
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

/** What Jupyter and the book's own loader call. */
function render({ model, el }) {
  const { settings, arrays } = model.get("content");
  const root = make("div");
  el.append(root);
  const end = start(root, { settings, arrays: unpack(arrays) });
  return () => {
    end?.();
    root.endWatch?.();
  };
}
