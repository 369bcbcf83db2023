"""A real Chromium that looks at the page, steered over standard input: a command a line, an answer a line, all JSON.

It runs in an environment that has Playwright, so it imports nothing of Headrace. What it says of pictures it has read from the video's
pixels, each time the browser put a new one on the screen.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

SCRIPTS = Path(__file__).parent / "pictures.js"
WEBRTC = Path(__file__).parent / "webrtc.js"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--disable-background-networking",
    "--disable-component-update", "--disable-default-apps", "--disable-sync", "--no-first-run", "--disable-extensions",
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",  # a camera that shows a moving picture
]  # fmt: skip
_WAIT_MS = 30_000


class Chromium:
    """The commands. Each one's result is its answer."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._pages: list[Page] = []
        self._errors: list[str] = []

    @property
    def _page(self) -> Page:
        return self._pages[-1]

    def version(self) -> str:
        found: str = self._browser.version
        return found

    def open(self, url: str, scheme: str = "light", width: int = 1280, height: int = 860, *, phone: bool = False) -> None:
        """Another page, in a context of its own."""
        context = self._browser.new_context(
            color_scheme="dark" if scheme == "dark" else "light", viewport={"width": width, "height": height},
            device_scale_factor=2 if phone else 1, is_mobile=phone, has_touch=phone,
        )  # fmt: skip
        context.set_default_timeout(_WAIT_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: self._errors.append(str(error)))
        page.on("console", self._said)
        page.goto(url)
        page.evaluate(SCRIPTS.read_text("utf-8"))
        self._pages.append(page)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._errors.append(message.text)

    def close(self) -> None:
        self._pages.pop().context.close()

    def errors(self) -> list[str]:
        """What pages have complained of since the last call."""
        found, self._errors = self._errors, []
        return found

    def ask(self, prompt: str) -> None:
        """Type a prompt and press Enter, as a viewer does."""
        self._page.fill("#prompt", prompt)
        self._page.press("#prompt", "Enter")

    def click(self, selector: str) -> None:
        self._page.click(selector)

    def choose(self, selector: str, value: str) -> None:
        self._page.select_option(selector, value)

    def fill(self, selector: str, value: str) -> None:
        self._page.fill(selector, value)

    def attach(self, selector: str, path: str) -> None:
        self._page.set_input_files(selector, path)

    def show_settings(self, *, shown: bool) -> None:
        self._page.evaluate("(shown) => { document.getElementById('settings').open = shown; }", shown)

    def text(self, selector: str) -> str:
        found: str = self._page.inner_text(selector)
        return found

    def attribute(self, selector: str, name: str) -> str | None:
        found: str | None = self._page.get_attribute(selector, name)
        return found

    def wait_text(self, selector: str, text: str, within_ms: int = _WAIT_MS) -> None:
        give = {"selector": selector, "text": text}
        asked = "({selector, text}) => document.querySelector(selector)?.innerText.includes(text)"
        self._page.wait_for_function(asked, arg=give, timeout=within_ms)

    def wait(self, milliseconds: int) -> None:
        self._page.wait_for_timeout(milliseconds)

    def picture(self, colour: list[int], within_ms: int = _WAIT_MS) -> dict[str, Any]:
        """When, after the prompt was sent, the first picture with this background was painted; see `pictures.js`."""
        found: dict[str, Any] = self._page.evaluate("([colour, within]) => pictures.until(colour, within)", [colour, within_ms])
        return found

    def seen(self) -> dict[str, Any]:
        """Pictures that were painted since the last call."""
        found: dict[str, Any] = self._page.evaluate("() => pictures.seen()")
        return found

    def margin(self, header: str, old: list[str], new: list[str], chunk: int, fps: int, target: int, ahead: int) -> int | None:
        """See `pictures.margin`."""
        given = [header, old, new, chunk, fps, target, ahead]
        found: int | None = self._page.evaluate("(given) => pictures.margin(...given)", given)
        return found

    def webrtc(self, name: str, given: list[Any]) -> Any:
        """A function of `webrtc.js`, which is put into the page with the first call."""
        if not self._page.evaluate("() => 'webrtc' in globalThis"):
            self._page.evaluate(WEBRTC.read_text("utf-8"))
        return self._page.evaluate("([name, given]) => webrtc[name](...given)", [name, given])

    def screenshot(self, path: str, *, whole: bool = True) -> None:
        self._page.screenshot(path=path, full_page=whole)

    def accessible(self) -> str:
        """The page as a screen reader has it."""
        found: str = self._page.locator("body").aria_snapshot()
        return found

    def focused(self, key: str) -> str:
        """Press a key, and say which element has the focus then."""
        self._page.keyboard.press(key)
        found: str = self._page.evaluate("() => document.activeElement?.id || document.activeElement?.tagName || ''")
        return found


def main() -> None:
    program = os.environ.get("HEADRACE_CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        chromium = Chromium(browser)
        for line in sys.stdin:
            asked = json.loads(line)
            command: Callable[..., object] = getattr(chromium, asked.pop("do"))
            try:
                answer = {"answer": command(**asked)}
            except Exception as error:  # noqa: BLE001 - whatever it is, the other side is told
                answer = {"error": f"{type(error).__name__}: {error}"[:2000]}
            print(json.dumps(answer), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
