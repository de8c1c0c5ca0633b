"""The page in a headless Chromium: a recording goes in, stems come out and play in step."""

import os
import re
import shutil
import time

import numpy as np
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.demo.conftest import wav_bytes
from tests.demo.http import Held

pytestmark = pytest.mark.processes

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
# Sound starts without a gesture; a container's root needs no sandbox.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
]


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium here: install chromium-headless-shell, or name one in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, client):
    """The page, freshly opened; whatever it reports as an error fails the test."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    # Refused uploads are logged by the browser itself; breaches of the policy are, too.
    page.on("console", lambda line: errors.append(line.text) if "Policy" in line.text else None)
    page.goto(f"http://127.0.0.1:{client.port}/")
    page.wait_for_selector("body[data-ready]")
    yield page
    context.close()
    assert not errors


def choose(page: Page, data: bytes, name: str = "street.wav") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "audio/wav", "buffer": data})


def drag(page: Page, selector: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drags from one place of an element to another, in shares of its width and height."""
    box = page.locator(selector).bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=4)
    page.mouse.up()


def running(page: Page) -> list[dict]:
    return page.evaluate("import('/player.js').then(({ player }) => player.running)")


def test_a_recording_goes_in_and_two_stems_come_out_and_play_in_step(page, client, street):
    choose(page, street)
    expect(page.locator("#facts")).to_contain_text("0:01.0 · stereo · 16 kHz")
    drag(page, "#mixture .surface", (0.1, 0.5), (0.5, 0.5))
    page.keyboard.down("Shift")
    drag(page, "#mixture .surface", (0.7, 0.5), (0.9, 0.5))
    page.keyboard.up("Shift")
    page.fill(".prompt input[type=text]", "dog")
    page.click("#separate")
    expect(page.locator("#stems .track")).to_have_count(2)
    expect(page.locator("#stems .label")).to_have_text(["target", "residual"])
    expect(page.locator("#switch input:enabled")).to_have_count(3)

    (job,) = [job for job in client.jobs if job.state == "done"][-1:]
    (text, spans), *others = job.request.prompts
    assert (text, [token for token, _, _ in spans], others) == ("dog", ["+", "-"], [])
    np.testing.assert_allclose([span[1:] for span in spans], [(0.1, 0.5), (0.7, 0.9)], atol=0.01)
    with page.expect_download() as download:
        page.locator("#stems a").first.click()
    assert download.value.suggested_filename == "street.target.wav"
    saved = download.value.path().read_bytes()
    assert saved == client.ask("GET", f"/api/jobs/{job.id}/stems/0.wav").body

    page.check("#loop")
    page.click("#play")
    started = running(page)
    assert len({(wave["at"], wave["offset"]) for wave in started}) == 1
    page.locator("#stems .listen").last.click()
    until = time.monotonic() + 30
    while running(page)[-1]["loudness"] < 0.99 and time.monotonic() < until:
        page.wait_for_timeout(20)
    switched = running(page)
    assert [wave["at"] for wave in switched] == [wave["at"] for wave in started]
    assert [round(wave["loudness"], 2) for wave in switched] == [0, 0, 1]
    expect(page.locator("#switch label:has(:checked)")).to_have_text("residual")
    page.click("#play")
    expect(page.locator("#play")).to_have_attribute("aria-label", "Play")


def test_a_wrong_file_gets_its_sentence_and_the_next_one_is_taken(page, street):
    name = "<img src=x onerror=alert(1)>.wav"
    choose(page, b"no sound in here", name)
    sentence = f"{name} cannot be decoded as sound"
    expect(page.locator("#problem")).to_contain_text(sentence)
    choose(page, bytes(2_000_000))
    expect(page.locator("#problem")).to_contain_text("this page takes up to 1 MB")
    choose(page, wav_bytes(np.zeros((1, 800), "f4")))
    expect(page.locator("#problem")).to_contain_text("street.wav is silent (all zeros)")
    choose(page, street)
    expect(page.locator("#work")).to_be_visible()
    expect(page.locator("#problem")).to_be_hidden()
    page.click("#separate")
    expect(page.locator("#problem")).to_contain_text("nothing says what to separate")


def test_a_place_in_the_queue_is_shown_and_can_be_left(page, client, street):
    held = Held(client)
    try:
        first = client.upload(street)["id"]
        client.start(first, prompts=[{"text": "dog"}])
        choose(page, street)
        page.fill(".prompt input[type=text]", "dog")
        page.click("#separate")
        expect(page.locator("#status-text")).to_have_text("1 before yours")
        page.click("#cancel")
        expect(page.locator("#status")).to_be_hidden()
        expect(page.locator("#separate")).to_be_enabled()
    finally:
        held.let_go()
    assert client.jobs[-1].state == "cancelled"


def test_spans_and_playback_by_keyboard(page, street):
    choose(page, street)
    page.click("#add-prompt")
    expect(page.locator(".prompt")).to_have_count(2)
    page.click("#add-span")
    span = page.locator(".span")
    expect(span).to_have_attribute("aria-label", re.compile("sounds from 0.00 to 1.00 seconds"))
    span.focus()
    for key in ("Shift+ArrowLeft", "Shift+ArrowLeft", "ArrowRight", "-"):
        page.keyboard.press(key)
    expect(span).to_have_attribute("aria-label", re.compile("not sound from 0.05 to 0.95"))
    expect(page.locator(".prompt.active .chip.minus .from")).to_have_value("0.05")
    page.fill(".chip .to", "0.5")
    page.keyboard.press("Tab")
    expect(span).to_have_attribute("aria-label", re.compile("from 0.05 to 0.50"))
    span.focus()
    page.keyboard.press("Delete")
    expect(span).to_have_count(0)
    expect(page.locator("#mixture .surface")).to_be_focused()
    expect(page.locator("#switch input:enabled")).to_have_count(1)
    page.keyboard.press("End")
    expect(page.locator("#time")).to_have_text("0:01.0 / 0:01.0")
    page.keyboard.press(" ")
    expect(page.locator("#play")).to_have_attribute("aria-label", "Pause")


def test_a_box_is_drawn_where_the_model_sees_and_off_with_a_reason_elsewhere(page, film):
    choose(page, film, "film.mkv")
    expect(page.locator("#video-text")).to_have_text(
        "Drawing a box is off: this model has no vision tower: it cannot be prompted by video. "
        "Texts and spans work."
    )
    expect(page.locator("#frame")).to_have_js_property("naturalWidth", 32)
    drag(page, "#screen", (0.25, 0.5), (0.75, 1.0))
    expect(page.locator("#box")).to_be_hidden()

    page.route(
        "**/api/model",
        lambda route: route.fulfill(json=route.fetch().json() | {"why_no_video": None}),
    )
    page.reload()
    page.wait_for_selector("body[data-ready]")
    choose(page, film, "film.mkv")
    expect(page.locator("#frame")).to_have_js_property("naturalWidth", 32)
    drag(page, "#screen", (0.25, 0.5), (0.75, 1.0))
    expect(page.locator("#side-0")).to_have_value("25")
    with page.expect_request("**/api/jobs") as sent:
        page.click("#separate")
    np.testing.assert_allclose(sent.value.post_data_json["box"], [0.25, 0.5, 0.75, 1], atol=0.01)
    expect(page.locator("#problem")).to_contain_text("this model has no vision tower")
