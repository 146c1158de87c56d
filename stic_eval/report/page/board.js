"use strict";
// Sorts and filters the board. Everything that can be chosen is in the address, so that a link leads anywhere.

const FILTERS = ["model", "method", "data"];

function chosen() {
  return new URLSearchParams(location.hash.slice(1));
}

/** Changes what the address says; what is empty is left out. */
function choose(change) {
  const parameters = chosen();
  for (const [name, value] of Object.entries(change)) {
    if (value) parameters.set(name, value);
    else parameters.delete(name);
  }
  location.replace(`#${parameters.toString()}`);
}

/** What a cell is sorted by: its number, or its text; null where there is none. */
function valueOf(row, at, numeric) {
  const cell = row.cells[at];
  if (!numeric) return cell.textContent.trim().toLowerCase();
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
}

function compare(a, b, ways) {
  if (a === null || b === null) return (a === null) - (b === null); // what is not there is last, either way
  return ways * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
}

let rows = []; // in the order of the file: rows of the same data together, the best average first

function render() {
  const parameters = chosen();
  const heads = [...document.querySelectorAll(".board thead th")];
  const at = heads.findIndex((head) => head.dataset.key === parameters.get("sort"));
  const up = parameters.get("order") === "ascending";
  for (const [i, head] of heads.entries()) {
    head.setAttribute("aria-sort", i !== at ? "none" : up ? "ascending" : "descending");
  }
  const ordered = [...rows];
  if (at >= 0) {
    const numeric = "numeric" in heads[at].dataset;
    ordered.sort((a, b) => compare(valueOf(a, at, numeric), valueOf(b, at, numeric), up ? 1 : -1));
  }
  const wanted = FILTERS.map((name) => [heads.findIndex((head) => head.dataset.key === name), parameters.get(name)]);
  const words = (parameters.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of ordered) {
    const text = row.textContent.toLowerCase();
    row.hidden = !wanted.every(([column, value]) => !value || textOf(row, column) === value)
      || !words.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  document.querySelector(".board tbody").append(...ordered);
  document.getElementById("count").textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  for (const name of FILTERS) document.getElementById(`f-${name}`).value = parameters.get(name) || "";
  const search = document.getElementById("f-q");
  if (document.activeElement !== search) search.value = parameters.get("q") || "";
}

/** What a cell says of itself: a method's name without the word that it is unfinished. */
const textOf = (row, column) => (row.cells[column].querySelector("bdi") || row.cells[column]).textContent.trim();

function start() {
  buildTheme();
  buildSkip();
  watchWidths();
  rows = [...document.querySelectorAll(".board tbody tr")];
  for (const head of document.querySelectorAll(".board thead th")) {
    head.querySelector("button").addEventListener("click", () => {
      const numeric = "numeric" in head.dataset; // at first the most on top, or what comes first in the alphabet
      const now = head.getAttribute("aria-sort");
      const first = numeric ? "descending" : "ascending";
      const next = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
      choose({ sort: head.dataset.key, order: next });
    });
  }
  for (const name of FILTERS) {
    document.getElementById(`f-${name}`).addEventListener("change", (event) => choose({ [name]: event.target.value }));
  }
  document.getElementById("f-q").addEventListener("input", (event) => choose({ q: event.target.value }));
  // The address holds what is chosen; a link to the data's description opens it without losing that.
  for (const link of document.querySelectorAll('a[href^="#data-"]')) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const target = document.getElementById(link.getAttribute("href").slice(1));
      target.open = true;
      target.scrollIntoView();
      target.querySelector("summary").focus();
    });
  }
  addEventListener("keydown", (event) => {
    const writing = event.target.matches("input, select, textarea");
    if (event.key === "Escape" && writing) event.target.blur();
    if (event.key !== "/" || writing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    document.getElementById("f-q").focus();
  });
  addEventListener("hashchange", render);
  render();
  document.documentElement.dataset.ready = "true";
}

document.documentElement.classList.add("scripted");
addEventListener("DOMContentLoaded", start);
