"""Make a trained run the generator that ships with the package, and write down what is known about it.

    python benchmarks/ship_generator.py RUN [--checkpoint RUN/best] [--name scenes] [--images 500]

Writes `dpgan/weights/NAME_generator.safetensors` (parameters in half precision) with its record (command, scores, curves), scores *that file* on the validation split by the
scenes judge beside the judge's score on the real scenes, and writes `benchmarks/results/NAME_generator.json` with the curves of the run.
"""
import argparse
import json
from dataclasses import replace
from pathlib import Path

from dpgan.checkpoint import find_checkpoint, load_generator, load_pretrained, read_record, save_pretrained
from dpgan.config import preset, setting_names, to_dict
from dpgan.data import PairDataset
from dpgan.evaluate import evaluate
from dpgan.judges import judge_extractor, scenes_judge
from environment import RESULTS, ROOT, environment
from summarise_run import summarise


def command(config):
    "The training command that makes this configuration of its preset."
    usual, ours = to_dict(preset(config.name)), to_dict(config)
    value = lambda d, full: d[full.split(".")[0]][full.split(".")[1]]
    changed = {n: value(ours, n) for n in setting_names() if value(ours, n) != value(usual, n)}
    return " ".join([f"dpgan train --preset {config.name} --out runs/{config.name}", *(f"--set {n}={str(v).lower()}" for n, v in changed.items())])


def curve(records, count=100):
    "At most about so many of a run's records, evenly spread, the last one among them, losses rounded."
    chosen = records[::-1][::max(1, len(records) // count)][::-1]
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in r.items()} for r in chosen]


def lines(path): return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="by default the run's newest")
    parser.add_argument("--name", default="scenes")
    parser.add_argument("--images", type=int, help="of the validation split; by default all")
    args = parser.parse_args()
    where = find_checkpoint(args.checkpoint or args.run)
    G, config, classes = load_generator(where)
    started, steps = read_record(args.run / "run.json"), read_record(where / "state.json")["step"]
    training = {"command": command(config), "seed": config.train.seed, "steps": steps, "of_steps": config.train.steps, "checkpoint": where.name, "images": steps * config.train.batch_size,
                "device": started["device"], "torch": started["torch"]}
    file, judge = ROOT / "dpgan" / "weights" / f"{args.name}_generator.safetensors", scenes_judge()
    save_pretrained(file, G, config, classes, training=training)
    G, config, classes = load_pretrained(file)
    val = PairDataset(replace(config.data, cache=False), None, "val")
    found = evaluate(G, val, [judge_extractor(judge)], [judge], samples=2, images=args.images)
    scored = found["judges"]["scenes"]
    scores = {"images": found["data"]["images"], "miou": round(scored["generated"]["miou"], 4), "real_miou": round(scored["real"]["miou"], 4),
              "share_of_real_miou": round(scored["share_of_real_miou"], 4), "FD-scenes": round(found["distances"]["FD-scenes"]["FD-scenes"], 4)}
    curves = curve(lines(args.run / "metrics.jsonl"), 60)
    save_pretrained(file, G, config, classes, training=training, scores=scores, scores_in_training=lines(args.run / "scores.jsonl"), curves=curves)
    result = {"environment": environment(), "bytes": file.stat().st_size, "training": training, "scores": scores,
              "evaluation": {k: found[k] for k in ("distances", "judges", "diversity", "data", "setup")}, "run": summarise(args.run),
              "scores_in_training": lines(args.run / "scores.jsonl"), "curves": curves}
    (RESULTS / f"{args.name}_generator.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({"bytes": result["bytes"], "training": training, "scores": scores, "diversity": found["diversity"]}, indent=2))
