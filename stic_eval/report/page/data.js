"use strict";
// What the page knows: blocks of gzipped JSON, unpacked when they are looked at, and how they become text.

const EMPTY = -1; // in place of the number of a text: there is none
const ABSENT = -2; // nothing was recorded
const SCROLLED = 250; // characters from which on a text may be taller than its place, in the narrowest column

const unpacked = new Map();

/** The value of a block, or null if there is no such block; each is unpacked once. */
function block(name) {
  if (!unpacked.has(name)) unpacked.set(name, unpack(name));
  return unpacked.get(name);
}

async function unpack(name) {
  const node = document.getElementById(`block:${name}`);
  if (!node) return null;
  const binary = atob(node.textContent);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** The address of an image by its number, or null if it could not be read when the page was made. */
async function address(number) {
  const chunk = await block(`images:${Math.floor(number / meta.chunk)}`);
  return chunk ? chunk[number % meta.chunk] : null;
}

/** An element. Children that are strings become text, whatever they hold; nothing is ever parsed. */
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A number as text, e.g. 5,000. */
const count = (number) => number.toLocaleString("en-US");

/** What somebody else wrote, kept apart from the text around it; a long one is cut until asked for. */
function prose(text, limit = 3000) {
  if (text === "") return el("p", { class: "prose none" }, "(empty)");
  // What is long is scrolled, with the keyboard too.
  const node = el("div", { class: "prose", dir: "auto", tabindex: text.length > SCROLLED ? "0" : null });
  if (text.length <= limit) {
    node.append(text);
    return node;
  }
  const more = el("button", { type: "button", class: "more" }, `Show all ${count(text.length)} characters`);
  more.addEventListener("click", () => node.replaceChildren(text));
  node.append(`${text.slice(0, limit)}… `, more);
  return node;
}

/** An image by its number; while it is unpacked, and if it is missing, a place that says so. */
function picture(number, alternative, kind = "") {
  const frame = el("span", { class: `frame ${kind}` });
  address(number).then(
    (source) => {
      if (!source) return frame.replaceChildren(el("span", { class: "gone" }, "no image"));
      const image = el("img", { alt: alternative, decoding: "async", loading: "lazy" });
      image.addEventListener("load", () => image.classList.toggle("drawn", image.naturalWidth <= 96));
      image.src = source;
      frame.replaceChildren(image);
    },
    () => frame.replaceChildren(el("span", { class: "gone" }, "no image")),
  );
  return frame;
}

let meta = null; // the block of that name

// ---------------------------------------------------------------- the address

/** What the address bar says; everything that can be chosen is in it, so that a link leads anywhere. */
function place() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const sample = parameters.get("sample");
  const cut = sample ? sample.indexOf("/") : -1;
  const known = new Set(meta.sides.map((side) => side.key));
  const columns = parameters.getAll("column").filter((key) => known.has(key));
  const seeds = allSeeds();
  // `#samples` is the same as `#view=samples`.
  const view = parameters.get("view") || (sample ? "samples" : VIEWS.find((name) => parameters.has(name)) || "summary");
  const rows = ROWS.includes(parameters.get("rows")) ? parameters.get("rows") : standardRows(cut > 0);
  const named = parameters.get("benchmark") || (cut > 0 ? sample.slice(0, cut) : "");
  const has = named === "*" || meta.benchmarks.some((benchmark) => benchmark.name === named);
  const side = (key, other) => (known.has(parameters.get(key)) ? parameters.get(key) : other);
  // Who asks for flips sees both sides of them; at first the columns are as they are chosen.
  const both = FLIPS.includes(parameters.get("rows")) ? [side("by", compared()), side("than", reference())] : [];
  const asked = new Set(columns.length ? columns : standardColumns());
  return {
    view: VIEWS.includes(view) ? view : "summary",
    sample: cut > 0 ? { benchmark: sample.slice(0, cut), id: sample.slice(cut + 1) } : null,
    benchmark: has ? named : meta.start.benchmark,
    seed: seeds.includes(parameters.get("seed")) ? parameters.get("seed") : seeds[0] || "",
    rows,
    by: side("by", compared()),
    than: side("than", reference()),
    q: parameters.get("q") || "",
    columns: [...asked],
    shown: meta.sides.map((side) => side.key).filter((key) => asked.has(key) || both.includes(key)),
    page: Math.max(1, Number.parseInt(parameters.get("page"), 10) || 1),
    set: Math.max(0, Number.parseInt(parameters.get("set"), 10) || 0),
  };
}

/** The address of a place; what is as it would be anyway is left out. */
function addressOf(where) {
  const parameters = new URLSearchParams();
  const put = (name, value, standard) => value !== standard && parameters.set(name, value);
  if (where.view === "samples" && where.sample) {
    parameters.set("sample", `${where.sample.benchmark}/${where.sample.id}`);
  } else put("view", where.view, "summary");
  if (where.view === "samples") {
    put("benchmark", where.benchmark, where.sample ? where.sample.benchmark : undefined);
    put("rows", where.rows, standardRows(where.sample !== null));
    if (FLIPS.includes(where.rows)) {
      put("by", where.by, compared());
      put("than", where.than, reference());
    }
    put("q", where.q, "");
    put("seed", where.seed, allSeeds()[0] || "");
    if (where.columns.join("\n") !== standardColumns().join("\n")) {
      for (const key of where.columns) parameters.append("column", key);
    }
    put("page", where.page, 1);
  }
  if (where.view === "pairs") put("set", where.set, 0);
  return `#${parameters.toString().replaceAll("%2F", "/")}`;
}

/** Goes somewhere: a change of the present place. Without `keep`, the way back leads past it. */
function go(change, keep = false) {
  const hash = addressOf({ ...place(), ...change });
  if (hash === location.hash) return;
  if (keep) location.hash = hash;
  else location.replace(hash);
}

const VIEWS = ["summary", "samples", "pairs", "training", "provenance"];
const FLIPS = ["better", "worse", "changed"];
const ROWS = ["all", ...FLIPS, "unscored", "wrong", "right"];

function allSeeds() {
  const seeds = new Set(meta.sides.flatMap((side) => Object.keys(side.seeds)).filter((seed) => seed !== ""));
  return [...seeds].sort((a, b) => a - b);
}

function reference() {
  const side = meta.sides.find((one) => one.baseline) || meta.sides[0];
  return side ? side.key : "";
}

/** What flips are of, unless another is chosen. */
const compared = () => meta.compared ?? reference();

/** Rows that are listed unless others are chosen: what changed; beside a sample that is named, all. */
const standardRows = (named) => (named ? "all" : meta.start.rows);

/** Columns that are shown unless others are chosen. */
const standardColumns = () => meta.columns;
