"""Is dpgan/ exactly what the notebooks export, and are the notebooks clean?

Empties dpgan/ (all but dpgan/weights/, dpgan/static/ and dpgan/results/, which no notebook exports), exports and cleans, and compares every file with what was there before. Where
something differs, the new files stay (they are right) and the old ones are kept in build/before-export/. With CI=true, git has to agree as well.
"""
import difflib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "before-export"
SPARED = [ROOT / "dpgan" / name for name in ("weights", "static", "results")]


def snapshot() -> dict[str, bytes]:
    "The content of every exported module and every notebook, by path."
    package = [p for p in (ROOT / "dpgan").rglob("*") if p.is_file() and "__pycache__" not in p.parts and not set(SPARED) & set(p.parents)]
    notebooks = [p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    return {str(p.relative_to(ROOT)): p.read_bytes() for p in sorted(package + notebooks)}


def write(files: dict[str, bytes], root: Path) -> None:
    "Write files under a folder."
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def run(tool: str) -> None:
    "Run one of nbdev's commands; raises where it fails."
    subprocess.run([Path(sys.executable).parent / tool], cwd=ROOT, check=True)


def export_afresh(before: dict[str, bytes]) -> dict[str, bytes]:
    "Empty dpgan/ of all that notebooks export, export, clean; put dpgan/ back where the export fails."
    for entry in (ROOT / "dpgan").glob("*"):
        if entry in SPARED: continue
        if entry.is_dir() and not entry.is_symlink(): shutil.rmtree(entry)
        else: entry.unlink()
    try:
        run("nbdev_export")
        run("nbdev_clean")
    except (OSError, subprocess.CalledProcessError) as error:
        write({name: content for name, content in before.items() if name.startswith("dpgan/")}, ROOT)
        sys.exit(f"the export failed, dpgan/ is as it was: {error}")
    except BaseException:  # Ctrl-C
        write({name: content for name, content in before.items() if name.startswith("dpgan/")}, ROOT)
        raise
    return snapshot()


def describe(name: str, old: bytes | None, new: bytes | None) -> str:
    "What differs in one file, and why that may be."
    if new is None: return f"  {name}: no notebook exports it"
    if old is None: return f"  {name}: was missing"
    if name.endswith(".ipynb"): return f"  {name}: nbdev_clean changed it (execution counts, editor metadata)"
    lines = list(difflib.unified_diff(old.decode().splitlines(), new.decode().splitlines(), "as found", "as exported", n=1, lineterm=""))
    shown = "".join(f"\n      {line}" for line in lines[:20])
    return f"  {name}: differs from its notebook{shown}" + (f"\n      ... {len(lines) - 20} more lines" if len(lines) > 20 else "")


def git_changes() -> str:
    "What git sees as changed in dpgan/ and nbs/; empty outside a git checkout."
    try: return subprocess.run(["git", "status", "--porcelain", "--", "dpgan", "nbs"], cwd=ROOT, capture_output=True, text=True).stdout.rstrip()
    except OSError: return ""


def main() -> None:
    before = snapshot()
    after = export_afresh(before)
    changed = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    if changed:
        shutil.rmtree(KEPT, ignore_errors=True)
        write({name: before[name] for name in changed if name in before}, KEPT)
        print("The package and the notebooks were out of step:")
        print("\n".join(describe(name, before.get(name), after.get(name)) for name in changed))
        sys.exit("They are in step now. Edit notebooks, never dpgan/; run `make export` after a change, look at `git diff`, and commit both.\n"
                 f"What was there before is in {KEPT.relative_to(ROOT)}/.")
    if changes := git_changes():
        if os.environ.get("CI", "").lower() == "true": sys.exit(f"git sees changes after the export; commit them:\n{changes}")
        print(f"in step; not committed yet:\n{changes}")
    print(f"{sum(name.startswith('dpgan/') for name in after)} modules are what {sum(name.endswith('.ipynb') for name in after)} notebooks export")


if __name__ == "__main__": main()
