"""Make the pictures saved in notebooks small in bytes: `python tools/pictures.py [nbs/NAME.ipynb ...]` (all notebooks by default).

Figures are best saved with twice the pixels of their place on the page, so that they are sharp on a telephone: IPython does it with `c.InlineBackend.figure_formats = {"retina"}` in
ipython_kernel_config.py. A palette of 256 colours then makes a half to a quarter of the bytes. A picture keeps its full colours where the palette would be visible: where pixels are
off by more than 3 grey levels on average.
"""
import argparse
import base64
import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
VISIBLE = 3.0   # grey levels, mean over pixels and channels


def packed(png: bytes) -> bytes:
    "A PNG with at most 256 colours, or the same bytes where that is not smaller, would be visible, or the picture moves."
    picture = Image.open(io.BytesIO(png))
    if picture.format != "PNG" or picture.mode == "P" or getattr(picture, "n_frames", 1) > 1: return png
    if picture.mode == "RGBA" and picture.getextrema()[3] == (255, 255): picture = picture.convert("RGB")
    if picture.mode != "RGB": return png
    small = picture.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
    off = np.abs(np.asarray(small.convert("RGB"), np.int16) - np.asarray(picture, np.int16)).mean()
    out = io.BytesIO()
    small.save(out, "png", optimize=True)
    return out.getvalue() if off <= VISIBLE and len(out.getvalue()) < 0.95 * len(png) else png


def pack(nb: dict) -> int:
    "Pack every PNG of a notebook in place; how many bytes were saved."
    saved = 0
    for cell in nb["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" not in data: continue
            png = base64.b64decode("".join(data["image/png"]))
            small = packed(png)
            if small is png: continue
            data["image/png"], saved = base64.b64encode(small).decode(), saved + len(png) - len(small)
    return saved


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make the pictures saved in notebooks small in bytes.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="notebooks (default: all in nbs/)")
    for path in parser.parse_args(argv).notebooks or sorted((ROOT / "nbs").rglob("*.ipynb")):
        nb = json.loads(path.read_text(encoding="utf-8"))
        before = path.stat().st_size
        if saved := pack(nb): path.write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{path.name}: {before / 1000:.0f} kB{f', {path.stat().st_size / 1000:.0f} kB now' if saved else ', as it was'}")


if __name__ == "__main__": sys.exit(main())
