// Terms of the glossary show their definition when pointed at, focused or tapped. Without this script they are plain links.
/** @param {Record<string, [string, string]>} definitions */
function startGlossary(definitions) {
  const tip = document.createElement("div");
  tip.className = "dmfkit-tip";
  tip.hidden = true;
  // The description of the link says the same to a screen reader.
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  const descriptions = document.createElement("div");
  descriptions.hidden = true;
  document.body.append(descriptions);
  /** @type {HTMLAnchorElement | null} */
  let shown = null;
  let timer = 0;

  /** @param {HTMLAnchorElement} link */
  function place(link) {
    // The first line of a link that is broken over two lines.
    const box = link.getClientRects()[0];
    const gap = 8;
    const room = document.documentElement.clientWidth - tip.offsetWidth - gap;
    tip.style.left = `${Math.max(gap, Math.min(box.left, room)) + window.scrollX}px`;
    const below = box.bottom + gap + tip.offsetHeight <= window.innerHeight || box.top < tip.offsetHeight + gap;
    tip.style.top = `${(below ? box.bottom + gap / 2 : box.top - tip.offsetHeight - gap / 2) + window.scrollY}px`;
  }

  /**
   * @param {HTMLAnchorElement} link
   * @param {[string, string]} definition
   */
  function show(link, [name, text]) {
    clearTimeout(timer);
    const title = document.createElement("strong");
    title.textContent = name;
    tip.replaceChildren(title, document.createTextNode(` ${text}`));
    tip.hidden = false;
    shown = link;
    place(link);
  }

  function hide() {
    clearTimeout(timer);
    tip.hidden = true;
    shown = null;
  }

  /**
   * @param {() => void} action
   * @param {number} milliseconds
   */
  function later(action, milliseconds) {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  }

  for (const link of /** @type {NodeListOf<HTMLAnchorElement>} */ (document.querySelectorAll('a[href*="glossary.html#term-"]'))) {
    const anchor = link.hash.slice(1);
    const definition = definitions[anchor];
    if (!definition) continue;
    const id = `dmfkit-definition-${anchor}`;
    if (!document.getElementById(id)) {
      const description = document.createElement("span");
      description.id = id;
      description.textContent = definition[1];
      descriptions.append(description);
    }
    link.setAttribute("aria-describedby", id);
    let touched = false;
    link.addEventListener("pointerdown", (event) => {
      touched = event.pointerType === "touch";
    });
    link.addEventListener("pointercancel", () => {
      touched = false;
    });
    link.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "mouse") later(() => show(link, definition), 120);
    });
    link.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") later(hide, 200);
    });
    link.addEventListener("focus", () => {
      if (!touched) show(link, definition);
    });
    link.addEventListener("blur", hide);
    link.addEventListener("click", (event) => {
      // The first tap shows the definition, a second one follows the link.
      if (touched && shown !== link) {
        event.preventDefault();
        show(link, definition);
      }
      touched = false;
    });
  }
  // One may point at the definition itself, to read or to copy it.
  tip.addEventListener("pointerenter", () => clearTimeout(timer));
  tip.addEventListener("pointerleave", () => later(hide, 200));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
  document.addEventListener("pointerdown", (event) => {
    // A finger on the definition puts it away: it may cover the next term.
    const target = /** @type {Node} */ (event.target);
    const inside = shown?.contains(target) || (event.pointerType !== "touch" && tip.contains(target));
    if (!inside) hide();
  });
  window.addEventListener("resize", hide);
}

window.addEventListener("DOMContentLoaded", () => {
  const data = document.getElementById("dmfkit-glossary");
  if (data) startGlossary(JSON.parse(data.textContent));
});
