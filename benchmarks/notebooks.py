"""Seconds of every notebook from top to bottom, each alone and in a fresh process, as Restart-and-Run-All would take.

    python benchmarks/notebooks.py [--threads 2] [--only NAME ...] [--out benchmarks/results/notebooks.json]

The time is that of `nbdev_test` for one notebook, start and imports included; cells that it leaves out (`#| eval: false`, `cuda`, `slow`) are left out here. A notebook that fails
ends the measurement. The limit that the notebooks are held to is 60 seconds on two cores.
"""
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from environment import RESULTS, ROOT, environment

NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts and not p.name.startswith("_"))


def seconds(path: Path, threads: int) -> float:
    "Run one notebook; how long it took."
    start = time.perf_counter()
    done = subprocess.run([Path(sys.executable).parent / "nbdev_test", "--path", path, "--n_workers", "0"], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)})
    if done.returncode: sys.exit(f"{path.name} fails:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=[p.stem for p in NOTEBOOKS], default=[p.stem for p in NOTEBOOKS], metavar="NAME")
    parser.add_argument("--out", type=Path, default=RESULTS / "notebooks.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = {}
    for path in NOTEBOOKS:
        if path.stem not in args.only: continue
        found[path.stem] = round(seconds(path, args.threads), 1)
        print(f"{path.stem:24} {found[path.stem]:6.1f} s", flush=True)
    args.out.write_text(json.dumps({"environment": environment(), "seconds": found}, indent=1) + "\n")
    print(f"{len(found)} notebooks, {sum(found.values()):.0f} s; the longest: {max(found, key=found.get)}, {max(found.values()):.1f} s")
