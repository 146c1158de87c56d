// What all pages share: the theme, tables that are wider than the screen, the way past the head.

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

function buildSkip() {
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address says what is shown
    document.getElementById("main").focus();
  });
}
