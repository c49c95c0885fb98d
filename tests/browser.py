"""A headless Chromium by its DevTools protocol: open a page, size it, run JavaScript in it."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def found() -> str | None:
    """The command of a Chromium, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab. `errors`: exceptions and console errors of the page, and what could not be loaded."""

    def __init__(self, folder: Path) -> None:
        from websocket import create_connection

        options = ["headless=new", "remote-debugging-port=0", f"user-data-dir={folder}", "disable-gpu"]
        options += ["no-first-run", "hide-scrollbars", *(["no-sandbox"] if os.geteuid() == 0 else [])]
        command = [found(), *(f"--{option}" for option in options), "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = folder / "DevToolsActivePort"
        for _ in range(300):
            if port.exists() and port.read_text().count("\n"):
                break
            time.sleep(0.1)
        address = f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json/list"
        tabs = json.load(urllib.request.urlopen(address))
        tab = next(one for one in tabs if one["type"] == "page")
        self.socket = create_connection(tab["webSocketDebuggerUrl"], timeout=60, suppress_origin=True)
        self.numbers, self.errors, self.loaded = itertools.count(1), [], False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(20)

    def call(self, method: str, **parameters):
        """The result of a command; what happens meanwhile is noted."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := self._next()).get("id") != number:
            pass
        assert "error" not in message, message
        return message["result"]

    def _next(self):
        message = json.loads(self.socket.recv())
        match message.get("method"):
            case "Page.loadEventFired":
                self.loaded = True
            case "Runtime.exceptionThrown":
                self.errors.append(message["params"]["exceptionDetails"]["text"])
            case "Log.entryAdded" if message["params"]["entry"]["level"] == "error":
                self.errors.append(message["params"]["entry"]["text"])
            case "Runtime.consoleAPICalled" if message["params"]["type"] == "error":
                self.errors.append(str(message["params"]["args"]))
            case "Network.loadingFailed":
                self.errors.append(message["params"]["errorText"])
        return message

    def open(self, address: str, width: int = 1280, scheme: str = "light") -> None:
        """Load a page, all of it, at a width and in a colour scheme."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.errors, self.loaded = [], False
        self.call("Page.navigate", url=address)
        while not self.loaded:
            self._next()

    def run(self, script: str):
        """The value of an expression, awaited."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def picture(self, path: Path) -> None:
        """A PNG of the whole page."""
        height = min(self.run("document.documentElement.scrollHeight"), 12000)
        width = self.run("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
