"""Look at `report.html` with a real browser: `python tests/browser/check_report.py [--screenshots DIRECTORY]`.

Each page is opened from its file in both languages, on a phone and on a screen, in light and dark. Nothing may be cut off or loaded
from elsewhere, no script may fail, tables sort, and the language can be changed without a script too.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import comparison_examples as examples  # noqa: E402  the path comes first
from browser.chromium import Chromium, without_script  # noqa: E402

from jaxplm.reporting.comparison.findings import find  # noqa: E402
from jaxplm.reporting.comparison.page import html  # noqa: E402
from jaxplm.reporting.comparison.recommendation import recommend  # noqa: E402

WIDTHS = {"phone": (390, 844), "screen": (1400, 900)}
LANGUAGES = {"en": "en-US", "ko": "ko-KR"}
OTHER = {"en": "ko", "ko": "en"}

# Elements that stick out of the page, but those in a box that scrolls.
STICKING_OUT = """
[...document.body.querySelectorAll("*")].filter((one) => {
  const box = one.getBoundingClientRect();
  if (!box.width || one.closest(".hidden, .choice") || (box.right <= innerWidth + 1 && box.left >= -1)) return false;
  for (let up = one.parentElement; up; up = up.parentElement)
    if (["auto", "scroll", "hidden"].includes(getComputedStyle(up).overflowX)) return false;
  return true;
}).slice(0, 3).map((one) => one.outerHTML.slice(0, 120))
"""
VISIBLE_LANGUAGES = """
[...new Set([...document.querySelectorAll("[data-l]")].filter((one) => one.offsetParent !== null || one.getClientRects().length)
  .map((one) => one.lang))]
"""
# Texts whose contrast with what is behind them is below 4.5.
PALE = """
(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; })
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (one) => { for (; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor;
    if (colour.startsWith("color(")) return parse(colour).slice(0, 3).map((v) => v * 255);
    const [r, g, b, a = 1] = parse(colour); if (a > 0.99) return [r, g, b]; } return [255, 255, 255]; };
  return [...document.body.querySelectorAll("p, li, td, th, summary, pre, a, h1, h2, h3, dt, dd, label, button, small, code, .badge")]
    .filter((one) => one.innerText?.trim() && one.getClientRects().length)
    .map((one) => [light(parse(getComputedStyle(one).color)), light(behind(one)), one])
    .filter(([a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5).slice(0, 3)
    .map(([, , one]) => one.outerHTML.slice(0, 120));
})()
"""
COLUMN = """
[...document.querySelector("#results table").tBodies[0].rows].map((row) => row.cells[%d]?.dataset.v ?? "").filter((value) => value !== "")
"""


class Checks:
    """Counts what was checked and prints what does not hold."""

    def __init__(self) -> None:
        self.count, self.wrong = 0, 0

    def that(self, holds: bool, what: str, found: object = "") -> None:
        self.count += 1
        if not holds:
            self.wrong += 1
            print(f"{what}: {found}", file=sys.stderr)


def write_pages(directory: Path) -> dict[str, Path]:
    """Write the pages to look at."""
    whole = examples.comparison()
    small = examples.comparison(seeds=2, methods=("finetune",), energy=False)
    pages = {
        "whole": (whole, examples.standing(whole)),
        "running": (examples.running(small), examples.standing(small)),
        "hostile": (examples.hostile(whole), examples.standing(examples.hostile(whole))),
    }
    written = {}
    for name, (comparison, standing) in pages.items():
        findings = find(comparison, standing)
        written[name] = directory / f"{name}.html"
        written[name].write_text(html(findings, recommend(findings)), "utf-8")
    return written


def check_page(
    browser: Chromium, checks: Checks, page: Path, language: str, size: str, *, dark: bool, shots: Path | None
) -> None:
    """Check a page as one reader sees it."""
    where = f"{page.name}, {language}, {size}, {'dark' if dark else 'light'}"
    browser.show_as(*WIDTHS[size], dark=dark, languages=LANGUAGES[language])
    browser.open(page)
    if shots:
        browser.screenshot(shots / f"{page.stem}.{language}.{size}.{'dark' if dark else 'light'}.png")
    checks.that(
        browser.evaluate("document.documentElement.scrollWidth <= innerWidth"),
        f"{where}: the page is wider than the window",
        browser.evaluate("document.documentElement.scrollWidth"),
    )
    checks.that(not (out := browser.evaluate(STICKING_OUT)), f"{where}: sticks out", out)
    checks.that(not (pale := browser.evaluate(PALE)), f"{where}: hard to read", pale)
    checks.that((seen := browser.evaluate(VISIBLE_LANGUAGES)) == [language], f"{where}: shows the languages", seen)
    checks.that(browser.evaluate("document.documentElement.lang") == language, f"{where}: the language of the page")
    checks.that(
        browser.evaluate(
            "[...document.querySelectorAll('.plot svg')].every((one) => one.getBoundingClientRect().height > 60)"
        ),
        f"{where}: a plot has no height",
    )
    browser.click(f"label[for=lang-{OTHER[language]}]")
    checks.that(
        (seen := browser.evaluate(VISIBLE_LANGUAGES)) == [OTHER[language]], f"{where}: shows after the switch", seen
    )
    check_events(browser, checks, where)


def check_events(browser: Chromium, checks: Checks, where: str) -> None:
    """Check that the page has loaded nothing but itself and that no script has failed."""
    browser.evaluate("new Promise((done) => setTimeout(done, 0))")
    loaded = [found["request"]["url"] for name, found in browser.events if name == "Network.requestWillBeSent"]
    checks.that(len([url for url in loaded if not url.startswith("data:")]) == 1, f"{where}: loads", loaded)
    failed = [
        found
        for name, found in browser.events
        if name
        in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening")
    ]
    checks.that(not failed, f"{where}: the console says", failed)


def check_sorting(browser: Chromium, checks: Checks, page: Path) -> None:
    """Check that each column of the table sorts by a click, in both directions, and by the keyboard."""
    browser.show_as(*WIDTHS["screen"], dark=False)
    browser.open(page)
    heads = browser.evaluate("document.querySelectorAll('#results thead th').length")
    rows = browser.evaluate("document.querySelectorAll('#results tbody tr').length")
    for column in range(heads):
        orders = []
        for _ in range(2):
            browser.click(f"#results thead th:nth-child({column + 1}) button")
            values = browser.evaluate(COLUMN % column)
            order = browser.evaluate("[...document.querySelectorAll('#results thead th')].map((one) => one.ariaSort)")
            orders.append(order[column])
            numbers = [float(value) for value in values] if column not in (0, 1) else values
            checks.that(
                numbers == sorted(numbers, reverse=order[column] == "descending"),
                f"column {column} is {order[column]}",
                numbers,
            )
            checks.that(sum(one is not None for one in order) == 1, "one column says that it is sorted", order)
        checks.that(sorted(orders) == ["ascending", "descending"], f"column {column} sorts in both directions", orders)
    checks.that(
        browser.evaluate("document.querySelectorAll('#results tbody tr').length") == rows, "sorting keeps all rows"
    )
    checks.that(
        browser.evaluate("document.querySelector('#results tbody tr:last-child').className") == "failed",
        "failed ways stay last",
    )
    browser.evaluate("document.querySelector('#results thead th:nth-child(3) button').focus()")
    browser.press("Enter", 13)
    checks.that(
        browser.evaluate("document.querySelector('#results thead th:nth-child(3)').ariaSort") is not None, "Enter sorts"
    )
    checks.that(
        browser.evaluate(
            "document.querySelectorAll('button.copy').length === document.querySelectorAll('.command').length"
        ),
        "each block of commands can be copied",
    )
    check_events(browser, checks, f"{page.name}, sorted")


def check_without_script(browser: Chromium, checks: Checks, page: Path) -> None:
    """Check that the page is complete and changes its language where scripts are switched off."""
    with without_script(browser):
        browser.show_as(*WIDTHS["phone"], dark=False)
        browser.open(page)
        for language in ("en", "ko", "en"):
            browser.click(f"label[for=lang-{language}]")
            checks.that(
                (seen := browser.evaluate(VISIBLE_LANGUAGES)) == [language], f"without script, {language}: shows", seen
            )


def main() -> int:
    """Check all pages and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--screenshots", type=Path, help="directory for a picture of each page")
    parser.add_argument("--page", type=Path, help="check this report.html alone, and not the invented ones")
    arguments = parser.parse_args()
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    started, checks = time.monotonic(), Checks()
    with tempfile.TemporaryDirectory() as directory:
        pages = {"page": arguments.page} if arguments.page else write_pages(Path(directory))
        written = time.monotonic()
        try:
            browser = Chromium()
        except FileNotFoundError as error:
            print(f"check_report: {error}", file=sys.stderr)
            return 2
        with browser:
            for name, page in pages.items():
                for language, size, dark in itertools.product(LANGUAGES, WIDTHS, (False, True)):
                    # Pages that differ in their contents alone are read by fewer readers.
                    if (
                        name in ("whole", "page")
                        or arguments.screenshots
                        or dark == ((language == "ko") == (size == "phone"))
                    ):
                        check_page(browser, checks, page, language, size, dark=dark, shots=arguments.screenshots)
            if not arguments.page:
                check_sorting(browser, checks, pages["whole"])
                check_without_script(browser, checks, pages["whole"])
    times = f"{written - started:.1f} s to write the pages, {time.monotonic() - written:.1f} s in the browser"
    print(json.dumps({"pages": len(pages), "checks": checks.count, "wrong": checks.wrong}), f"({times})")
    return 1 if checks.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
