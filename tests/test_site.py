"The site: built once without Quarto, looked at as files and in a real browser; and the tools that build and check it, on small sites with faults."
import ast
import base64
import fcntl
import html
import json
import os
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

import browser

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import docs  # noqa: E402
import docs_check  # noqa: E402
import pictures  # noqa: E402
import readme  # noqa: E402

NOTEBOOKS = [p.relative_to(ROOT / "nbs").as_posix() for p in docs.notebooks(ROOT / "nbs")]
MODULES = sorted(p.stem for p in (ROOT / "dpgan").glob("*.py") if not p.stem.startswith("_"))


def need_smalldocs():
    "Skip (or fail, see `browser.missing`) where smalldocs is not installed; it needs Python 3.11."
    if sys.version_info < (3, 11): pytest.skip("smalldocs needs Python 3.11")
    try: import smalldocs  # noqa: F401
    except ImportError: browser.missing("smalldocs is not installed", "pip install smalldocs==0.5.4")


def need_chromium():
    "Skip (or fail) where there is no browser."
    browser.need_browser()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The site, built once for all processes of pytest: its folder, and what the build said."
    need_smalldocs()
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "site"   # beside the folders of all processes
    shared.mkdir(exist_ok=True)
    with open(f"{shared}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "_docs").is_dir():
            done = subprocess.run([sys.executable, ROOT / "tools" / "docs.py", "--offline", "--out", shared / "_docs"], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
            (shared / "said").write_text(done.stderr)
    return shared / "_docs"


@pytest.fixture
def page(site):
    "A page of a browser at the width of a desk, and the address of the site."
    need_chromium()
    with docs_check.served(site) as home, docs_check.chromium() as chromium:
        page = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.set_default_timeout(10_000)
        yield page, home


# ---- the site

def test_the_build_has_nothing_to_say(site): assert (site.parent / "said").read_text() == ""


def test_links_anchors_pictures_and_words(site): assert not docs_check.file_problems(site)


def test_every_page_in_the_browser(site):
    need_chromium()
    assert not docs_check.browser_problems(site)


def test_addresses_are_those_of_quarto(site):
    pages = {p.relative_to(site).as_posix() for p in site.rglob("*.html")}
    assert pages == {re.sub(r"\d+[a-z]?_(.*)\.ipynb$", r"\1.html", n).replace(".ipynb", ".html") for n in NOTEBOOKS} and {f"{m}.html" for m in MODULES} <= pages


@pytest.mark.parametrize("module", MODULES)
def test_a_page_shows_every_public_name_and_its_code(site, module):
    page = docs_check.read_page(site / f"{module}.html")
    tree = ast.parse((ROOT / "dpgan" / f"{module}.py").read_text())
    names = [n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")]
    text = re.sub(r"<[^>]+>", "", (site / f"{module}.html").read_text())
    assert names and not [n for n in names if n.lower() not in {i.lower() for i in page.ids}], "a signature is missing"
    assert not [n for n in names if not re.search(rf"(def|class) {n}\b", text)], "the code is missing"


def test_pictures_of_few_pixels_stay_squares():
    "A picture with no more pixels than it is wide is marked; one drawn for fine screens, and one that the page shrinks, are not."
    def tag(side, **size):
        png = BytesIO()
        Image.new("RGB", (side, side)).save(png, "PNG")
        return docs.Pictures().tag("image/png", base64.b64encode(png.getvalue()).decode(), "black", size)
    assert 'width="80" height="80"' in tag(40, width=80)
    assert "pixels" in tag(40) and "pixels" in tag(40, width=80, height=80) and "pixels" not in tag(80, width=40, height=40) and "pixels" not in tag(1000)


def test_the_sidebar_lists_every_notebook(): assert not docs.sidebar_problems(ROOT)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_notebook_loses_its_opening(name): assert not docs.swallowed(json.loads((ROOT / "nbs" / name).read_text()))


def test_bytes(site):
    assert sum(p.stat().st_size for p in site.rglob("*") if p.is_file()) < 40e6
    assert not [p.name for p in site.rglob("*.html") if 'src="data:' in p.read_text()], "pictures are files, which a browser can load later"
    assert max(p.stat().st_size for p in site.rglob("*.html")) < 600e3 and max(p.stat().st_size for p in (site / "figures").iterdir()) < 500e3


# ---- what a reader does

def test_the_first_screen_shows_results_and_the_explorer_in_motion(page):
    page, home = page
    page.goto(home)
    for name in ("explorer.png", "results.png"):
        box = page.locator(f"img[src$='{name}']").bounding_box()
        assert box["y"] + box["height"] <= 900 and box["width"] > 600, name
    assert Image.open(ROOT / "nbs" / "images" / "explorer.png").n_frames > 5


def test_search_leads_to_the_place(page):
    page, home = page
    page.goto(home + "norm.html")
    page.get_by_role("searchbox").first.fill("labelmix mask")
    found = page.locator(".search-result")
    found.first.wait_for()
    assert found.count() >= 2
    page.locator(".search-result[href*='losses.html']").first.click()
    page.wait_for_url("**/losses.html*")
    assert page.locator("#labelmix_mask").count() == 1


def test_dark_mode_is_dark_and_stays(page):
    page, home = page
    light = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3")
    page.goto(home + "norm.html")
    assert light() > 200
    page.locator(".quarto-color-scheme-toggle").first.click()
    page.wait_for_function("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((v, i) => i > 2 || +v < 60)")
    page.goto(home + "losses.html")
    assert light() < 60
    paper = page.locator(".cell-output-display img").first.evaluate("i => getComputedStyle(i).backgroundColor")
    assert paper == "rgb(255, 255, 255)", "figures have black letters on nothing"


def test_the_menu_of_a_phone(page):
    page, home = page
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(home + "norm.html")
    entry = page.locator(".sidebar-link", has_text="05 The label pyramid").first
    assert entry.bounding_box()["x"] < 0, "the list of pages hides the page"
    page.locator(".quarto-btn-toggle").first.click()
    browser.until(lambda: entry.bounding_box()["x"] >= 0, "the list of pages", 5)
    entry.click()
    page.wait_for_url("**/pyramid.html")


# ---- the checks can fail

FINE = '<!DOCTYPE html><html><head><title>A page</title></head><body><main><h1 id="top">A page</h1>{}</main></body></html>'


def small_site(folder, **pages):
    "A site of small pages."
    folder.mkdir(exist_ok=True)
    for name, body in {"index": "", **pages}.items(): (folder / f"{name}.html").write_text(FINE.format(body))
    Image.new("RGB", (4, 4)).save(folder / "there.png")
    return folder


GOOD = '<a href="other.html#top">x</a><a href="./">x</a><a href="#top">x</a><a href="https://example.org">x</a><img src="there.png" alt="black">'


def test_a_good_site_passes(tmp_path): assert not docs_check.file_problems(small_site(tmp_path, other=GOOD, index=GOOD))


@pytest.mark.parametrize("body, words", [
    ('<a href="gone.html">x</a>', "gone.html leads nowhere"), ('<a href="other.html#gone">x</a>', "no such place"), ('<a href="#gone">x</a>', "no such place"),
    ('<img src="gone.png" alt="a">', "gone.png leads nowhere"), ('<img src="there.png">', "no words"), ('<img src="there.png" alt=" ">', "no words"),
    ('<img src="https://example.org/a.png" alt="a">', "from elsewhere"), ('<script src="//example.org/a.js"></script>', "from elsewhere"),
    ('<link rel="stylesheet" href="https://example.org/a.css">', "from elsewhere")])
def test_a_fault_in_the_files_is_found(tmp_path, body, words):
    [wrong] = docs_check.file_problems(small_site(tmp_path, other=body))
    assert words in wrong and wrong.startswith("other.html")


def test_a_site_without_a_first_page_is_found(tmp_path):
    (tmp_path / "page.html").write_text(FINE.format("").replace("A page</title>", "</title>"))
    assert docs_check.file_problems(tmp_path) == ["there is no index.html", "page.html: no title"]


def test_faults_in_the_browser_are_found(tmp_path):
    need_chromium()
    site = small_site(tmp_path, wide='<div style="width: 500px">x</div>', fine='<div style="overflow: auto"><div style="width: 500px">x</div></div>', thrown="<script>nothing()</script>",
                      said="<script>console.error('no')</script>", gone='<img src="gone.png" alt="a">', away='<img src="http://example.org/a.png" alt="a">', math='<span class="math inline">\\(x\\)</span>')
    (tmp_path / "favicon.ico").write_bytes(b"")
    wrong = docs_check.browser_problems(site)
    found = lambda name, words: any(w.startswith(f"{name}.html") and words in w for w in wrong)
    assert found("wide", "wide on 390") and found("thrown", "nothing is not defined") and found("said", "console: no") and found("gone", "404") and found("gone", "cannot be shown")
    assert found("away", "asks for") and found("math", "left as it is") and not [w for w in wrong if w.startswith(("fine", "index"))]


# ---- the build

def small_project(root, **sources):
    "A project with few notebooks."
    (root / "nbs" / "images").mkdir(parents=True)
    names = ["index", *sources]
    settings = (ROOT / "settings.ini").read_text()
    (root / "settings.ini").write_text(settings)
    (root / "README.md").write_text("# x\n")
    (root / "_quarto.yml").write_text('project: {type: website, output-dir: _docs}\nformat: {html: {theme: litera, css: styles.css}}\nwebsite: {title: small, search: true, navbar: {search: true}}\nmetadata-files: [nbdev.yml, sidebar.yml]\n')
    (root / "nbs" / "_quarto.yml").symlink_to("../_quarto.yml")
    (root / "nbs" / "styles.css").write_text("")
    (root / "nbs" / docs.LOCAL_BADGE).write_text("<svg/>")
    (root / "nbs" / "sidebar.yml").write_text("website:\n  sidebar:\n    contents: [" + ", ".join(f"{n}.ipynb" for n in names) + "]\n")
    for name in names:
        cells = [nbformat.v4.new_markdown_cell(f"# {name.title()}\n\n> subtitle"), *sources.get(name, [])]
        for i, cell in enumerate(cells): cell["id"] = f"{name}-{i}"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}), root / "nbs" / f"{name}.ipynb")
    return root


def md(source): return nbformat.v4.new_markdown_cell(source)
def code(source, *outputs): return nbformat.v4.new_code_cell(source, outputs=list(outputs))


def build(root, **options):
    "Build a small project in a process of its own."
    call = f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import docs; from pathlib import Path; docs.build(Path({str(root)!r}), Path({str(root / '_docs')!r}), {options.pop('use_quarto', False)})"
    return subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, cwd=root, env={**os.environ, **options})


def picture(width=40):
    "A saved output that shows a picture twice as wide as its place."
    out = BytesIO()
    Image.fromarray(np.arange(width * 20 * 3, dtype=np.uint8).reshape(20, width, 3)).save(out, "png")
    import base64
    return nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(out.getvalue()).decode()}, metadata={"image/png": {"width": width // 2, "height": 10}})


def test_a_small_site(tmp_path):
    need_smalldocs()
    badge = f"[![Open in Colab]({docs.BADGE})](https://colab.research.google.com/github/x)"
    root = small_project(tmp_path / "p", **{"00_one": [
        md(badge + "\n\nOpening $x_1$ and\n\n$$y = z \\tag{1}$$\n\nSee [two](sub.ipynb#a-place) and [me](#later)."), code("#| export\nimport re"), code("import json"),
        code('#| export\ndef shout(\n    x, # words\n):\n    "Louder."\n    return x.upper()'), code('#| fig-cap: A caption\n#| fig-alt: "Some stripes"\nplot()', picture()), md("## Later\n\nText")],
        "sub": [md("## A place\n\nBack to [one](00_one.ipynb#later).")]})
    done = build(root)
    assert done.returncode == 0, done.stderr[-2000:]
    site = root / "_docs"
    assert sorted(p.name for p in site.glob("*.html")) == ["index.html", "one.html", "sub.html"] and not docs_check.file_problems(site)
    page = (site / "one.html").read_text()
    assert 'href="sub.html#a-place"' in page and 'href="one.html#later"' in (site / "sub.html").read_text() and "00_one" not in page + (site / "search.json").read_text()
    assert f'src="{docs.LOCAL_BADGE}"' in page and docs.BADGE not in page and "https://colab.research.google.com/github/x" in page and (site / docs.LOCAL_BADGE).is_file()
    assert "site_libs/katex/katex.min.js" in page and (site / "site_libs" / "katex" / "fonts").is_dir() and "jsdelivr" not in page
    text = re.sub(r"<[^>]+>", "", page)
    assert "return x.upper()" in text and 'id="shout"' in page and text.count("Imports") == 1 and "import re\nimport json" in html.unescape(text) and "#|" not in text
    [tag] = re.findall(r"<img [^>]*figures/[^>]*>", page)
    assert 'alt="Some stripes"' in tag and 'width="20"' in tag and 'loading="lazy"' in tag and "A caption" in page and len(list((site / "figures").iterdir())) == 1
    assert not (root / "_proc").exists() and not list((root / "build").iterdir()) and not (root / "nbs" / "nbdev.yml").exists(), "something was left behind"


def test_a_failing_build_leaves_the_old_site(tmp_path):
    need_smalldocs()
    root = small_project(tmp_path / "p", **{"00_one": [code("#| export\ndef f():\n    'Doc.'"), code("#| export\nimport no_such_module")]})
    (root / "_docs").mkdir()
    (root / "_docs" / "index.html").write_text("old")
    done = build(root)
    assert done.returncode != 0 and "no_such_module" in done.stderr and (root / "_docs" / "index.html").read_text() == "old" and [p.name for p in (root / "_docs").iterdir()] == ["index.html"]


def test_an_old_python_without_quarto_is_told_so(monkeypatch):
    monkeypatch.setattr(docs.shutil, "which", lambda name: None)
    monkeypatch.setattr(docs.sys, "version_info", (3, 10, 0))
    with pytest.raises(SystemExit, match="needs Python 3.11"): docs.main([])


def test_with_quarto_nbdev_calls_it(tmp_path):
    root = small_project(tmp_path / "p", **{"00_one": [md(f"![b]({docs.BADGE})"), code('#| export\ndef f():\n    "Doc."\n    return "code in view"')]})
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "quarto"
    stub.write_text('#!/bin/sh\necho "$@" >> "$QUARTO_LOG"\nmkdir -p _docs\ncp *.ipynb sidebar.yml _docs/\necho made > _docs/index.html\n')
    stub.chmod(0o755)
    log = tmp_path / "log"
    done = build(root, use_quarto=True, PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", QUARTO_LOG=str(log))
    assert done.returncode == 0, done.stderr[-2000:]
    assert log.read_text().split() == ["render", "--no-cache"], "once for the site, not for the README"
    assert (root / "_docs" / "index.html").read_text() == "made\n" and (root / "README.md").read_text() == "# x\n"
    seen = (root / "_docs" / "00_one.ipynb").read_text()
    assert "code in view" in seen and docs.LOCAL_BADGE in seen and "contents: [index.ipynb, 00_one.ipynb]" in (root / "_docs" / "sidebar.yml").read_text()


def test_the_sidebar_check_can_fail(tmp_path):
    root = small_project(tmp_path, one=[])
    assert not docs.sidebar_problems(root)
    (root / "nbs" / "one.ipynb").rename(root / "nbs" / "two.ipynb")
    assert docs.sidebar_problems(root) == ["nbs/sidebar.yml: two.ipynb is missing", "nbs/sidebar.yml: one.ipynb is no notebook"]


def test_functions_of_one_cell_are_cut_apart():
    cut = docs.one_each("#| export\nA = 1\ndef _a(): pass\n\n# of b\n@deco\ndef b():\n    return 1\nB = 2\n\n\n# of c\nclass C:\n    x = 1\n\n\ndef d(): pass\nd.x = 1")
    assert cut == ["#| export\nA = 1\ndef _a(): pass\n\n# of b\n@deco\ndef b():\n    return 1\nB = 2", "#| export\n# of c\nclass C:\n    x = 1", "#| export\ndef d(): pass\nd.x = 1"]
    assert docs.one_each("def a(): pass\ndef b(): pass") == ["def a(): pass\ndef b(): pass"] and docs.one_each("#| export\nA = 1") == ["#| export\nA = 1"]


def test_only_plain_imports_are_folded():
    fold = docs.only_imports
    assert fold("import re") and fold("#| export\nfrom os import path\nimport sys") and not fold("#| hide\nimport sys") and not fold("import re\nx = 1") and not fold("%pip install x") and not fold("")
    assert docs.folded("#| export\nimport re") == '#| code-fold: true\n#| code-summary: "Imports"\nimport re'
    assert docs.swallowed({"cells": [md("# A\n\n> b\n\nText")]}) and not docs.swallowed({"cells": [md("# A\n\n> b")]})


# ---- numbers of the README

RESULT = {"rows": [{"row": "plain", "seconds": 2.0}, {"row": "G: fast", "seconds": 0.75}], "by": {"CamVid judge": {"miou": 0.3829}}, "who": "AMD", "steps": 5500}


def test_numbers_of_the_landing_page_are_those_of_the_result_files():
    assert not readme.fill(ROOT / "nbs" / "index.ipynb", ROOT / "benchmarks" / "results", change=False), "run make readme"
    found = [m[5] for cell in nbformat.read(ROOT / "nbs" / "index.ipynb", 4).cells for m in readme.NUMBER.finditer(cell.source)]
    assert len(found) > 20 and all(found)
    text = (ROOT / "README.md").read_text()
    assert "<!--/-->" not in text and all(number in text for number in found)


def test_a_number_is_looked_up_and_a_stale_one_found(tmp_path):
    (tmp_path / "speed.json").write_text(json.dumps(RESULT))
    marks = {"rows[row=plain].seconds .1f": "2.0", "rows[row~fast].seconds *1000 .0f": "750", "by[~CamVid].miou *100 .1f": "38.3", "who s": "AMD", "steps ,d": "5,500", "rows[1].seconds .2f": None}
    for path, value in marks.items():
        text = f"It takes <!--speed {path}-->old<!--/--> s."
        if value: assert readme.filled(text, tmp_path) == f"It takes <!--speed {path}-->{value}<!--/--> s."
    with pytest.raises(KeyError, match="nothing fits"): readme.filled("<!--speed rows[row=none].seconds .1f-->1<!--/-->", tmp_path)
    nb = nbformat.v4.new_notebook(cells=[md("# T"), md("<!--speed steps d-->1<!--/-->")])
    for i, cell in enumerate(nb.cells): cell["id"] = f"cell-{i}"
    nbformat.write(nb, tmp_path / "index.ipynb")
    assert readme.fill(tmp_path / "index.ipynb", tmp_path, change=False) == ["cell-1"] and readme.fill(tmp_path / "index.ipynb", tmp_path, change=True) == ["cell-1"]
    assert readme.fill(tmp_path / "index.ipynb", tmp_path, change=False) == [] and "5500" in readme.render(tmp_path / "index.ipynb")[0]


def test_a_picture_with_words_of_its_own(tmp_path):
    text = readme.prose('![Caption.](images/a.png){fig-alt="Words" width=50%}')
    assert text == "![Words](nbs/images/a.png)\n\n*Caption.*"


# ---- pictures

def png(pixels, **options):
    "A picture as the bytes of a file."
    out = BytesIO()
    Image.fromarray(pixels).save(out, "png", **options)
    return out.getvalue()


def test_a_picture_is_packed_only_where_nobody_sees_it():
    rng = np.random.default_rng(0)
    few = rng.integers(0, 8, (60, 60), np.uint8)[..., None].repeat(3, 2) * 30
    noise = rng.integers(0, 256, (60, 60, 3), np.uint8)
    assert len(pictures.packed(png(few))) < 0.7 * len(png(few)) and np.array_equal(np.asarray(Image.open(BytesIO(pictures.packed(png(few)))).convert("RGB")), few)
    assert pictures.packed(png(noise)) == png(noise), "256 colours are not enough for this one"
    once = pictures.packed(png(few))
    assert pictures.packed(once) is once


def test_a_notebook_is_packed_and_stays_as_it_is(tmp_path):
    import base64
    few = png(np.random.default_rng(0).integers(0, 8, (60, 60), np.uint8)[..., None].repeat(3, 2) * 30)
    shown = nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(few).decode(), "text/plain": "é"}, metadata={"image/png": {"width": 30}})
    nb = nbformat.v4.new_notebook(cells=[md("# T"), code("plot()", shown)])
    for i, cell in enumerate(nb.cells): cell["id"] = f"cell-{i}"
    nbformat.write(nb, tmp_path / "a.ipynb")
    pictures.main([str(tmp_path / "a.ipynb")])
    new = nbformat.read(tmp_path / "a.ipynb", 4)
    assert len(new.cells[1].outputs[0].data["image/png"]) < len(nb.cells[1].outputs[0].data["image/png"])
    text = (tmp_path / "a.ipynb").read_text()
    nbformat.write(new, tmp_path / "b.ipynb")
    assert text == (tmp_path / "b.ipynb").read_text() and new.cells[1].outputs[0].metadata["image/png"]["width"] == 30, "Jupyter would write it in the same way"
