"""Layouts, pairing, reading, crops, the order of a run, loaders, label folders."""
import itertools
import os
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from dpgan.config import DataConfig
from dpgan.data import (SCENES, DataError, LabelFolder, PairDataset, StepSampler, apply_crop, epoch_of, epoch_order, evaluation_loader, existing_splits,
                        open_class_set, open_pairs, pair_files, resolve_data, sample_crop, split_folders, to_float, training_loader)
from dpgan.labels import ADE20K, CITYSCAPES, lookup_table

DATA = os.environ.get("DPGAN_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="DPGAN_TEST_DATA is not set: it names the folder of real data packs")
PACKS = [("folder", "camvid_tiny_256x192", dict(train=32, val=16), 12, True), ("folder", "camvid_256x192", dict(train=294, val=81, test=187), 12, True),
         ("folder", "cmp_facades_tiny_256", dict(train=16, val=8), 12, False), ("folder", "cmp_facades_256", dict(train=242, val=60), 12, False),
         ("folder", "labelmefacade_256x192", dict(train=50, test=160), 9, True), ("cityscapes", "cityscapes_layout", dict(train=6, val=1), 35, True),
         ("cityscapes", "cityscapes_fullres", dict(train=1), 35, True), ("ade20k", "ADE20K_layout", dict(train=3, val=2), 151, True),
         ("ade20k", "ADE20K_layout/ADEChallengeData2016", dict(train=3, val=2), 151, True), ("coco_stuff", "coco_stuff", dict(train=10, val=6), 183, True)]
FOLDER = DataConfig(dataset="folder", workers=0)
JITTER = replace(FOLDER, load_height=72, load_width=150)


def same(a, b): return a["name"] == b["name"] and torch.equal(a["image"], b["image"]) and torch.equal(a["label"], b["label"])


@pytest.fixture
def streets(tmp_path):
    "A folder of 7 + 3 pairs of odd sizes in which the photo shows where its pixels come from and the label map agrees with it."
    rng = np.random.default_rng(0)
    root = tmp_path / "streets"
    for split, n in (("train", 7), ("val", 3)):
        for kind in ("images", "labels"): (root / split / kind).mkdir(parents=True)
        for i in range(n):
            label = rng.integers(0, 4, (5, 9)).astype(np.uint8).repeat(20, 0).repeat(20, 1)
            Image.fromarray(np.stack([label * 60] * 3, -1)).save(root / split / "images" / f"{i:02}.png")
            Image.fromarray(label).save(root / split / "labels" / f"{i:02}.png")
    (root / "classes.json").write_text('{"name": "s", "void_id": 3, "classes": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}, {"id": 2, "name": "c"}]}')
    return root


# real packs

@needs_data
@pytest.mark.parametrize("dataset, pack, counts, n, dont_care", PACKS)
def test_packs_are_read(dataset, pack, counts, n, dont_care):
    root, data = Path(DATA, pack), DataConfig(dataset=dataset, height=64, width=128, workers=0)
    assert existing_splits(dataset, root) == list(counts)
    resolved = resolve_data(data, root)
    assert (resolved.num_classes, resolved.dont_care) == (n, dont_care)
    for split, count in counts.items():
        dataset = PairDataset(resolved, root, split, train=split == "train")
        assert len(dataset) == count and len({dataset.pairs.name(i) for i in range(count)}) == count
        item = dataset[(2, count - 1)] if split == "train" else dataset[count - 1]
        assert item["image"].shape == (3, 64, 128) and item["image"].dtype == item["label"].dtype == torch.uint8
        assert item["label"].shape == (64, 128) and item["label"].max() < n


@needs_data
def test_cityscapes_pairs_are_the_right_ones():
    pairs, problems = pair_files("cityscapes", Path(DATA, "cityscapes_layout"), "train")
    assert not problems
    for p in pairs: assert p.name.startswith("aachen/") and p.image.name.replace("leftImg8bit", "gtFine_labelIds") == p.label.name


@needs_data
def test_coco_void_becomes_dont_care():
    root = Path(DATA, "coco_stuff")
    reader = open_pairs(DataConfig(dataset="coco_stuff"), root, "train")
    for i in range(len(reader)):
        label, raw = reader.read(i, None, None)[1], np.asarray(Image.open(reader.pairs[i].label))
        assert (label == (raw.astype(int) + 1) % 256).all()


@needs_data
def test_evaluation_resizes_as_described():
    root = Path(DATA, "cityscapes_fullres")
    item = PairDataset(DataConfig(dataset="cityscapes", height=256, width=512), root, "train")[0]
    pair = pair_files("cityscapes", root, "train")[0][0]
    photo, label = Image.open(pair.image), Image.open(pair.label)
    assert photo.size == (2048, 1024)
    assert (item["image"].permute(1, 2, 0).numpy() == np.asarray(photo.resize((512, 256), Image.Resampling.BICUBIC))).all()
    assert (item["label"].numpy() == np.asarray(label.resize((512, 256), Image.Resampling.NEAREST))).all()


@needs_data
@pytest.mark.parametrize("pack, classes, count, name", [("cityscapes_labels_only", CITYSCAPES, 11, "frankfurt_000000_003357"), ("ade20k_labels_only", ADE20K, 21, "ADE_val_00000011")])
def test_label_folders(pack, classes, count, name):
    folder = LabelFolder(Path(DATA, pack), classes, 64, 128)
    items = [folder[i] for i in range(len(folder))]
    assert len(items) == count and name in {x["name"] for x in items}
    assert all(x["label"].shape == (64, 128) and x["label"].dtype == torch.uint8 and x["label"].max() < classes.num_classes for x in items)
    batches = list(evaluation_loader(folder, 4))
    assert sum(len(b["name"]) for b in batches) == count and to_float(batches[0], "cpu")["label"].dtype == torch.int64


@needs_data
def test_camvid_preset_on_facades_is_refused():
    with pytest.raises(DataError, match="data.dont_care is True.*--preset folder"):
        resolve_data(replace(FOLDER, num_classes=12, dont_care=True), Path(DATA, "cmp_facades_256"))
    with pytest.raises(DataError, match="data.num_classes is 12.*9 classes"): resolve_data(replace(FOLDER, num_classes=12), Path(DATA, "labelmefacade_256x192"))


# scenes

def test_scenes_have_disjoint_splits_and_need_no_root():
    readers = {s: open_pairs(DataConfig(), None, s) for s in ("train", "val", "test")}
    assert {s: len(r) for s, r in readers.items()} == dict(train=10_000, val=500, test=500)
    names = [r.name(i) for r in readers.values() for i in range(len(r))]
    assert len(set(names)) == 11_000
    resolved = resolve_data(DataConfig(), None)
    assert resolved.num_classes == SCENES.num_classes >= 12 and resolved.dont_care
    with pytest.raises(DataError, match="no split 'valid'.*did you mean 'val'"): open_pairs(DataConfig(), None, "valid")


@pytest.mark.parametrize("height, width, load", [(64, 128, None), (128, 128, None), (64, 64, (72, 100))])
def test_scenes_come_at_any_size(height, width, load):
    data = DataConfig(height=height, width=width, load_height=load and load[0], load_width=load and load[1])
    item = PairDataset(data, None, "train", train=True)[1, 42]
    assert item["image"].shape == (3, height, width) and item["label"].shape == (height, width) and item["label"].max() < SCENES.num_classes


# crops

@given(seed=st.integers(0, 2**32), size=st.tuples(st.integers(1, 9), st.integers(1, 9)), more=st.tuples(st.integers(0, 5), st.integers(0, 5)), flip=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=100, deadline=None)
def test_crop_does_the_same_to_both(seed, size, more, flip):
    load = size[0] + more[0], size[1] + more[1]
    crop = sample_crop(np.random.default_rng(seed), load, size, flip)
    assert crop == sample_crop(np.random.default_rng(seed), load, size, flip)
    where = np.arange(load[0] * load[1]).reshape(load)
    label, image = apply_crop(where, crop), apply_crop(np.stack([where] * 3, -1), crop)
    assert label.shape == size and (image == label[..., None]).all()
    assert crop.flip in {0.0: (False,), 0.5: (False, True), 1.0: (True,)}[flip]
    plain = where[crop.top:crop.top + size[0], crop.left:crop.left + size[1]]
    assert (label == (plain[:, ::-1] if crop.flip else plain)).all()


def test_photo_and_label_agree_after_augmentation(streets):
    train = PairDataset(replace(FOLDER, load_height=100, load_width=180), streets, "train", train=True)  # the files' own size: no resampling
    to_grey = torch.tensor([180, 0, 60, 120])                                  # void (raw 3) became index 0
    for epoch, index in itertools.product(range(4), range(7)):
        item = train[epoch, index]
        assert torch.equal(item["image"][0].long(), to_grey[item["label"].long()])


def test_every_window_and_both_directions_occur(streets):
    train = PairDataset(JITTER, streets, "train", train=True)
    draws = [sample_crop(np.random.default_rng(s), train.load_size, train.size, 0.5) for s in range(3000)]
    assert {c.top for c in draws} == set(range(9)) and {c.left for c in draws} == set(range(23))
    assert 0.45 < np.mean([c.flip for c in draws]) < 0.55
    never, always = (PairDataset(replace(FOLDER, flip=p), streets, "train", train=True) for p in (0.0, 1.0))
    assert torch.equal(never[0, 1]["label"], always[5, 1]["label"].flip(-1)) and torch.equal(never[0, 1]["image"], always[5, 1]["image"].flip(-1))


def test_evaluation_takes_whole_frames_and_ignores_epochs(streets):
    val = PairDataset(JITTER, streets, "val")
    assert val.load_size == (64, 128) and same(val[1], val[7, 1]) and val[-1]["name"] == "02"
    with pytest.raises(IndexError): val[3]
    assert len(list(val)) == 3


# randomness with an address

def test_items_depend_on_seed_epoch_and_index_alone(streets):
    a, b = (PairDataset(JITTER, streets, "train", train=True, seed=4) for _ in range(2))
    items = {(e, i): a[e, i] for e in range(3) for i in range(7)}
    PairDataset(replace(JITTER, load_height=None), streets, "val")             # something built afterwards
    for key in reversed(items): assert same(items[key], b[key])
    other = PairDataset(JITTER, streets, "train", train=True, seed=5)
    assert sum(not same(items[key], other[key]) for key in items) > 15
    assert sum(not same(a[0, i], a[1, i]) for i in range(7)) > 4


def test_order_and_crops_never_share_a_stream():
    from dpgan.data import _AUGMENT, _SHUFFLE, _rng
    assert _rng(3, 1, 0, _SHUFFLE).random() != _rng(3, 1, 0, _AUGMENT).random()


def test_global_random_states_are_left_alone(streets):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    train = PairDataset(JITTER, streets, "train", train=True)
    next(iter(training_loader(train, 2, 0))), next(iter(evaluation_loader(train, 2)))
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize("train", [True, False])
def test_cache_changes_nothing(streets, train):
    plain, cached = (PairDataset(replace(JITTER, cache=c), streets, "train", train=train, seed=2) for c in (False, True))
    assert all(same(plain[e, i], cached[e, i]) for e in range(3) for i in range(7))
    item = cached[0, 0]
    item["image"].zero_(), item["label"].zero_()
    assert same(plain[0, 0], cached[0, 0]), "items are copies"


# the order of a run

def take(count, **kw): return list(itertools.islice(StepSampler(**kw), count))


@given(n=st.integers(1, 23), batch=st.integers(1, 9), seed=st.integers(0, 99), world=st.integers(1, 4), start=st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_stream_properties(n, batch, seed, world, start):
    steps = 3 * n // (batch * world) + 2
    ranks = [take(steps, n=n, batch_size=batch, seed=seed, rank=r, world=world) for r in range(world)]
    stream = [item for batches in zip(*ranks) for b in batches for item in b]
    assert all(len(b) == batch for r in ranks for b in r)
    for epoch in range(len(stream) // n): assert sorted(i for e, i in stream if e == epoch) == list(range(n)), "every index once an epoch"
    assert max(Counter(stream).values()) == 1, "ranks never share an item"
    assert [e for e, _ in stream] == sorted(e for e, _ in stream)
    assert stream == [item for b in take(steps * world, n=n, batch_size=batch, seed=seed) for item in b], "several processes walk one stream"
    whole = take(start + 3, n=n, batch_size=batch, seed=seed, rank=world - 1, world=world)
    assert take(3, n=n, batch_size=batch, seed=seed, rank=world - 1, world=world, start_step=start) == whole[start:], "starting at k is skipping k"


def test_epochs_and_seeds_give_different_orders():
    orders = {tuple(epoch_order(s, e, 50)) for s in range(5) for e in range(5)}
    assert len(orders) == 25 and epoch_of(7, 28, 4) == 1.0 and epoch_of(7, 28, 4, world=2) == 2.0
    with pytest.raises(DataError, match="no pairs"): StepSampler(0, 4, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_number_of_workers_does_not_matter(streets, workers):
    train = PairDataset(JITTER, streets, "train", train=True, seed=1)
    run = lambda w, start=0: list(itertools.islice(training_loader(train, 3, seed=9, start_step=start, workers=w), 8 - start))
    alone, several = run(0), run(workers)
    assert all(same(a, b) for a, b in zip(alone, several, strict=True))
    assert all(same(a, b) for a, b in zip(alone[5:], run(workers, start=5), strict=True)), "a resumed run goes on exactly"


def test_workers_default_to_the_settings(streets):
    train = PairDataset(replace(JITTER, workers=1), streets, "train", train=True)
    assert training_loader(train, 2, 0).num_workers == 1 and training_loader(train, 2, 0, workers=0).num_workers == 0


def test_batches_larger_than_the_data_set(streets):
    batch = next(iter(training_loader(PairDataset(FOLDER, streets, "val", train=True), 8, seed=0)))
    assert batch["image"].shape == (8, 3, 64, 128) and len(batch["name"]) == 8 and set(Counter(batch["name"]).values()) == {2, 3}


def test_evaluation_loader_gives_everything_once(streets):
    batches = list(evaluation_loader(PairDataset(FOLDER, streets, "train"), 3))
    assert [n for b in batches for n in b["name"]] == [f"{i:02}" for i in range(7)] and len(batches[-1]["name"]) == 1


def test_to_float(streets):
    batch = next(iter(evaluation_loader(PairDataset(FOLDER, streets, "val"), 3)))
    ready = to_float(batch, "cpu")
    assert ready["image"].dtype == torch.float32 and ready["label"].dtype == torch.int64 and ready["name"] == batch["name"]
    assert torch.equal(ready["image"], batch["image"].float() / 127.5 - 1) and batch["image"].dtype == torch.uint8
    assert to_float(dict(label=batch["label"]), "cpu").keys() == {"label"}


@pytest.mark.parametrize("cache", [False, True])
def test_data_sets_can_be_sent_to_a_process(streets, cache):
    train = PairDataset(replace(JITTER, cache=cache), streets, "train", train=True)
    assert same(pickle.loads(pickle.dumps(train))[1, 2], train[1, 2])


# files that change or break while training runs

@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage, words", [("cut", "cannot be read"), ("delete", "cannot be read"), ("id", "id 9 with no class"), ("size", "8 x 8 pixels, its photo 180 x 100"), ("rgb", "mode RGB")])
def test_errors_in_workers_name_the_file(streets, workers, damage, words):
    train = PairDataset(FOLDER, streets, "train", train=True)
    label = streets / "train/labels/03.png"
    if damage == "cut": label.write_bytes(label.read_bytes()[:60])
    elif damage == "delete": label.unlink()
    elif damage == "id": Image.fromarray(np.full((100, 180), 9, np.uint8)).save(label)
    elif damage == "size": Image.fromarray(np.zeros((8, 8), np.uint8)).save(label)
    else: Image.new("RGB", (180, 100)).save(label)
    batches = iter(training_loader(train, 7, seed=0, workers=workers))
    with pytest.raises(DataError) as e: next(batches), next(batches)
    if workers: batches._shutdown_workers()                                   # left to the garbage collector it can take five seconds
    assert str(e.value).startswith(str(label)) and words in str(e.value) and "Traceback" not in str(e.value)


def test_cache_names_the_broken_file(streets):
    (streets / "train/images/02.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="images/02.png: cannot be read"): PairDataset(replace(FOLDER, cache=True), streets, "train")


# folders

def test_missing_folders_say_what_was_looked_for(streets):
    with pytest.raises(DataError, match="no data folder.*--data"): open_pairs(FOLDER, None, "train")
    with pytest.raises(DataError, match="street: there is no such folder; did you mean 'streets'"): open_pairs(FOLDER, streets.parent / "street", "train")
    with pytest.raises(DataError, match="/nowhere/at/all: there is no such folder"): split_folders("folder", "/nowhere/at/all", "train")
    with pytest.raises(DataError, match=r"the splits found there are train, val$"): open_pairs(FOLDER, streets, "test")
    with pytest.raises(DataError, match="no split 'training'; did you mean 'train'.*choose from train, val"): split_folders("ade20k", streets, "training")


def test_one_level_too_high_or_too_low(streets, monkeypatch):
    with pytest.raises(DataError, match=f"there is one in {streets}: give that folder"): open_pairs(FOLDER, streets.parent, "train")
    with pytest.raises(DataError, match=f"it is in {streets}: give that folder"): split_folders("folder", streets.parent, "train")
    with pytest.raises(DataError, match=f"there is one in {streets}: give that folder"): open_pairs(FOLDER, streets / "train", "train")
    monkeypatch.chdir(streets / "train")
    with pytest.raises(DataError, match=f"it is in {streets}: give that folder"): split_folders("folder", ".", "train")


@needs_data
def test_official_layouts_one_level_off():
    city, ade = Path(DATA, "cityscapes_layout"), Path(DATA, "ADE20K_layout")
    with pytest.raises(DataError, match="consists of leftImg8bit/train/<city>/NAME_leftImg8bit.png and gtFine/train/<city>/NAME_gtFine_labelIds.png; it is in .*cityscapes_layout: give"):
        split_folders("cityscapes", city / "leftImg8bit", "train")
    with pytest.raises(DataError, match="it is in .*cityscapes_layout: give"): split_folders("cityscapes", city / "gtFine" / "train", "train")
    with pytest.raises(DataError, match="looks like cityscapes"): split_folders("ade20k", city, "train")
    with pytest.raises(DataError, match="looks like folder"): split_folders("cityscapes", Path(DATA, "camvid_tiny_256x192"), "train")
    with pytest.raises(DataError, match="it is in .*ADEChallengeData2016: give|it is in .*ADE20K_layout: give"): split_folders("ade20k", ade / "ADEChallengeData2016" / "images", "train")


def test_pairs_without_a_split_are_explained(tmp_path):
    for kind in ("images", "labels"): (tmp_path / kind).mkdir()
    with pytest.raises(DataError, match="has no split: move it and the labels one level down"): split_folders("folder", tmp_path, "train")


def test_labels_folder_missing(streets):
    (streets / "val/labels").rename(streets / "val/masks")
    with pytest.raises(DataError, match="val/labels: there is no such folder"): open_pairs(FOLDER, streets, "val")
    assert existing_splits("folder", streets) == ["train", "val"]


# pairing

def test_unpaired_files_are_named_both_ways(streets):
    (streets / "train/labels/02.png").unlink()
    (streets / "train/images/04.png").unlink()
    with pytest.raises(DataError) as e: open_pairs(FOLDER, streets, "train")
    assert "images/02.png: no label map" in str(e.value) and "labels/04.png: no photo" in str(e.value) and "dpgan check-data" in str(e.value)


def test_many_unpaired_files_are_summed_up(streets):
    for path in (streets / "train/labels").iterdir(): path.unlink()
    with pytest.raises(DataError, match=r"\.\.\. and 2 more\n`dpgan check-data`"): open_pairs(FOLDER, streets, "train")


def test_empty_split_and_double_names(streets):
    Image.new("RGB", (180, 100)).save(streets / "train/images/02.jpg")
    with pytest.raises(DataError, match="02.png: has the same name as 02.jpg; keep one"): open_pairs(FOLDER, streets, "train")
    for kind in ("images", "labels"):
        for path in (streets / "val" / kind).iterdir(): path.unlink()
    with pytest.raises(DataError, match="val/images: there is no photo"): open_pairs(FOLDER, streets, "val")


def test_hidden_files_capitals_subfolders_and_links(streets, tmp_path):
    (streets / "train/images/._00.png").write_bytes(b"macOS")
    (streets / "train/labels/.DS_Store").write_bytes(b"macOS")
    (streets / "train/images/00.png").rename(streets / "train/images/00.PNG")
    for kind in ("images", "labels"):
        (tmp_path / "far" / kind).mkdir(parents=True)
        (streets / "train" / kind / "06.png").rename(tmp_path / "far" / kind / "06.png")
        (streets / "train" / kind / "town").symlink_to(tmp_path / "far" / kind)
    pairs, problems = pair_files("folder", streets, "train")
    assert not problems and [p.name for p in pairs] == ["00", "01", "02", "03", "04", "05", "town/06"]
    assert len(PairDataset(FOLDER, streets, "train")[6]["name"]) == 7


# pixel formats

def save_label(path, label, kind):
    picture = Image.fromarray(label)
    if kind == "palette":
        picture.putpalette(list(range(255, -1, -1)) * 3)
        picture.save(path)
    elif kind in ("palette 2", "palette 4"):
        picture.putpalette([9, 8, 7] * 16)
        picture.save(path, bits=int(kind[-1]))
    elif kind in ("grey 2", "grey 4"): path.write_bytes(grey_png(label, int(kind[-1])))
    elif kind == "1 bit": Image.fromarray(label.astype(bool)).save(path)
    else: picture.save(path)


def grey_png(label, bits):
    "A grey PNG of few bits, written by hand so that Pillow cannot agree with itself."
    import struct
    import zlib
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    shifts = range(8 - bits, -1, -bits)
    per = 8 // bits
    rows = b"".join(b"\0" + bytes(sum(int(v) << s for v, s in zip(row[i:i + per], shifts)) for i in range(0, len(row), per)) for row in label)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", label.shape[1], label.shape[0], bits, 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind, top", [("grey", 4), ("palette", 4), ("palette 4", 4), ("palette 2", 4), ("grey 4", 4), ("grey 2", 4), ("1 bit", 2)])
@pytest.mark.parametrize("size", [(None, None), (64, 128)])
def test_label_formats_give_the_ids(tmp_path, kind, top, size):
    from dpgan.data import _ids, _reading
    label = np.random.default_rng(0).integers(0, top, (64, 128)).astype(np.uint8)
    path = tmp_path / "x.png"
    save_label(path, label, kind)
    with _reading(path) as picture: assert (_ids(picture, path, *size) == label).all()
    with _reading(path) as picture: assert (_ids(picture, path, 32, 64) == np.asarray(Image.fromarray(label).resize((64, 32), 0))).all()


@pytest.mark.parametrize("mode, words", [("RGB", "colour picture .mode RGB"), ("RGBA", "mode RGBA"), ("LA", "mode LA"), ("I;16", "16-bit"), ("I", "16-bit")])
def test_label_formats_that_are_refused(streets, mode, words):
    path = streets / "train/labels/00.png"
    Image.new(mode, (180, 100)).save(path, "TIFF" if mode == "I" else "PNG")
    with pytest.raises(DataError, match=words) as e: PairDataset(FOLDER, streets, "train")[0]
    assert e.value.file == str(path) and "mode L" in e.value.remedy


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_photos_of_any_8_bit_mode_are_read(streets, mode):
    path = streets / "train/images/00.png"
    path.unlink()
    Image.new(mode, (180, 100)).save(path.with_suffix(".tif" if mode == "CMYK" else ".png"))
    assert PairDataset(FOLDER, streets, "train")[0]["image"].shape == (3, 64, 128)


def test_16_bit_photos_are_refused(streets):
    Image.new("I;16", (180, 100)).save(streets / "train/images/00.png")
    with pytest.raises(DataError, match="8 bits a channel"): PairDataset(FOLDER, streets, "train")[0]


# label folders

def test_label_folder_names_and_what_is_passed_over(streets, tmp_path):
    classes = open_class_set(FOLDER, streets)
    both = LabelFolder(streets / "train" / "labels", classes, 64, 128)
    assert [both[i]["name"] for i in range(len(both))] == [f"{i:02}" for i in range(7)]
    for part in ("a", "b", "b_inst"):
        (tmp_path / "maps" / part).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "maps" / part / "same.png")
    maps = LabelFolder(tmp_path / "maps", classes, 64, 64)
    assert [maps[i]["name"] for i in range(len(maps))] == ["a/same", "b/same"]
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "maps" / "b" / "x_gtFine_labelIds.png")
    assert LabelFolder(tmp_path / "maps", classes, 64, 64)[0]["name"] == "x"


def test_label_folder_errors(streets, tmp_path):
    classes = open_class_set(FOLDER, streets)
    with pytest.raises(DataError, match="there is no such folder"): LabelFolder(tmp_path / "none", classes, 64, 64)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no label map .PNG."): LabelFolder(tmp_path / "empty", classes, 64, 64)
    Image.new("RGB", (4, 4)).save(tmp_path / "empty/x.png")
    with pytest.raises(DataError, match="x.png: this is a colour picture"): LabelFolder(tmp_path / "empty", classes, 64, 64)[0]
    Image.new("L", (4, 4), 200).save(tmp_path / "empty/x.png")
    with pytest.raises(DataError, match="x.png: id 200 with no class"): LabelFolder(tmp_path / "empty", classes, 64, 64)[0]


# settings and data set

@pytest.mark.parametrize("change, words", [(dict(num_classes=5), "data.num_classes is 5, but 's' has 4 classes with don't care.*data.num_classes=4.*--preset folder"), (dict(dont_care=False), "data.dont_care is False")])
def test_contradictions_are_refused(streets, change, words):
    assert resolve_data(replace(FOLDER, num_classes=4, dont_care=True), streets).num_classes == 4
    with pytest.raises(DataError, match=words): resolve_data(replace(FOLDER, **change), streets)


def test_contradictions_with_built_in_sets():
    assert resolve_data(DataConfig(dataset="cityscapes"), None).num_classes == 35
    with pytest.raises(DataError, match="data.num_classes is 19"): resolve_data(DataConfig(dataset="cityscapes", num_classes=19), None)


def test_tables_are_shared_by_a_split(streets):
    reader = open_pairs(FOLDER, streets, "train")
    assert reader.table is reader.table and (reader.table == lookup_table(reader.class_set)).all() and reader.table[3] == 0
