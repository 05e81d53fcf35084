"""`check_data` and `quick_check` on folders with known faults."""
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpgan.config import DataConfig
from dpgan.data import DataError, PairDataset, Problem, check_data, quick_check

DATA = os.environ.get("DPGAN_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="DPGAN_TEST_DATA is not set: it names the folder of real data packs")
FOLDER = DataConfig(dataset="folder", height=64, width=64, workers=0)
SIZE = 80, 70  # width, height


@pytest.fixture
def root(tmp_path):
    "A faultless folder: 12 pairs to train on and 2 to validate; ids 0, 1, 2 and void 255."
    rng = np.random.default_rng(0)
    for split, n in (("train", 12), ("val", 2)):
        for kind in ("images", "labels"): (tmp_path / split / kind).mkdir(parents=True)
        for i in range(n):
            label = rng.choice([0, 1, 2, 255], SIZE[::-1]).astype(np.uint8)
            Image.fromarray(rng.integers(0, 255, (*label.shape, 3)).astype(np.uint8)).save(tmp_path / split / "images" / f"{i:02}.jpg")
            Image.fromarray(label).save(tmp_path / split / "labels" / f"{i:02}.png")
    (tmp_path / "classes.json").write_text('{"name": "t", "void_id": 255, "classes": [{"id": 0, "name": "sky"}, {"id": 1, "name": "road"}, {"id": 2, "name": "car"}]}')
    return tmp_path


def label(root, i=5): return root / f"train/labels/{i:02}.png"
def photo(root, i=5): return root / f"train/images/{i:02}.jpg"


def test_a_faultless_folder(root):
    report = check_data(FOLDER, root)
    assert report.ok and not report.problems and report.counts == dict(train=12, val=2)
    assert report.sizes["train"] == {SIZE: 12} and report.class_set.names == ("don't care", "sky", "road", "car")
    counts = sum(np.bincount(np.asarray(Image.open(label(root, i))).ravel(), minlength=256) for i in range(12))
    assert report.histogram["train"].tolist() == counts[[255, 0, 1, 2]].tolist()
    text = report.text()
    assert "train: 12 pairs; width x height: 80 x 70 (12)" in text and "ready to train" in text and "not ready" not in text and "sky" in text
    quick_check(FOLDER, root, ("train", "val"))


FAULTS = {
    "no label map": (lambda r: label(r).unlink(), photo, "no label map", True),
    "no photo": (lambda r: photo(r).unlink(), label, "no photo", True),
    "two photos of one name": (lambda r: shutil.copy(photo(r), photo(r).with_suffix(".png")), lambda r: photo(r).with_suffix(".png"), "has the same name as 05.jpg", True),
    "other size": (lambda r: Image.new("L", (70, 80)).save(label(r)), label, "the label map is 70 x 80 pixels, its photo 80 x 70", True),
    "colour": (lambda r: Image.open(label(r)).convert("RGB").save(label(r)), label, "colour picture (mode RGB)", True),
    "16 bits": (lambda r: Image.new("I;16", SIZE).save(label(r)), label, "16-bit", True),
    "float": (lambda r: Image.new("F", SIZE).save(label(r), "TIFF"), label, "floating-point", True),
    "unknown id": (lambda r: Image.new("L", SIZE, 7).save(label(r)), label, "id 7 with no class (5600 of 5600 pixels)", False),
    "cut label map": (lambda r: label(r).write_bytes(label(r).read_bytes()[:300]), label, "cannot be read", False),
    "cut photo": (lambda r: photo(r).write_bytes(photo(r).read_bytes()[:-300]), photo, "truncated", False),
    "empty label map": (lambda r: label(r).write_bytes(b""), label, "cannot be read", True),
    "text for a photo": (lambda r: photo(r).write_text("<html>not found</html>"), photo, "cannot be read", True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found_with_file_and_remedy(root, fault):
    damage, file, words, in_header = FAULTS[fault]
    damage(root)
    report = check_data(FOLDER, root)
    errors = [p for p in report.problems if p.severity == "error"]
    assert not report.ok and len(errors) == 1, report.text()
    assert errors[0].file == str(file(root)) and words in errors[0].message and errors[0].remedy
    assert words in report.text() and errors[0].remedy in report.text() and "1 error, " in report.text() and "not ready to train" in report.text()
    with pytest.raises(DataError, match="check-data") as e: quick_check(FOLDER, root, decode=8 if in_header else 12)
    assert str(file(root)) in str(e.value) and words in str(e.value) and errors[0].remedy in str(e.value)


@pytest.mark.parametrize("fault", ["unknown id", "cut photo"])
def test_quick_check_decodes_a_few_only(root, fault):
    FAULTS[fault][0](root)                                                    # in the sixth pair, which 2 of 12 leave out
    quick_check(FOLDER, root, decode=2)


def test_several_faults_at_once_are_all_reported(root):
    label(root, 0).unlink()
    photo(root, 1).unlink()
    Image.new("RGB", SIZE).save(label(root, 2))
    Image.new("L", SIZE, 9).save(label(root, 3))
    photo(root, 4).write_bytes(photo(root, 4).read_bytes()[:-300])
    report = check_data(FOLDER, root)
    assert len(report.problems) == 5 and report.counts["train"] == 10
    with pytest.raises(DataError) as e: quick_check(FOLDER, root)
    assert str(e.value).count("\n") >= 2


def test_both_files_of_a_pair_can_be_wrong(root):
    photo(root).write_bytes(b"")
    Image.new("L", SIZE, 9).save(label(root))
    assert {Path(p.file).name for p in check_data(FOLDER, root).problems} == {"05.jpg", "05.png"}


def test_palette_label_maps_are_fine(root):
    for i in range(12):
        picture = Image.open(label(root, i))
        picture.putpalette([7, 200, 90] * 256)
        picture.save(label(root, i))
        assert Image.open(label(root, i)).mode == "P"
    before = check_data(FOLDER, root)
    assert before.ok and not before.problems


@pytest.mark.parametrize("content, words", [("{", "not valid JSON"), ('{"classes": [{"id": 1}]}', '"name" is None')])
def test_bad_class_lists_become_a_line_of_the_report(root, content, words):
    (root / "classes.json").write_text(content)
    report = check_data(FOLDER, root)
    assert not report.ok and words in report.text() and len(report.problems) == 1 and report.class_set is None


def test_missing_folders_become_a_line_of_the_report(root):
    for place, words in ((root / "none", "there is no such folder"), (None, "no data folder was given")):
        report = check_data(FOLDER, place)
        assert not report.ok and words in report.text() and "not ready" in report.text()
    (root / "classes.json").unlink()
    assert "lists the classes is missing" in check_data(FOLDER, root).text()


def test_missing_and_empty_splits(root):
    assert "the splits found there are train, val" in check_data(FOLDER, root, splits=["train", "test"]).text()
    for kind in ("images", "labels"):
        for path in (root / "train" / kind).iterdir(): path.unlink()
    report = check_data(FOLDER, root)
    assert not report.ok and report.counts == dict(train=0, val=2) and "there is no photo" in report.text()
    with pytest.raises(DataError, match="there is no photo"): quick_check(FOLDER, root)
    shutil.rmtree(root / "train")
    assert check_data(FOLDER, root).counts == dict(val=2)
    shutil.rmtree(root / "val")
    assert "train/images: there is no such folder" in check_data(FOLDER, root).text()


def test_contradicting_settings_are_reported_and_the_files_still_checked(root):
    report = check_data(DataConfig(dataset="folder", num_classes=7), root)
    assert not report.ok and report.counts == dict(train=12, val=2) and "data.num_classes is 7" in report.text()


def warnings(report): return [p for p in report.problems if p.severity == "warning"]


def test_small_photos_are_a_warning(root):
    report = check_data(DataConfig(dataset="folder", height=64, width=128), root, splits=["train"])
    assert report.ok and len(warnings(report)) == 1 and "12 of 12 photos in 'train' are smaller than 128 x 64, this one 80 x 70" in report.text()


def test_classes_that_never_occur_are_a_warning(root):
    for i in range(12): Image.new("L", SIZE, 1).save(label(root, i))
    report = check_data(FOLDER, root)
    assert report.ok and [p.message for p in warnings(report)] == ["never in 'train': 1 sky, 3 car"]


def test_no_class_is_called_missing_while_maps_cannot_be_read(root):
    for i in range(12): Image.new("L", SIZE, 7).save(label(root, i))
    report = check_data(FOLDER, root)
    assert not report.ok and not warnings(report)


def test_nothing_but_dont_care_is_a_warning(root):
    Image.new("L", SIZE, 255).save(label(root))
    report = check_data(FOLDER, root)
    assert report.ok and [p.file for p in warnings(report)] == [str(label(root))]


def test_copies_are_a_warning(root):
    shutil.copy(photo(root, 0), photo(root, 7))
    shutil.copy(photo(root, 0), root / "val/images/01.jpg")
    report = check_data(FOLDER, root)
    assert report.ok and {p.file for p in warnings(report)} == {str(photo(root, 7)), str(root / "val/images/01.jpg")}


def test_long_lists_are_shortened_and_grouped(root):
    for i in range(10): label(root, i).unlink()
    text = check_data(FOLDER, root).text(most=3)
    assert text.count("add the label map") == 1 and text.count("no label map") == 3 and "error, 10 times" in text and "... and 7 more" in text


def test_progress_is_called_like_tqdm(root):
    calls = []
    def progress(items, total, desc):
        calls.append((desc, total))
        yield from items
    assert check_data(FOLDER, root, progress=progress).ok and calls == [("train", 12), ("val", 2)]


def test_problems_are_plain_records():
    p = Problem.of(DataError("too small", "a.png", "enlarge it"))
    assert p == Problem("error", "a.png", "too small", "enlarge it") and str(p) == "a.png: too small; enlarge it"


def test_scenes_need_no_check():
    quick_check(DataConfig(), None)
    report = check_data(DataConfig())
    assert report.ok and report.counts == dict(train=10_000, val=500, test=500) and "building" in report.text()


@needs_data
@pytest.mark.parametrize("dataset, pack, size, counts, small", [
    ("folder", "camvid_256x192", (192, 256), dict(train=294, val=81, test=187), 0), ("folder", "cmp_facades_256", (256, 256), dict(train=242, val=60), 0),
    ("folder", "labelmefacade_256x192", (192, 256), dict(train=50, test=160), 0), ("cityscapes", "cityscapes_layout", (256, 512), dict(train=6, val=1), 0),
    ("cityscapes", "cityscapes_fullres", (256, 512), dict(train=1), 0), ("ade20k", "ADE20K_layout", (256, 256), dict(train=3, val=2), 1),
    ("coco_stuff", "coco_stuff", (256, 256), dict(train=10, val=6), 1)])
def test_real_packs_are_ready(dataset, pack, size, counts, small):
    data = DataConfig(dataset=dataset, height=size[0], width=size[1])
    quick_check(data, Path(DATA, pack), tuple(counts))
    report = check_data(data, Path(DATA, pack))
    assert report.ok and report.counts == counts, report.text()
    assert sum("smaller than" in p.message for p in report.problems) == small
    assert not any("byte for byte" in p.message for p in report.problems)


@needs_data
def test_a_damaged_copy_of_a_real_pack(tmp_path):
    root = tmp_path / "camvid"
    shutil.copytree(Path(DATA, "camvid_tiny_256x192"), root, copy_function=shutil.copyfile)
    images, labels = (sorted((root / "train" / kind).iterdir()) for kind in ("images", "labels"))
    labels[0].unlink()
    images[3].write_bytes(images[3].read_bytes()[:2000])
    Image.new("L", (256, 192), 12).save(labels[5])
    report = check_data(DataConfig(dataset="folder", height=192, width=256), root)
    assert {(p.file, p.severity) for p in report.problems} == {(str(images[0]), "error"), (str(images[3]), "error"), (str(labels[5]), "error")}
    with pytest.raises(DataError, match="no label map"): PairDataset(DataConfig(dataset="folder"), root, "train")
