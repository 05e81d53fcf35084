"""Notebooks in Colab: a few are run as they would be there (which ones, the commit decides; DPGAN_COLAB_PART=2/9 or all names others), and each says how to open it.

The check itself is tried on notebooks that work here and would not work there.
"""
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions
from pathlib import Path

import nbformat
import pytest
from browser import missing

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import colab  # noqa: E402

SETUP = '#| hide\n#| eval: false\nimport sys\nif "google.colab" in sys.modules:\n    %pip install -q dpgan'
PART = os.environ.get("DPGAN_COLAB_PART", "")
EVERY = colab.notebooks()
CHOSEN = EVERY if PART == "all" else colab.part(EVERY, *map(int, PART.split("/"))) if PART else colab.rotating(EVERY)


@pytest.fixture(scope="module")
def machines():
    try: made = colab.Colab()
    except LookupError as error: missing("Colab's packages cannot be had", f"a package index that has them ({error})")
    with made: yield made


@pytest.mark.parametrize("path", CHOSEN, ids=colab.title)
def test_notebook_runs_in_colab(machines, path):
    result = machines.run(path)
    assert result["error"] is None, f"{result['error']}\n{result['details']}"


# ---- the check itself

def write(path: Path, *sources: str) -> Path:
    "A notebook of code cells, named c0, c1, ..."
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s, id=f"c{i}") for i, s in enumerate(sources)]), path)
    return path


CASES = {
    "good": ([SETUP, "import dpgan, dpgan.config, ipywidgets, IPython", 'assert "site-packages" in dpgan.__file__ and ipywidgets.__version__ == "7.7.1" and IPython.__version__ == "7.34.0"',
              "import fastcore, matplotlib.pyplot as plt", 'assert fastcore.__version__ >= "2.2"\nplt.plot([1, 2])\nplt.show()', 'import os; assert os.listdir() == ["good.ipynb"]'], None),
    "nbdev": (["from nbdev.showdoc import *"], "c0: ModuleNotFoundError: No module named 'nbdev'"),
    "no_setup": (["import dpgan"], "c0: ModuleNotFoundError: No module named 'dpgan'"),
    "flagged": (["#| cuda\n#| eval: false\nraise RuntimeError('no GPU')"], "c0: RuntimeError: no GPU"),
    "local_file": (["open('images/demo.png')"], "c0: FileNotFoundError: [Errno 2] No such file or directory: 'images/demo.png'"),
    "neighbour": (["from helper import help"], "c0: ModuleNotFoundError: No module named 'helper'"),
    "other_package": (["%pip install -q no-such-package-of-dpgan"], "c0: pip: Could not find a version that satisfies the requirement no-such-package-of-dpgan (from versions: none)"),
    "endless": (["while True: pass"], "c0: not done after 8 s"),
    "killed": (["import os; os._exit(3)"], "c0: the kernel died"),
}


def test_what_works_here_and_not_there_is_found(machines, tmp_path):
    "The cases, from a folder with a neighbour and a picture; one test, so that two test processes do not both run them."
    (tmp_path / "helper.py").write_text("def help(): pass\n")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "demo.png").write_bytes(b"png")
    paths = {name: write(tmp_path / f"{name}.ipynb", *sources) for name, (sources, _) in CASES.items()}
    with ThreadPoolExecutor(2) as pool: found = dict(zip(paths, pool.map(lambda name: machines.run(paths[name], 8 if name == "endless" else 120), paths)))
    assert {name: r["error"] for name, r in found.items()} == {name: error for name, (_, error) in CASES.items()}
    lines = colab.table([found["good"], found["nbdev"]]).splitlines()
    assert len(lines) == 3 and re.fullmatch(r"good +6 +\d+\.\d  ok", lines[1]) and lines[2].endswith("No module named 'nbdev'")
    kept = colab.record([found["good"], found["nbdev"]], 2)
    assert [(r["notebook"], r["error"] is None) for r in kept["notebooks"]] == [("good", True), ("nbdev", False)] and kept["environment"]["torch"] and kept["notebooks"][0]["cells"] == 6
    assert "showdoc" in found["nbdev"]["details"] and "\x1b" not in found["nbdev"]["details"]


def test_this_environment_stays_as_it_is(machines):
    "A notebook's pip finds no list of files that it could remove of ours; what Colab does not have is not there."
    assert not [name for name in machines.links if name.endswith("RECORD")]
    assert {"torch", "numpy", "fastcore", "ipykernel"} <= machines.packages.keys() and not {"dpgan", "nbdev", "execnb", "ghapi", "pytest"} & machines.packages.keys()
    assert machines.packages["fastcore"].version.startswith("2.") and {d.version.split(".")[0] for d in distributions(path=[str(colab.SITE)]) if d.metadata["Name"] == "fastcore"} == {"1"}


def test_commits_take_turns():
    every = [Path(f"{i:02}") for i in range(28)]
    chosen = [colab.rotating(every, key=f"commit {i}") for i in range(200)]
    assert {p for c in chosen for p in c} == set(every) and {len(c) for c in chosen} <= {2, 3} and colab.rotating(every, key="commit 7") == chosen[7]
    assert sorted(p for k in range(1, 6) for p in colab.part(every, k, 5)) == every
    with pytest.raises(SystemExit, match="no part 6 of 5"): colab.part(every, 6, 5)
    assert len(colab.commit()) >= 10


# ---- badges

def badge_problems(path: Path) -> list[str]:
    nb = nbformat.read(path, 4)
    badges = [i for i, c in enumerate(nb.cells) for line in c.source.splitlines() if c.cell_type == "markdown" and line == colab.badge(path)]
    others = [c.id for c in nb.cells for m in re.findall(r"colab-badge|colab\.research", c.source) if colab.badge(path) not in c.source]
    setups = [c.id for c in nb.cells if c.cell_type == "code" and "google.colab" in c.source]
    wrong = [] if badges == [1] else [f"the second cell does not begin with the badge: python tools/colab.py --badge {path.relative_to(ROOT)}"]
    return wrong + [f"{i} has another badge" for i in others] + ([] if len(setups) == 1 else [f"set-up cells: {', '.join(setups) or 'none'}; there is to be one"])


@pytest.mark.parametrize("path", EVERY, ids=colab.title)
def test_badge_and_setup(path): assert not (wrong := badge_problems(path)), "\n".join(wrong)


def test_badge_names_its_notebook():
    assert colab.badge(ROOT / "nbs" / "tutorials" / "edit_and_resample.ipynb").endswith("/github/dpgan/dpgan/blob/main/nbs/tutorials/edit_and_resample.ipynb)")


@pytest.mark.parametrize("first, rest, wanted", [
    ("# T\n\n> s\n\nOpening.\n\nMore.", [], ["# T\n\n> s", "{}\n\nOpening.\n\nMore.", "1"]),
    ("# T\n\n> s", [], ["# T\n\n> s", "{}", "1"]),
    ("# T\n\n> s", ["Opening."], ["# T\n\n> s", "{}\n\nOpening.", "1"]),
    ("# T\n\n> s", ["[![Open in Colab](old.svg)](old.ipynb)\n\nOpening."], ["# T\n\n> s", "{}\n\nOpening.", "1"])])
def test_badge_is_put_once_under_the_title(first, rest, wanted):
    path, v4 = ROOT / "nbs" / "17_new.ipynb", nbformat.v4
    nb = v4.new_notebook(cells=[*map(v4.new_markdown_cell, [first, *rest]), v4.new_code_cell("1")])
    for _ in range(2):
        colab.add_badge(nb, path)
        assert [c.source for c in nb.cells] == [w.format(colab.badge(path)) for w in wanted]
    assert rest or nb.cells[1].id == "new-badge"


def test_badge_needs_a_title():
    with pytest.raises(SystemExit, match="first cell"): colab.add_badge(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), ROOT / "nbs" / "17_new.ipynb")
