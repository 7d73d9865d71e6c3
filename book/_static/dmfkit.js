// What scrolls inside itself must be reachable by keyboard; what does not scroll must not be a stop on the way.
const SCROLLING = "div.math mjx-container, .cell_output, .cell_output pre, .highlight pre, .pst-scrollable-table-container, .output";

function markScrolling() {
  for (const element of document.querySelectorAll(SCROLLING)) {
    if (element.scrollWidth > element.clientWidth + 1) {
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
