"""The habits of a project of notebooks: clean when committed, merged cell by cell.

    python tools/notebooks.py clean        clean every notebook (make clean-nbs)
    python tools/notebooks.py hooks        install the habits in this clone (make does it)
    python tools/notebooks.py pre-commit   what the git hook runs: clean the notebooks of a commit

A clean notebook has no execution counts, no editor metadata, and no view of a widget where a picture of it is saved beside. Outputs and cell ids stay.
Only .git/config and .venv are written to, never the home folder or the settings of other projects.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VIEW = "application/vnd.jupyter.widget-view+json"
HOOKS = ".githooks"
DRIVER = "if [ -x .venv/bin/nbdev_merge ]; then .venv/bin/nbdev_merge %O %A %B %P; else git merge-file %A %O %B; fi"
SHARP = '''\
# Written by tools/notebooks.py: figures are drawn with twice the pixels (tools/pictures.py packs them afterwards).
c.InlineBackend.figure_formats = {"retina"}
'''


# ---- clean

def drop_views(path: Path) -> None:
    "Remove from a notebook's outputs the views of widgets that have a picture beside them: the widget is gone when the kernel is."
    text = path.read_text(encoding="utf-8")
    if VIEW not in text: return
    from execnb.nbio import read_nb, write_nb
    nb = read_nb(path)
    for output in (o for cell in nb.cells for o in cell.get("outputs", [])):
        data = output.get("data", {})
        if "image/png" in data: data.pop(VIEW, None)
    write_nb(nb, path)


def clean(folder: Path, root: Path = ROOT) -> None:
    "Clean the notebooks in a folder, with the settings of this project."
    subprocess.run([Path(sys.executable).parent / "nbdev_clean", "--fname", folder], cwd=root, check=True)
    for path in folder.rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in path.parts: drop_views(path)


# ---- git

def git(*arguments, root: Path = ROOT) -> bytes:
    "What a git command prints; raises `CalledProcessError` where it fails."
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True).stdout


def setting(name: str, root: Path) -> str:
    "A setting of git, empty where it is not set."
    return subprocess.run(["git", "config", "--get", name], cwd=root, capture_output=True, text=True).stdout.strip()


def unresolved(content: bytes) -> str | None:
    "Why a notebook cannot be committed; None where it can."
    try: cells = json.loads(content)["cells"]
    except (ValueError, KeyError): return "is no notebook: a merge has left its marks in it? (.venv/bin/nbdev_fix turns them into cells)"
    if any("".join(c["source"]).startswith("`<<<<<<<") for c in cells): return "holds cells of a merge that is not resolved: look for `<<<<<<<`"


def pre_commit(root: Path = ROOT) -> int:
    "Clean the notebooks of the commit that is being made. Refuses, with a reason, what it cannot clean; returns the exit status."
    names = [n for n in git("diff", "--cached", "--name-only", "--diff-filter=ACMR", "-z", "--", "*.ipynb", root=root).decode().split("\0") if n]
    staged = {name: git("show", f":{name}", root=root) for name in names}
    refused = [f"{name} {why}" for name, content in staged.items() if (why := unresolved(content))]
    if staged and not refused:
        with tempfile.TemporaryDirectory() as folder:
            copies = {name: Path(folder, f"{i}.ipynb") for i, name in enumerate(names)}
            for name, path in copies.items(): path.write_bytes(staged[name])
            clean(Path(folder), root)
            dirty = {name: path.read_bytes() for name, path in copies.items() if path.read_bytes() != staged[name]}
        index = Path(os.environ.get("GIT_INDEX_FILE", "index")).name
        for name, content in dirty.items():
            if index not in ("index", "index.lock") or (root / name).read_bytes() != staged[name]:   # git commit FILE, or a file that is staged in part
                refused.append(f"{name} is not clean (execution counts, editor metadata, views of widgets): run make clean-nbs, git add it, commit again")
                continue
            (root / name).write_bytes(content)
            git("add", "--", name, root=root)
            print(f"cleaned {name}", file=sys.stderr)
    for line in refused: print(f"not committed: {line}", file=sys.stderr)
    return bool(refused)


def install(root: Path = ROOT, prefix: Path = Path(sys.prefix)) -> list[str]:
    "Install the habits in a clone and its environment; what there is to say about it. May be run again at any time."
    said = []
    config = prefix / "etc" / "ipython" / "ipython_kernel_config.py"
    if not config.exists() or "tools/notebooks.py" in config.read_text():
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(SHARP)
    else: said.append(f"{config} is your own: figures are not drawn sharp")
    try: top = Path(git("rev-parse", "--show-toplevel", root=root).decode().strip())
    except (OSError, subprocess.CalledProcessError): return [*said, "no git checkout: no git hooks installed"]
    if top.resolve() != root.resolve(): return [*said, f"a folder inside another checkout ({top}): no git hooks installed"]
    git("config", "--local", "merge.nbdev-merge.name", "notebooks, cell by cell", root=root)
    git("config", "--local", "merge.nbdev-merge.driver", DRIVER, root=root)
    own = Path(root, git("rev-parse", "--git-common-dir", root=root).decode().strip(), "hooks")
    before, others = setting("core.hooksPath", root), [p.name for p in own.glob("*") if p.suffix != ".sample"]
    if before == HOOKS: return said
    if before or others: return [*said, f"your own git hooks stay ({before or ', '.join(sorted(others))}): call {HOOKS}/pre-commit from yours to have notebooks cleaned"]
    git("config", "--local", "core.hooksPath", HOOKS, root=root)
    return [*said, "git hooks installed: notebooks are cleaned when committed and merged cell by cell (git config --local --unset core.hooksPath takes them out)"]


def main(argv: list[str]) -> int:
    match argv:
        case ["clean"]: clean(ROOT / "nbs")
        case ["pre-commit"]: return pre_commit()
        case ["hooks"]:
            try: said = install()
            except (OSError, subprocess.CalledProcessError) as error: said = [f"no hooks installed: {error}"]   # never a reason for make to stop
            for line in said: print(line)
        case _: raise SystemExit(__doc__)
    return 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
