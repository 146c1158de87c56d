// What of a description or an answer is known to be right, hallucinated or missed.

/** A text with parts that are known to be right or wrong; `spans` are [start, end, right], in order. */
function markedProse(text, spans, limit = 3000) {
  if (!spans.length || text.length > limit) return prose(text, limit);
  const node = el("div", { class: "prose", dir: "auto", tabindex: text.length > SCROLLED ? "0" : null });
  let at = 0;
  for (const [start, end, right] of spans) {
    node.append(text.slice(at, start), el("mark", { class: right ? "there" : "invented" }, text.slice(start, end)));
    at = end;
  }
  node.append(text.slice(at));
  return node;
}

/** Key facts one by one, as [fact, whether the answer names it]. */
function factList(facts) {
  return el("ul", { class: "key-facts" }, ...facts.map(([fact, named]) => el("li", {},
    el("span", { class: `mark ${named ? "right" : "wrong"}`, "aria-hidden": "true" }, named ? "✓" : "✗"),
    el("bdi", {}, fact), named ? null : el("span", { class: "aside" }, " missed"))));
}

/** What the marks in a description mean: how much is in the picture, what is not, and what it leaves out. */
function described(facts) {
  const right = facts.spans.filter((span) => span[2]).length;
  const wrong = facts.spans.length - right;
  const parts = right ? [el("mark", { class: "there" }, `${count(right)} in the picture`)] : [];
  if (!facts.spans.length) parts.push("none stated");
  if (wrong) parts.push(right ? ", " : "", el("mark", { class: "invented" }, `${count(wrong)} hallucinated`));
  const missed = facts.missed.length ? `; missed: ${facts.missed.join(", ")}` : "; nothing missed";
  return el("p", { class: "aside legend" }, "Facts: ", ...parts, missed);
}
