"""A real Chromium without a screen, driven over the pipe of its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
"""Empty where there is none."""
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-extensions --mute-audio "
    "--disable-background-networking --disable-component-update --remote-debugging-pipe"
)
_DEADLINE_S = 60.0


class Tab:
    """One page, and all that it complained of or asked for.

    Attributes:
        faults: console messages of warning and error, exceptions, violations of the page's policy.
        requests: addresses that the page asked for, its own file and `data:` left out.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers, self._rest, self._number = commands, answers, b"", 0
        self._events: list[dict[str, Any]] = []
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers; its error is raised."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + _DEADLINE_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            assert ready, "the browser does not answer"
            part = os.read(self._answers, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def open(
        self, page: Path, *, width: int = 1200, height: int = 900, is_dark: bool = False
    ) -> None:
        """Load a file in a window of this size, and wait until it says that it is ready."""
        self._events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.until("document.readyState === 'complete'")
        self.until("!document.querySelector('#viewer') || document.documentElement.dataset.ready")

    def until(self, condition: str) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while not self.get(condition):
            assert time.monotonic() < deadline, f"never came true: {condition}"
            time.sleep(0.01)

    def get(self, expression: str) -> Any:
        """The value of an expression, awaited."""
        done = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def press(self, key: str, code: int = 0) -> None:
        """A key that has a name, such as ArrowLeft, as a keyboard sends it."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def mouse(self, kind: str, x: float, y: float, buttons: int = 0) -> None:
        """`mousePressed`, `mouseMoved` or `mouseReleased`, at a place of the window."""
        held = {"button": "left" if buttons else "none", "buttons": buttons}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, clickCount=1, **held)

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        """`touchStart`, `touchMove` or `touchEnd`."""
        self.call(
            "Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y} for x, y in points]
        )

    def photograph(self, path: Path, *, is_whole: bool = True) -> None:
        """A PNG of the page, or of what is in the window."""
        options: dict[str, Any] = {"captureBeyondViewport": is_whole}
        if is_whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {**size, "scale": 1}
        data = self.call("Page.captureScreenshot", **options)["data"]
        path.write_bytes(base64.b64decode(data))

    @property
    def faults(self) -> list[str]:
        self.get("0")  # what was under way has arrived
        wrong = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [
            json.dumps(event["params"]) for event in self._events if event.get("method") in wrong
        ]

    @property
    def requests(self) -> list[str]:
        self.get("0")
        urls = [
            event["params"]["request"]["url"]
            for event in self._events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:")][1:]


@contextmanager
def chromium(folder: Path) -> Iterator[Tab]:
    """A browser with a profile of its own in a folder; it ends with the block."""
    own_in, commands = os.pipe()
    answers, own_out = os.pipe()
    words = shlex.join([CHROMIUM, *_FLAGS.split(), f"--user-data-dir={folder / 'profile'}"])
    # dash takes no descriptor above 9.
    process = subprocess.Popen(
        ["bash", "-c", f"exec {words} 3<&{own_in} 4>&{own_out}"],
        pass_fds=(own_in, own_out),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(own_in)
    os.close(own_out)
    try:
        yield Tab(commands, answers)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=_DEADLINE_S)
        os.close(commands)
        os.close(answers)
