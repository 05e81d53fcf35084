"""Do the losses of the faster ways stay within the run-to-run noise of the plain way? Losses of short training runs that differ in one thing each.

    python benchmarks/curves.py [--steps 200] [--batch 2] [--threads 1] [--only NAME ...] [--work FOLDER] [--out benchmarks/results/loss_curves.json]

The `scenes` preset at the size of the demo. `plain` performs every operation as it is described, in float32; five seeds of it (first weights, order of the pairs, noise, masks) show how
far runs lie apart that differ in nothing but chance, and seed 0 on two threads differs in nothing but the order in which sums are added up. Then come the exact savings, bfloat16, each option that is not exact, and all three of these, all with seed 0. A run is written to FOLDER
when it is done; a second call goes on with those that are missing. `--only` does the named runs alone, so that several calls can share the work.

Each term is averaged over WINDOW steps. The distance of two curves is the root mean square, over the second half of the run, of their difference. A run's figure is its distance from
plain seed 0, divided by the spread: the median distance between two plain runs of different seeds (a median, since a seed may blow up and would widen a mean by far). Up to about 1 the run
differs no more than chance makes it differ.
"""
import argparse
import json
import statistics
import time
from itertools import combinations
from pathlib import Path

import torch
from environment import RESULTS, environment

from dpgan.config import preset
from dpgan.data import PairDataset
from dpgan.training import Callback, Trainer, step_by_step

RUNS = {"plain, seed 0": {}, "plain, seed 1": {"seed": 1}, "plain, seed 2": {"seed": 2}, "plain, seed 3": {"seed": 3}, "plain, seed 4": {"seed": 4}, "plain, two threads": {}, "exact savings": {}, "bf16": {"precision": "bf16"}, "share_real": {"share_real": True},
        "batch_d": {"batch_d": True}, "reuse_fake": {"reuse_fake": True}, "all three": {"share_real": True, "batch_d": True, "reuse_fake": True}}
SHOWN = 40  # points of a curve in the result; each the mean of a window of steps


class Terms(Callback):
    "Keeps the losses of every step."

    def __init__(self, name): self.name, self.records, self.start = name, [], time.perf_counter()

    def on_log(self, trainer, record):
        self.records.append({k: v for k, v in record.items() if k.startswith("loss")})
        if trainer.step % 20 == 0: print(f"{self.name}: step {trainer.step}, {time.perf_counter() - self.start:.0f} s", flush=True)


def losses(name, steps, batch, **changes):
    "Every loss term of a run, step by step."
    config = preset("scenes", **{"steps": steps, "batch_size": batch, "log_every": 1, "data.workers": 0, **RUNS[name], **changes})
    terms = Terms(name)
    trainer = Trainer(config, PairDataset(config.data, None, "train", train=True, seed=config.train.seed), "unused", [terms])
    if name.startswith("plain"): step_by_step(trainer.G, trainer.D)
    trainer.fit()
    return {k: [r[k] for r in terms.records] for k in terms.records[0]}, time.perf_counter() - terms.start


def windows(values, count=SHOWN):
    "Means over equal stretches of a curve."
    size = max(1, len(values) // count)
    return [statistics.fmean(values[i:i + size]) for i in range(0, len(values) - size + 1, size)]


def distance(a, b):
    "Root mean square difference of the second halves of two curves of windows."
    half = len(a) // 2
    return statistics.fmean((x - y) ** 2 for x, y in zip(a[half:], b[half:])) ** 0.5


def summary(runs):
    "Curves, the spread between the seeds of the plain way, and each run's distance relative to it."
    curves = {name: {term: windows(values) for term, values in run.items()} for name, run in runs.items()}
    plain = [c for name, c in curves.items() if name.startswith("plain, seed")]
    apart = {term: [distance(a[term], b[term]) for a, b in combinations(plain, 2)] for term in plain[0]} if len(plain) > 1 else {}
    spread = {term: statistics.median(d) for term, d in apart.items()}
    relative = {name: {term: round(distance(c[term], plain[0][term]) / spread[term], 3) for term in spread} for name, c in curves.items() if plain and c is not plain[0]}
    within = {name: {"mean": round(statistics.fmean(r.values()), 3), "largest": max(r.values()), "term": max(r, key=r.get)} for name, r in relative.items() if r}
    return {"curves": {name: {t: [round(v, 4) for v in values] for t, values in c.items()} for name, c in curves.items()},
            "distances_between_seeds": {t: [round(v, 5) for v in d] for t, d in apart.items()}, "spread_between_seeds": {t: round(v, 5) for t, v in spread.items()}, "distance_over_spread": relative, "over_terms": within}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting of every run, for a trial")
    parser.add_argument("--work", type=Path, default=Path("runs/curves"))
    parser.add_argument("--out", type=Path, default=RESULTS / "loss_curves.json")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    args.work.mkdir(parents=True, exist_ok=True)
    changes = dict(s.split("=", 1) for s in args.set)
    settings = {"steps": args.steps, "batch": args.batch, "threads": args.threads, **({"set": changes} if changes else {})}
    files = {name: args.work / f"{name.replace(', ', '_').replace(' ', '_')}.json" for name in RUNS}
    for name in args.only:
        if files[name].exists() and json.loads(files[name].read_text())["settings"] == settings: continue
        torch.set_num_threads(2 if name == "plain, two threads" else args.threads)
        values, seconds = losses(name, args.steps, args.batch, **changes)
        files[name].write_text(json.dumps({"settings": settings, "environment": environment(), "seconds": round(seconds, 1), "losses": values}))
    done = {name: run for name, path in files.items() if path.exists() for run in [json.loads(path.read_text())] if run["settings"] == settings}
    result = {"environment": environment(), "settings": {**settings, "preset": "scenes", "window": max(1, args.steps // SHOWN)}, "revisions": sorted({r["environment"]["revision"] for r in done.values()}),
              **summary({name: run["losses"] for name, run in done.items()})}
    args.out.write_text(json.dumps(result) + "\n")
    print(f"\n{'':16}{'mean':>7} {'largest':>8}  distance from plain seed 0 over the spread between seeds, over all terms")
    for name, r in result["over_terms"].items(): print(f"{name:16}{r['mean']:7.2f} {r['largest']:8.2f}  ({r['term']})")
