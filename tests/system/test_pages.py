"""Every page in a real browser: it draws, asks no network, says nothing on the console, and works on a phone and by keyboard."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.page import serve
from crossdim.pipelines.show.page import PAGE, build_page
from crossdim.pipelines.show.summary import read_tables
from tests.foundation.test_page import served
from tests.pipelines.corpora import write_images, write_volumes
from tests.pipelines.refusals import write_refusals
from tests.training.published import images, publish, superpatches

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="pages are opened in chromium: apt-get install chromium"),
]
#: Screenshots for people; the folder is ignored by git.
SHOTS = Path(__file__).parents[2] / "screenshots"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind, each made by the real command."""
    lab = tmp_path_factory.mktemp("pages")
    write_images(lab / "raw" / "images")
    write_volumes(lab / "raw" / "volumes")
    write_refusals(lab / "raw" / "volumes" / "refused")
    common = ("--local", "--json", "--source-names", "relative")
    assert main(["prepare", str(lab / "raw/images"), "--recipe", "xray-pseudo3d:tiny", "--out", str(lab / "xr"), *common]) == 3
    volumes = ("--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16", *common)
    assert main(["prepare", str(lab / "raw/volumes"), *volumes, "--out", str(lab / "ct")]) == 3
    assert main(["show", str(lab / "ct" / "quarantine"), "--html", str(lab / "quarantine.html")]) == 0
    for name, samples in (("flat", images(24)), ("solid", superpatches(12))):
        publish(Bucket(str(lab / name)), samples, name)
    flat = Bucket(str(lab / "flat"))
    flat.put(PAGE, build_page(flat, read_tables(flat)))
    data = ("--data", str(lab / "flat"), str(lab / "solid"))
    run = ("--recipe", "cdssl-p3d:tiny", *data, "--out", str(lab / "run"), "--workers", "0", "--steps", "4")
    assert main(["pretrain", *run, "--set", "global_batch=8", "--json"]) == 0
    assert main(["show", str(lab / "run"), "--html", str(lab / "unfinished.html")]) == 0
    assert main(["evaluate", str(lab / "run"), *data, "--baselines", "1", "--json"]) == 0
    return {
        "images": lab / "xr/dataset.html",
        "volumes": lab / "ct/dataset.html",
        "quarantine": lab / "quarantine.html",
        "run": lab / "unfinished.html",
        "report": lab / "run/report.html",
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # Chromium's sandbox needs rights that a container does not give; the pages are our own.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 390)])
@pytest.mark.parametrize("name", ["images", "volumes", "quarantine", "run", "report"])
def test_a_page_draws_alone_and_in_silence(name: str, scheme: str, width: int, pages: dict[str, Path], browser: Any) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [pages[name].as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    SHOTS.mkdir(exist_ok=True)
    shot = SHOTS / f"{name}-{scheme}-{width}.png"
    page.screenshot(path=shot, full_page=True)
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    background = pixels[2, 2].astype(int)
    assert (background.mean() < 60) == (scheme == "dark")
    assert (np.abs(pixels - background).max(axis=2) > 40).mean() > 0.01
    charts = page.query_selector_all("svg.chart")
    assert bool(charts) == (name != "quarantine")
    for chart in charts[:1]:
        assert len(np.unique(read_shot(chart).reshape(-1, 3), axis=0)) > 10
    page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
    images = page.query_selector_all("img")
    assert images
    for image in images[:: max(1, len(images) // 10)]:
        assert compare_with_file(image) > 0.4  # of 256 blocks that have nothing to do with each other: 0.06
    page.close()


def read_shot(element: Any) -> np.ndarray:
    """What the screen shows of an element, (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB"))


def compare_with_file(element: Any) -> float:
    """Correlation of what the screen shows of an image with what Pillow decodes of it, of 256 blocks, as it may lie anywhere."""
    held = Image.open(io.BytesIO(base64.b64decode(element.get_attribute("src").partition(",")[2]))).convert("RGB")
    blocks = [one.resize((16, 16), Image.Resampling.BOX) for one in (held, Image.fromarray(read_shot(element)))]
    return float(np.corrcoef(*(np.asarray(one, np.float64).ravel() for one in blocks))[0, 1])


def test_a_chart_is_read_by_pointer_and_by_keyboard(pages: dict[str, Path], browser: Any) -> None:
    page = browser.new_page()
    page.goto(pages["run"].as_uri())
    page.locator("svg.chart").first.focus()
    page.keyboard.press("ArrowLeft")
    by_keyboard = page.locator(".readout").first.text_content()
    assert by_keyboard.startswith("step 3: loss ")
    page.locator("svg.chart").first.hover(position={"x": 70, "y": 100})
    assert page.locator(".readout").first.text_content().startswith("step 0: loss ")
    page.close()


def test_a_table_is_sorted_and_filtered(pages: dict[str, Path], browser: Any) -> None:
    page = browser.new_page()
    page.goto(pages["images"].as_uri())
    table, rows = page.locator("table.grid").first, page.locator("table.grid").first.locator("tbody tr")
    assert rows.count() == 2
    first = [rows.nth(number).text_content() for number in range(2)]
    table.locator("th button").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert [rows.nth(number).text_content() for number in range(2)] == sorted(first, reverse=True)
    page.locator("input[type=search]").first.fill("TRUNC")
    assert table.locator("tbody tr:visible").count() == 1
    page.close()


def test_what_was_refused_is_found_by_keyboard_alone(pages: dict[str, Path], browser: Any) -> None:
    """From one element to the next with Tab: the filter, a head that sorts, the fields that are folded away."""
    page = browser.new_page()
    page.goto(pages["quarantine"].as_uri())
    rows = page.locator("table.grid").first.locator("tbody tr")
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]")
        assert outline != "none"
        reached.append(name)
        if name == "INPUT":
            page.keyboard.type("steps between slices")
            assert rows.locator("visible=true").count() > 0
            assert rows.locator("visible=true >> td[data-name=rule]").all_text_contents()[0] == "irregular_spacing"
            assert page.locator("tbody tr:visible img").first.is_visible()
        if name == "BUTTON":
            page.keyboard.press("Enter")
        if name == "BUTTON" and "INPUT" not in reached:
            rule = page.evaluate("document.activeElement.value")
            assert set(rows.locator("visible=true >> td[data-name=rule]").all_text_contents()) == {rule}
            assert page.locator("button[aria-pressed=true]").count() == 1
            page.keyboard.press("Enter")
            assert not rows.locator("visible=false").count()
        if name == "SUMMARY":
            page.keyboard.press("Enter")
            break
    num_rules = page.locator(".rules").first.locator("button").count()
    assert reached == [*["BUTTON"] * num_rules, "INPUT", "DIV", *["BUTTON"] * 5, "SUMMARY"]
    assert page.locator("th[aria-sort=ascending]").text_content() == "reason"
    assert page.locator("tr:visible details[open] dt").filter(has_text="PixelSpacing").is_visible()
    page.close()


def test_on_a_phone_a_row_is_a_card_without_scrolling_sideways(pages: dict[str, Path], browser: Any) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto(pages["quarantine"].as_uri())
    for table in page.query_selector_all(".tall"):
        assert table.evaluate("one => one.scrollWidth <= one.clientWidth")
    cells = page.locator("table.grid").first.locator("tbody tr").first.locator("td:visible")
    tops = [cells.nth(number).bounding_box()["y"] for number in range(cells.count())]
    assert len(set(tops)) == len(tops) >= 4
    page.close()


def test_a_link_leads_from_a_run_to_its_data(pages: dict[str, Path], browser: Any) -> None:
    page = browser.new_page()
    page.goto(pages["run"].as_uri())
    page.get_by_role("link", name="flat").click()
    page.wait_for_url("**/flat/dataset.html")
    assert page.locator("h1").text_content() == "flat: 24 samples of 24 inputs"
    page.close()


def test_a_served_page_renews_itself_and_outlasts_an_error(browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "POLL_MS", 200)
    content = [b"<!doctype html><p>step 1</p>"]
    with served(content) as url:
        page = browser.new_page()
        page.goto(url)
        page.wait_for_timeout(1000)  # it has asked once, and knows what it shows
        content.append(b"<!doctype html><p>step 2</p>")
        page.wait_for_selector("text=step 2")
        kept = content[:]
        content.clear()
        page.wait_for_timeout(1000)
        assert page.locator("text=step 2").count() == 1  # the store is away: the page stays
        page.reload()
        page.wait_for_selector("text=the store does not answer")
        content.extend([*kept, b"<!doctype html><p>step 3</p>"])
        page.wait_for_selector("text=step 3")
        page.close()
