// The scoreboard's filter. Its state is in the address, so that a filtered table can be linked to.
/** @param {HTMLFormElement} form */
function startFilter(form) {
  const rows = [.../** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("table.dmfkit-scoreboard tbody tr"))];
  const fields = [.../** @type {Iterable<HTMLInputElement | HTMLSelectElement>} */ (/** @type {unknown} */ (form.elements))].filter((field) => field.name);
  /** @type {Map<HTMLElement, string>} */
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));

  /** @param {HTMLElement} row */
  function matches(row) {
    return fields.every((field) => {
      const value = field.value.trim().toLowerCase();
      if (!value) return true;
      if (field.name === "words") return value.split(/\s+/).every((word) => texts.get(row)?.includes(word));
      return row.dataset[field.name] === field.value;
    });
  }

  function show() {
    for (const row of rows) row.hidden = !matches(row);
    // A heading with nothing left under it would only be in the way; the innermost sections come first.
    for (const section of [...document.querySelectorAll("section")].reverse()) {
      const inside = [.../** @type {NodeListOf<HTMLElement>} */ (section.querySelectorAll("table.dmfkit-scoreboard tbody tr"))];
      if (inside.length && !section.contains(form))
        section.classList.toggle(
          "dmfkit-empty",
          inside.every((row) => row.hidden),
        );
    }
    const left = rows.filter((row) => !row.hidden).length;
    /** @type {HTMLElement} */ (form.querySelector(".dmfkit-shown")).textContent = `Showing ${left} of ${rows.length} claims.`;
  }

  function remember() {
    const address = new URL(location.href);
    for (const field of fields) {
      if (field.value) address.searchParams.set(field.name, field.value);
      else address.searchParams.delete(field.name);
    }
    address.hash = "";
    history.replaceState(null, "", address);
  }

  const asked = new URLSearchParams(location.search);
  for (const field of fields) {
    const value = asked.get(field.name) ?? "";
    // A select keeps only a value that it offers.
    field.value = value;
    if (field.value !== value) field.value = "";
  }
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    show();
    remember();
  });
  form.addEventListener("reset", () =>
    setTimeout(() => {
      for (const field of fields) field.value = "";
      show();
      remember();
    }),
  );
  show();
}

window.addEventListener("DOMContentLoaded", () => {
  for (const form of /** @type {NodeListOf<HTMLFormElement>} */ (document.querySelectorAll("form.dmfkit-filter"))) startFilter(form);
});
