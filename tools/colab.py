"""Does every notebook run in Colab: alone, from the wheel, with nothing else?

    python tools/colab.py                     three notebooks, which ones the commit decides: what continuous integration tries
    python tools/colab.py --all               every notebook (make colab, which also writes benchmarks/results/colab.json)
    python tools/colab.py --part 2/9          every ninth notebook, from the second on
    python tools/colab.py nbs/06_norm.ipynb   these notebooks

Each notebook gets a machine of its own, as in Colab: a fresh environment that holds only what Colab has (IPython 7.34, ipywidgets 7.7.1, anywidget 0.9.21, fastcore 2.2; torch and the
other large packages are links to those of this environment), neither dpgan nor nbdev, a stub of `google.colab` that is loaded before the first cell, and an empty folder with a copy of
the notebook. Every code cell runs, whatever its `#|` lines say, and the set-up cell's own `%pip install` installs dpgan: pip has no index there, only a folder with the wheel built from
this checkout. Python and torch are those of this environment, not Colab's.
"""
import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from importlib.metadata import Distribution, distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = Path(sysconfig.get_path("purelib"))
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
COLAB = ("ipywidgets==7.7.1", "jupyterlab_widgets==1.1.11", "widgetsnbextension==3.6.10", "ipython_genutils==0.2.0", "anywidget==0.9.21", "ipython==7.34.0", "ipykernel==6.17.1",
         "backcall==0.2.0", "pickleshare==0.7.5", "decorator==5.1.1")                                       # August 2026: widgets and kernel, also for JupyterLab 4
MORE = ("fastcore==2.2.39", "nest-asyncio==1.6.0", "notebook==6.5.7", "nbclassic==1.3.3", "jupyter_client==7.4.9", "entrypoints==0.4")
PREINSTALLED = ("torch", "torchvision", "numpy", "pillow", "matplotlib", "scipy", "safetensors", "tqdm", "accelerate", "typer", "transformers", "tensorboard", "requests", "pip", "setuptools")
STUB = '''"A stand-in for Colab's own package: notebooks ask whether it is loaded."
def load_ipython_extension(shell): "Loaded into the kernel before the first cell, and so in sys.modules."
'''
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/{user}/{repo}/blob/{branch}/{path})"


# ---- what Colab has

def kept(name: str, wanted: list[str], make) -> Path:
    "A folder among the temporary ones that `make` fills once, with what is `wanted`; by one process at a time, and others wait."
    root = Path(tempfile.gettempdir()) / f"dpgan-{os.getuid()}-{name}-{PYTHON}-{hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:8]}"
    with root.with_name(root.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (root / "made").exists(): return root
        shutil.rmtree(root, ignore_errors=True)   # what a process that was stopped left
        make(root)
        (root / "made").touch()
    return root


def pip(*arguments):
    "Run this environment's pip; a `LookupError` with what pip says where it finds no such package."
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True)
    if done.returncode: raise LookupError((done.stderr.strip() or done.stdout.strip() or "pip failed").splitlines()[-1])


def layered_python(packages: tuple[str, ...], name: str) -> Path:
    "A Python that finds these packages first, then everything else (torch above all) where this one does, and then the checkout."
    def make(root):
        venv.create(root, symlinks=True)
        pip("--python", root / "bin" / "python", "install", "--quiet", "--no-deps", *packages)
        [site] = root.glob("lib/python*/site-packages")
        places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(ROOT)}
        (site / "beneath.pth").write_text("\n".join(sorted(places)) + "\n")
    return kept(name, [*packages, sys.prefix, str(ROOT)], make) / "bin" / "python"


def normal(name: str) -> str: return re.sub(r"[-_.]+", "-", name).lower()


def installed(*places: Path) -> dict[str, Distribution]:
    "The distributions in some folders, by name; what stands in an earlier folder counts."
    return {normal(d.metadata["Name"]): d for place in reversed(places) for d in distributions(path=[str(place)])}


def with_requirements(names, found: dict[str, Distribution]) -> dict[str, Distribution]:
    "These distributions and all they require, as far as they are there."
    from packaging.requirements import Requirement
    chosen, todo, done = {}, [(normal(n), "") for n in names], set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in done or name not in found: continue
        done.add((name, extra))
        chosen[name] = found[name]
        for r in map(Requirement, found[name].requires or []):
            if not r.marker or r.marker.evaluate({"extra": extra}): todo += [(normal(r.name), e) for e in ("", *r.extras)]
    return chosen


def colab_packages() -> dict[str, Distribution]:
    "What is installed in Colab before a notebook runs: packages of Colab's versions, the others as they are here. Neither dpgan nor nbdev is among them."
    [layer] = layered_python(COLAB + MORE, "colab-kernel").parent.parent.glob("lib/python*/site-packages")
    return with_requirements([*(p.split("==")[0] for p in COLAB + MORE), *PREINSTALLED], installed(layer, SITE))


def links(packages: dict[str, Distribution]) -> dict[str, Path]:
    "What a site-packages folder needs to hold these packages: the place of each link, and what it points to."
    found = {}
    for d in packages.values():
        tops = {f.parts[0] for f in d.files if f.parts[0] not in ("..", "__pycache__") and not f.parts[0].endswith(".pth")}
        for top in tops:
            path = Path(d.locate_file(top))
            if top.endswith((".dist-info", ".egg-info")):   # without its list of files, so that pip can never remove through a link what belongs to this environment
                if path.is_dir(): found |= {f"{top}/{p.name}": p for p in path.iterdir() if p.name != "RECORD"}
            elif path.is_dir() and not (path / "__init__.py").exists(): found |= {f"{top}/{p.name}": p for p in path.iterdir() if p.name != "__pycache__"}   # several packages may share it
            else: found[top] = path
    return found


# ---- what the notebook installs

def build_wheel(out: Path):
    "Build the wheel of this checkout, from a copy, so that no build folder is left behind."
    with tempfile.TemporaryDirectory() as folder:
        for name in ("setup.py", "settings.ini", "MANIFEST.in", "README.md", "LICENSE", "constraints.txt"): shutil.copy(ROOT / name, folder)
        shutil.copytree(ROOT / "dpgan", Path(folder, "dpgan"), ignore=shutil.ignore_patterns("__pycache__"))
        pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", out, folder)


def extra_wheels(extras: set[str], there: dict[str, Distribution]) -> Path | None:
    "A folder with what the extras named in a notebook (`dpgan[export]`) need beyond what Colab has, in the versions of this environment."
    here, ini = installed(SITE), (ROOT / "settings.ini").read_text()
    names = [re.match(r"[\w.-]+", r)[0] for e in extras for r in re.search(rf"^{e}_requirements = (.*)$", ini, re.M)[1].split()]
    wanted = sorted(f"{name}=={d.version}" for name, d in with_requirements(names, here).items() if name not in there)
    return kept("wheels-" + "-".join(sorted(extras)), wanted, lambda root: pip("wheel", "--quiet", "--no-deps", "--wheel-dir", root, *wanted)) if wanted else None


class Colab:
    "Machines for notebooks, each fresh. Use it as a context: the wheel is in a folder of its own, which goes with it."

    def __init__(self):
        self.packages = colab_packages()
        self.links, self.folder = links(self.packages), tempfile.TemporaryDirectory(prefix="dpgan-colab-")
        build_wheel(Path(self.folder.name, "wheel"))

    def __enter__(self): return self
    def __exit__(self, *_): self.folder.cleanup()

    def machine(self, folder: Path, sources: list[str]) -> tuple[Path, dict[str, str]]:
        "A fresh environment in a folder; its Python, and the environment variables it starts with."
        venv.create(folder, symlinks=True)
        [site] = folder.glob("lib/python*/site-packages")
        for name, target in self.links.items():
            (site / name).parent.mkdir(exist_ok=True)
            (site / name).symlink_to(target)
        (site / "google" / "colab").mkdir(parents=True)
        (site / "google" / "colab" / "__init__.py").write_text(STUB)
        for name in ("content", "home", "tmp"): (folder / name).mkdir()
        extras = {e.strip() for s in sources for m in re.findall(r"dpgan\[([^\]]+)\]", s) if "%pip" in s for e in m.split(",")}
        wheels = [Path(self.folder.name, "wheel"), *filter(None, [extra_wheels(extras, self.packages)] if extras else [])]
        env = {k: os.environ[k] for k in ("LANG", "PYTHONDONTWRITEBYTECODE") if k in os.environ}
        env |= {"PATH": f"{folder / 'bin'}:/usr/local/bin:/usr/bin:/bin", "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "IPYTHONDIR": str(folder / "home" / ".ipython"),
                "JUPYTER_RUNTIME_DIR": str(folder / "home"), "MPLCONFIGDIR": str(Path(self.folder.name, "matplotlib")), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": " ".join(map(str, wheels)), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", "PIP_NO_COLOR": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1",
                "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        return folder / "bin" / "python", env

    def run(self, path: Path, timeout: float = 600) -> dict:
        "Run one notebook on a machine of its own; its name, the cells that ran, the seconds they took, and `error`: None, or which cell failed and how, with the end of its traceback in `details`."
        import nbformat
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import AsyncKernelManager
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
        nb, began, current = nbformat.read(path, 4), time.monotonic(), []
        with tempfile.TemporaryDirectory(prefix="dpgan-colab-") as name:
            folder, details = Path(name), ""
            python, env = self.machine(folder, [c.source for c in nb.cells if c.cell_type == "code"])
            shutil.copy(path, folder / "content")
            spec = folder / "kernels" / "colab"
            spec.mkdir(parents=True)
            argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}", "--ext", "google.colab", "--HistoryManager.enabled=False"]
            (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Colab", "language": "python"}))
            kernels = KernelSpecManager(kernel_dirs=[str(spec.parent)], ensure_native_kernel=False)
            client = NotebookClient(nb, km=AsyncKernelManager(kernel_name="colab", kernel_spec_manager=kernels), resources={"metadata": {"path": str(folder / "content")}},
                                    timeout_func=lambda cell: max(1, began + timeout - time.monotonic()), startup_timeout=int(timeout), force_raise_errors=True, skip_cells_with_tag="",
                                    on_cell_start=lambda cell, cell_index: current.append(cell), on_cell_executed=lambda cell, cell_index, execute_reply: refuse(cell))
            client.owns_km = True   # so that the kernel ends with the notebook
            try: client.execute(env=env)
            except CellExecutionError as e: error, details = f"{e.ename}: {e.evalue}", e.traceback
            except CellTimeoutError: error = f"not done after {timeout:.0f} s"
            except DeadKernelError: error = "the kernel died"
            except PipError as e: error = f"pip: {e}"
            except RuntimeError as e: error = f"the kernel did not start: {e}"
            else: error = None
        where = f"{current[-1].id}: " if current and error else ""
        text = re.sub(r"\x1b\[[0-9;]*m", "", details)
        return {"notebook": title(path), "cells": len(current), "seconds": time.monotonic() - began, "error": error and where + error.splitlines()[0], "details": "\n".join(text.splitlines()[-12:])}


class PipError(Exception): "What pip said: `%pip` in a cell raises nothing."


def refuse(cell):
    "Stop at a cell whose pip failed."
    text = "".join(o.get("text", "") for o in cell.outputs)
    if "%pip" in cell.source and (found := re.search(r"ERROR: (.*)", text)): raise PipError(found[1])


# ---- the badge

def badge(path: Path) -> str:
    "The line of Markdown that opens a notebook in Colab."
    ini = ConfigParser(delimiters=["="])
    ini.read(ROOT / "settings.ini", encoding="utf-8")
    return BADGE.format(path=path.resolve().relative_to(ROOT.resolve()).as_posix(), **{k: ini["DEFAULT"][k] for k in ("user", "repo", "branch")})


def add_badge(nb, path: Path):
    """Put the badge under a notebook's title, or mend it; a notebook that has it stays as it is.

    It leads the second cell: nbdev turns the first one into front matter, and what stands below title and subtitle there would be missing from the site. So an opening that does stands in the second cell, too."""
    from nbformat.v4 import new_markdown_cell
    line = badge(path)
    for cell in nb.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^\[!\[Open in Colab\].*$", cell.source, re.M)):
            cell.source = cell.source.replace(found[0], line)
            return
    found = re.fullmatch(r"(# .*\n\n> .*)(?:\n\n([\s\S]*))?", nb.cells[0].source.strip())
    if not found: raise SystemExit(f"{path}: the first cell is not `# Title`, an empty line, a one-line `> subtitle`")
    nb.cells[0].source, opening = found.groups()
    if opening or nb.cells[1].cell_type != "markdown":
        nb.cells.insert(1, new_markdown_cell("\n\n".join(filter(None, [line, opening])), id=re.sub(r"^\d+[a-z]?_", "", path.stem) + "-badge"))
    else: nb.cells[1].source = f"{line}\n\n{nb.cells[1].source}"


# ---- which notebooks

def notebooks() -> list[Path]:
    "Every notebook with code, in reading order, tutorials last."
    found = [p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts and not p.name.startswith("_")
             and '"cell_type": "code"' in p.read_text(encoding="utf-8")]
    return sorted(found, key=lambda p: (p.parent != ROOT / "nbs", p.name))


def title(path: Path) -> str: return path.resolve().relative_to(ROOT / "nbs").with_suffix("").as_posix() if path.resolve().is_relative_to(ROOT / "nbs") else path.stem


def commit() -> str:
    "The commit that is checked out, or the day where there is no git."
    try: done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    except OSError: return time.strftime("%F")
    return done.stdout.strip() if done.returncode == 0 else time.strftime("%F")


def part(every: list[Path], k: int, n: int) -> list[Path]:
    "The k-th of n parts, from 1 on, each spread over the whole book."
    if not 1 <= k <= n: raise SystemExit(f"there is no part {k} of {n}")
    return every[k - 1::n]


def rotating(every: list[Path], size: int = 3, key: str | None = None) -> list[Path]:
    "At most `size` notebooks, chosen by the commit: the same ones whenever this commit is checked, and all of them as commits go by."
    n = -(-len(every) // size)
    return part(every, int(hashlib.sha256((key or commit()).encode()).hexdigest(), 16) % n + 1, n)


def table(results: list[dict]) -> str:
    "One line a notebook."
    width = max(len(r["notebook"]) for r in results)
    rows = [f"{r['notebook']:{width}}  {r['cells']:5}  {r['seconds']:7.1f}  {r['error'] or 'ok'}" for r in results]
    return "\n".join([f"{'notebook':{width}}  cells  seconds  result", *rows])


def record(results: list[dict], jobs: int) -> dict:
    "What a file says of a run over notebooks: machine, revision, and for each notebook its cells, seconds and error."
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from environment import environment
    return {"environment": environment(), "notebooks_at_a_time": jobs, "threads_each": 1, "colab": [*COLAB, *MORE],
            "notebooks": [{"notebook": r["notebook"], "cells": r["cells"], "seconds": round(r["seconds"], 1), "error": r["error"]} for r in results]}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run notebooks as Colab would: alone, from the wheel, with nothing else.")
    parser.add_argument("notebook", nargs="*", type=Path, help="these notebooks; without them, three that the commit chooses")
    parser.add_argument("--all", action="store_true", help="every notebook of the book")
    parser.add_argument("--part", metavar="K/N", help="the K-th of N parts of the book")
    parser.add_argument("--badge", action="store_true", help="run nothing: put the Colab badge under the titles of these notebooks")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="how many at a time, one thread each (default %(default)s)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write what came out as JSON, with the machine and the revision")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="for one notebook (default %(default)s)")
    a = parser.parse_args(argv)
    chosen = a.notebook or (notebooks() if a.all or a.badge else part(notebooks(), *map(int, a.part.split("/"))) if a.part else rotating(notebooks()))
    if a.badge:
        import nbformat
        for path in chosen:
            nb = nbformat.read(path, 4)
            add_badge(nb, path)
            nbformat.write(nb, path)
        return 0
    with Colab() as colab, ThreadPoolExecutor(a.jobs) as pool:
        def run(path):
            result = colab.run(path, a.timeout)
            if len(chosen) > 1: print(f"{result['notebook']}: {result['error'] or 'ok'} ({result['cells']} cells, {result['seconds']:.0f} s)", file=sys.stderr, flush=True)
            return result
        results = list(pool.map(run, chosen))
    print(table(results))
    if a.record: a.record.write_text(json.dumps(record(results, a.jobs), indent=1) + "\n", encoding="utf-8")
    failed = [r for r in results if r["error"]]
    for r in failed: print(f"\n---- {r['notebook']}, {r['error']}\n{r['details']}")
    return bool(failed)


if __name__ == "__main__": sys.exit(main())
