import re

import numpy as np
import pytest

from dataset_rules.doctor.examine import examine_folder
from dataset_rules.doctor.page import page_body, whole_page
from dataset_rules.doctor.previews import pictures_of
from tests.messy import put, tissue, two_folders


def page_of(folder, rules=None):
    report = examine_folder(folder, rules)
    pictures = pictures_of(folder, report.findings, report.pairing, report.rules)
    return whole_page(report.document(), pictures, title="a <set>"), pictures


@pytest.fixture
def broken(tmp_path):
    two_folders(tmp_path, 6)
    image = tmp_path / "images/1.png"
    image.write_bytes(image.read_bytes()[:-200])
    put(tmp_path, "masks/2.png", np.zeros((9, 9), np.uint8))
    (tmp_path / "images/6.png").write_bytes((tmp_path / "images/5.png").read_bytes())
    (tmp_path / "masks/4.png").unlink()
    return tmp_path


def test_worst_findings_come_first(broken):
    page, _ = page_of(broken)
    severities = re.findall(r'<article class="(\w+)"', page)
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert severities[0] == "error"
    assert "warning" in severities


def test_page_makes_no_network_requests(broken):
    page, _ = page_of(broken)
    assert not re.search(r"https?://|url\(|<script|<link|@import", page)
    assert set(re.findall(r'src="(.{10})', page)) == {"data:image"}


def test_findings_show_their_pairs_as_image_mask_and_overlay(broken):
    _, pictures = page_of(broken)
    report = examine_folder(broken)
    index = [finding.code for finding in report.findings].index("equal_images")
    shown = pictures.of_findings[index]
    assert [picture.paths for picture in shown] == [
        ("images/5.png", "masks/5.png"), ("images/6.png", "masks/6.png"),
    ]  # fmt: skip
    assert all(picture.image and picture.mask and picture.overlay for picture in shown)


def test_file_that_cannot_be_decoded_is_shown_with_the_reason(broken):
    _, pictures = page_of(broken)
    errors = {p.paths[0]: p.error for ps in pictures.of_findings.values() for p in ps if p.error}
    assert "cut short" in errors["images/1.png"]
    assert errors["images/2.png"] == "image and mask differ in size"


def test_file_names_are_escaped(tmp_path):
    two_folders(tmp_path)
    put(tmp_path, "images/<img onerror=alert(1)>.png", tissue(9)[0])
    page, _ = page_of(tmp_path)
    assert "<img onerror" not in page
    assert "&lt;img onerror=alert(1)&gt;" in page
    assert "<title>a &lt;set&gt;: examination</title>" in page


def test_question_is_shown_with_the_lines_that_answer_it(tmp_path):
    two_folders(tmp_path)
    for number in range(1, 5):
        put(tmp_path, f"manual/{number}.png", (tissue(number + 50)[1] > 0).astype(np.uint8) * 255)
    page, _ = page_of(tmp_path)
    assert "Questions that only you can answer" in page
    assert "&quot;mask&quot;: &quot;manual/{name}.png&quot;" in page


def test_finding_reports_how_many_files_were_checked(broken):
    page, _ = page_of(broken)
    assert "checked 6 of 6 files" in page


def test_body_can_be_embedded_in_other_pages(broken):
    report = examine_folder(broken)
    pictures = pictures_of(broken, report.findings, report.pairing, report.rules)
    body = page_body(report.document(), pictures, title="x")
    assert body.startswith('<div class="examination">')
    assert "<html" not in body
