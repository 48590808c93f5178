"""Charts whose points are where their values say, pictures that are the arrays, and a server that answers this machine alone."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import re
import socket
import struct
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossdim.foundation.page.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, build_axis, find_ticks
from crossdim.foundation.page.charts import Chart, Level, draw_bars, draw_histogram, draw_lines, draw_scatter
from crossdim.foundation.page.pictures import encode_png
from crossdim.foundation.page.serve import PageServer
from crossdim.storage_schema.errors import StorageError, UsageError

SVG = "{http://www.w3.org/2000/svg}"
NUMBERS = st.floats(-1e9, 1e9, allow_nan=False)
HOSTILE = '<script>alert(1)</script> & "quoted"'


def parse(chart: Chart) -> ElementTree.Element:
    """The drawing as a document: what is no XML fails here."""
    return ElementTree.fromstring(chart.svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


@given(low=NUMBERS, span=st.floats(1e-6, 1e9), count=st.integers(2, 8))
def test_ticks_are_round_and_inside(low: float, span: float, count: int) -> None:
    high = low + span
    if high <= low:
        return
    ticks = find_ticks(low, high, count)
    slack = span * 1e-6 + abs(low) * 1e-9
    assert 1 <= len(ticks) <= 2.5 * count + 2
    assert all(low - slack <= tick <= high + slack for tick in ticks) or ticks == [low]


@given(values=st.lists(NUMBERS, max_size=20))
def test_an_axis_holds_its_values_and_is_never_empty(values: list[float]) -> None:
    axis = build_axis("x", values)
    assert axis.low < axis.high
    assert all(axis.low <= value <= axis.high for value in values)


def test_points_of_a_line_are_where_their_values_say() -> None:
    x, y = [0.0, 5.0, 10.0], [1.0, 3.0, 2.0]
    line = parse(draw_lines({"loss": (x, y)}, "step", "loss")).find(f"{SVG}polyline")
    assert line is not None
    points = np.array([[float(v) for v in pair.split(",")] for pair in line.attrib["points"].split()])
    assert points[:, 0] == pytest.approx(np.interp(x, [0, 10], [points[0, 0], points[2, 0]]), abs=0.1)
    assert points[:, 1] == pytest.approx(np.interp(y, [1, 3], [points[0, 1], points[1, 1]]), abs=0.1)
    assert points[1, 1] < points[2, 1] < points[0, 1]  # up is down in an image


def test_values_that_are_not_finite_are_left_out_of_a_line() -> None:
    line = parse(draw_lines({"a": ([0, 1, 2], [1.0, float("nan"), 2.0])}, "step", "a")).find(f"{SVG}polyline")
    assert line is not None
    assert len(line.attrib["points"].split()) == 2


def test_heights_of_a_histogram_are_its_counts() -> None:
    path = parse(draw_histogram([0, 1, 2], {"n": [1, 4]}, "value", "count")).find(f"{SVG}path[@fill-opacity]")
    assert path is not None
    bottom, first, second, _ = (float(v) for v in re.findall(r"(?:M[\d.]+ |V)([\d.]+)", path.attrib["d"]))
    assert (bottom - first) * 4 == pytest.approx(bottom - second, abs=0.5)


def test_lengths_of_bars_are_their_counts() -> None:
    bars = parse(draw_bars({"well": {"train": 30, "test": 10}, "sick": {"train": 20}}, ["train", "test"])).findall(f"{SVG}rect")
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert widths == pytest.approx([widths[0], widths[0] / 3, widths[0] * 2 / 3], abs=0.1)


def test_names_are_text_in_every_chart() -> None:
    point: tuple[list[float], list[float], list[str]] = ([1.0], [1.0], [HOSTILE])
    charts = [
        draw_lines({HOSTILE: ([0, 1], [0, 1])}, HOSTILE, HOSTILE, [(0.5, HOSTILE)]),
        draw_histogram([0, 1], {HOSTILE: [1]}, HOSTILE, HOSTILE),
        draw_scatter({HOSTILE: point}, HOSTILE, HOSTILE),
        draw_bars({HOSTILE: {HOSTILE: 1}}, [HOSTILE]),
    ]
    for chart in charts:
        assert "<script" not in chart.svg
        assert "<script>" not in "".join(parse(chart).itertext()) or "&lt;script" in chart.svg


@pytest.mark.parametrize("shape", [(3, 5), (200, 300), (1000, 40), (30, 30, 3)])
def test_a_picture_is_its_array(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).random(shape, np.float32)
    data = encode_png(image).removeprefix("data:image/png;base64,")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    factor, step = max(1, shown.shape[0] // shape[0]), -(-shape[0] // shown.shape[0])
    assert max(shown.shape[:2]) <= 448
    np.testing.assert_array_equal(shown[::factor, ::factor], (image[::step, ::step] * 255).astype(np.uint8))


@contextlib.contextmanager
def served(page: list[bytes]) -> Iterator[str]:
    def build() -> bytes:
        if not page:
            raise StorageError("the store does not answer")
        return page[-1]

    with PageServer(build, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


def get(url: str, host: str | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_a_served_page_is_built_anew_and_knows_when_it_has_changed() -> None:
    page = [b"<p>one</p>"]
    with served(page) as url:
        assert get(url)[1].startswith(b"<p>one</p>")
        assert get(f"{url}digest") == (200, hashlib.sha256(b"<p>one</p>").hexdigest().encode())
        page.append(b"<p>two</p>")
        assert get(url)[1].startswith(b"<p>two</p>")
        assert get(f"{url}digest")[1] == hashlib.sha256(b"<p>two</p>").hexdigest().encode()
        assert get(f"{url}../etc/passwd")[0] == 404
        page.clear()
        code, answer = get(url)
        assert code == 503
        assert b"the store does not answer" in answer
        assert get(f"{url}digest")[0] == 503


def test_a_page_of_the_web_cannot_read_what_is_served() -> None:
    """Its name may resolve to this machine, but a browser sends that name."""
    with served([b"patients"]) as url:
        for host in ("attacker.example", "127.0.0.1.attacker.example", "localhost:80@attacker.example", ""):
            assert get(url, host or " ")[0] in (400, 403)
        for host in ("localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080"):  # through a tunnel, the port is another
            assert get(f"{url}?again", host)[0] == 200


def test_a_browser_may_leave_at_any_time(capsys: pytest.CaptureFixture[str]) -> None:
    """A tab that is closed while the page is sent is no fault, and a question for the head has no page for an answer."""
    with served([bytes(8_000_000)]) as url:
        address = urllib.parse.urlsplit(url)
        for _ in range(3):
            with socket.create_connection((address.hostname, address.port), 10) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves with a reset
                client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert client.recv(60)
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10) as answer:
            assert (answer.status, answer.read()) == (200, b"")
            assert int(answer.headers["Content-Length"]) > 8_000_000
    assert capsys.readouterr().err == ""


def test_a_line_of_one_point_is_a_point() -> None:
    drawing = parse(draw_lines({"RankMe": ([49.0], [12.5]), "two": ([1.0, 2.0], [1.0, 2.0])}, "step", "RankMe"))
    [point] = drawing.findall(f".//{SVG}circle")
    assert point.findtext(f"{SVG}title") == "12.5"


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with served([b""]) as url, pytest.raises(UsageError, match="cannot listen at port"):
        PageServer(bytes, int(url.rstrip("/").rpartition(":")[2]))


def test_levels_and_bars_lie_inside_the_axes_and_are_escaped() -> None:
    """A band and bars that reach further than the line widen the axis; names are texts."""
    level = Level(name=HOSTILE, value=0.5, spread=0.3)
    chart = draw_lines({HOSTILE: ([10.0, 20.0], [0.4, 0.6])}, "step", "y", levels=[level], spreads={HOSTILE: [0.1, 0.4]})
    drawing = parse(chart)
    band = drawing.find(f".//{SVG}rect[@class='band']")
    assert band is not None
    bottom = HEIGHT - BOTTOM
    top, height = float(band.attrib["y"]), float(band.attrib["height"])
    # The axis goes from 0.2, the end of the band, to 1.0, the end of the second bar.
    assert (top + height, top) == pytest.approx((bottom, bottom - 0.6 / 0.8 * (bottom - TOP)), abs=0.1)
    circles = [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in drawing.iter(f"{SVG}circle")]
    assert [y for _, y in circles] == pytest.approx([bottom - share * (bottom - TOP) for share in (0.25, 0.5)], abs=0.1)
    assert LEFT < circles[0][0] < circles[1][0] < WIDTH - RIGHT  # from step 0 on, and not cut at the end
    assert [name for name, _ in chart.legend] == [HOSTILE, f"{HOSTILE} (dashed)"]
