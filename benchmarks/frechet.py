"""The Fréchet distance from features, ours against pytorch-fid's, in one run: seconds, ratio and relative difference.

    python benchmarks/frechet.py [--images 500 5000] [--features 2048] [--repeats 3] [--out benchmarks/results/frechet.json]

Features are synthetic: positive, with a spectrum that falls, as pooled activations have it. pytorch-fid's part is everything it does from features on (mean,
covariance, matrix square root). The last column is the error of float32 covariances (`legacy_fp32`), which is asked for at the smallest size only.
"""
import argparse
import json
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from environment import RESULTS, environment
from pytorch_fid.fid_score import calculate_frechet_distance

from dpgan.metrics import frechet_distance


def features(n, m, seed): return torch.randn(n, m, generator=torch.Generator().manual_seed(seed)).mul(torch.linspace(0.4, 0.04, m)).add(0.4 + 0.01 * seed).relu()


def theirs(x, y): return float(calculate_frechet_distance(*(s for f in (x.double().numpy(), y.double().numpy()) for s in (f.mean(0), np.cov(f, rowvar=False)))))


def timed(f, *args, repeats):
    "The answer and the median seconds."
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        answer = f(*args)
        seconds.append(time.perf_counter() - start)
    return answer, statistics.median(seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "frechet.json")
    args = parser.parse_args()
    rows = []
    for n in args.images:
        x, y = features(n, args.features, 0), features(n, args.features, 1)
        timed(frechet_distance, x, y, repeats=1)
        mine, fast = timed(frechet_distance, x, y, repeats=args.repeats)
        other, slow = timed(theirs, x, y, repeats=1)
        row = {"images": n, "features": args.features, "dpgan_seconds": round(fast, 3), "pytorch_fid_seconds": round(slow, 2), "ratio": round(slow / fast, 1),
               "distance": mine, "relative_difference": abs(mine / other - 1)}
        if n == min(args.images): row["float32_relative_error"] = frechet_distance(x, y, legacy_fp32=True) / mine - 1
        rows.append(row)
        print(row)
    result = {"environment": {**environment(), "scipy": version("scipy"), "pytorch_fid": version("pytorch-fid"), "threads": torch.get_num_threads()}, "rows": rows}
    args.out.write_text(json.dumps(result, indent=2) + "\n")
