"""The page in a real browser, with concurrent users and with malicious requests."""

import csv
import io
import random
import re
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, TimeoutError, expect

from boneage_pl.prediction.growth_reference import skeletal_age_sd
from boneage_pl.prediction.types import format_years_months
from tests.data.images.test_decode import chunk
from tests.helpers.dicom_files import write_dicom
from tests.helpers.fork_server import Forks
from tests.helpers.trained_run import OWN, Home, home_of
from tests.stress.fuzzing import mutated, random_image
from tests.webapp.browser import PHONE, chromium, opened
from tests.webapp.http_client import ONE, Caller, named
from tests.webapp.server_process import Served, served
from tests.webapp.test_batch_upload import zipped

BONE_AGE = re.compile("(Girl|Boy): bone age")
EVIL = "<img src=x onerror=alert(1)>{{7*7}}${7*7}.png"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Home:
    return home_of(Home, tmp_path_factory, forks)


@pytest.fixture(scope="module")
def site(home: Home) -> Iterator[Served]:
    with served(home, "max_upload_mb=4", "max_images=30") as site:
        yield site
    assert not site.calls.exists(), site.calls.read_text()  # no requests to other machines


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def drop(page: Page, *files: Path | dict) -> None:
    page.locator("input[type=file]:visible, .drop:visible input[type=file]").first.set_input_files(
        list(files)
    )


def choose(page: Page, file: Path) -> None:
    """Choose a file by Enter, repeated because Gradio sometimes loses a key press of the test browser."""
    for _ in range(8):
        with suppress(TimeoutError):
            with page.expect_file_chooser(timeout=3000) as chooser:
                page.keyboard.press("Enter")
            chooser.value.set_files(file)
            return
    raise AssertionError("Enter chooses no file")


def enter_until(page: Page, values: dict[str, str], text: str) -> None:
    """Fill text boxes and press Enter until `text` is shown: Gradio may reset boxes that just appeared."""
    for _ in range(8):
        for name, value in values.items():
            page.get_by_role("textbox", name=name).fill(value)
        page.keyboard.press("Enter")
        with suppress(AssertionError):
            expect(page.get_by_text(text)).to_be_visible(timeout=4000)
            return
    raise AssertionError(f"Enter never showed: {text}")


def width(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth"))


def predicted_months(home: Home, name: str, sex: str) -> float:
    months = home.model().predict(str(home.images / name), sex)[0].months
    assert months is not None
    return months


def test_upload_shows_prediction(home: Home, site: Served, browser: Browser):
    with opened(browser, site.url) as page:
        expect(page.get_by_role("note")).to_contain_text("Not a medical device")
        expect(page.get_by_role("note")).to_contain_text("synthetic")
        drop(page, home.images / "7.png")
        expect(page.get_by_role("heading", name=BONE_AGE)).to_have_count(2)  # the sex is unknown
        page.get_by_role("radio", name="Boy").check()
        months = predicted_months(home, "7.png", "M")
        expect(page.get_by_role("heading", name=BONE_AGE)).to_have_count(1)
        title = f"Boy: bone age {format_years_months(months)} ({months:.1f} months)"
        expect(page.get_by_role("heading", name=BONE_AGE)).to_have_text(title)
        expect(page.get_by_text("90 % prediction interval")).to_be_visible()

        enter_until(page, {"Chronological age": "9 y 2 m"}, "Brush Foundation")
        ahead, sd = months - 110, skeletal_age_sd(110, male=True)
        assert sd is not None
        words = "ahead of" if ahead >= 0 else "behind"
        expect(page.locator(".difference")).to_contain_text(f"{abs(ahead):.1f} months {words}")
        expect(page.locator(".difference")).to_contain_text(f"{ahead / sd:+.1f}".replace("-", "−") + " s.d.")
        axis = page.get_by_role("img", name="on an axis of years")
        expect(axis).to_have_attribute("aria-label", re.compile("interval from .* chronological age 9 y 2 m"))

        page.get_by_role("button", name="Or from dates").click()
        dates = {"Date of birth": "2014-05-30", "Date of the radiograph": "2014-05-29"}
        enter_until(page, dates, "do not give an age of 0 to 130 years")
        expect(page.get_by_role("heading", name=BONE_AGE)).to_have_text(title)  # the prediction stays visible
        assert site.uploads() == []


@pytest.mark.slow
def test_heatmap_blends_by_keyboard(home: Home, site: Served, browser: Browser):
    with opened(browser, site.url) as page:
        zone = page.get_by_role("button", name="Click to upload or drop files")
        expect(zone).to_be_visible()
        for _ in range(4):  # after the three tabs
            page.keyboard.press("Tab")
        expect(zone).to_be_focused()
        choose(page, home.images / "8.png")
        expect(page.get_by_role("heading", name=BONE_AGE)).to_have_count(2)
        page.get_by_role("radio", name="Boy").focus()
        page.keyboard.press("Space")
        expect(page.get_by_role("heading", name="Boy: bone age")).to_have_count(1)
        expect(page.get_by_role("heading", name="Girl: bone age")).to_have_count(0)
        slider = page.get_by_role("slider", name="From the image to Grad-CAM")
        slider.focus()
        page.keyboard.press("End")
        overlay = page.get_by_alt_text("Grad-CAM: red")
        expect(overlay).to_have_css("opacity", "1")
        page.keyboard.press("Home")
        expect(overlay).to_have_css("opacity", "0")
        page.get_by_role("tab", name="Several").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Predict bone ages")).to_be_visible()


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_page_fits_phone_and_shows_crop(
    home: Home, site: Served, browser: Browser, tmp_path: Path, dark: bool
):
    """Return a radiograph twice as high as wide, half of which is cropped."""
    hand = Image.open(home.images / "9.png").convert("L")
    tall = Image.new("L", (hand.width, 2 * hand.height))
    tall.paste(hand, (0, hand.height // 2))
    tall.save(tmp_path / "tall.png")
    with opened(browser, site.url, PHONE, dark=dark) as page:
        drop(page, tmp_path / "tall.png")
        expect(
            page.get_by_role("img", name="Part of the radiograph in the network's input").first
        ).to_be_visible()
        expect(page.get_by_text("input ends at the line")).to_be_visible()
        expect(page.get_by_alt_text("Input of the network").first).to_be_visible()
        assert width(page) == PHONE[0]
        box = page.get_by_role("heading", name=BONE_AGE).first.bounding_box()
        assert box
        assert box["width"] > 0.8 * PHONE[0]  # below the form
        red, *_ = map(
            int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
        )
        assert (red < 128) == dark
        page.get_by_role("tab", name="Several").click()
        page.get_by_role("radio", name="Girls").check()
        drop(page, tmp_path / "tall.png", home.images / "7.png")
        expect(page.locator(".drop:visible").get_by_text("tall")).to_be_visible()
        page.get_by_role("button", name="Predict bone ages").click()
        expect(page.get_by_role("heading", name="2 of 2 predicted")).to_be_visible()
        assert width(page) == PHONE[0]  # only the table scrolls
        page.get_by_role("tab", name="This model").click()
        expect(page.get_by_role("heading", name="Intended use")).to_be_visible()
        assert width(page) == PHONE[0]


@pytest.mark.slow
def test_dicom_fills_sex_and_age(site: Served, browser: Browser, tmp_path: Path):
    file = tmp_path / "hand.dcm"
    write_dicom(
        file,
        np.random.default_rng(0).integers(0, 4000, (200, 160), np.uint16),
        PatientSex="F",
        Laterality="R",
    )
    with opened(browser, site.url) as page:
        drop(page, file)
        expect(page.get_by_role("heading", name="Girl: bone age")).to_be_visible()
        expect(page.get_by_role("radio", name="Girl")).to_be_checked()
        expect(page.get_by_role("textbox", name="Chronological age")).to_have_value("10 y 0 m")
        flags = page.get_by_role("list", name="Quality flags")
        expect(flags).to_contain_text("Right hand. The file's laterality is right: the image was mirrored.")
        expect(flags).to_contain_text("do not rely on the prediction")
        drop(page, {"name": EVIL, "mimeType": "image/png", "buffer": b"no image"})
        expect(page.get_by_role("heading", name="No prediction")).to_be_visible()
        expect(page.get_by_text(EVIL)).to_be_visible()
        expect(page.get_by_text("None of PNG, JPEG")).to_be_visible()
        expect(page.get_by_role("radio", name="Unknown")).to_be_checked()  # not that of the other child


def test_batch_table_sorts_and_downloads(home: Home, site: Served, browser: Browser, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as study:
        study.write(home.images / "7.png", "a/7.png")
        study.write(home.images / "8.png", "a/8.png")
        study.writestr("a/bad.png", b"no image")
    (tmp_path / "table.csv").write_text("path,sex\n9.png,M\nmissing.png,F\n")
    evil = {"name": EVIL, "mimeType": "image/png", "buffer": (home.images / "10.png").read_bytes()}
    with opened(browser, site.url) as page:
        page.get_by_role("tab", name="Several").click()
        page.get_by_role("radio", name="Girls").check()
        files = [tmp_path / "study.zip", home.images / "9.png", tmp_path / "table.csv"]
        content = [{"name": f.name, "mimeType": "", "buffer": f.read_bytes()} for f in files]
        drop(page, *content, evil)
        expect(page.get_by_text("table", exact=True)).to_be_visible()  # the list of files
        page.get_by_role("button", name="Predict bone ages").click()
        expect(page.get_by_role("heading", name="4 of 6 predicted")).to_be_visible()
        table = page.get_by_role("region", name="Predictions")
        expect(table.get_by_role("row").filter(has_text="a/bad.png")).to_contain_text("none of PNG, JPEG")
        expect(table.get_by_role("row").filter(has_text="missing.png")).to_contain_text(
            "no file has this name"
        )
        expect(table.get_by_role("img")).to_have_count(4)

        months = {}
        for button in ("ascending", "descending"):
            table.get_by_role("button", name="Bone age").click()
            head = table.get_by_role("columnheader", name="Bone age")
            expect(head).to_have_attribute("aria-sort", button)
            months[button] = table.locator("tbody td:nth-child(4)").evaluate_all(
                "cells => cells.map(cell => cell.dataset.value)"
            )
        given = [float(value) for value in months["ascending"] if value]
        assert given == sorted(given)
        assert len(given) == 4
        assert [float(value) for value in months["descending"] if value] == given[::-1]
        assert months["descending"][-2:] == ["", ""]  # rows without a prediction stay at the end

        with page.expect_download() as download:
            page.get_by_role("link", name="Download as CSV").click()
        rows = {
            row["path"]: row for row in csv.DictReader(io.StringIO(Path(download.value.path()).read_text()))
        }
        assert float(rows["study.zip/a/7.png"]["months"]) == pytest.approx(
            predicted_months(home, "7.png", "F"), abs=1e-3
        )
        assert float(rows["9.png"]["months"]) == pytest.approx(predicted_months(home, "9.png", "M"), abs=1e-3)
        assert rows[EVIL]["sex"] == "F"
        assert site.uploads() == []


@pytest.mark.slow
def test_model_tab_describes_model(site: Served, browser: Browser):
    with opened(browser, site.url) as page:
        page.get_by_role("tab", name="This model").click()
        expect(page.get_by_role("heading", name="Intended use")).to_be_visible()
        expect(page.get_by_alt_text("v1: Error by age and sex")).to_be_visible()
        expect(page.get_by_text("library_name")).to_have_count(0)  # endpoints for a hub


@pytest.mark.slow
def test_twenty_concurrent_users_are_served(home: Home, site: Served):
    """All upload the same file, which Gradio stores under one name."""
    content = (home.images / "7.png").read_bytes()
    with ThreadPoolExecutor(20) as people:
        cards = list(people.map(lambda _: Caller(site.url).one("7.png", content), range(20)))
    months = predicted_months(home, "7.png", "F")
    assert all(f"({months:.1f} months)" in one for one in cards)
    assert site.uploads() == []


@pytest.mark.slow
def test_maximum_upload_count_is_accepted(home: Home, site: Served):
    files = [(f"{n}.png", (home.images / f"{n}.png").read_bytes()) for n in range(1, 31)]
    assert "<h2>30 of 30 predicted</h2>" in Caller(site.url).many(*files, sex="F")
    assert site.uploads() == []


def bomb() -> bytes:
    """Return a PNG file that declares 100,000 × 100,000 pixels but contains a part of them."""
    header = (100_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(100 << 20))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)


@pytest.mark.slow
def test_malicious_uploads_are_handled(home: Home, site: Served):
    caller = Caller(site.url)
    good = (home.images / "7.png").read_bytes()
    draw = random.Random(22)
    files = [
        (f"{n}.{draw.choice(['png', 'jpg', 'dcm', 'tif'])}", mutated(random_image(draw), draw))
        for n in range(196)
    ]
    for _ in range(20):  # memory in normal use
        caller.one("good.png", good)
    before = site.memory()
    for name, content in files:
        html = caller.one(name, content)
        assert "bone age <b>" in html or "No prediction" in html, (name, html)
    assert "megapixels" in caller.one("huge.png", bomb())
    assert "remain for unpacking" in caller.many(("bomb.zip", zipped({"x.png": bytes(20 << 20)})))
    assert "has a path outside the folder" in caller.many(("out.zip", zipped({"../../out.png": good})))
    html = caller.one(EVIL, good)
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "<img src=x" not in html
    assert site.memory() < 1.1 * before
    assert "bone age <b>" in caller.one("good.png", good)
    assert site.uploads() == []


def test_page_leaks_and_fetches_nothing(home: Home, site: Served):
    caller = Caller(site.url)
    for path in ("/etc/passwd", "http://example.com/x.png", home.ckpt, home.images / "7.png"):
        assert caller.http.get(f"/gradio_api/file={path}").status_code == 404
        assert caller.call(ONE, [named(str(path), "x.png"), None, "F", "", "", ""]) is None
        stream = {**named(str(path), "x.png"), "is_stream": True}
        assert "has been deleted" in caller.call(ONE, [stream, None, "F", "", "", ""])[-1]
    assert caller.http.get("/gradio_api/info").status_code == 404
    large = caller.upload(("large.png", bytes(5 << 20)))
    assert large.status_code == 413
    assert "at most 4 MB per upload" in large.json()["detail"]
    image = (home.images / "7.png").read_bytes()
    html = caller.many(("many.zip", zipped({f"{n}.png": image for n in range(31)})))
    assert "at most 30 images" in html
    table = "path,sex\n" + "7.png,F\n" * 31
    assert "at most 30 images" in caller.many(("7.png", image), ("rows.csv", table.encode()))
    assert site.uploads() == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["port=0"], "port=0: it must be greater than or equal to 1"),
        (["port=70000"], "port=70000: it must be less than 65536"),
        (["host=null"], "host=None: not an address of this machine"),
        (["max_upload_mb=0"], "max_upload_mb=0: it must be greater than or equal to 1"),
        (["ckpt=nowhere"], "nowhere"),
        (["root_path=boneage"], "root_path=boneage: it must begin with /"),
        (["root_path=/a/"], "root_path=/a/: it must begin with / and must not end with it"),
        (["root_path=null"], "root_path=None: it must be a valid string"),
        (["allowed_hosts=[a.org,a.org:80]"], "allowed_hosts=a.org:80: give names without ports"),
        (["allowed_hosts=a*"], "allowed_hosts=a*: give names"),
        (["host=198.51.100.7"], "host=198.51.100.7: not an address of this machine"),
        (["host=no.such.name.invalid", "port=7999"], "host=no.such.name.invalid port=7999: not an address"),
    ],
)
def test_invalid_options_are_refused(home: Home, options: list[str], words: str):
    given = [OWN, *([] if "ckpt=nowhere" in options else ["ckpt=outputs/a"]), *options]
    result = home.forks.start("boneage_pl.app", *given, cwd=home.path).wait(60)
    assert result.returncode == 2, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_taken_port_is_refused(home: Home, site: Served):
    port = site.url.rpartition(":")[2]
    result = home.forks.start("boneage_pl.app", OWN, "ckpt=outputs/a", f"port={port}", cwd=home.path).wait(60)
    assert result.returncode == 2
    assert "the port is in use" in result.stderr
