"""Build the documentation site into _docs/: `python tools/docs.py` (`make docs`).

With Quarto on PATH, nbdev's own `nbdev_docs` does it. Without, the same notebooks, the same _quarto.yml and nbs/sidebar.yml are rendered by nbdev and smalldocs, in pure Python
and without network; `--offline` asks for that even where there is Quarto. Nothing is executed but imports and exported definitions, which nbdev needs for the signatures;
pictures and printed text are those saved in the notebooks.

Both work on a copy of the notebooks in build/site, in which exported cells show their code below their signature (`#| export` becomes `#| exports`: nbdev would show signatures
alone), a cell for each function, and the badge of Colab is a file of the site. _docs/ is replaced at the end and in one step, so it is always a whole site.
"""
import argparse
import ast
import base64
import hashlib
import html
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"
KATEX = TOOLS / "katex"
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
LOCAL_BADGE = "images/colab-badge.svg"
EXPORT = re.compile(r"^(#\s*\|\s*export)[ \t]*$", re.M)
HIDDEN = re.compile(r"^#\s*\|\s*(hide|default_exp)\b", re.M)
FIGURES = "figures"
LEFT_OUT = shutil.ignore_patterns(".*", "_docs", "_proc", "__pycache__", "nbdev.yml", "_[!q]*")
KNOWN_WARNINGS = ("output-file is not read", "format commonmark is not built", "html-math-method is ignored", "lightbox is ignored", "keep-md is ignored")


# ---- the copy that is built

def notebooks(folder: Path) -> list[Path]:
    "The notebooks of a folder, in order, as the site shows them."
    return sorted(p for p in folder.rglob("*.ipynb") if not any(part.startswith((".", "_")) for part in p.relative_to(folder).parts))


def text_of(cell: dict) -> str: return "".join(cell["source"])


def only_imports(source: str) -> bool:
    "Whether a cell that the site shows has imports and nothing else; those are folded away."
    if re.search(r"^\s*[%!]|^#\s*\|\s*(hide|include|echo|code-fold)\b", source, re.M): return False
    try: body = ast.parse(source).body
    except SyntaxError: return False
    return bool(body) and all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in body)


def one_each(source: str) -> list[str]:
    "An exported cell cut in front of its second, third, ... public definition, for nbdev puts the names of a cell in front of its code all at once."
    if not EXPORT.search(source): return [source]
    pieces, begin, lines = [], 0, source.splitlines()
    end, public = 0, False
    for node in ast.parse(source).body:
        is_public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
        if is_public and public: pieces, begin = [*pieces, "\n".join(lines[begin:end]).strip("\n")], end
        end, public = node.end_lineno, public or is_public
    pieces.append("\n".join(lines[begin:]).strip("\n"))
    return pieces[:1] + ["#| export\n" + piece for piece in pieces[1:]]


def folded(source: str) -> str: return '#| code-fold: true\n#| code-summary: "Imports"\n' + EXPORT.sub("", source).strip("\n")


def prepared(nb: dict, depth: int) -> dict:
    "A notebook as the site shows it: code of exported cells in view, and the badge of Colab from a file of the site. `depth`: folders between it and nbs/."
    kept, imports = [], None   # imports: the folded cell that further ones join, as long as nothing visible stands between
    for cell in nb["cells"]:
        text = text_of(cell)
        if cell["cell_type"] == "markdown": text = text.replace(BADGE, "../" * depth + LOCAL_BADGE)
        if cell["cell_type"] == "code" and only_imports(text):
            if imports:
                imports["source"] += "\n" + EXPORT.sub("", text).strip("\n")
                continue
            imports, text = cell, folded(text)
        elif not HIDDEN.search(text): imports = None
        if cell["cell_type"] == "code":
            *first, text = one_each(text)
            kept += [{**cell, "id": f"{cell['id']}-{n}", "outputs": [], "source": EXPORT.sub(r"\1s", piece)} for n, piece in enumerate(first)]
            text = EXPORT.sub(r"\1s", text)
        cell["source"] = text
        kept.append(cell)
    return nb | {"cells": kept}


def swallowed(nb: dict) -> bool:
    "Whether the first cell says more than title and subtitle: nbdev makes front matter of the whole cell and would drop the rest."
    first = nb["cells"][0] if nb["cells"] else {"cell_type": "code"}
    return first["cell_type"] == "markdown" and len([line for line in text_of(first).splitlines() if line.strip()]) > 2


def sidebar_problems(root: Path) -> list[str]:
    "Notebooks that nbs/sidebar.yml leaves out, and entries without a notebook."
    listed = re.findall(r"[\w/]+\.ipynb", (root / "nbs" / "sidebar.yml").read_text(encoding="utf-8"))
    there = [p.relative_to(root / "nbs").as_posix() for p in notebooks(root / "nbs")]
    return [f"nbs/sidebar.yml: {name} is missing" for name in there if name not in listed] + [f"nbs/sidebar.yml: {name} is no notebook" for name in listed if name not in there]


def stage(root: Path, folder: Path) -> None:
    "Copy what the site is made of into an empty folder, the notebooks prepared."
    folder.mkdir(parents=True)
    for name in ("_quarto.yml", "README.md"): shutil.copy(root / name, folder)
    (folder / "settings.ini").write_text((root / "settings.ini").read_text(encoding="utf-8").rstrip() + "\nrenderer = docs_card.Card\n", encoding="utf-8")
    shutil.copytree(root / "nbs", folder / "nbs", ignore=LEFT_OUT)
    for path in notebooks(folder / "nbs"):
        nb = json.loads(path.read_text(encoding="utf-8"))
        if swallowed(nb): print(f"{path.relative_to(folder)}: text below the subtitle is in the first cell, and nbdev drops it; give it a cell of its own", file=sys.stderr)
        path.write_text(json.dumps(prepared(nb, len(path.relative_to(folder / "nbs").parts) - 1)), encoding="utf-8")
    for line in sidebar_problems(root): print(line, file=sys.stderr)


# ---- with Quarto

def with_quarto(folder: Path) -> Path:
    "Run nbdev_docs in the copy; the folder of the site."
    (folder / "README.md").touch()   # newer than index.ipynb: tools/readme.py writes it, not Quarto
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    subprocess.run([sys.executable, "-c", "from nbdev.quarto import nbdev_docs; nbdev_docs()"], cwd=folder, env={**os.environ, "PATH": path, "PYTHONPATH": str(TOOLS)}, check=True)
    return folder / "_docs"


# ---- without

def offline(folder: Path) -> Path:
    "Process the notebooks with nbdev and render them with smalldocs; the folder of the site."
    os.chdir(folder)   # where nbdev looks for settings.ini
    if str(TOOLS) not in sys.path: sys.path.insert(0, str(TOOLS))   # docs_card
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    if not [e for e in entry_points(group="nbdev") if e.name == "dpgan"]: print("nbdev does not find the symbols of dpgan, so there will be no links to them: make install", file=sys.stderr)
    refresh_quarto_yml()
    processed = proc_nbs(folder / "nbs", n_workers=0)
    return render(processed)


class Pictures:
    "The pictures saved in notebooks, as files with the hash of their content as name."
    def __init__(self): self.files = {}

    def tag(self, mime: str, data: str, alt: str, size: dict) -> str:
        "An <img> for a picture of a cell; the path begins with a mark that `paths` replaces."
        content = base64.b64decode(data)
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.{mime.split('/')[1].replace('jpeg', 'jpg')}"
        self.files[name] = content
        own = measure(content)
        width = size.get("width") or own[0]
        height = size.get("height") or round(own[1] * width / own[0])
        pixels = " pixels" if mime == "image/png" and own[0] <= width <= 800 else ""   # no more pixels than it is wide: styles.css keeps them sharp on a fine screen
        return f'<img src="@{FIGURES}@{name}" alt="{html.escape(alt)}" width="{width}" height="{height}" loading="lazy" class="img-fluid{pixels}">'

    @staticmethod
    def paths(text: str, depth: int) -> str: return text.replace(f"@{FIGURES}@", "../" * depth + FIGURES + "/")


def measure(content: bytes) -> tuple[int, int]:
    "Width and height of a picture."
    from io import BytesIO
    from PIL import Image
    return Image.open(BytesIO(content)).size


def described(options: dict, n: int) -> str:
    "The alternative text of the n-th picture of a cell: its fig-alt, or else its caption."
    for key in ("fig-alt", "fig-cap"):
        value = options.get(key)
        if isinstance(value, list): value = value[min(n, len(value) - 1)] if value else None
        if value: return str(value)
    return ""


def render(folder: Path) -> Path:
    "Render a folder of processed notebooks with smalldocs, as Quarto would: its addresses, pictures as files, formulas and links that need no network."
    import smalldocs.layout
    import smalldocs.notebook
    import smalldocs.site
    from smalldocs.config import load
    pictures, output_html = Pictures(), smalldocs.notebook.output_html

    def output(out: dict, options: dict | None = None, n: int = 0) -> str:
        "One output of a cell, its picture as a file."
        text = output_html(out, options, n)
        for mime in ("image/png", "image/jpeg"):
            size = (out.get("metadata") or {}).get(mime) or {}
            text = re.sub(rf'<img [^>]*src="data:{mime};base64,([^"]+)"[^>]*>', lambda m: pictures.tag(mime, m[1], described(options or {}, n), size), text)
        return text

    class Site(smalldocs.site.Site):
        "A site with the addresses that nbdev wants (`output-file`), whose links to its own public address are relative."
        def read(self, src):
            page = super().read(src)
            if page.front.get("output-file"): page.out = src.with_name(str(page.front["output-file"]))
            page.body = Pictures.paths(page.body, len(src.parts) - 1)
            return page

        def resolve(self, href, page, record=True):
            home = str(self.project.website.get("site-url") or "").rstrip("/") + "/"
            if href.startswith(home) and len(home) > 1:
                path, _, symbol = href[len(home):].partition("#")
                out, anchor = PurePosixPath(unquote(path) or "index.html"), "" if symbol.startswith("_") or not symbol else "#" + symbol.split(".")[0]
                if any(p.out == out for p in self.pages.values()): return smalldocs.site.rel(out, page) + anchor   # private names and methods have no place of their own
                self.broken.append((str(page.src) if page else self.project.file, href))
            return super().resolve(href, page, record)

    smalldocs.notebook.output_html = output
    try:
        site = Site(load(folder), quiet=True)
        site.build()
    finally: smalldocs.notebook.output_html = output_html
    (site.out / FIGURES).mkdir(exist_ok=True)
    for name, content in pictures.files.items(): (site.out / FIGURES / name).write_bytes(content)
    shutil.copytree(KATEX, site.out / "site_libs" / "katex")
    for path in site.out.rglob("*.html"): path.write_text(finished(path.read_text(encoding="utf-8"), len(path.relative_to(site.out).parts) - 1), encoding="utf-8")
    for warning in site.warnings:
        if not any(known in warning for known in KNOWN_WARNINGS): print(f"smalldocs: {warning}", file=sys.stderr)
    return site.out


def finished(page: str, depth: int) -> str:
    "The HTML of a page with formulas from this site instead of from a network."
    import smalldocs.layout
    page = page.replace(f"{smalldocs.layout.KATEX}/contrib/auto-render.min.js", "../" * depth + "site_libs/katex/auto-render.min.js")
    return page.replace(smalldocs.layout.KATEX, "../" * depth + "site_libs/katex")


# ---- the whole

def replace(new: Path, target: Path) -> None:
    "Put a finished folder where another one may be; the old one goes only when the new one stands."
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists(): target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def build(root: Path, target: Path, use_quarto: bool) -> int:
    "Build the site of a project into a folder, which is only touched when all went well; the number of its pages."
    (target.parent / "build").mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="site-", dir=target.parent / "build"))   # on the same disk, so that it can be moved in one step
    here = Path.cwd()
    try:
        stage(root, work / "copy")
        made = with_quarto(work / "copy") if use_quarto else offline(work / "copy")
        pages = len(list(made.rglob("*.html")))
        if not (made / "index.html").is_file(): raise SystemExit(f"no index.html was built in {made}")
        replace(made, target)
        return pages
    finally:
        os.chdir(here)
        shutil.rmtree(work, ignore_errors=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Build the documentation site.")
    parser.add_argument("--out", type=Path, default=ROOT / "_docs", help="the folder of the site (default: _docs)")
    parser.add_argument("--offline", action="store_true", help="render without Quarto even where it is installed")
    args = parser.parse_args(argv)
    use_quarto = not args.offline and shutil.which("quarto") is not None
    if not use_quarto and sys.version_info < (3, 11): sys.exit("without Quarto the site needs Python 3.11 (its renderer does): make PYTHON=python3.12, or install Quarto")
    pages = build(ROOT, args.out.resolve(), use_quarto)
    print(f"{pages} pages in {posixpath.relpath(args.out)}, rendered {'by Quarto' if use_quarto else 'without Quarto'}")


if __name__ == "__main__": main()
