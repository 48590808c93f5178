"""The site is built without a network and without a warning, and is read and searched from files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation.blocks import ROOT

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.integration
#: Any request by a program that honours proxies goes nowhere.
NO_NETWORK = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in the strict mode, which refuses links and anchors that lead nowhere and pages that are in no list."""
    pytest.importorskip("material", reason="the site is built by MkDocs Material: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    line = ["build", "--strict", "--quiet", "--config-file", "docs/mkdocs.yml", "--site-dir", str(folder)]
    environment = os.environ | NO_NETWORK | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", *line],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    """Links may lead elsewhere; scripts, styles, fonts and pictures may not."""
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    loaded = re.compile(
        r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?(?:https?:)?//|<link[^>]*rel=[\"']?(?:stylesheet|preconnect)[^>]*//"
    )
    assert [str(page) for page in pages if loaded.search(page.read_text())] == []


@pytest.mark.skipif(CHROMIUM is None, reason="pages are opened in chromium: apt-get install chromium")
def test_the_search_works_from_files(site: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "methods" / "maesil.html").as_uri())
        page.wait_for_load_state("load")
        page.locator("input.md-search__input").focus()
        page.keyboard.type("quarantine")
        found = page.locator("a.md-search-result__link")
        found.first.wait_for(timeout=30_000)
        assert found.first.get_attribute("href").startswith("file:")
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
        browser.close()
