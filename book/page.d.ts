// What the page's scripts find in a page. Only the type checker reads this.

/** Of Sphinx. */
declare const DOCUMENTATION_OPTIONS: { SHOW_SEARCH_SUMMARY: boolean };

interface Window {
    MathJax?: { startup?: { promise: Promise<void> } };
}

/** A widget's state as Jupyter stores it in a page. */
interface StoredModel {
    state: Record<string, any>;
    buffers?: { path: (string | number)[]; data: string }[];
}
