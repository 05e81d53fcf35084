"""The explorer by hand: JupyterLab on loopback, Debian's Chromium, a pointer and keys; what is on the page is compared pixel by pixel.

`Twin` does the same steps in this process, with `ExplorerState` and a generator of its own, so every picture on the page has an expected one.
Screenshots are kept in the folder DPGAN_SCREENSHOTS, or in the test's temporary folder.
"""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import browser
from browser import COLAB, layered_python, need_browser, notebook_of, open_lab, until
from dpgan.checkpoint import load_pretrained
from dpgan.data import open_pairs
from dpgan.editing import ExplorerState, difference, distance_to, heat, label_rgb, leak, read_label_file, read_recipe, tensors
from dpgan.inference import FastGenerator, reach
from dpgan.labels import image_to_uint8

EXPLORER = "from dpgan.explore import explore\nexplorer = explore()\nexplorer"
ROAD = (50, 60)  # a pixel of it in the first validation scene


class Twin:
    "The same explorer, without a page."

    def __init__(self):
        self.G, config, self.class_set = load_pretrained("scenes")
        self.net = FastGenerator(self.G)
        self.photo, label = open_pairs(config.data, None, "val").read(0, 64, 128)
        self.state = ExplorerState.start(self.class_set, self.G.z_dim, label, self.photo)

    def picture(self, state: ExplorerState | None = None) -> np.ndarray:
        label, z = tensors(state or self.state)
        return image_to_uint8(self.net.draw(self.net.prepare(label), z))[0]

    def label_of(self, colours: np.ndarray) -> np.ndarray:
        "The class indices that these colours mean."
        return (colours[:, :, None] == np.array(self.class_set.colours, np.uint8)).all(-1).argmax(-1)


@pytest.fixture(scope="module")
def twin():
    need_browser()
    return Twin()


@pytest.fixture
def pictures(tmp_path, request) -> Path:
    return Path(os.environ["DPGAN_SCREENSHOTS"], request.node.name.removeprefix("test_")) if os.environ.get("DPGAN_SCREENSHOTS") else tmp_path / "screenshots"


def png_file(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


def status_says(page, text: str): until(lambda: page.page.get_by_text(text).count(), f"a message with {text!r}")


def upload(page, path: Path):
    "Choose a file for the button that loads label maps."
    with page.page.expect_file_chooser() as chooser: page.page.get_by_role("button", name="Label PNG or recipe").click()
    chooser.value.set_files(path)


def resample(page, twin):
    "A region is selected by a click and gets new noise: the picture and the map of its change are exactly those of the twin; ctrl and a double click add a class."
    before = twin.picture()
    page.shows("Label map", label_rgb(twin.state))
    page.shows("Picture", before)
    page.picture("open")
    page.click(*ROAD)
    page.press("Resample selection")
    twin.state = twin.state.select_region(*ROAD).resample_selection(1)
    page.shows("Picture", twin.picture())
    page.picture("region_resampled")
    change = difference(before, twin.picture())
    assert change[twin.state.selection].any()
    page.press("Difference")
    page.shows("Picture", heat(change))
    page.picture("difference")
    found = leak(change, twin.state.selection)
    status_says(page, f"{found['inside']:.0%} of it lies inside the selection, the farthest pixel {found['farthest']} away")
    page.press("Image")
    page.shows("Picture", twin.picture())
    row, col = (int(n[0]) for n in np.nonzero(twin.state.label == twin.class_set.names.index("sky")))
    page.canvas("Label map").dblclick(position=page.place(row, col), modifiers=["Control"])
    page.press("Resample selection")
    twin.state = twin.state.select_class("sky", add=True).resample_selection(2)
    page.shows("Picture", twin.picture())
    page.press("Undo")
    page.click(*ROAD)
    twin.state = twin.state.undo().select_region(*ROAD)
    page.shows("Picture", twin.picture())


def paint(page, twin):
    "A building is painted; undo and redo, by button and by key, bring back exactly what was there."
    old_label, old_picture = label_rgb(twin.state), twin.picture()
    page.press("Brush")
    page.press("class building")
    page.drag([(20, 20), (20, 44), (30, 44)])
    page.changed("Label map", old_label)
    painted = page.pixels("Label map")
    new = (painted != old_label).any(-1)
    assert (painted[new] == twin.class_set.colours[twin.class_set.names.index("building")]).all() and 100 < new.sum() < 2000
    rows, cols = np.nonzero(new)
    assert rows.min() >= 10 and rows.max() <= 40 and cols.min() >= 10 and cols.max() <= 54, "only under the brush"
    after = ExplorerState.start(twin.class_set, twin.G.z_dim, twin.label_of(painted))
    label, z = tensors(after)[0], tensors(twin.state)[1]
    drawn = image_to_uint8(twin.net.draw(twin.net.prepare(label), z))[0]
    page.shows("Picture", drawn)
    page.picture("building_painted")
    assert difference(old_picture, drawn)[new].mean() > 0.01
    for back, forth in ((lambda: page.press("Undo"), lambda: page.press("Redo")),
                        (lambda: page.canvas("Label map").press("Control+z"), lambda: page.canvas("Label map").press("Control+Shift+Z"))):
        back()
        page.shows("Label map", old_label), page.shows("Picture", old_picture)
        forth()
        page.shows("Label map", painted), page.shows("Picture", drawn)
    page.press("Undo")
    page.shows("Picture", old_picture)
    page.touch([(20, 20), (20, 60)], second=[(50, 100), (50, 20)])
    page.changed("Label map", old_label)
    touched = np.nonzero((page.pixels("Label map") != old_label).any(-1))
    assert touched[0].max() < 30 and touched[1].max() > 55, "one finger paints, the other one does not"
    page.press("Undo")
    page.shows("Label map", old_label)
    page.press("Select")


def vary(page, twin):
    "A strip of variants, one of which is taken; then a slider towards another seed."
    page.press("Variants")
    until(lambda: page.page.get_by_role("button", name="Take 6", exact=True).count(), "six variants")
    variants = twin.state.variants(range(3, 9))
    page.stable("Picture", 1)
    page.picture("variants")
    page.press("Take 3")
    twin.state = variants[2]
    page.shows("Picture", twin.picture())
    handle = page.page.locator(".noUi-handle").first
    for _ in range(10): handle.press("ArrowRight")
    readout = page.page.locator(".widget-slider .widget-readout").first
    until(lambda: readout.inner_text() not in ("", "0.00"), "a moved slider")
    page.stable("Picture")
    t, other = float(readout.inner_text()), int(page.page.get_by_label("mix with seed").input_value())
    twin.state = twin.state.interpolate(other, t)
    page.shows("Picture", twin.picture())
    page.picture("interpolated")
    assert 0 < t < 1 and not np.array_equal(twin.picture(), twin.picture(variants[2]))


def refuse(page, twin, folder: Path):
    "Files that are no label map say what is wrong, and change nothing; one of another size is taken when asked."
    ids = np.array([i[0] for i in twin.class_set.raw_ids], np.uint8)
    alien = label_rgb(twin.state).copy()
    alien[:2, :3] = (1, 2, 3)
    upload(page, png_file(folder / "colours.png", alien))
    status_says(page, "(1, 2, 3)")
    page.picture("bad_colours")
    small = ids[twin.state.label[::2, ::2]]
    upload(page, png_file(folder / "small.png", small))
    status_says(page, "resize")
    page.picture("bad_size")
    page.shows("Label map", label_rgb(twin.state)), page.shows("Picture", twin.picture())
    page.page.get_by_label("resize to fit").check()
    twin.state = twin.state.load_label(read_label_file(folder / "small.png", twin.class_set, 64, 128, resize=True))
    page.shows("Label map", label_rgb(twin.state)), page.shows("Picture", twin.picture())
    page.press("Undo")
    twin.state = twin.state.undo()
    page.shows("Label map", label_rgb(twin.state)), page.shows("Picture", twin.picture())


def export(page, twin, folder: Path):
    "The downloaded files are what is on the page, and the recipe draws it again, in another process, to the same pixels."
    page.press("Prepare files")
    for name in ("image.png", "label.png", "recipe.json"):
        with page.page.expect_download() as download: page.page.locator(f"a[download='{name}']").click()
        download.value.save_as(folder / name)
    page.picture("files")
    shown = page.pixels("Picture")
    assert np.array_equal(np.asarray(Image.open(folder / "image.png").convert("RGB")), shown)
    assert np.array_equal(read_label_file(folder / "label.png", twin.class_set, 64, 128), twin.state.label)
    label, z, about = read_recipe(folder / "recipe.json")
    assert np.array_equal(label[0].numpy(), twin.state.label) and about["name"] == "scenes"
    command = [sys.executable, "-m", "dpgan.cli", "generate", "--recipe", folder / "recipe.json", "--out", folder / "again"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(browser.ROOT)})
    assert done.returncode == 0, done.stderr
    [again] = (folder / "again").rglob("*.png")
    assert np.array_equal(np.asarray(Image.open(again).convert("RGB")), shown), "the recipe draws other pixels"


def reload(page, twin):
    "Everything is still there when the page is loaded again, and goes on working."
    page.reload()
    page.shows("Label map", label_rgb(twin.state)), page.shows("Picture", twin.picture())
    page.picture("reloaded")
    page.press("Undo")
    page.shows("Picture", twin.picture(twin.state.undo()))
    page.press("Redo")
    page.shows("Picture", twin.picture())
    seed = int(page.page.get_by_label("next seed").input_value())
    page.press("class sky")
    page.press("Lock")
    page.press("New noise")
    twin.state = twin.state.select_class("sky").lock().resample(seed)
    page.shows("Picture", twin.picture())
    page.picture("all_but_the_sky")


def test_a_session(twin, tmp_path, pictures):
    with open_lab(tmp_path / "lab", notebook_of(EXPLORER), pictures) as page:
        page.run()
        for step in (resample, paint, vary): step(page, twin)
        refuse(page, twin, tmp_path)
        export(page, twin, tmp_path)
        reload(page, twin)
        assert not page.errors, page.errors
        assert not page.outside, f"requests that leave this machine: {page.outside}"


WIDE = """from dpgan.explore import explore
explorer = explore()
explorer.do({"kind": "blank", "height": 64, "width": 512, "class_id": "road"})
explorer.do({"kind": "paint", "points": [[30, 20], [30, 60]], "class_id": "building", "size": 30})
explorer"""


def test_with_the_widgets_of_colab(twin, tmp_path, pictures):
    "ipywidgets 7.7.1 and what goes with it; on a wide street, so that pixels out of reach of the region can be shown to stay as they are, all of them."
    python = layered_python(COLAB, "colab")
    with open_lab(tmp_path / "lab", notebook_of("import ipywidgets, IPython; print(ipywidgets.__version__, IPython.__version__)", WIDE), pictures, python) as page:
        page.run()
        assert page.page.get_by_text("7.7.1 7.34.0").count()
        before = page.stable("Picture")
        assert before.shape == (64, 512, 3)
        page.click(30, 40)
        page.press("Resample selection")
        after = page.changed("Picture", before)
        page.picture("region_resampled")
        building = twin.label_of(page.pixels("Label map")) == twin.class_set.names.index("building")
        change, far = difference(before, after), distance_to(building) > reach(twin.G)
        assert change[building].mean() > 0.01 and far.sum() > 1000
        assert change[far].max() <= 1 / 255 and (change[far] > 0).mean() < 0.001, "noise as a vector and as a map take two ways, whose rounding differs in the seventh digit"
        page.press("Resample selection")
        again = page.changed("Picture", after)
        assert difference(after, again)[building].mean() > 0.01 and not difference(after, again)[far].any(), "from one map to another, nothing at all changes out of reach"
        for earlier in (after, before):
            page.press("Undo")
            page.shows("Picture", earlier)
        page.canvas("Label map").hover(position=page.place(30, 400))
        for _ in range(2): page.canvas("Label map").press("Control+z")
        page.shows("Label map", label_rgb(twin.state))
        page.canvas("Label map").press("b")
        until(lambda: page.page.get_by_text("Drag to paint").count(), "the hint for the brush instead of a class outside the label map")
        small = np.array([i[0] for i in twin.class_set.raw_ids], np.uint8)[twin.state.label[::2, ::2]]
        for _ in range(2):
            upload(page, png_file(tmp_path / "small.png", small))
            status_says(page, "resize to fit' to take")
            page.page.get_by_label("resize to fit").check()
            twin.state = twin.state.load_label(read_label_file(tmp_path / "small.png", twin.class_set, 64, 128, resize=True))
            page.shows("Label map", label_rgb(twin.state))
            page.page.get_by_label("resize to fit").uncheck()
            twin.state = twin.state.undo()
            page.press("Undo")
            page.shows("Label map", label_rgb(twin.state))
        assert not page.errors, page.errors
        assert not page.outside, f"requests that leave this machine: {page.outside}"


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(browser, "CHROMIUM", "/nowhere/chromium")
    monkeypatch.setenv("CI", "false")
    with pytest.raises(pytest.skip.Exception, match="apt-get install .* chromium"): need_browser()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install .* chromium"): need_browser()
