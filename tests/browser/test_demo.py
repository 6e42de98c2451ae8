"""`hf-audioformer demo` and the Space in a headless Chromium. `make test-browser` runs it, `make test` does not."""

import io
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import soundfile

from hf_audioformer import AudioFormerFeatureExtractor
from hf_audioformer.inference import AudioClassifier

from ..conftest import PROJECT_ROOT
from ..fixtures_recipes import SAMPLING_RATE, tone
from ..inference.tiny_classifiers import audioformer, spectrogram_transformer
from . import chromium

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]  # the first test waits for two servers

SECONDS = 0.8
ANSWER_MS = 90_000  # on a machine that has much else to do
# Chromium looks for accounts, updates and the time by itself, whatever the page is; no page asks these hosts for fonts.
CHROMIUMS_OWN = re.compile(r"^[A-Z]+ (https?://)?(?!fonts\.)[a-z0-9.-]*\.(google|googleapis|gvt1)\.com[:/]")


class Outside:
    """A proxy that answers nobody and keeps what it was asked for: every request to another host, of both sides."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                line = connection.recv(4096).decode(errors="replace").partition("\r\n")[0]
                if not CHROMIUMS_OWN.match(line):
                    self.asked.append(line)

    def environment(self) -> dict[str, str]:
        names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        return dict.fromkeys(names, self.url) | dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost")


@dataclass
class Site:
    """A page that is served, and the classifier whose answers it must give."""

    url: str
    model: str

    def best(self, file: str | Path) -> str:
        return AudioClassifier.from_pretrained(self.model, device="cpu")(file).top(1)[0]["label"]


@pytest.fixture(scope="module")
def outside() -> Outside:
    return Outside()


@pytest.fixture(scope="module")
def sites(
    tiny_extractor: AudioFormerFeatureExtractor, tmp_path_factory: pytest.TempPathFactory, outside: Outside
) -> Iterator[dict[str, Site]]:
    """`demo` for an AudioFormer, and the Space for an AST, both started together."""
    pytest.importorskip("gradio", reason="Gradio is not installed: make test-browser")
    model = audioformer(tmp_path_factory.mktemp("audioformer"), tiny_extractor)
    ast = spectrogram_transformer(tmp_path_factory.mktemp("ast"))
    here = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "MODEL")}
    here |= outside.environment() | {"GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("gradio"))}
    command = ["-m", "hf_audioformer", "demo", model, "--max_seconds", "5", "--port"]
    space = str(PROJECT_ROOT / "examples" / "space" / "app.py")
    with ExitStack() as stack:
        ports = [_free_port(), _free_port()]
        demo = stack.enter_context(_served([*command, str(ports[0])], here))
        app = stack.enter_context(_served([space], here | {"MODEL": ast, "GRADIO_SERVER_PORT": str(ports[1])}))
        yield {"demo": Site(_address(demo), model), "space": Site(_address(app), ast)}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextmanager
def _served(arguments: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=PROJECT_ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)


def _address(process: subprocess.Popen) -> str:
    """Where a page is served, once its process says so."""
    for line in process.stdout or ():
        if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
            return found[0]
    raise RuntimeError(f"the server ended with {process.wait()} before it served a page")


@pytest.fixture(scope="module")
def browser(outside: Outside) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-browser")
    program = chromium.find()
    if program is None:
        pytest.skip(f"none of {', '.join(chromium.PROGRAMS)} is installed: apt-get install chromium")
    with playwright.sync_playwright() as started:
        # Not Playwright's own `proxy`, which would catch what goes to this machine too.
        flags = [*chromium.FLAGS, f"--proxy-server={outside.url}"]
        opened = started.chromium.launch(executable_path=program, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, outside: Outside) -> Iterator[Any]:
    """A new page; what it requests of other hosts fails the test."""
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    opened.set_default_timeout(ANSWER_MS)
    hosts: list[str | None] = []
    opened.on("request", lambda request: hosts.append(urlsplit(request.url).hostname))
    yield opened
    opened.close()
    assert hosts
    assert set(hosts) <= {"127.0.0.1", None}, "None is a blob or data URL"
    assert outside.asked == []


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("clip") / "two_tones.wav"
    soundfile.write(file, tone(["low", "high"], seed=0, seconds=SECONDS), SAMPLING_RATE)
    return file


def upload(page: Any, file: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(file)


def label(page: Any) -> str:
    """The first label, once there is one."""
    found = page.get_by_test_id("label-output-value")
    found.wait_for()
    return found.inner_text().strip()


def pictures(page: Any, count: int) -> None:
    """Waits until so many pictures are shown, and no more."""
    page.wait_for_function(
        "count => { const all = [...document.querySelectorAll('img[alt]')].filter(one => one.alt.includes(' '));"
        " return all.length === count && all.every(one => one.naturalWidth > 300) }",
        arg=count,
    )


def test_upload_shows_label_pictures_and_sound(page: Any, sites: dict[str, Site], clip: Path, tmp_path: Path) -> None:
    page.goto(sites["demo"].url)
    with page.expect_request(lambda request: request.url.endswith("/audio.wav")) as after_the_codec:
        upload(page, clip)
    assert label(page) == sites["demo"].best(clip)
    pictures(page, 3)
    sound = soundfile.info(io.BytesIO(page.request.get(after_the_codec.value.url).body()))
    assert sound.duration == pytest.approx(SECONDS, abs=0.001)
    page.screenshot(path=tmp_path / "demo.png", full_page=True)
    height, width = (int.from_bytes((tmp_path / "demo.png").read_bytes()[at : at + 4]) for at in (20, 16))
    assert width == 1200
    assert height > 1200


def test_bad_and_long_files_are_refused_with_a_message(
    page: Any, sites: dict[str, Site], clip: Path, tmp_path: Path
) -> None:
    page.goto(sites["demo"].url)
    upload(page, clip)
    label(page)
    (tmp_path / "bad.wav").write_bytes(b"<img src='http://example.org/x.png'> is no sound")
    soundfile.write(tmp_path / "long.wav", tone(["low"], seed=0, seconds=6), SAMPLING_RATE)
    for name, message in (("bad.wav", "not readable as audio"), ("long.wav", "at most 5 s are taken here")):
        page.get_by_label("Clear").first.click()
        page.get_by_test_id("label-output-value").wait_for(state="detached")
        upload(page, tmp_path / name)
        alert = page.get_by_role("alert").filter(has_text=message)
        alert.wait_for()
        assert alert.inner_text().startswith(f"{name}: ")
        pictures(page, 0)


def test_examples_and_the_microphone(page: Any, sites: dict[str, Site]) -> None:
    page.goto(sites["demo"].url)
    page.get_by_role("button", name="left").click()
    label(page)
    pictures(page, 3)
    page.get_by_label("Clear").first.click()
    page.get_by_test_id("label-output-value").wait_for(state="detached")
    page.get_by_label("Record audio").click()
    page.locator("button.record-button").click()
    page.wait_for_timeout(1000)
    page.locator("button.stop-button").click()
    label(page)
    pictures(page, 3)


def test_the_space_shows_what_applies_to_another_model(page: Any, sites: dict[str, Site], clip: Path) -> None:
    page.goto(sites["space"].url)
    upload(page, clip)
    assert label(page) == sites["space"].best(clip)
    pictures(page, 2)
    assert page.get_by_text("After the codec").count() == 0


def test_requests_to_other_hosts_would_be_seen(browser: Any, outside: Outside) -> None:
    page = browser.new_page()
    page.goto("data:text/html,<link rel='preconnect' href='https://fonts.example.org'>")
    page.evaluate("fetch('http://example.org/').catch(() => null)")
    page.evaluate("fetch('https://fonts.googleapis.com/css').catch(() => null)")
    page.close()
    assert any("example.org" in line for line in outside.asked)
    assert any("fonts.googleapis.com" in line for line in outside.asked)
    outside.asked.clear()
