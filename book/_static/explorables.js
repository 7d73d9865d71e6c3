// Bring the book's explorables to life in a page without a kernel: read the state that the chapter left, run its script.
(() => {
  const STATE = 'script[type="application/vnd.jupyter.widget-state+json"]';
  const VIEW = 'script[type="application/vnd.jupyter.widget-view+json"]';

  /** @param {string} base64 */
  function bytes(base64) {
    return new DataView(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer);
  }

  /** @param {StoredModel} model */
  function restore({ state, buffers = [] }) {
    for (const { path, data } of buffers) {
      const parent = path.slice(0, -1).reduce((/** @type {any} */ inner, key) => inner[key], state);
      parent[path[path.length - 1]] = bytes(data);
    }
    return state;
  }

  /** @param {Record<string, any>} state */
  function modelOf(state) {
    return {
      get: (/** @type {string} */ name) => state[name],
      set: (/** @type {string} */ name, /** @type {any} */ value) => (state[name] = value),
      save_changes() {},
      on() {},
      off() {},
      send() {},
    };
  }

  /**
   * @param {Element} script
   * @param {Record<string, StoredModel>} models
   * @param {Map<string, Promise<any>>} modules
   */
  async function show(script, models, modules) {
    const model = models[JSON.parse(script.textContent ?? "").model_id];
    if (!model?.state?._esm) return;
    const state = restore(model);
    const code = state._esm;
    if (!modules.has(code)) {
      const style = document.createElement("style");
      style.textContent = state._css ?? "";
      document.head.append(style);
      modules.set(code, import(URL.createObjectURL(new Blob([code], { type: "text/javascript" }))));
    }
    const place = document.createElement("div");
    place.className = "dmfkit-live-place";
    script.after(place);
    await (await modules.get(code)).default.render({ model: modelOf(state), el: place });
    // Only now may the picture that stands for the explorable go.
    script.closest(".cell")?.classList.add("dmfkit-live");
  }

  async function showAll() {
    const models = {};
    for (const script of document.querySelectorAll(STATE)) Object.assign(models, JSON.parse(script.textContent ?? "").state);
    const modules = new Map();
    const shown = [...document.querySelectorAll(VIEW)].map((script) => show(script, models, modules));
    for (const one of await Promise.allSettled(shown)) if (one.status === "rejected") console.error(one.reason);
    document.documentElement.dataset.explorables = "ready";
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", showAll);
  else showAll();
})();
