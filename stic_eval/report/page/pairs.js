// Preference pairs: what was preferred, what was not, and the image that each of them describes.

let pairsDrawn = null;

async function renderPairs(where) {
  const select = document.getElementById("f-set");
  const number = Math.min(where.set, meta.pairs.length - 1);
  if (number < 0 || pairsDrawn === number) return;
  pairsDrawn = number;
  select.value = String(number);
  const rows = (await block(`pairs:${number}`)) || [];
  if (pairsDrawn !== number) return;
  const total = meta.pairs[number].total;
  document.getElementById("pairs-count").textContent =
    rows.length < total ? `the first ${count(rows.length)} of ${count(total)} pairs` : `${count(total)} pairs`;
  document.getElementById("pair-list").replaceChildren(...rows.map(pairCard));
}

function pairCard(pair) {
  const named = (text, kind) => text.replaceAll("_", " ") + kind;
  const shown = [el("figure", {}, picture(pair.image, `Image ${pair.source}`, "large"), el("figcaption", {}, "clean"))];
  if (pair.spoilt !== null) {
    shown.push(el("figure", {}, picture(pair.spoilt, `The same image, corrupted: ${pair.negative}`, "large"),
      el("figcaption", {}, named(pair.negative, ""))));
  }
  const how = pair.spoilt !== null ? "Rejected: asked with the corrupted image"
    : pair.negative === "misleading" ? "Rejected: asked with a misleading prompt" : `Rejected: ${named(pair.negative, "")}`;
  return el("li", { class: "pair" },
    el("div", { class: "images" }, ...shown),
    el("div", { class: "said" },
      el("p", { class: "aside" }, el("bdi", {}, pair.source)),
      el("h2", { class: "label" }, "Prompt"), prose(pair.prompt),
      el("div", { class: "sides" },
        el("div", { class: "chosen" }, el("h2", { class: "label" }, "Chosen"), prose(pair.chosen)),
        el("div", { class: "rejected" }, el("h2", { class: "label" }, how), prose(pair.rejected)))));
}

function buildPairs() {
  const select = document.getElementById("f-set");
  if (!select) return;
  select.append(...meta.pairs.map((set, i) => el("option", { value: String(i) }, set.label)));
  select.addEventListener("change", () => go({ set: Number(select.value) }));
}
