"""The pages in a real Chromium, against a real service."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from dataset_rules.rules.rules import parse_rules
from tests.cloud.cli import missing
from tests.messy import two_folders
from tests.system.test_service import Service, serving

pytestmark = [pytest.mark.browser, pytest.mark.timeout(200)]

QUIET = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--no-first-run",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("browser") / "home") as running:
        yield running


@pytest.fixture
def page(service: Service):
    chromium = shutil.which("chromium")
    if chromium is None:
        missing("chromium is not installed here")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        page = browser.new_page(base_url=str(service.http.base_url.copy_with(path="/")))
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        yield page
        browser.close()
    assert not [text for text in problems if "status of 4" not in text]  # 4xx answers are expected


def shown_json(page: Page) -> dict:
    return json.loads(page.locator("#json").inner_text())


def test_the_rules_page_shows_both_forms_and_stores_rules(
    page: Page, service: Service, tmp_path: Path
) -> None:
    page.goto("/rules")
    page.get_by_label("Width").fill("256")
    page.get_by_label("Height").fill("128")
    page.get_by_label("Image type").select_option("BMP")
    page.get_by_label("Colour model").select_option("Grayscale")
    page.get_by_label("separate directories").uncheck()
    page.get_by_label("Mask keyword").fill("_seg")
    expect(page.locator("#json")).to_contain_text("_seg")
    full = shown_json(page)
    assert (full["width"], full["height"], full["image_format"]) == (256, 128, "bmp")
    page.get_by_role("tab", name="Short form").click()
    assert shown_json(page) == {
        "height": "128", "width": "256", "image_type": "3", "color_model": "2",
        "description": "_seg",
    }  # fmt: skip
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    download.value.save_as(tmp_path / "rules.json")
    assert parse_rules((tmp_path / "rules.json").read_bytes()).mask_keyword == "_seg"
    page.get_by_role("button", name="Save these rules").click()
    page.wait_for_url("**/rules/*")
    stored = page.url.rpartition("/")[2]
    assert service.http.get(f"/rules/{stored}").json()["layout"] == "together"


def test_an_invalid_width_is_reported_in_the_form(page: Page) -> None:
    page.goto("/rules")
    page.get_by_label("Width").fill("0")
    page.get_by_role("button", name="Save these rules").click()
    assert "width" in page.get_by_role("alert").inner_text()


def test_the_source_page_shows_findings_with_pictures(
    page: Page, service: Service, tmp_path: Path
) -> None:
    two_folders(tmp_path / "s")
    (tmp_path / "s/images/2.png").write_bytes((tmp_path / "s/images/1.png").read_bytes())
    archive = shutil.make_archive(str(tmp_path / "wells"), "zip", tmp_path / "s")
    page.goto("/datasets")
    page.get_by_label("Archive of images and masks").set_input_files(archive)
    page.get_by_role("button", name="Upload").click()
    page.get_by_role("link", name="wells.zip").wait_for()
    page.get_by_role("button", name="Examine").click()
    page.get_by_role("link", name="Full report with pictures").click(timeout=60_000)
    page.wait_for_url("**/sources/*")
    finding = page.locator("article.warning").first
    expect(finding).to_contain_text("images are equal byte for byte")
    shown = "[...document.images].map((image) => (image.loading = 'eager', image.decode()))"
    page.evaluate(f"Promise.all({shown})")  # fails if a picture cannot be decoded
    assert finding.locator("img").count() == 6


def test_a_url_is_fetched_by_a_job_and_failures_are_shown(page: Page, service: Service) -> None:
    page.goto("/datasets")
    page.get_by_label("Or the URL of an archive").fill("https://127.0.0.1:1/set.zip")
    page.get_by_role("button", name="Download").click()
    page.wait_for_url("**/jobs/*")
    expect(page.get_by_role("heading", level=1)).to_have_text("Download")
    expect(page.get_by_role("alert")).to_contain_text("127.0.0.1", timeout=30_000)
    page.goto("/datasets")
    page.get_by_label("Or the URL of an archive").fill("http://example.org/set.zip")
    page.get_by_role("button", name="Download").click()
    assert page.url.endswith("/datasets")  # the browser itself requires https


def test_the_doctor_page_fits_a_phone_and_loads_nothing_else(page: Page, tmp_path: Path) -> None:
    two_folders(tmp_path / "a_source_with_a_long_name_that_does_not_break_anywhere_at_all")
    (source,) = tmp_path.iterdir()
    (source / "images/2.png").write_bytes((source / "images/1.png").read_bytes())
    words = [sys.executable, "-m", "app.cli", "doctor", source, "--html", tmp_path / "page.html"]
    assert subprocess.run(words, check=False, capture_output=True).returncode == 1
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert {url.partition(":")[0] for url in requested} <= {"file", "data"}


def test_a_token_closes_the_pages_until_login(page: Page, service: Service) -> None:
    home = service.home
    words = [sys.executable, "-m", "app.cli", "token", "create", "--role", "admin", "--data", home]
    secret = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    answer = page.goto("/jobs")
    assert answer is not None
    assert answer.status == 401
    page.get_by_label("token").fill(secret)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/jobs")
    assert page.get_by_role("heading", name="Jobs").is_visible()
    page.get_by_role("button", name="Log out").click()
    assert page.get_by_label("token").is_visible()
