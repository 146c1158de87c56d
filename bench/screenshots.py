"""Makes the pictures of a report that the README and docs/ show: `python -m bench.screenshots`.

Writes docs/images/report-*.png from the report of `stic-eval run --method stic`, in headless Chromium. The
run takes some minutes, where it is not in the cache yet.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from PIL import Image

IMAGES = Path(__file__).parent.parent / "docs" / "images"
WIDTH, HEIGHT = 1280, 800
COLUMNS = ["baseline", "baseline+dar", "stic", "stic+dar"]
# Name -> what the address says, and whether the system is dark.
SHOTS: dict[str, tuple[dict[str, str | list[str]], bool]] = {
    "report-light": ({"view": "summary"}, False),
    "report-dark": ({"view": "summary"}, True),
    "report-sample": (
        {"view": "samples", "benchmark": "llava_bench", "rows": "changed", "by": "stic+dar",
         "column": COLUMNS},
        False,
    ),
}  # fmt: skip


@contextmanager
def chromium(profile: str) -> Iterator[Any]:
    """A headless browser that talks to nobody, closed afterwards."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver_binary = shutil.which("chromedriver")
    if not binary or not driver_binary:
        sys.exit("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(driver_binary))
    try:
        yield driver
    finally:
        driver.quit()


def shoot(driver: Any, page: Path, place: dict[str, str | list[str]], dark: bool) -> bytes:
    """A view of the page as PNG."""
    from selenium.webdriver.support.ui import WebDriverWait

    size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.get("about:blank")
    driver.get(f"{page.as_uri()}#{urlencode(place, doseq=True)}")
    there = (
        "const seen = image => image.getBoundingClientRect().top < innerHeight;"
        "const images = [...document.images].filter(seen);"
        "return document.documentElement.dataset.ready === 'true' && images.every(image => image.complete)"
        " && (arguments[0] !== 'samples' || document.querySelectorAll('#detail img').length > 0)"
    )
    WebDriverWait(driver, 60).until(lambda _: driver.execute_script(there, place["view"]))
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    """Makes the run and its report, and all pictures of it."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = str(Path(sys.executable).parent / "stic-eval")
        page = Path(folder) / "report.html"
        run = ["run", "--method", "stic", "--output", "pocket-stic", "--quiet"]
        subprocess.run([command, *run], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(
            [command, "report", "pocket-stic", "--quiet", "--output", page], cwd=folder, check=True
        )
        with chromium(str(Path(folder) / "profile")) as driver:
            for name, (place, dark) in SHOTS.items():
                data = shoot(driver, page, place, dark)
                (IMAGES / f"{name}.png").write_bytes(data)
                print(f"{IMAGES / name}.png ({len(data) / 1e3:.0f} kB)")


if __name__ == "__main__":
    main()
