"""Is the site whole? `python tools/docs_check.py` (`make docs-check`) looks at the pages in _docs/, first as files, then in headless Chromium.

As files: every internal link leads to a page, every anchor to a place on it, every picture is there and says in words what it shows, nothing is loaded from elsewhere.
In the browser, at the width of a phone and of a desk: no error in the console, no failed request, no formula that KaTeX refuses, no page wider than the screen.

    python tools/docs_check.py --no-browser          the files alone
    python tools/docs_check.py --screenshots shots   also six pages, wide and narrow, and all twelve on one sheet: shots/site.png
"""
import argparse
import functools
import http.server
import os
import shutil
import sys
import threading
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = os.environ.get("DPGAN_CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "/usr/bin/chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
PHONE, DESK = 390, 1280
LOADED = {"img": ("src",), "script": ("src",), "link": ("href",), "source": ("src",), "video": ("src", "poster"), "iframe": ("src",), "object": ("data",), "embed": ("src",), "use": ("href",)}
SHOTS = {"landing": "index.html", "norm": "norm.html", "training": "training.html#a-run-on-scenes", "explorer": "explore.html#the-explorer-at-work", "tutorial": "tutorials/edit_and_resample.html#painting",
         "signatures": "losses.html#class_weights"}
BASE = "http://site.invalid/"   # stands for the site's folder where addresses are joined


# ---- the files

class PageReader(HTMLParser):
    "What a page links to, loads and shows, and the anchors it has."
    def __init__(self):
        super().__init__()
        self.ids, self.links, self.loads, self.silent, self.title, self.in_title = set(), [], [], [], "", False

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.in_title = tag == "title" or self.in_title and tag != "body"
        if a.get("id"): self.ids.add(a["id"])
        if tag == "a" and a.get("name"): self.ids.add(a["name"])
        if tag == "a" and a.get("href"): self.links.append(a["href"])
        if tag == "img" and not (a.get("alt") or "").strip() and a.get("aria-hidden") != "true": self.silent.append(a.get("src", ""))
        rels = (a.get("rel") or "").split()
        if tag == "link" and not {"stylesheet", "icon", "preload", "modulepreload"} & set(rels): return
        self.loads += [a[name] for name in LOADED.get(tag, ()) if a.get(name)]

    def handle_data(self, data): self.title += data if self.in_title else ""
    def handle_endtag(self, tag): self.in_title = self.in_title and tag != "title"


def read_page(path: Path) -> PageReader:
    "Parse one page."
    page = PageReader()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def short(address: str) -> str: return address if len(address) < 90 else address[:60] + "..."


def file_problems(site: Path) -> list[str]:
    "What is wrong with the files of a site, as sentences."
    pages = {p.relative_to(site).as_posix(): read_page(p) for p in sorted(site.rglob("*.html"))}
    wrong = [] if "index.html" in pages else ["there is no index.html"]
    for name, page in pages.items():
        if not page.title.strip(): wrong.append(f"{name}: no title")
        wrong += [f"{name}: the picture {short(src)} has no words (alt)" for src in page.silent]
        for kind, addresses in (("link", page.links), ("loads", page.loads)):
            for address in dict.fromkeys(addresses):
                whole, anchor = urldefrag(urljoin(BASE + name, address))
                if address.startswith(("data:", "javascript:", "mailto:")): continue
                if not whole.startswith(BASE):
                    if kind == "loads": wrong.append(f"{name}: loads {short(address)} from elsewhere")
                    continue
                target = unquote(urlsplit(whole).path).lstrip("/")
                if target.endswith("/") or not target: target += "index.html"
                if not (site / target).is_file(): wrong.append(f"{name}: {address} leads nowhere")
                elif anchor and target in pages and unquote(anchor) not in pages[target].ids: wrong.append(f"{name}: {address}: no such place on that page")
    return wrong


# ---- the browser

class Quiet(http.server.SimpleHTTPRequestHandler):
    "A file server that says nothing."
    def log_message(self, *args): pass


@contextmanager
def served(site: Path):
    "The address of a folder on this machine, while the block runs."
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try: yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def chromium():
    "A headless Chromium that reaches this machine and nothing else."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try: yield browser
        finally: browser.close()


LOOK = """async () => {
  const pictures = [...document.querySelectorAll('main img')];
  pictures.forEach(i => { i.loading = 'eager'; });
  await Promise.all(pictures.map(i => i.decode().catch(() => 0)));
  return {broken: pictures.filter(i => !i.naturalWidth).map(i => i.getAttribute('src')),
          formulas: [...document.querySelectorAll('.katex-error')].map(e => e.textContent),
          raw: [...document.querySelectorAll('span.math')].filter(e => !e.querySelector('.katex, math, mjx-container')).map(e => e.textContent)};
}"""
WIDE = """() => {
  const room = document.documentElement.clientWidth, all = [...document.querySelectorAll('main *')];
  if (document.documentElement.scrollWidth <= room && document.body.scrollWidth <= room) return [];
  return ['the page is ' + document.documentElement.scrollWidth + ' wide on ' + room,
          ...all.filter(e => e.getBoundingClientRect().right > room + 1).slice(0, 3).map(e => e.tagName.toLowerCase() + ' ' + (e.id || e.className || e.textContent.slice(0, 40)))];
}"""


def browser_problems(site: Path, names: list[str] | None = None) -> list[str]:
    "What is wrong with the pages of a site in a browser, as sentences."
    names = names or sorted(p.relative_to(site).as_posix() for p in site.rglob("*.html"))
    wrong, now = [], [""]
    with served(site) as home, chromium() as browser:
        context = browser.new_context(viewport={"width": PHONE, "height": 844})
        page = context.new_page()
        page.on("console", lambda m: wrong.append(f"{now[0]}: console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda e: wrong.append(f"{now[0]}: error: {e}"))
        page.on("requestfailed", lambda r: wrong.append(f"{now[0]}: request failed: {short(r.url)}"))
        page.on("response", lambda r: wrong.append(f"{now[0]}: {r.status} for {short(r.url)}") if r.status >= 400 else None)
        page.on("request", lambda r: wrong.append(f"{now[0]}: asks for {short(r.url)}") if not r.url.startswith((home, "data:", "blob:")) else None)
        for now[0] in names:
            page.set_viewport_size({"width": PHONE, "height": 844})
            page.goto(home + now[0], wait_until="load")
            seen = page.evaluate(LOOK)
            wrong += [f"{now[0]}: the picture {short(src)} cannot be shown" for src in seen["broken"]]
            wrong += [f"{now[0]}: KaTeX refuses {text}" for text in seen["formulas"]] + [f"{now[0]}: a formula was left as it is: {text}" for text in seen["raw"]]
            for width in (PHONE, DESK):
                page.set_viewport_size({"width": width, "height": 844})
                wrong += [f"{now[0]} at {width} pixels: {text}" for text in page.evaluate(WIDE)]
    return wrong


# ---- screenshots

def screenshots(site: Path, out: Path) -> None:
    "Six pages at the width of a desk and, at twice the pixels, of a phone; and a sheet of all."
    from PIL import Image
    out.mkdir(parents=True, exist_ok=True)
    with served(site) as home, chromium() as browser:
        for kind, width, height, scale in (("desk", DESK, 900, 1), ("phone", PHONE, 844, 2)):
            page = browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=scale).new_page()
            for name, address in SHOTS.items():
                page.goto(home + address, wait_until="load")
                page.wait_for_timeout(500)
                page.screenshot(path=out / f"{name}_{kind}.png")
    wide, narrow, gap = (960, 675), (312, 675), 16
    sheet = Image.new("RGB", (2 * (wide[0] + narrow[0]) + 5 * gap, 3 * (wide[1] + gap) + gap), "#8a929c")
    for n, name in enumerate(SHOTS):
        x, y = gap + n % 2 * (wide[0] + narrow[0] + 2 * gap), gap + n // 2 * (wide[1] + gap)
        for kind, size, left in (("desk", wide, x), ("phone", narrow, x + wide[0] + gap)): sheet.paste(Image.open(out / f"{name}_{kind}.png").convert("RGB").resize(size, Image.LANCZOS), (left, y))
    sheet.quantize(200, dither=Image.Dither.NONE).save(out / "site.png", optimize=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Check the built site.")
    parser.add_argument("site", nargs="?", type=Path, default=ROOT / "_docs", help="the folder of the site (default: _docs)")
    parser.add_argument("--no-browser", action="store_true", help="look at the files alone")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="take pictures of six pages")
    args = parser.parse_args(argv)
    if not args.site.is_dir(): sys.exit(f"there is no {args.site}: build it with make docs")
    if (not args.no_browser or args.screenshots) and not Path(CHROMIUM).exists(): sys.exit("there is no Chromium on this machine: DPGAN_CHROMIUM names one, --no-browser leaves it out")
    wrong = file_problems(args.site)
    if not args.no_browser: wrong += browser_problems(args.site)
    if args.screenshots: screenshots(args.site, args.screenshots)
    print("\n".join(wrong), end="\n" if wrong else "")
    print(f"{len(list(args.site.rglob('*.html')))} pages, {len(wrong)} things wrong")
    if wrong: sys.exit(1)


if __name__ == "__main__": main()
