"""Draws the two pictures of the README and the first page: ``python -m docs.pictures``, with Chromium installed.

Both are pages of ``crossdim show``, of datasets and a run made from the demo's phantoms: no data of patients.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from crossdim.cli import main
from demo.phantoms import write_phantoms

FOLDER = Path(__file__).parent / "pages" / "pictures"
MAX_BYTES = 150_000
#: Width and height of the window, in pixels: the first screen of a page.
WINDOW = (1100, 1000)
#: A palette of so many colours is enough for charts and gray slices, and a third of the size.
COLOURS = 128


def make_pages(folder: Path) -> dict[str, Path]:
    """Prepare phantoms, pretrain on them, and write the pages of a dataset and of the run.

    Args:
        folder: an empty one for everything.

    Returns:
        Name of the picture -> HTML file.
    """
    raw, volumes, run = folder / "raw", folder / "data/ct", folder / "runs/first"
    write_phantoms(raw, seed=0, images_per_label=0, volumes_per_label=12)
    split = ("--label", "folder", "--modality", "CT", "--test-fraction", "0.2")
    _crossdim("prepare", str(raw / "ct"), "--recipe", "mixed-superpatches:tiny", *split, "--out", str(volumes))
    training = ("--recipe", "maesil:tiny", "--data", str(volumes), "--workers", "0", "--steps", "600")
    _crossdim("pretrain", *training, "--out", str(run))
    _crossdim("show", str(run), "--html", str(folder / "run.html"))
    pages = {"dataset": volumes / "dataset.html", "run": folder / "run.html"}
    for page in pages.values():  # the temporary folder's name is new each time, and tells a reader nothing
        page.write_text(page.read_text().replace(f"{folder}/", ""))
    return pages


def _crossdim(*arguments: str) -> None:
    if code := main(arguments):
        sys.exit(code)


def take_picture(page: Path, picture: Path) -> None:
    """Take a picture of the first screen of a page.

    Args:
        page: HTML file.
        picture: PNG file to write.
    """
    width, height = WINDOW
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", f"--window-size={width},{height}"]
    subprocess.run(["chromium", *options, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True, timeout=120)
    Image.open(picture).convert("RGB").quantize(COLOURS).save(picture, optimize=True)
    size = picture.stat().st_size
    if size > MAX_BYTES:
        sys.exit(f"{picture} has {size} bytes; at most {MAX_BYTES} are wanted: choose a smaller window or fewer colours")


if __name__ == "__main__":
    if shutil.which("chromium") is None:
        sys.exit("the pictures are drawn by chromium, which is not installed")
    with tempfile.TemporaryDirectory() as temporary:
        FOLDER.mkdir(exist_ok=True)
        for name, html in make_pages(Path(temporary)).items():
            take_picture(html, FOLDER / f"{name}.png")
