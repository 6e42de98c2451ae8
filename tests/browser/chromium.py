"""Where an installed Chromium is, and how it is started so that it asks nobody for anything by itself."""

import shutil

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),  # a microphone that beeps
)


def find() -> str | None:
    """The path of the first one installed, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)
