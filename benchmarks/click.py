"""Seconds from a click to the changed picture in a real browser: `python benchmarks/click.py [--size scenes full] [--clicks 15] [--threads 2]`.

JupyterLab and Chromium run on this machine (see tests/browser.py for what has to be installed). The clock starts at the click on "Resample selection" and stops at
the first frame after the new picture was put on its canvas (its pixels are compared afterwards): event, Python, generator, PNG, page. `scenes` is the shipped generator; `full` has the paper's Cityscapes
width and random weights, 256 x 512, in the precision that the explorer chooses here.
"""
import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from environment import RESULTS, ROOT, environment

sys.path.insert(0, str(ROOT / "tests"))
CLICK = """async () => {
  const canvas = document.querySelector('canvas[aria-label="Picture"]'), context = canvas.getContext('2d');
  const pixels = () => context.getImageData(0, 0, canvas.width, canvas.height).data;
  const before = pixels(), button = [...document.querySelectorAll('button')].find((b) => b.textContent === 'Resample selection');
  const drawn = new Promise((done) => { context.drawImage = (...what) => { delete context.drawImage; context.drawImage(...what); requestAnimationFrame(done); }; });
  const start = performance.now();
  button.click();
  await drawn;
  const seconds = (performance.now() - start) / 1000, now = pixels();
  if (!now.some((v, i) => v !== before[i])) throw new Error('the picture is the same');
  return seconds;
}"""


def full_width(file):
    "A generator of the paper's size with random weights, in a file that the explorer opens."
    import torch
    from dpgan.checkpoint import save_pretrained
    from dpgan.config import preset
    from dpgan.generator import Generator
    from dpgan.labels import CITYSCAPES
    config = preset("cityscapes")
    torch.manual_seed(0)
    save_pretrained(file, Generator(config.data.num_classes, **{**vars(config.generator), "init_gain": 1.0}).eval(), config, CITYSCAPES)


def measure(what, clicks):
    "Seconds of each click, and the precision that the explorer chose."
    from browser import notebook_of, open_lab
    with tempfile.TemporaryDirectory() as folder:
        source = f"from dpgan.explore import explore\nexplorer = explore({what!r})\nexplorer"
        with open_lab(Path(folder), notebook_of(source, "print(explorer.session.about['precision'])"), Path(folder) / "pictures") as page:
            page.run()
            height, width = page.pixels("Label map").shape[:2]
            page.click(height - 6, width // 2)
            page.stable("Picture")
            seconds = [page.page.evaluate(CLICK) for _ in range(clicks + 1)][1:]
            said = [t.strip() for t in page.page.locator(".jp-OutputArea-output pre").all_inner_texts()]
    return {"median": round(statistics.median(seconds), 4), "fewest": round(min(seconds), 4), "most": round(max(seconds), 4), "precision": next(t for t in said if t in ("off", "bf16")), "picture": [height, width]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=("scenes", "full"), default=["scenes", "full"])
    parser.add_argument("--clicks", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "click.json")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "full_generator.safetensors"
        if "full" in args.size: full_width(file)
        for size in args.size: rows[size] = measure("scenes" if size == "scenes" else str(file), args.clicks)
    args.out.write_text(json.dumps({"environment": environment(), "threads": args.threads, "clicks": args.clicks, "seconds": rows}, indent=2) + "\n")
    print(json.dumps(rows, indent=2))
