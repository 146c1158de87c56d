"""The report in a real browser: what is shown, what filters do, and that texts stay texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stic_eval.printable import printable
from stic_eval.report import fact_marks, html_report
from tests.browser.conftest import Tab
from tests.browser.hostile import HOSTILE, LONG, ROWS, Run


@pytest.fixture
def page(hostile: Run, tmp_path: Path) -> Path:
    return hostile.page(tmp_path / "report.html")


def sample(tab: Tab, id_: str) -> None:
    tab.says("#detail h2", id_)


def test_nothing_in_a_run_becomes_markup_or_script(tab: Tab, page: Path) -> None:
    shown = [printable(text) for text in HOSTILE]
    for view in ("summary", "samples&rows=all", "samples&benchmark=*", "pairs", "training", "provenance"):
        tab.open(page, f"#view={view}")
        if view.startswith("samples"):
            tab.says("#detail h2", "/0" if "rows" in view else "/1")
        if view == "pairs":
            tab.says("#pair-list", "good 8")
        assert tab.js("return document.querySelectorAll('svg, [onerror], [onload], b').length") == 0
        assert tab.js("return document.title").endswith("stic-eval report")
        assert tab.complaints() == []
    for number, text in enumerate(shown):
        tab.open(page, f"#sample=one/one/{number}")
        sample(tab, f"one/{number}")
        assert f"{text} question {number}" in tab.text(".facts")
        assert f"{text} response of baseline to {number}" in tab.text(".card")
    assert tab.complaints() == []


def test_page_is_whole_without_network_and_strict_about_scripts(tab: Tab, page: Path) -> None:
    from selenium.common.exceptions import WebDriverException

    text = page.read_text(encoding="utf-8")
    assert "unsafe" not in text and "http://" not in text.split("<main>")[0]
    tab.open(page)
    # Whatever the page did not bring along is refused: markup, a handler, a style, an image from outside.
    put = "const node = document.createElement(arguments[0]); {}; document.body.append(node);"
    for code in ("document.body.innerHTML = '<i>x</i>'", put.format("node.setAttribute('onclick', 'x()')")):
        with pytest.raises(WebDriverException, match="Trusted"):
            tab.js(code, "button")
    tab.js(put.format("node.append('body { color: rgb(1, 2, 3) !important }')"), "style")
    assert tab.js("return getComputedStyle(document.body).color") != "rgb(1, 2, 3)"
    tab.js(put.format("node.src = 'https://localhost:9/x.png'"), "img")
    found: list[str] = []
    tab.until(lambda: found.extend(tab.complaints()) or "img-src" in "".join(found), "the image's refusal")
    assert "style-src" in "".join(found)


def test_a_sample_shows_image_question_target_and_every_answer(tab: Tab, page: Path) -> None:
    tab.open(page, "#sample=one/one/3")
    sample(tab, "one/3")
    facts = tab.text(".facts")
    assert "question 3" in facts and "target 3, " in facts and "kind: " in facts
    tab.until(lambda: tab.js("return document.querySelector('#detail img')?.naturalWidth") == 40, "the image")
    base, stic, dar = tab.texts(".card")
    assert "Baseline" in base and "right" in base and "response of baseline to 3" in base
    assert "STIC" in stic and "right" in stic and "better" not in stic
    assert "description 3" in dar and "worse than Baseline" in dar
    assert tab.text("#list a[aria-current]").startswith("one/3")


def test_unscored_is_not_wrong_and_judges_are_quoted(tab: Tab, page: Path) -> None:
    tab.open(page, "#view=samples&rows=unscored")
    tab.says("#count", f"1 of {ROWS} rows")
    sample(tab, "one/5")
    card = tab.text(".card")
    assert "unscored" in card and "wrong" not in card and "nothing" in card and "10/10" in card
    assert "better" not in card and "worse" not in card


def test_long_answers_are_cut_until_asked_for(tab: Tab, page: Path) -> None:
    tab.open(page, "#sample=one/one/7")
    sample(tab, "one/7")
    assert len(tab.text(".card .prose")) < 4000
    tab.js("document.querySelector('.card .more').click()")
    assert tab.text(".card .prose") == LONG


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # The baseline is right on odd rows, STIC on those that 3 divides; row 5 is unscored.
        ("better", [n for n in range(ROWS) if n % 3 == 0 and n % 2 == 0]),
        ("worse", [n for n in range(ROWS) if n % 3 and n % 2 and n != 5]),
        ("changed", [n for n in range(ROWS) if (n % 3 == 0) != bool(n % 2) and n != 5]),
        ("wrong", [n for n in range(ROWS) if n % 3 and n % 2 == 0]),
    ],
)
def test_filters(tab: Tab, page: Path, rows: str, expected: list[int]) -> None:
    tab.open(page, f"#view=samples&rows={rows}&by=stic&column=baseline&column=stic")
    tab.says("#count", f"{len(expected)} of {ROWS} rows")
    tab.until(lambda: len(tab.texts("#list .id")) == min(50, len(expected)), "the list")
    assert tab.texts("#list .id") == [f"one/{n}" for n in expected][:50]


def test_controls_filter_and_are_kept_in_the_address(tab: Tab, page: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    def choose(name: str, value: str) -> None:
        Select(tab.driver.find_element(By.ID, f"f-{name}")).select_by_value(value)

    tab.open(page, "#view=samples&rows=all")
    tab.says("#count", f"{ROWS} rows")
    choose("benchmark", "*")
    tab.says("#count", f"{2 * ROWS} rows")
    choose("rows", "worse")
    choose("by", "stic")
    tab.says("#spread", "better")
    choose("seed", "1")
    # With seed 1 STIC is right in `one` and was not evaluated on `two`: nothing got worse.
    tab.says("#count", f"0 of {2 * ROWS} rows")
    tab.says("#list", "No row fits")
    choose("rows", "better")
    tab.says("#count", f"{ROWS // 2} of {2 * ROWS} rows")
    address = tab.js("return location.hash")
    tab.open(page, address)
    tab.says("#count", f"{ROWS // 2} of {2 * ROWS} rows")
    assert tab.js("return document.getElementById('f-seed').value") == "1"
    assert tab.complaints() == []


def test_columns_are_chosen(tab: Tab, page: Path) -> None:
    tab.open(page, "#view=samples")
    tab.until(lambda: len(tab.texts(".card")) == 3, "all columns")
    tab.js("document.querySelector('#f-columns input').click()")
    tab.until(lambda: len(tab.texts(".card")) == 2, "two columns")
    assert "column=stic&column=stic%2Bdar" in tab.js("return location.hash")


def test_search_by_keyboard(tab: Tab, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    tab.open(page)
    tab.press("/")
    tab.until(lambda: tab.js("return document.activeElement.id") == "f-q", "the search")
    tab.press("RESPONSE stic+dar 117")
    tab.says("#count", f"1 of {ROWS} rows")
    sample(tab, "one/117")
    tab.press(Keys.ESCAPE)
    assert tab.js("return document.activeElement.id") != "f-q"


def test_keys_walk_through_the_list_and_over_its_pages(tab: Tab, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    tab.open(page, "#sample=one/one/48")
    sample(tab, "one/48")
    tab.press("j")
    sample(tab, "one/49")
    tab.press(Keys.ARROW_RIGHT)
    sample(tab, "one/50")
    tab.says("#page-of", f"51–100 of {ROWS}")
    tab.press("k")
    sample(tab, "one/49")
    tab.says("#page-of", f"1–50 of {ROWS}")
    tab.press("?")
    assert tab.js("return document.getElementById('help').open")
    tab.press(Keys.ESCAPE)
    tab.until(lambda: not tab.js("return document.getElementById('help').open"), "the help to close")
    assert tab.text("#detail h2").endswith("one/49")


def test_a_link_to_what_is_not_there_says_so(tab: Tab, page: Path) -> None:
    tab.open(page, "#sample=one/<b>x</b>")
    tab.says("#detail", "There is no sample one/<b>x</b>")
    tab.open(page, "#view=nowhere&seed=99&column=x&column=y&page=-3")
    assert not tab.js("return document.getElementById('summary').hidden")
    tab.open(page, "#view=samples&benchmark=none&page=99&seed=99&rows=what")
    tab.says("#count", f"{ROWS} rows")
    tab.says("#page-of", "51–59 of 59")
    assert tab.complaints() == []


def test_pairs_show_both_answers_and_both_images(tab: Tab, page: Path) -> None:
    tab.open(page, "#view=pairs")
    tab.until(lambda: len(tab.texts(".pair")) == 9, "the pairs")
    first, second = tab.texts(".pair")[:2]
    assert f"good 0 {HOSTILE[0]}" in first and f"bad 0 {HOSTILE[1]}" in first and "misleading" in first
    assert "low res" in second
    tab.until(lambda: tab.js("return document.querySelectorAll('.pair img').length") == 15, "the images")
    tab.js("document.querySelectorAll('.pair img').forEach(image => { image.loading = 'eager' })")
    second_images = "[...document.querySelectorAll('.pair:nth-child(2) img')]"
    widths = f"return {second_images}.map(image => image.naturalWidth)"
    tab.until(lambda: tab.js(widths) == [40, 27], "the corrupted image")


def test_images_beside_the_page_are_shown(tab: Tab, hostile: Run, tmp_path: Path) -> None:
    odd = tmp_path / 'it\'s 100% "odd" #1'
    odd.mkdir()
    page = hostile.page(odd / "a 'b' \"c\" #2?.html", budget=0)
    assert list((odd / "a 'b' \"c\" #2?_images").glob("*.webp"))
    tab.open(page, "#sample=one/one/2")
    tab.until(lambda: tab.js("return document.querySelector('#detail img')?.naturalWidth") == 40, "the image")
    assert tab.complaints() == []


def test_without_images_places_say_so(tab: Tab, hostile: Run, tmp_path: Path) -> None:
    tab.open(hostile.page(tmp_path / "report.html", images=False), "#sample=one/one/2")
    tab.says("#detail .frame", "no image")
    assert tab.complaints() == []


def test_narrow_and_dark(tab: Tab, page: Path) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    tab.emulate(400, "light")
    tab.open(page, "#view=samples&rows=all")
    tab.says("#count", f"{ROWS} rows")
    light = tab.js(ground)
    # A short list with the first sample below it; one that is opened stands in the list's place.
    sample(tab, "one/0")
    tops = "return ['list', 'detail'].map(id => document.getElementById(id).getBoundingClientRect())"
    first, second = tab.js(tops)
    assert first["height"] <= 400 and first["bottom"] <= second["top"] <= 800
    tab.open(page, "#sample=one/one/1")
    sample(tab, "one/1")
    assert tab.js("return document.getElementById('list').offsetWidth") == 0
    tab.emulate(1000, "dark")
    dark = tab.js(ground)
    assert dark != light
    tab.js("document.getElementById('theme').click()")
    assert tab.js(ground) == light
    tab.js("document.getElementById('theme').click()")
    assert tab.js(ground) == dark
    tab.js("document.getElementById('theme').click()")


# A wide table, a figure: what a run has that is made of more than its files.
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><rect width="9" fill="#ffffff" /></svg>'
WIDE = "".join(f"<th scope='col'>Benchmark {n}</th>" for n in range(9))
FACTS = html_report.PageFacts(
    f'<table class="scores"><thead><tr>{WIDE}</tr></thead></table>',
    [html_report.SvgFigure("Gains", SVG)],
    [html_report.SvgFigure("Loss", SVG)],
)


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_every_part_fits_the_screen_and_passes_axe(
    tab: Tab, hostile: Run, tmp_path: Path, width: int
) -> None:
    page = replace(hostile, facts=FACTS).page(tmp_path / "report.html")
    # Contrast differs by theme, structure by width.
    tab.emulate(width, "dark" if width == 768 else "light")
    for view in ("summary", "samples", "samples&sample=one/one/7", "pairs", "training", "provenance"):
        tab.open(page, f"#view={view}")
        if "samples" in view:
            tab.until(lambda: tab.text("#detail h2"), "a sample")
        assert tab.js("return document.documentElement.scrollWidth") <= width, view
        assert tab.barriers() == [], view
    tab.press("?")
    assert tab.barriers() == []


def test_tables_that_are_wider_than_the_screen_say_so(tab: Tab, hostile: Run, tmp_path: Path) -> None:
    page = replace(hostile, facts=FACTS).page(tmp_path / "report.html")
    hint = "return document.querySelector('#summary .hint').offsetHeight > 0"
    tab.emulate(390, "light")
    tab.open(page)
    tab.until(lambda: tab.js(hint), "the hint")
    tab.emulate(1280, "light")
    tab.until(lambda: not tab.js(hint), "no hint")


def test_figures_follow_the_theme(tab: Tab, hostile: Run, tmp_path: Path) -> None:
    page = replace(hostile, facts=FACTS).page(tmp_path / "report.html")
    shown = (
        "return [...document.querySelectorAll('#summary figure img')].filter(image => image.offsetWidth)"
        ".map(image => atob(image.src.split(',')[1]))"
    )
    tab.emulate(1280, "dark")
    tab.open(page)
    (by_night,) = tab.js(shown)
    tab.js("document.getElementById('theme').click()")  # light, whatever the system has
    assert tab.js(shown) == [SVG]
    tab.js("document.getElementById('theme').click()")
    assert tab.js(shown) == [by_night] and "#ffffff" not in by_night
    tab.js("document.getElementById('theme').click()")


def test_samples_open_on_what_changed(tab: Tab, page: Path) -> None:
    changed = [n for n in range(ROWS) if n % 2 and n != 5]  # STIC + DaR is right nowhere
    for address in ("#samples", "#view=samples"):
        tab.open(page, address)
        tab.says("#count", f"{len(changed)} of {ROWS} rows")
        assert tab.js("return document.getElementById('f-rows').value") == "changed"
        assert tab.js("return scrollY") == 0
    tab.js("document.querySelector('#list a').click()")
    sample(tab, "one/1")
    tab.says("#count", f"{len(changed)} of {ROWS} rows")
    tab.open(page, "#view=samples&q=no+such+words")
    tab.says("#list", "No row fits these filters.")
    tab.js("document.querySelector('#list button').click()")
    tab.says("#count", f"{ROWS} rows")
    tab.open(page, tab.js("return location.hash"))
    tab.says("#count", f"{ROWS} rows")


def test_the_link_to_a_sample_is_copied(tab: Tab, page: Path) -> None:
    tab.driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    tab.open(page, "#sample=one/one/3")
    sample(tab, "one/3")
    # Headless, the clipboard is nobody's: what is put there is what counts.
    tab.js("navigator.clipboard.writeText = async (text) => { window.put = text }")
    tab.press("c")
    tab.says("#copy", "Copied")
    link = tab.js("return window.put")
    assert link == page.resolve().as_uri() + "#sample=one/one/3"
    tab.js("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    tab.press("j")
    sample(tab, "one/4")
    tab.press("c")
    tab.until(lambda: tab.js("return document.activeElement.value"), "the address")
    assert tab.js("return getSelection().toString()").endswith("#sample=one/one/4")


def test_keys_lead_to_the_parts_of_the_report(tab: Tab, page: Path) -> None:
    tab.open(page)
    for key, view in (("3", "pairs"), ("2", "samples"), ("1", "summary")):
        tab.press(key)
        tab.until(
            lambda view=view: tab.text("#views a[aria-current]").lower() == view, f"{key} to lead to {view}"
        )


def test_facts_are_marked_in_descriptions(tab: Tab, hostile: Run, tmp_path: Path) -> None:
    text = "\U0001f600 The top red star is small. The left blue ring is large."
    facts = {
        "description": fact_marks.described(text, [("top", "red", "star"), ("sign", "vuz")]),
        "answer": [["<b>red", True], ["vuz", False]],
    }
    page = hostile.page(tmp_path / "report.html")
    tab.open(page, "#sample=one/one/3")
    sample(tab, "one/3")
    tab.js(
        "document.body.append(el('div', { id: 'tried' },"
        " markedProse(arguments[0], arguments[1].description.spans), "
        "described(arguments[1].description), factList(arguments[1].answer)))",
        text,
        facts,
    )
    assert tab.texts("#tried .prose mark.there") == ["top red star"]
    assert tab.texts("#tried .prose mark.invented") == ["left blue ring"]
    assert "1 in the picture, 1 hallucinated; missed: sign vuz" in tab.text("#tried .legend")
    assert tab.texts("#tried li") == ["✓<b>red", "✗vuz missed"]
