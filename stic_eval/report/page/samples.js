// The browser of samples: a list that is filtered, and one sample in full.

const PER_PAGE = 50;
let listed = { key: "", found: [] }; // what the list shows, and what it was filtered by
let turn = 0; // a newer wish than the one being worked on is not overwritten by it

const sideOf = (key) => meta.sides.find((side) => side.key === key);

/** The answers of a side to a benchmark, of the seed looked at; null where it was not evaluated. */
function answersOf(benchmark, side, seed) {
  const entry = side.seeds[""] ?? side.seeds[seed];
  return entry === undefined ? Promise.resolve(null) : block(`answers:${benchmark}:${entry}`);
}

const textAt = (data, column, row) => {
  const number = row < data[column].length ? data[column][row] : ABSENT;
  return number >= 0 ? data.strings[number] : null;
};
const recorded = (answers, row) => answers !== null && row < answers.score.length && answers.response[row] !== ABSENT;
const scoreAt = (answers, row) => (recorded(answers, row) ? answers.score[row] : undefined);

/** -1, 0 or 1: whether a score is worse or better than another; undefined where one is missing. */
function change(score, other) {
  if (score === null || other === null || score === undefined || other === undefined) return undefined;
  return Math.sign(score - other);
}

/** Whether a row belongs to the list, by the scores of the columns and of the two that are compared. */
function belongs(rows, scores, by, than) {
  const there = scores.filter((score) => score !== undefined);
  const step = change(by, than);
  switch (rows) {
    case "better": return step === 1;
    case "worse": return step === -1;
    case "changed": return step === 1 || step === -1;
    case "unscored": return there.includes(null);
    case "wrong": return there.length > 0 && there.every((score) => score !== null && score < 0.5);
    case "right": return there.length > 0 && there.every((score) => score !== null && score >= 1);
    default: return true;
  }
}

/** A test of rows: whether every word occurs somewhere in the row or in its answers. */
function searcher(words, rows, answers) {
  if (!words.length) return () => true;
  const sources = [
    { data: { id: rows.ids.map((_, i) => i), strings: rows.ids }, columns: ["id"] },
    { data: rows, columns: ["question", "target", "group"] },
    ...answers.filter(Boolean).map((data) => ({ data, columns: ["response", "answer", "description", "why"] })),
  ];
  // A text is looked through once, however many rows have it.
  const tests = words.map((word) =>
    sources.map(({ data, columns }) => {
      const hits = Uint8Array.from(data.strings, (text) => (text.toLowerCase().includes(word) ? 1 : 0));
      return (row) => columns.some((column) => hits[data[column][row]] === 1);
    }),
  );
  return (row) => tests.every((places) => places.some((test) => test(row)));
}

/** All rows that the present filters let through, as [benchmark, row], and how the flips are spread. */
async function filtered(where) {
  const key = JSON.stringify([where.benchmark, where.seed, where.rows, where.by, where.than, where.q, where.shown]);
  if (key === listed.key) return listed;
  const names = where.benchmark === "*" ? meta.benchmarks.map((one) => one.name) : [where.benchmark];
  const words = where.q.toLowerCase().split(/\s+/).filter(Boolean);
  const result = { key, found: [], total: 0, better: 0, worse: 0 };
  for (const name of names) {
    const keys = [...where.shown, where.by, where.than].map(sideOf);
    const [rows, ...all] = await Promise.all([
      block(`rows:${name}`), ...keys.map((side) => (side ? answersOf(name, side, where.seed) : null)),
    ]);
    if (!rows) continue;
    const shown = all.slice(0, -2);
    const [by, than] = all.slice(-2);
    const match = searcher(words, rows, shown);
    result.total += rows.ids.length;
    for (let row = 0; row < rows.ids.length; row++) {
      const [mine, theirs] = [scoreAt(by, row), scoreAt(than, row)];
      const step = change(mine, theirs);
      if (step === 1) result.better++;
      if (step === -1) result.worse++;
      const scores = shown.map((answers) => scoreAt(answers, row));
      if (belongs(where.rows, scores, mine, theirs) && match(row)) result.found.push([name, row]);
    }
  }
  listed = result;
  return result;
}

// ---------------------------------------------------------------- verdicts

function verdict(score) {
  if (score === undefined) return { kind: "absent", mark: "–", word: "no record" };
  if (score === null) return { kind: "open", mark: "?", word: "unscored" };
  if (score >= 1) return { kind: "right", mark: "✓", word: score > 1 ? `${Math.round(score * 100)} %` : "right" };
  if (score <= 0) return { kind: "wrong", mark: "✗", word: "wrong" };
  const percent = Math.round(score * 100);
  return { kind: "part", mark: String(percent), word: `${percent} %` };
}

// ---------------------------------------------------------------- the list

async function renderList(where, result, mine) {
  const list = document.getElementById("list");
  const pages = Math.max(1, Math.ceil(result.found.length / PER_PAGE));
  const page = Math.min(where.page, pages);
  const start = (page - 1) * PER_PAGE;
  const shown = result.found.slice(start, start + PER_PAGE);
  const sides = where.shown.map(sideOf);
  const items = [];
  for (const [name, row] of shown) {
    const rows = await block(`rows:${name}`);
    const answers = await Promise.all(sides.map((side) => answersOf(name, side, where.seed)));
    const id = rows.ids[row];
    const sample = { benchmark: name, id };
    const marks = el("span", { class: "marks" }, ...answers.map((one, i) => {
      const { kind, mark, word } = verdict(scoreAt(one, row));
      return el("span", { class: `mark ${kind}`, title: `${sides[i].label}: ${word}` }, mark);
    }));
    const link = el("a", { href: addressOf({ ...where, view: "samples", sample, page }) },
      rows.images[row].length ? picture(rows.images[row][0], "", "small") : el("span", { class: "frame small" }),
      el("span", { class: "what" },
        el("bdi", { class: "id" }, where.benchmark === "*" ? `${name}/${id}` : id),
        el("bdi", { class: "question" }, (textAt(rows, "brief", row) || "").slice(0, 160))),
      marks);
    link.sample = sample;
    items.push(el("li", {}, link));
  }
  if (mine !== turn) return;
  drawn = listKey(where, result);
  list.replaceChildren(...(items.length ? items : [nothingListed(result)]));
  const of = result.found.length === result.total ? "" : ` of ${count(result.total)}`;
  document.getElementById("count").textContent = `${count(result.found.length)}${of} rows`;
  const flips = document.getElementById("spread");
  const [by, than] = [sideOf(where.by), sideOf(where.than)];
  flips.textContent = by && than && by !== than
    ? `${by.label} against ${than.label}: ${count(result.better)} better, ${count(result.worse)} worse`
    : "";
  const pager = document.getElementById("pager");
  pager.hidden = pages === 1;
  document.getElementById("page-of").textContent =
    `${count(start + 1)}–${count(start + shown.length)} of ${count(result.found.length)}`;
  document.getElementById("page-back").disabled = page <= 1;
  document.getElementById("page-on").disabled = page >= pages;
  list.dataset.page = page;
}

function nothingListed(result) {
  if (!result.total) return el("li", { class: "none" }, "There are no records.");
  const all = el("button", { type: "button" }, "Show all rows");
  all.addEventListener("click", () => go({ rows: "all", q: "", page: 1, sample: null }));
  return el("li", { class: "none" }, "No row fits these filters. ", all);
}

/** Marks the sample that is open in the list, and brings it into view. */
function markCurrent(sample) {
  for (const link of document.querySelectorAll("#list a")) {
    const current = sample && link.sample.benchmark === sample.benchmark && link.sample.id === sample.id;
    if (!current) link.removeAttribute("aria-current");
    else {
      link.setAttribute("aria-current", "true");
      const box = document.getElementById("list");
      const [top, height] = [link.offsetTop - box.offsetTop, link.offsetHeight];
      if (top < box.scrollTop || top + height > box.scrollTop + box.clientHeight) {
        box.scrollTop = top - (box.clientHeight - height) / 2;
      }
    }
  }
}

// ---------------------------------------------------------------- one sample

async function renderDetail(where, result) {
  const detail = document.getElementById("detail");
  const open = where.sample;
  const first = result.found.length ? result.found[0] : null;
  let sample = open;
  if (!open && first) sample = { benchmark: first[0], id: (await block(`rows:${first[0]}`)).ids[first[1]] };
  const rows = sample ? await block(`rows:${sample.benchmark}`) : null;
  const row = rows ? rows.ids.indexOf(sample.id) : -1;
  if (row < 0) {
    const said = sample ? `There is no sample ${sample.benchmark}/${sample.id} in this run.` : "";
    return { nodes: [el("p", { class: "none" }, said)], detail, sample: null };
  }
  const sides = where.shown.map(sideOf);
  const answers = await Promise.all(sides.map((side) => answersOf(sample.benchmark, side, where.seed)));
  const base = await answersOf(sample.benchmark, sideOf(reference()), where.seed);
  const title = meta.benchmarks.find((one) => one.name === sample.benchmark).title;
  const at = result.found.findIndex(([name, number]) => name === sample.benchmark && number === row);
  const step = (by, word, key, target) => {
    const button = el("button", { type: "button", title: `${word} (${key})`, disabled: !target }, by < 0 ? "←" : "→");
    button.setAttribute("aria-label", word);
    button.addEventListener("click", () => move(by));
    return button;
  };
  const position = at < 0 ? "not among the rows listed" : `${count(at + 1)} of ${count(result.found.length)}`;
  const back = el("a", { class: "back", href: addressOf({ ...where, sample: null }) }, "All rows");
  const head = el("header", {}, back,
    el("h2", {}, el("a", { href: addressOf({ ...where, sample }), title: "A link to this sample" },
      `${title} · `, el("bdi", {}, sample.id))),
    el("span", { class: "position" }, position),
    copyButton(addressOf({ ...where, sample })),
    step(-1, "Previous sample", "k", at > 0), step(1, "Next sample", "j", at >= 0 && at + 1 < result.found.length));
  const images = rows.images[row].map((number, i) => picture(number, `Image ${i + 1} of sample ${sample.id}`, "large"));
  const facts = el("dl", { class: "facts" });
  const fact = (name, value) => value !== null && facts.append(el("dt", {}, name), el("dd", {}, prose(value)));
  fact("Question", textAt(rows, "question", row) ?? "");
  fact("Target", textAt(rows, "target", row));
  fact("Labels", textAt(rows, "group", row));
  const cards = sides.map((side, i) => card(side, answers[i], base, row));
  return {
    nodes: [head, el("div", { class: "asked" }, el("div", { class: "images" }, ...images), facts),
      el("div", { class: "cards" }, ...cards)],
    detail, sample,
  };
}

function card(side, answers, base, row) {
  const { kind, mark, word } = verdict(scoreAt(answers, row));
  const step = side.key === reference() ? undefined : change(scoreAt(answers, row), scoreAt(base, row));
  const than = sideOf(reference()).label;
  const flip = step === 1 ? el("span", { class: "flip better" }, `▲ better than ${than}`)
    : step === -1 ? el("span", { class: "flip worse" }, `▼ worse than ${than}`) : null;
  const body = el("article", { class: `card ${kind}` },
    el("h3", {}, el("bdi", {}, side.label)),
    el("p", { class: "verdict" }, el("span", { class: `mark ${kind}` }, mark), ` ${word} `, flip));
  if (!recorded(answers, row)) return body;
  const text = (column) => textAt(answers, column, row);
  const part = (name, value) => value !== null && body.append(el("h4", {}, name), prose(value));
  const facts = answers.facts[row] || {};
  part("Response", text("response") ?? "");
  if (facts.answer) body.append(el("h4", {}, "Key facts"), factList(facts.answer));
  if (text("answer") === null) body.append(el("h4", {}, "Read as"), el("p", { class: "prose none" }, "nothing"));
  else if (text("answer") !== text("response")) part("Read as", text("answer"));
  if (facts.description) {
    body.append(el("h4", {}, "Description"), markedProse(text("description") ?? "", facts.description.spans),
      described(facts.description));
  } else part("Description", text("description"));
  part("Why", text("why"));
  if (text("judge") !== null) {
    body.append(el("details", {}, el("summary", {}, "Judge"), prose(text("judge"))));
  }
  if (answers.tokens[row] >= 0) body.append(el("p", { class: "aside" }, `${count(answers.tokens[row])} tokens`));
  return body;
}

// ---------------------------------------------------------------- the address of a sample

/** A button that copies the address of what is shown; where a page may not copy, it shows the address. */
function copyButton(hash) {
  const button = el("button", { type: "button", id: "copy", title: "Copy a link to this sample (c)" }, "Copy link");
  const said = document.getElementById("said");
  button.addEventListener("click", async () => {
    const link = location.href.replace(/#.*/s, "") + hash;
    try {
      await navigator.clipboard.writeText(link);
      button.textContent = "Copied";
      said.textContent = "The link to this sample is copied.";
    } catch {
      const field = el("input", { type: "text", readonly: true, value: link, "aria-label": "Link to this sample" });
      button.replaceWith(field);
      field.focus();
      field.select();
      said.textContent = "The browser does not let this page copy; the link is selected.";
    }
  });
  return button;
}

/** Opens the next sample of the list, or the one before. */
async function move(by) {
  const where = place();
  const { found } = await filtered(where);
  if (!found.length) return;
  let at = 0;
  if (where.sample) {
    const rows = await block(`rows:${where.sample.benchmark}`);
    const row = rows ? rows.ids.indexOf(where.sample.id) : -1;
    at = found.findIndex(([name, number]) => name === where.sample.benchmark && number === row);
  }
  const next = at < 0 ? 0 : Math.min(found.length - 1, Math.max(0, at + by));
  const [name, row] = found[next];
  const id = (await block(`rows:${name}`)).ids[row];
  go({ view: "samples", sample: { benchmark: name, id }, page: Math.floor(next / PER_PAGE) + 1 });
}

let drawn = ""; // the list that is on the page
const listKey = (where, result) => `${result.key} ${where.page}`;

async function renderSamples(where) {
  const mine = ++turn;
  syncControls(where);
  const result = await filtered(where);
  if (mine !== turn) return;
  if (listKey(where, result) !== drawn) await renderList(where, result, mine);
  const { nodes, detail, sample } = await renderDetail(where, result);
  if (mine !== turn) return;
  detail.replaceChildren(...nodes);
  detail.scrollTop = 0;
  document.getElementById("samples").classList.toggle("open", where.sample !== null);
  markCurrent(sample);
}

// ---------------------------------------------------------------- filters

function syncControls(where) {
  for (const name of ["benchmark", "rows", "by", "than", "seed"]) document.getElementById(`f-${name}`).value = where[name];
  const search = document.getElementById("f-q");
  if (document.activeElement !== search) search.value = where.q;
  document.getElementById("flip-sides").hidden = !FLIPS.includes(where.rows);
  for (const box of document.querySelectorAll("#f-columns input")) box.checked = where.columns.includes(box.value);
}

function buildControls() {
  const option = (value, label) => el("option", { value }, label);
  document.getElementById("f-benchmark").append(
    ...meta.benchmarks.map((one) => option(one.name, one.title)), option("*", "All benchmarks"));
  for (const name of ["by", "than"]) {
    document.getElementById(`f-${name}`).append(...meta.sides.map((side) => option(side.key, side.label)));
  }
  const seeds = allSeeds();
  document.getElementById("f-seed").append(...seeds.map((seed) => option(seed, seed)));
  document.getElementById("seed-label").hidden = seeds.length < 2;
  document.getElementById("f-columns").append(...meta.sides.map((side) => {
    const box = el("input", { type: "checkbox", value: side.key });
    return el("label", {}, box, " ", el("bdi", {}, side.label));
  }));
  document.getElementById("f-columns").addEventListener("change", () => {
    const chosen = new Set([...document.querySelectorAll("#f-columns input:checked")].map((box) => box.value));
    const columns = meta.sides.map((side) => side.key).filter((key) => chosen.has(key));
    go({ columns: columns.length ? columns : standardColumns() });
    if (!columns.length) syncControls(place());
  });
  for (const name of ["benchmark", "rows", "by", "than", "seed"]) {
    document.getElementById(`f-${name}`).addEventListener("change", (event) =>
      go({ [name]: event.target.value, page: 1, ...(name === "seed" ? {} : { sample: null }) }));
  }
  let waiting = 0;
  document.getElementById("f-q").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => go({ q: event.target.value, page: 1, sample: null }), 150);
  });
  const turnPage = (by) => go({ page: Number(document.getElementById("list").dataset.page) + by });
  document.getElementById("page-back").addEventListener("click", () => turnPage(-1));
  document.getElementById("page-on").addEventListener("click", () => turnPage(1));
}
