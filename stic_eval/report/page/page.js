// Views and keys. Runs before the blocks are parsed, so it waits for them.

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

async function start() {
  watchWidths();
  buildTheme();
  buildSkip();
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
