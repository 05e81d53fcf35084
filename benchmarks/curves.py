"""Do the losses of the faster ways stay within the run-to-run noise of the plain way? Losses of short training runs that differ in one thing each.

    python benchmarks/curves.py [--steps 200] [--batch 2] [--threads 1] [--only NAME ...] [--work FOLDER] [--out benchmarks/results/loss_curves.json]

The `scenes` preset at the size of the demo. `plain` performs every operation as it is described, in float32; five seeds of it (first weights, order of the pairs, noise, masks) show how
far runs lie apart that differ in nothing but chance. The exact savings and bfloat16 run with the same five seeds. Seed 0 on two threads differs from plain seed 0 in nothing but the order in
which sums are added up; each option that is not exact, and all three of them, run with seed 0. A run is written to FOLDER when it is done; a second call goes on with those that are missing.
`--only` does the named runs alone, so that several calls can share the work.

Each term is averaged over WINDOW steps. The distance of two curves is the root mean square, over the second half of the run, of their difference, and the spread of a term the median distance
between two plain runs of different seeds (a median, since a seed may blow up and would widen a mean by far). Two figures come of it. For a way with five seeds: the median distance of its runs
from plain runs of other seeds, divided by the spread; 1 if the way makes no difference beyond chance. For a single run: its distance from plain seed 0, divided by the spread.
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

SEEDS = range(5)
WAYS = {"plain": {}, "exact savings": {}, "bf16": {"precision": "bf16"}}  # each with every seed
OPTIONS = {"share_real": {"share_real": True}, "batch_d": {"batch_d": True}, "reuse_fake": {"reuse_fake": True}, "all three": {"share_real": True, "batch_d": True, "reuse_fake": True}}  # with seed 0
RUNS = {f"{way}, seed {seed}": {**how, "seed": seed} for way, how in WAYS.items() for seed in SEEDS} | {"plain, two threads": {}} | OPTIONS
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
    def group(way): return {seed: curves[f"{way}, seed {seed}"] for seed in SEEDS if f"{way}, seed {seed}" in curves}
    ways = {way: {term: round(statistics.median(d) / spread[term], 3) for term in spread if (d := [distance(a[term], b[term]) for s, a in group("plain").items() for t, b in group(way).items() if s != t])}
            for way in WAYS if way != "plain"}
    within = {name: {"mean": round(statistics.fmean(r.values()), 3), "largest": max(r.values()), "term": max(r, key=r.get)} for name, r in relative.items() if r}
    return {"curves": {name: {t: [round(v, 4) for v in values] for t, values in c.items()} for name, c in curves.items()},
            "distances_between_seeds": {t: [round(v, 5) for v in d] for t, d in apart.items()}, "spread_between_seeds": {t: round(v, 5) for t, v in spread.items()}, "ways_over_spread": {way: found for way, found in ways.items() if found},
            "distance_over_spread": relative, "over_terms": within}


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
    for way, found in result["ways_over_spread"].items(): print(f"{way}: runs lie {statistics.fmean(found.values()):.2f} times as far from plain runs of other seeds as these from one another, {min(found.values()):.2f} to {max(found.values()):.2f} by term")
    print(f"\n{'':24}{'mean':>7} {'largest':>8}  distance from plain seed 0 over the spread between seeds, over all terms")
    for name, r in result["over_terms"].items(): print(f"{name:24}{r['mean']:7.2f} {r['largest']:8.2f}  ({r['term']})")
