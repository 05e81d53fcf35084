"""The numbers of a training run, from its own records: `python benchmarks/summarise_run.py RUN_FOLDER NAME` writes `results/NAME.json`."""
import json
import statistics
import sys
from pathlib import Path

from environment import RESULTS, environment


def summarise(run):
    "Steps, epochs, speed, and the losses averaged over the last tenth of the run."
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    config, started = json.loads((run / "config.json").read_text()), json.loads((run / "run.json").read_text())
    last = records[-max(1, len(records) // 10):]
    gaps = [b["step"] - a["step"] for a, b in zip([{"step": 0}, *records], records)]
    losses = {k: round(statistics.mean(r[k] for r in last), 4) for k in records[-1] if k.startswith("loss")}
    return {"device": started["device"], "steps": records[-1]["step"], "epochs": records[-1]["epoch"], "batch_size": config["train"]["batch_size"],
            "minutes_of_steps": round(sum(n * r["seconds_per_step"] for n, r in zip(gaps, records)) / 60, 1),
            "median_images_per_second": round(statistics.median(r["images_per_second"] for r in records), 2), "losses_last_tenth": losses, "config": config}


def scores(run):
    "What `evaluation.json` and `scores.jsonl` of the run say, in short."
    found = {}
    if (run / "scores.jsonl").is_file(): found["scores_in_training"] = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    if (run / "evaluation.json").is_file():
        e = json.loads((run / "evaluation.json").read_text())
        short = lambda d: {k: round(v, 4) for k, v in d.items() if isinstance(v, float)}
        found["evaluation"] = {"step": e["step"], "data": e["data"], "distances": {k: {**short(v), "kernel": v.get("kernel")} for k, v in e.get("distances", {}).items()},
                               "judges": {k: {"generated": short(v["generated"]), "real": short(v["real"]), "share_of_real_miou": round(v["share_of_real_miou"], 4),
                                              "iou": {c: i and round(i, 3) for c, i in v["generated"]["iou"].items()}} for k, v in e.get("judges", {}).items()},
                               "diversity": e.get("diversity"), "seconds": e["seconds"]}
    return found


if __name__ == "__main__":
    run, name = Path(sys.argv[1]), sys.argv[2]
    result = {"environment": environment(), **summarise(run), **scores(run)}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "config"}, indent=2))
