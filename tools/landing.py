"""Draw the pictures of the landing page with the generator that comes with the package: `python tools/landing.py`.

nbs/images/explorer.png is a film (an animated PNG) of a session in the explorer, nbs/images/results.png label maps of streets never seen in training and what becomes of them with
different noise. Both have twice the pixels of their place on the page.
"""
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from dpgan.checkpoint import load_pretrained
from dpgan.explore import VIEWS, explore, look, marked
from dpgan.labels import colourise, image_to_uint8
from dpgan.scenes import SCENE_COLOURS, draw_scene

IMAGES = Path(__file__).resolve().parent.parent / "nbs" / "images"
TIMES, GAP, LINE = 6, 16, 40   # pixels of the page for one of a picture, around pictures, and for a title


def page(columns: list[tuple[str, np.ndarray]]) -> Image.Image:
    "Pictures side by side, a title above each."
    pictures = [Image.fromarray(picture) for _, picture in columns]
    sheet = Image.new("RGB", (sum(p.width for p in pictures) + GAP * (len(pictures) - 1), LINE + pictures[0].height), "white")
    x = 0
    for (title, _), picture in zip(columns, pictures):
        ImageDraw.Draw(sheet).text((x + 2, 4), title, "#30363d", ImageFont.load_default(size=26))
        sheet.paste(picture, (x, LINE))
        x += picture.width + GAP
    return sheet


def repeat(picture: np.ndarray, times: int) -> np.ndarray: return picture.repeat(times, 0).repeat(times, 1)


def film() -> list[Image.Image]:
    "A session state by state: select, resample, paint a building, try variants."
    with torch.inference_mode():
        G, _, _ = load_pretrained("scenes")
        label = torch.from_numpy(draw_scene(0, 10_007)[1]).long()[None]
        bright = max(range(12), key=lambda seed: G.sample(label, seed=seed).mean())
    ex = explore(seed=bright)
    building = dict(kind="paint", class_id="building", size=9)
    steps = [("a label map", dict(kind="example", index=7)), ("select a region", dict(kind="select_region", row=8, col=70)), ("new noise for it", dict(kind="resample_selection", seed=11)),
             ("and other noise", dict(kind="resample_selection", seed=3)), ("paint a building", building | dict(points=[[10, 54], [32, 54]])),
             ("make it wider", building | dict(points=[[10, 60], [32, 60], [32, 68], [10, 68]])), ("select the buildings", dict(kind="select_class", class_id="building")),
             *[(f"variant {i}", dict(kind="resample_selection", seed=20 + i)) for i in (1, 2, 3)], ("new noise everywhere", dict(kind="resample", seed=8))]
    frames = []
    for title, event in steps:
        ex.do(event)
        ex.wait()
        assert not ex.session.message, ex.session.message
        frames.append(page([(title, marked(ex.state, TIMES * 128)), (VIEWS[ex.session.view].lower(), repeat(look(ex.session)[0], TIMES))]))
    ex.close()
    return frames


def results(seeds=(11, 17, 5, 30, 24, 41), rows: int = 3, times: int = 2) -> Image.Image:
    "Label maps above two pictures of each."
    G, _, _ = load_pretrained("scenes")
    labels = [draw_scene(0, 10_000 + n)[1] for n in seeds]
    columns = [[colourise(label, SCENE_COLOURS)] for label in labels]
    for row in range(rows - 1):
        with torch.inference_mode(): images = G.sample(torch.from_numpy(np.stack(labels)).long(), seed=5 * row + 1)
        for column, image in zip(columns, image_to_uint8(images)): column.append(image)
    grid = [np.concatenate([repeat(np.asarray(p), times) if k == 0 else np.pad(repeat(np.asarray(p), times), ((8, 0), (0, 0), (0, 0)), constant_values=255) for k, p in enumerate(column)]) for column in columns]
    return Image.fromarray(np.concatenate([np.pad(g, ((0, 0), (0, 0 if g is grid[-1] else 12), (0, 0)), constant_values=255) for g in grid], 1))


def main() -> None:
    frames = film()
    colours = Image.fromarray(np.concatenate([np.asarray(frame) for frame in frames])).quantize(256, kmeans=1)   # one palette for all
    frames = [frame.quantize(palette=colours, dither=Image.Dither.NONE) for frame in frames]
    frames[0].save(IMAGES / "explorer.png", save_all=True, append_images=frames[1:], duration=1500, optimize=True)
    results().quantize(256, kmeans=1, dither=Image.Dither.NONE).save(IMAGES / "results.png", optimize=True)
    for name in ("explorer.png", "results.png"): print(name, Image.open(IMAGES / name).size, f"{(IMAGES / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__": main()
