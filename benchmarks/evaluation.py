"""Where the time of an evaluation goes at full Cityscapes size: generator, feature network, judge, statistics.

    python benchmarks/evaluation.py --data FOLDER [--images 8] [--score 500] [--out benchmarks/results/evaluation.json]

FOLDER holds the pack `cityscapes_layout` (a few pairs are enough). The full-width generator, FID's Inception and DRN-D-105 run at their real sizes with random
weights, which take the same time as trained ones. Seconds per image are measured on `--images` passes and scaled to `--score` images; the statistics (Fréchet,
kernel, precision and its kin) are measured on that many feature rows of full length. What takes how long is the question here, so no score is printed.
"""
import argparse
import json
import tempfile
from pathlib import Path

import torch
from environment import RESULTS, environment

from dpgan.config import preset
from dpgan.data import PairDataset
from dpgan.evaluate import Clock, FeatureSet, Pass, collect, distances
from dpgan.features import fid_inception, inception_extractor
from dpgan.field_judges import DRNSeg, drn_judge
from dpgan.generator import Generator
from dpgan.labels import CITYSCAPES


def random_file(net, path):
    "A weights file with random numbers of the right shapes."
    torch.save({k: torch.zeros(t.shape, dtype=t.dtype) if not t.is_floating_point() else torch.rand(t.shape) * 0.02 for k, t in net.state_dict().items()}, path)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--score", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RESULTS / "evaluation.json")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        with torch.device("meta"): drn = DRNSeg()
        extractor = inception_extractor(random_file(fid_inception(), Path(folder) / "inception.pth")).to(device)
        judge = drn_judge(random_file(drn, Path(folder) / "drn.pth"), CITYSCAPES).to(device)
        G = Generator(35, init_gain=1.0).eval().to(device)
        data = PairDataset(preset("cityscapes", workers=0).data, args.data / "cityscapes_layout", "train")
        clock, places = Clock(), [i % len(data) for i in range(args.images)]
        collect(G, data, places[:1], None, Pass([extractor], [judge], True, Clock()), {}, 1, 0, 1, torch.device(device), None)
        collect(G, data, places, None, Pass([extractor], [judge], True, clock), {}, 1, 0, 4 if device == "cpu" else 16, torch.device(device), None)
        sets = [FeatureSet(2048) for _ in range(2)]
        for s in sets: s.update(range(args.score), torch.randn(args.score, 2048).mul(torch.linspace(0.4, 0.04, 2048)).add(0.4).relu())
        distances(*sets, "FID")
        with clock("statistics"): distances(*sets, "FID")
    per_image = {k: v / args.images for k, v in clock.seconds.items() if k not in ("statistics", "diversity")}
    whole = {k: round(v * args.score, 1) for k, v in per_image.items()} | {"statistics": round(clock.seconds["statistics"], 2)}
    total = sum(whole.values())
    result = {"environment": environment(), "threads": torch.get_num_threads(), "measured_images": args.images, "seconds_per_image": {k: round(v, 4) for k, v in per_image.items()},
              f"seconds_for_{args.score}_images": whole, "share": {k: round(v / total, 4) for k, v in whole.items()}}
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
