"""Class sets, lookup tables, one-hot, pictures."""
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from dpgan.labels import (ADE20K, CITYSCAPES, COCO_STUFF, ClassSet, DataError, apply_table, class_set_from_json, colourise, image_to_uint8, legend,
                          lookup_table, one_hot, palette, sample_grid, tile, uint8_to_image)

DATA = os.environ.get("DPGAN_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="DPGAN_TEST_DATA is not set: it names the folder of real data packs")
BUILT_IN = (CITYSCAPES, ADE20K, COCO_STUFF)


@pytest.mark.parametrize("classes, n", [(CITYSCAPES, 35), (ADE20K, 151), (COCO_STUFF, 183)])
def test_built_in_sets(classes, n):
    assert classes.num_classes == n and classes.dont_care
    assert len(set(classes.names)) == n, "names are unique"
    assert ClassSet.from_dict(json.loads(json.dumps(classes.to_dict()))) == classes
    assert hash(classes) == hash(ClassSet.from_dict(classes.to_dict()))


@needs_data
@pytest.mark.parametrize("classes, pack, first", [(CITYSCAPES, "cityscapes_layout", 0), (ADE20K, "ade20k_labels_only", 0), (COCO_STUFF, "coco_stuff", 1)])
def test_built_in_sets_agree_with_the_packs(classes, pack, first):
    on_disk = class_set_from_json(Path(DATA, pack, "classes.json"))
    n = on_disk.num_classes
    for ours, theirs in zip(classes.names[first:n], on_disk.names[first:]): assert theirs.replace(";", " ").startswith(ours)
    ids = [(0,), *on_disk.raw_ids[1:]] if pack.startswith("cityscapes") else on_disk.raw_ids
    assert [g[:1] for g in classes.raw_ids[:n]] == list(ids)
    if pack.startswith("cityscapes"): assert classes.colours[:n] == on_disk.colours


@needs_data
@pytest.mark.parametrize("pack, n, dont_care, first", [("camvid_256x192", 12, True, "Unlabelled"), ("cmp_facades_256", 12, False, "background"), ("labelmefacade_256x192", 9, True, "various")])
def test_packs_of_pairs(pack, n, dont_care, first):
    classes = class_set_from_json(Path(DATA, pack, "classes.json"))
    assert (classes.num_classes, classes.dont_care, classes.names[0]) == (n, dont_care, first)


@pytest.mark.parametrize("change", [dict(names=("a",)), dict(colours=()), dict(raw_ids=((1,), (1,))), dict(raw_ids=((1,), (256,))), dict(raw_ids=((-1,), (2,)))])
def test_contradictory_class_sets_are_refused(change):
    good = dict(name="x", names=("a", "b"), colours=((0, 0, 0), (1, 1, 1)), dont_care=False, raw_ids=((1,), (2,)))
    ClassSet(**good)
    with pytest.raises(DataError, match="'x'"): ClassSet(**good | change)


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "classes.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path
    return write


def entries(*ids): return [{"id": i, "name": f"class {i}"} for i in ids]


@pytest.mark.parametrize("void, ids, raw_ids, names", [
    (None, (1, 2, 3), ((1,), (2,), (3,)), "class 1"),
    (None, (3, 0, 7), ((0,), (3,), (7,)), "class 0"),
    (255, (0, 1), ((255,), (0,), (1,)), "don't care"),
    (11, (0, 11, 5), ((11,), (0,), (5,)), "class 11"),
    (0, (0, 1), ((0,), (1,)), "class 0")])
def test_void_comes_first_and_ids_follow_in_order(write, void, ids, raw_ids, names):
    classes = class_set_from_json(write({"name": "x", "void_id": void, "classes": entries(*ids)}))
    assert classes.raw_ids == raw_ids and classes.names[0] == names and classes.dont_care == (void is not None)
    table = lookup_table(classes)
    assert [table[i] for (i,) in raw_ids] == list(range(len(raw_ids))) and (table >= 0).sum() == len(raw_ids)


def test_colours_are_filled_in_and_both_spellings_read(write):
    classes = class_set_from_json(write({"void_id": 9, "classes": [{"id": 1, "name": "a", "colour": [1, 2, 3]}, {"id": 2, "name": "b", "color": [4, 5, 6]}, {"id": 3, "name": "c"}]}))
    assert classes.colours == ((0, 0, 0), (1, 2, 3), (4, 5, 6), palette(4, dont_care=True)[3])


def test_no_void_id_means_no_dont_care(write):
    assert not class_set_from_json(write({"classes": entries(0, 1)})).dont_care


@pytest.mark.parametrize("content, words", [
    ("{", "not valid JSON.*line 1"),
    ("[1, 2]", "no list .classes."),
    ({"name": "x"}, "no list .classes."),
    ({"classes": []}, "no list .classes."),
    ({"classes": {"id": 1}}, "no list .classes."),
    ({"classes": [7]}, "entry 0 of classes is 7"),
    ({"classes": [{"name": "a"}]}, 'entry 0 of classes: "id" is None.*0..255'),
    ({"classes": [{"id": "1", "name": "a"}]}, "\"id\" is '1'"),
    ({"classes": [{"id": True, "name": "a"}]}, '"id" is True'),
    ({"classes": [{"id": 1.0, "name": "a"}]}, '"id" is 1.0'),
    ({"classes": [{"id": 256, "name": "a"}]}, '"id" is 256'),
    ({"classes": [{"id": 1}]}, 'id 1.: "name" is None'),
    ({"classes": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "entry 1 of classes: id 1 is already taken by 'a'"),
    ({"classes": [{"id": 1, "name": "a", "color": [1, 2]}]}, '"color" is .1, 2.'),
    ({"classes": [{"id": 1, "name": "a", "color": [1, 2, 300]}]}, "three whole numbers"),
    ({"void_id": 300, "classes": entries(1)}, '"void_id" is 300'),
    ({"void_id": "none", "classes": entries(1)}, "\"void_id\" is 'none'")])
def test_malformed_json_names_file_entry_and_remedy(write, content, words):
    path = write(content)
    with pytest.raises(DataError, match=words) as e: class_set_from_json(path)
    assert e.value.file == str(path) and e.value.remedy and str(e.value).startswith(str(path))


def test_missing_and_binary_json(tmp_path):
    with pytest.raises(DataError, match="classes.json: the file that lists the classes is missing"): class_set_from_json(tmp_path / "classes.json")
    (tmp_path / "classes.json").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="UTF-8"): class_set_from_json(tmp_path / "classes.json")


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(DataError("too small", "a.png", "enlarge it")))
    assert str(error) == "a.png: too small; enlarge it" and error.file == "a.png" and error.remedy == "enlarge it"


@pytest.mark.parametrize("classes", BUILT_IN)
def test_table_inverts_the_ids(classes):
    table = lookup_table(classes)
    assert table.shape == (256,) and table.dtype == np.int16
    for index, ids in enumerate(classes.raw_ids):
        for i in ids: assert table[i] == index
    assert (table >= 0).sum() == sum(map(len, classes.raw_ids))


def test_apply_table_names_file_ids_and_remedy():
    raw = np.array([[0, 150], [151, 200]], np.uint8)
    with pytest.raises(DataError, match=r"a/b.png: ids 151, 200 with no class \(2 of 4 pixels\)") as e: apply_table(raw, lookup_table(ADE20K), "a/b.png")
    assert "void id" in e.value.remedy
    many = np.arange(256, dtype=np.uint8).reshape(16, 16)
    with pytest.raises(DataError, match=r"158, \.\.\. with no class"): apply_table(many, lookup_table(ADE20K))
    label = apply_table(raw[:1], lookup_table(ADE20K))
    assert label.dtype == np.uint8 and label.tolist() == [[0, 150]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("n", [2, 35])
def test_one_hot(dtype, n):
    label = torch.randint(0, n, (2, 5, 7), generator=torch.Generator().manual_seed(0)).to(dtype)
    onehot = one_hot(label, n)
    expected = torch.stack([(label == k) for k in range(n)], 1).float()
    assert onehot.shape == (2, n, 5, 7) and torch.equal(onehot, expected)
    assert one_hot(label, n, torch.float16).dtype == torch.float16


def test_one_hot_of_all_256_classes():
    label = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    assert torch.equal(one_hot(label, 256).argmax(1), label.long())


def test_one_hot_refuses_what_is_no_batch_of_label_maps():
    label = torch.zeros(2, 4, 4, dtype=torch.int64)
    for wrong in (label.float(), label.double(), label.half(), label.bool()):
        with pytest.raises(TypeError, match="integer one, not torch"): one_hot(wrong, 3)
    for wrong in (label[0], label[:, None]):
        with pytest.raises(ValueError, match="shape"): one_hot(wrong, 3)
    with pytest.raises(ValueError, match="0..3 do not fit 3 classes"): one_hot(label + torch.arange(4), 3)
    with pytest.raises(ValueError, match="-1..0"): one_hot(label - torch.eye(4, dtype=torch.int64), 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_one_hot_does_not_wait_for_the_device():
    label = torch.randint(0, 35, (2, 64, 64)).cuda()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try: onehot = one_hot(label, 35)
    finally: torch.cuda.set_sync_debug_mode(before)
    assert torch.equal(onehot.cpu(), one_hot(label.cpu(), 35))


@pytest.mark.parametrize("n", [1, 12, 151, 256])
def test_palette(n):
    colours = palette(n)
    assert len(set(colours)) == n and colours == palette(n) and colours == palette(256)[:n]
    assert palette(n, dont_care=True)[0] == (0, 0, 0) and len(palette(n, dont_care=True)) == n
    assert all(0 <= v <= 255 for c in colours for v in c)


def test_palette_keeps_colours_apart():
    c = np.array(palette(183, dont_care=True), int)
    assert min(np.abs(c[i] - c[:i]).sum(-1).min() for i in range(1, 183)) >= 20


def test_colourise_takes_tensors_arrays_class_sets_and_colours():
    label = torch.tensor([[[7, 26], [0, 23]]])
    expected = np.array(CITYSCAPES.colours, np.uint8)[label.numpy()]
    for x in (label, label.byte(), label.numpy(), label.tolist()):
        for classes in (CITYSCAPES, CITYSCAPES.colours): assert (colourise(x, classes) == expected).all()
    with pytest.raises(ValueError, match="do not fit 3 colours"): colourise(label, palette(3))
    with pytest.raises(TypeError, match="integer"): colourise(label.float(), CITYSCAPES)


def test_bytes_there_and_back():
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    image = uint8_to_image(every)
    assert image.shape == (3, 16, 16) and image.min() == -1 and image.max() == 1
    assert (image_to_uint8(image) == every).all() and (image_to_uint8(image.double()) == every).all()
    assert (image_to_uint8(uint8_to_image(every[None]).requires_grad_()) == every[None]).all()


def test_tile():
    a, b = np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), 9, np.uint8)
    sheet = tile([[a, b], [b]], pad=1)
    assert sheet.shape == (9, 13, 3) and (sheet[5:, :6] == 9).all() and (sheet[:, 6] == 255).all() and (sheet[5:, 7:] == 255).all()
    assert tile([[a]], pad=0).shape == (4, 6, 3)
    with pytest.raises(ValueError, match="one size"): tile([[a, b[:2]]])


def test_sample_grid_columns_and_determinism():
    g = torch.Generator().manual_seed(1)
    label, real, fake = torch.randint(0, 35, (3, 8, 16), generator=g), torch.rand(3, 3, 8, 16, generator=g) * 2 - 1, torch.rand(3, 3, 8, 16, generator=g) * 2 - 1
    grid = sample_grid(label, real, [fake, real], CITYSCAPES, max_rows=2)
    assert grid.size == (4 * 16 + 6, 2 * 8 + 2)
    pixels = np.asarray(grid)
    assert (pixels[:8, :16] == colourise(label[0], CITYSCAPES)).all() and (pixels[:8, 18:34] == image_to_uint8(real[0])).all()
    assert (pixels[10:, 36:52] == image_to_uint8(fake[1])).all()
    assert sample_grid(label, None, [fake], CITYSCAPES.colours).size == (34, 28)
    assert grid.tobytes() == sample_grid(label, real, [fake, real], CITYSCAPES, max_rows=2).tobytes()


@pytest.mark.parametrize("classes", BUILT_IN)
def test_legend(classes):
    picture = legend(classes, rows=30)
    assert picture.tobytes() == legend(classes, rows=30).tobytes() and picture.height == 18 * 30 + 4
    assert set(classes.colours[1:]) <= {c for _, c in picture.getcolors(maxcolors=100_000)}
