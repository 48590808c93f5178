"""The page of a run in a real browser: pictures of its steps, probes of its checkpoints, by pointer and by keyboard."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.page import serve
from crossdim.training.run_dir.layout import step_pictures_path
from crossdim.training.show.facts import read_facts
from crossdim.training.show.page import build_page
from tests.foundation.test_page import served
from tests.system.test_pages import CHROMIUM, SHOTS, browser
from tests.training.published import images, publish, superpatches

__all__ = ["browser"]  # a fixture
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="pages are opened in chromium: apt-get install chromium"),
]
STEPS = ["step 0 of 8 (0%)", "step 4 of 8 (50%)", "step 8 of 8 (100%)"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of a method that restores, and one whose method has no restorations; both with kept checkpoints, evaluated."""
    lab = tmp_path_factory.mktemp("runs")
    for name, samples in (("flat", images(24)), ("solid", superpatches(12))):  # labels that nothing tells: figures with a spread
        samples = [replace(one, label=str(number // 2 % 2)) for number, one in enumerate(samples)]
        publish(Bucket(str(lab / name)), samples, name)
    data = ["--data", str(lab / "flat"), str(lab / "solid")]
    for name, recipe in (("restorer", "maesil:tiny"), ("encoder", "cross-d:tiny")):
        line = ["pretrain", "--recipe", recipe, *data, "--out", str(lab / name), "--workers", "0", "--steps", "8", "--json"]
        assert main([*line, "--set", "global_batch=8", "--keep-at", "50%", "--pictures-at", "0%,50%,100%"]) == 0
        evaluation = ["evaluate", str(lab / name), *data, "--baselines", "1", "--checkpoints", "all", "--json"]
        assert main(evaluation) == 0
    return {name: lab / name for name in ("restorer", "encoder")}


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 390)])
@pytest.mark.parametrize("name", ["restorer", "encoder"])
def test_the_page_of_a_run_draws_alone_and_in_silence(
    name: str, scheme: str, width: int, runs: dict[str, Path], browser: Any
) -> None:
    url, said, asked = (runs[name] / "report.html").as_uri(), list[str](), list[str]()
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    assert said == []
    assert [one for one in asked if not one.startswith("data:")] == [url]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = page.locator(".strip img")
    assert shown.count() > 20
    for number in range(0, shown.count(), 5):
        assert _deviation(shown.nth(number), SHOTS / "picture.png") > 5  # of gray values: something is drawn
    curves = page.locator("h2:text('Probes of the checkpoints') ~ .galleries").first.locator("svg.chart")
    assert curves.count() == 4
    for number in range(4):
        assert curves.nth(number).locator(".level").count() == curves.nth(number).locator(".band").count() == 1
    assert _deviation(curves.first, SHOTS / "curve.png") > 5
    page.screenshot(path=SHOTS / f"run-{name}-{scheme}-{width}.png", full_page=True)
    page.close()


def _deviation(element: Any, path: Path) -> float:
    SHOTS.mkdir(exist_ok=True)
    element.screenshot(path=path)
    return float(np.asarray(Image.open(path).convert("L")).std())


def test_a_person_sees_the_same_sample_change_from_step_to_step(runs: dict[str, Path], browser: Any) -> None:
    page = browser.new_page()
    page.goto((runs["restorer"] / "report.html").as_uri())
    restorations = page.locator("h3:text-is('Restorations') + .galleries section")
    assert restorations.count() == 4  # two samples of each dataset
    first = restorations.first
    assert first.locator("div.quiet").all_text_contents() == STEPS
    of_steps = [first.locator(".strip").nth(number).locator("img") for number in range(3)]
    sources = [[image.get_attribute("src") for image in row.all()] for row in of_steps]
    for before, after in pairwise(sources):
        assert [one == other for one, other in zip(before, after, strict=True)] == [True, True, False, True]
    places = [row.nth(2).bounding_box()["x"] for row in of_steps]
    assert len(set(places)) == 1  # one below the other
    page.close()


def test_what_can_be_opened_and_read_is_reached_by_keyboard(runs: dict[str, Path], browser: Any) -> None:
    page = browser.new_page()
    page.goto((runs["restorer"] / "report.html").as_uri())
    for link in page.locator("nav a").all():  # all lead somewhere
        assert page.locator(link.get_attribute("href")).count() == 1
    assert page.locator("nav a").all_text_contents()[:2] == ["probes", "probes of checkpoints"]
    page.locator("nav a:text-is('samples by step')").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("Math.abs(document.getElementById('steps').getBoundingClientRect().top) < 50")
    kinds = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        kinds.add(page.evaluate("document.activeElement.getAttribute('class') || document.activeElement.localName"))
    assert {"chart", "strip", "summary", "button", "input"} <= kinds
    details = page.locator("h3:text-is('Views') ~ details").first
    assert not details.evaluate("one => one.open")
    details.locator("summary").focus()
    page.keyboard.press("Enter")
    assert details.evaluate("one => one.open")
    details.locator("img").first.wait_for()  # visible: it is loaded when it comes into view
    chart = page.locator("h2:text('Probes of the checkpoints') ~ .galleries svg.chart").first
    chart.focus()
    page.keyboard.press("ArrowRight")
    readout = chart.locator("xpath=../following-sibling::p").first.text_content()
    assert readout.startswith("step 8: this encoder ")
    assert ", untrained " in readout
    page.close()


def test_a_page_that_is_open_shows_the_pictures_of_a_new_step(
    runs: dict[str, Path], browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "POLL_MS", 200)
    run = Bucket(str(runs["encoder"]))
    last = run.read(step_pictures_path(8))
    run.delete(step_pictures_path(8))
    content = [build_page(read_facts(run, time.time()))]
    with served(content) as url:
        page = browser.new_page()
        page.goto(url)
        page.wait_for_timeout(1000)  # it has asked once, and knows what it shows
        assert page.locator(f"text='{STEPS[1]}'").count() > 0
        assert page.locator(f"text='{STEPS[2]}'").count() == 0
        run.put(step_pictures_path(8), last)
        content.append(build_page(read_facts(run, time.time())))
        page.wait_for_selector(f"text='{STEPS[2]}'", state="attached")
        page.close()
