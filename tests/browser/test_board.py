"""The board in a real browser: sorted, filtered, within the screen, and without barriers."""

from __future__ import annotations

from pathlib import Path

import pytest

from stic_eval.report import board, board_formats
from tests.browser.conftest import Tab
from tests.support.board_runs import build


@pytest.fixture
def page(tmp_path: Path) -> Path:
    root = build(tmp_path / "results")
    path = root / "board.html"
    path.write_text(board_formats.to_html(board.gather(root, root), "results"), encoding="utf-8")
    return path


def column(tab: Tab, number: int) -> list[str]:
    """What a column's cells say, of the rows that are shown."""
    return list(tab.js(
        "return [...document.querySelectorAll('.board tbody tr')].filter((row) => !row.hidden)"
        ".map((row) => row.cells[arguments[0]])"
        ".map((cell) => (cell.querySelector('.score, bdi') ?? cell).textContent)",
        number,
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("width", "scheme"), [(390, "dark"), (768, "light"), (1280, "dark"), (1280, "light")]
)
def test_it_fits_the_screen_and_passes_axe(tab: Tab, page: Path, width: int, scheme: str) -> None:
    tab.emulate(width, scheme)
    tab.open(page)
    assert tab.js("return document.documentElement.scrollWidth") <= width
    wide = "const box = document.querySelector('.wide'); return box.scrollWidth > box.clientWidth"
    hint = "return document.querySelector('.hint').offsetHeight > 0"
    tab.until(lambda: tab.js(hint) == tab.js(wide), "the hint")
    assert width > 390 or tab.js(hint)
    assert tab.barriers() == [] and tab.complaints() == []
    assert tab.js("return document.title").endswith("stic-eval board")
    assert "torn" in tab.text("details.warning")


def test_columns_are_sorted_and_what_is_missing_is_last(tab: Tab, page: Path) -> None:
    tab.open(page)
    first = column(tab, 1)
    tab.js("document.querySelector('th[data-key=\"score one\"] button').click()")
    tab.until(lambda: tab.text("th[aria-sort=descending]").startswith("One"), "the order")
    assert column(tab, 5) == ["90.0", "90.0", "80.0", "60.0", "50.0", "40.0"]
    tab.js("document.querySelector('th[data-key=\"seconds\"] button').click()")
    tab.until(lambda: tab.text("th[aria-sort=descending]").startswith("Training"), "the order")
    assert column(tab, 9) == ["12"] * 3 + ["–"] * 3
    tab.js("document.querySelector('th[data-key=\"seconds\"] button').click()")
    tab.until(lambda: tab.text("th[aria-sort=ascending]").startswith("Training"), "the other order")
    assert column(tab, 9) == ["12"] * 3 + ["–"] * 3
    address = tab.js("return location.hash")
    tab.open(page, address)
    assert tab.text("th[aria-sort=ascending]").startswith("Training")
    tab.open(page)
    assert column(tab, 1) == first


def test_filters_are_kept_in_the_address(tab: Tab, page: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    tab.open(page)
    Select(tab.driver.find_element(By.ID, "f-model")).select_by_visible_text("pocket")
    tab.says("#count", "4 of 6 rows")
    Select(tab.driver.find_element(By.ID, "f-method")).select_by_visible_text("Baseline")
    tab.says("#count", "2 of 6 rows")
    address = tab.js("return location.hash")
    tab.open(page, address)
    tab.says("#count", "2 of 6 rows")
    tab.open(page)
    tab.press("/")
    tab.press("STIC third")
    tab.says("#count", "1 of 6 rows")
    tab.js("document.querySelectorAll('a[href=\"#data-B\"]')[0].click()")
    assert tab.js("return document.getElementById('data-B').open")
    tab.says("#count", "1 of 6 rows")


def test_a_report_is_a_click_away(tab: Tab, page: Path) -> None:
    tab.open(page, "#q=first")
    tab.js("document.querySelector('.board tbody tr:not([hidden]) td.run a').click()")
    tab.until(lambda: tab.js("return document.title") == "a report", "the report")
