"""Headless Chromium, where the machine has it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.browser.hostile import Run, build

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium that talks to nobody; its driver is the one named here, so that none is looked for."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def hostile(tmp_path: Path) -> Run:
    """Two benchmarks with 120 rows each; a baseline, and STIC with two seeds, once with DaR."""
    return build(tmp_path)


@dataclass(frozen=True)
class Tab:
    """The browser with a page in it."""

    driver: Any

    def open(self, page: Path, hash_: str = "") -> None:
        """Loads a page; messages of the one before are forgotten."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(page.resolve().as_uri() + hash_)
        self.until(lambda: self.js("return document.documentElement.dataset.ready === 'true'"))

    def js(self, code: str, *values: Any) -> Any:
        """What a piece of script gives."""
        return self.driver.execute_script(code, *values)

    def until(self, there: Callable[[], object], what: str = "the page") -> None:
        """Waits for something to be true."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 60, poll_frequency=0.05).until(lambda _: there(), f"waited for {what}")

    def text(self, selector: str) -> str:
        """What an element says; empty if there is none."""
        return str(self.js("return document.querySelector(arguments[0])?.textContent ?? ''", selector))

    def texts(self, selector: str) -> list[str]:
        """What each of some elements says."""
        return list(self.js(
            "return [...document.querySelectorAll(arguments[0])].map(node => node.textContent)", selector
        ))  # fmt: skip

    def says(self, selector: str, text: str) -> None:
        """Waits until an element says something."""
        self.until(lambda: text in self.text(selector), f"{selector}: {text}")

    def press(self, keys: str) -> None:
        """Types."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def emulate(self, width: int, scheme: str) -> None:
        """A screen of a width in px, light or dark."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def barriers(self) -> list[str]:
        """What axe says against the page as it is shown: each rule that is broken, and where."""
        axe = pytest.importorskip("axe_core_python")
        self.js((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
        return list(self.driver.execute_async_script(
            "const done = arguments[0];"
            "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => done("
            "  violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target)}`)"
            "), (error) => done([String(error)]));"
        ))  # fmt: skip

    def complaints(self) -> list[str]:
        """What the console says: errors, and violations of the policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    """The browser, as a test uses it; whatever screen it has set, the next finds the usual one."""
    yield Tab(browser)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
