// What scrolls inside itself must be reachable by keyboard; what does not scroll must not be a stop on the way.
const SCROLLING = "div.math mjx-container, span.math, .cell_output, .cell_output pre, .highlight pre, .pst-scrollable-table-container, .output";

function markScrolling() {
  for (const element of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(SCROLLING))) {
    // An accent may overhang its formula by a few pixels.
    const slack = element.matches("span.math") ? 4 : 1;
    if (element.scrollWidth > element.clientWidth + slack) {
      element.tabIndex = 0;
    } else {
      element.removeAttribute("tabindex");
    }
  }
}

window.addEventListener("load", async () => {
  // Formulas get their width only when MathJax has set them.
  await window.MathJax?.startup?.promise;
  markScrolling();
  window.addEventListener("resize", markScrolling);
});

// Opened from a disk, a page may not read the others to quote from them, so the search shows their titles only.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// What is folded is opened for printing and folded again after it; code stays folded.
/** @type {HTMLDetailsElement[]} */
const openedForPrint = [];
window.addEventListener("beforeprint", () => {
  for (const details of /** @type {NodeListOf<HTMLDetailsElement>} */ (document.querySelectorAll("details:not(.hide):not([open])"))) {
    details.open = true;
    openedForPrint.push(details);
  }
});
window.addEventListener("afterprint", () => {
  for (const details of openedForPrint.splice(0)) details.open = false;
});
