"""A real browser in front of a real JupyterLab, for tests: both on this machine, and nothing they ask for leaves it.

Chromium is Debian's (`apt-get install -y --no-install-recommends chromium`), driven by Playwright (`pip install playwright`); no other browser is downloaded.
DPGAN_CHROMIUM names another one.
"""
import base64
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import colab  # noqa: E402
from colab import COLAB  # noqa: E402, F401
from docs_check import CHROMIUM, FLAGS  # noqa: E402

INSTALL = "apt-get install -y --no-install-recommends chromium && pip install playwright anywidget jupyterlab"


def missing(what: str, how: str):
    "Skip a test that lacks something, saying how to get it; in continuous integration (CI=true) nothing may lack, and it fails."
    reason = f"{what}; get it with: {how}"
    pytest.fail(reason) if os.environ.get("CI", "").lower() == "true" else pytest.skip(reason)


def need_browser():
    "Skip (or fail, see `missing`) where there is no browser to test with."
    if not Path(CHROMIUM).exists(): missing(f"there is no Chromium at {CHROMIUM}", INSTALL)
    for package in ("playwright", "anywidget", "jupyterlab"):
        try: __import__(package)
        except ImportError: missing(f"the package {package} is not installed", INSTALL)


def until(condition, what: str, seconds: float = 40):
    "Wait until a condition holds and return what it returns; an `AssertionError` that says what was waited for where it takes too long."
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.1)
    return found


def layered_python(packages: tuple[str, ...], name: str) -> Path:
    "`colab.layered_python`, which skips where the packages cannot be had (fails in continuous integration)."
    try: return colab.layered_python(packages, name)
    except LookupError as error: missing(f"pip found no {', '.join(packages)}", f"a package index that has them ({error})")


# ---- JupyterLab

def notebook_of(*sources: str) -> nbformat.NotebookNode:
    "A notebook of code cells."
    spec = {"display_name": "python3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources], metadata={"kernelspec": spec})


class Lab:
    "A JupyterLab server of its own: own port, token and settings, one folder."

    def __init__(self, folder: Path, python: Path | str = sys.executable):
        self.folder, self.token = folder, secrets.token_hex(16)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        home, self.work = folder / "home", folder / "work"
        self.work.mkdir(parents=True)
        own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython",
               "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
        env = {"OMP_NUM_THREADS": "1", **os.environ, "JUPYTERLAB_DIR": str(Path(sys.prefix, "share", "jupyter", "lab")), **{k: str(home / v) for k, v in own.items()}}
        env = {k: v for k, v in env.items() if k not in ("JUPYTER_PATH", "PYTHONPATH")}
        env["JUPYTER_CONFIG_PATH"] = str(Path(sys.prefix, "etc", "jupyter"))  # the server's own extensions, also for a layered Python
        news = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
        news.parent.mkdir(parents=True)
        news.write_text('{"fetchNews": "false", "checkForUpdates": false}')
        options = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.work}",
                   f"--IdentityProvider.token={self.token}", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None", "--LabApp.extension_manager=readonly",
                   "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
        self.log = folder / "jupyterlab.log"
        with self.log.open("w") as log: self.process = subprocess.Popen([python, "-m", "jupyterlab", *options], cwd=self.work, env=env, stdout=log, stderr=subprocess.STDOUT)

    def url(self, path: str) -> str: return f"http://127.0.0.1:{self.port}/{path}?token={self.token}"

    def answers(self) -> bool:
        "Whether the server is up."
        assert self.process.poll() is None, f"JupyterLab has ended:\n{self.log.read_text()[-3000:]}"
        try: return urllib.request.urlopen(self.url("api"), timeout=5).status == 200
        except OSError: return False

    def stop(self):
        "End the server, and its kernels with it."
        self.process.terminate()
        try: self.process.wait(20)
        except subprocess.TimeoutExpired: self.process.kill()


# ---- the page

IDLE = """() => { const s = window.jupyterapp?.shell.currentWidget?.sessionContext, k = s?.session?.kernel;
                   return Boolean(s?.isReady && k?.connectionStatus === 'connected' && k.status === 'idle'); }"""
PIXELS = """name => { const c = document.querySelector(`canvas[aria-label="${name}"]`);
                      if (!c || !c.width || !c.height) return [0, 0, ""];
                      const bytes = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
                      let text = "";
                      for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
                      return [c.height, c.width, btoa(text)]; }"""


class Page:
    "A notebook open in JupyterLab, with an explorer in it."

    def __init__(self, page, lab: Lab, pictures: Path):
        self.page, self.lab, self.pictures, self.taken = page, lab, pictures, 0
        self.errors, self.outside = [], []
        page.set_default_timeout(40_000)
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.on("request", lambda r: self.outside.append(r.url) if urlsplit(r.url).scheme not in ("data", "blob") and urlsplit(r.url).hostname != "127.0.0.1" else None)

    def open(self, notebook: str):
        "Open a notebook and wait for its kernel."
        self.page.goto(self.lab.url(f"lab/tree/{notebook}"))
        self.page.wait_for_function(IDLE, timeout=60_000)
        self.page.evaluate("jupyterapp.shell.collapseLeft()")

    def run(self):
        "Run all cells and wait for the explorer."
        self.page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
        self.ready()

    def ready(self):
        "Wait for the explorer to show its picture."
        error = self.page.locator("[data-mime-type='application/vnd.jupyter.error']")
        until(lambda: self.canvas("Picture").count() or error.count(), "an explorer in the notebook", 60)
        assert not error.count(), error.first.inner_text()
        until(lambda: self.pixels("Picture").any(), "a first picture")

    def pixels(self, name: str) -> np.ndarray:
        "The pixels of one of the two canvases: uint8 (H, W, 3)."
        height, width, rgba = self.page.evaluate(PIXELS, name)
        return np.frombuffer(base64.b64decode(rgba), np.uint8).reshape(height, width, 4)[..., :3]

    def stable(self, name: str, still: float = 0.6) -> np.ndarray:
        "The pixels of a canvas once they have not changed for a while, and nothing is being drawn."
        last, since = self.pixels(name), time.monotonic()
        while time.monotonic() - since < still or self.page.locator(".dpgan-busy").count():
            time.sleep(0.1)
            now = self.pixels(name)
            if not np.array_equal(now, last): last, since = now, time.monotonic()
        return last

    def changed(self, name: str, old: np.ndarray, seconds: float = 40) -> np.ndarray:
        "The pixels of a canvas once they differ from these, and have settled."
        until(lambda: not np.array_equal(self.pixels(name), old), f"a change of the canvas {name}", seconds)
        return self.stable(name)

    def reload(self):
        "Save the notebook, load the page again, and wait for the explorer to be there as before."
        self.page.evaluate("jupyterapp.commands.execute('docmanager:save')")
        self.page.reload()
        self.page.wait_for_function(IDLE, timeout=60_000)
        self.ready()

    def place(self, row: int, col: int) -> dict:
        "Where a pixel of the label map is on its canvas."
        box, (height, width) = self.canvas("Label map").bounding_box(), self.pixels("Label map").shape[:2]
        return {"x": (col + 0.5) / width * box["width"], "y": (row + 0.5) / height * box["height"]}

    def canvas(self, name: str): return self.page.locator(f"canvas[aria-label='{name}']")

    def click(self, row: int, col: int, **options): self.canvas("Label map").click(position=self.place(row, col), **options)

    def drag(self, points: list[tuple[int, int]]):
        "Press on the first pixel, move over the others, let go on the last."
        self.canvas("Label map").scroll_into_view_if_needed()
        box = self.canvas("Label map").bounding_box()
        where = [(box["x"] + p["x"], box["y"] + p["y"]) for p in (self.place(*p) for p in points)]
        self.page.mouse.move(*where[0])
        self.page.mouse.down()
        for p in where[1:]: self.page.mouse.move(*p, steps=4)
        self.page.mouse.up()

    def touch(self, first: list[tuple[int, int]], second: list[tuple[int, int]]):
        "Two fingers, the second a little later, each from one pixel to another."
        self.canvas("Label map").scroll_into_view_if_needed()
        box, events = self.canvas("Label map").bounding_box(), self.page.context.new_cdp_session(self.page)
        where = lambda finger, p: {"id": finger, **{axis: box[axis] + offset for axis, offset in self.place(*p).items()}}
        steps = [("touchStart", [where(0, first[0])]), ("touchStart", [where(0, first[0]), where(1, second[0])]), ("touchMove", [where(0, first[1]), where(1, second[1])]), ("touchEnd", [])]
        for kind, points in steps: events.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def shows(self, name: str, wanted: np.ndarray):
        "Wait until a canvas shows exactly these pixels."
        until(lambda: np.array_equal(self.pixels(name), wanted), f"the expected pixels on the canvas {name}")

    def press(self, name: str): self.page.get_by_role("button", name=name, exact=True).click()

    def picture(self, name: str):
        "Keep a screenshot."
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.taken += 1
        self.page.screenshot(path=self.pictures / f"{self.taken:02}_{name}.png")


@contextmanager
def open_lab(folder: Path, notebook, pictures: Path, python: Path | str = sys.executable, viewport=(1400, 1150)):
    "A `Page` with a notebook, in a browser and a server of their own; both end with the block. A failure keeps a screenshot."
    from playwright.sync_api import sync_playwright
    lab = Lab(folder, python)
    try:
        nbformat.write(notebook, lab.work / "explore.ipynb")
        until(lab.answers, "JupyterLab to answer", 60)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
            page = Page(browser.new_page(viewport=dict(zip(("width", "height"), viewport)), accept_downloads=True), lab, pictures)
            try:
                page.open("explore.ipynb")
                yield page
            except BaseException:
                page.picture("failure")
                raise
            finally: browser.close()
    finally: lab.stop()
