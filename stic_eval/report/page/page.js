// Views, theme, keys. Runs before the blocks are parsed, so it waits for them.

function render() {
  const where = place();
  for (const view of VIEWS) document.getElementById(view).hidden = view !== where.view;
  for (const link of document.querySelectorAll("#views a")) {
    if (link.dataset.view === where.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const failed = (error) => {
    document.getElementById("failure").hidden = false;
    document.getElementById("failure").textContent = `This part of the page cannot be shown: ${error.message}`;
  };
  if (where.view === "samples") renderSamples(where).catch(failed);
  if (where.view === "pairs") renderPairs(where).catch(failed);
}

function buildTheme() {
  const button = document.getElementById("theme");
  const names = { "": "auto", light: "light", dark: "dark" };
  const recall = () => {
    try { return localStorage.getItem("stic-eval-theme") || ""; } catch { return ""; }
  };
  const set = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    button.textContent = `Theme: ${names[theme]}`;
    try { localStorage.setItem("stic-eval-theme", theme); } catch { /* not everywhere may a file keep it */ }
  };
  const known = Object.keys(names);
  set(known.includes(recall()) ? recall() : "");
  button.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || "";
    set(known[(known.indexOf(now) + 1) % known.length]);
  });
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const help = document.getElementById("help");
  const target = event.target;
  const writing = target.matches("input:not([type=checkbox]), select, textarea");
  if (event.key === "Escape") {
    if (writing) target.blur();
    else if (!help.open && place().view === "samples" && place().sample) go({ sample: null });
    return;
  }
  if (writing || help.open) return;
  const samples = place().view === "samples";
  const keys = {
    "?": () => help.showModal(),
    "/": () => {
      if (!samples) go({ view: "samples", rows: "all" }, true);
      render();
      document.getElementById("f-q").focus();
      document.getElementById("f-q").select();
    },
    ...Object.fromEntries(VIEWS.map((view, i) => [String(i + 1), () => go({ view, sample: null }, true)])),
    ...(samples ? {
      j: () => move(1), k: () => move(-1), ArrowRight: () => move(1), ArrowLeft: () => move(-1),
      c: () => document.getElementById("copy")?.click(),
    } : {}),
  };
  if (Object.hasOwn(keys, event.key)) {
    event.preventDefault();
    keys[event.key]();
  }
}

/** Says of tables that are wider than the page that they can be scrolled. */
function watchWidths() {
  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const wide = target.scrollWidth > target.clientWidth + 1;
      target.previousElementSibling.hidden = !wide;
    }
  });
  for (const box of document.querySelectorAll(".wide")) watch.observe(box);
}

async function start() {
  watchWidths();
  buildTheme();
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address says what is shown
    document.getElementById("main").focus();
  });
  document.getElementById("help-open").addEventListener("click", () => document.getElementById("help").showModal());
  document.getElementById("help-close").addEventListener("click", () => document.getElementById("help").close());
  meta = await block("meta");
  buildControls();
  buildPairs();
  addEventListener("hashchange", render);
  addEventListener("keydown", onKey);
  render();
  document.documentElement.dataset.ready = "true";
}

document.documentElement.classList.add("scripted");
addEventListener("DOMContentLoaded", start);
