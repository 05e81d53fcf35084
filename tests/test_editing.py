"""Editing without widgets: regions, strokes, noise, states, events, recipes, label files.

The main test runs random sessions twice, once with `ExplorerState` and once with a naive editor that copies everything and looks at every pixel.
"""
import base64
import copy
import io
import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from PIL import Image
from scipy import ndimage

from dpgan.editing import (EVENTS, HISTORY, EditError, ExplorerState, NoiseMap, Seed, Slerp, apply_event, difference, distance_to, heat, label_rgb, leak, read_label_file,
                           read_recipe, recipe, region_at, region_list, segments, slerp, state_from_recipe, stroke, tensors, vector, write_recipe)
from dpgan.generator import Generator, draw_noise
from dpgan.labels import CITYSCAPES, ClassSet, colourise

H, W, N, Z = 6, 7, 4, 3
FOUR = ClassSet("four", ("sky", "road", "car", "tree"), ((0, 0, 255), (90, 90, 90), (200, 0, 0), (0, 150, 0)), False, ((0,), (1,), (2,), (3,)))
MAPS = st.lists(st.integers(0, N - 1), min_size=H * W, max_size=H * W).map(lambda v: np.array(v, np.uint8).reshape(H, W))
MASKS = st.lists(st.booleans(), min_size=H * W, max_size=H * W).map(lambda v: np.array(v).reshape(H, W))
SEEDS, T = st.integers(0, 3), st.sampled_from((0, 0.25, 0.5, 1))
COORDINATES = st.tuples(st.integers(-3, H + 2), st.integers(-3, W + 2))
STROKES = st.lists(COORDINATES, min_size=1, max_size=4)
SPECS = st.recursive(st.builds(Seed, SEEDS), lambda inner: st.builds(Slerp, inner, inner, T), max_leaves=4)


def start(label=None, seed=0): return ExplorerState.start(FOUR, Z, np.zeros((H, W), np.uint8) if label is None else label, seed=seed)
def noise_of(state): return np.broadcast_to(state.noise.tensor(Z).numpy().reshape(Z, *((1, 1) if len(state.noise.specs) == 1 else state.label.shape)), (Z, *state.label.shape))
def message(action):
    with pytest.raises(EditError) as e: action()
    return str(e.value)


# ---- regions

def flood(label, row, col):
    "The connected region around a pixel, pixel by pixel."
    mask, todo = np.zeros(label.shape, bool), [(row, col)]
    while todo:
        r, c = todo.pop()
        if 0 <= r < label.shape[0] and 0 <= c < label.shape[1] and not mask[r, c] and label[r, c] == label[row, col]:
            mask[r, c] = True
            todo += [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
    return mask


@given(MAPS)
def test_segments_are_what_a_flood_fill_finds(label):
    number = segments(label)
    assert number.dtype == np.int32 and number.shape == label.shape
    for row, col in np.ndindex(label.shape): assert np.array_equal(number == number[row, col], flood(label, row, col))
    first = np.unique(number, return_index=True)
    assert first[0].tolist() == list(range(number.max() + 1)) and (np.diff(first[1]) > 0).all(), "numbered in reading order"


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (40, 50)])
def test_segments_of_odd_shapes_and_spirals(shape):
    noise = np.random.default_rng(0).integers(0, 2, shape)
    assert segments(noise).max() + 1 == sum(ndimage.label(noise == c)[1] for c in (0, 1))
    spiral = np.zeros((41, 41), int)
    row, col, step = 20, 20, 0
    for side in range(2, 40, 2):
        for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            for _ in range(side):
                if 0 <= row < 41 and 0 <= col < 41: spiral[row, col] = 1
                row, col, step = row + dr, col + dc, step + 1
        row, col = row - 1, col - 1
    assert segments(spiral).max() + 1 == sum(ndimage.label(spiral == c)[1] for c in (0, 1))


@given(MAPS)
def test_region_list(label):
    listed = region_list(label, FOUR)
    assert sum(r.pixels for r in listed) == label.size and [r.pixels for r in listed] == sorted((r.pixels for r in listed), reverse=True)
    assert len({r.name for r in listed}) == len(listed), "names are unique"
    for r in listed: assert label[r.row, r.col] == r.class_id and region_at(label, r.row, r.col).sum() == r.pixels and r.name.startswith(FOUR.names[r.class_id])


@pytest.mark.parametrize("row, col", [(-1, 0), (H, 0), (0, W), (0.5, 0), (None, 0), ("1", 0), (True, 0), (math.nan, 0), (math.inf, 0)])
def test_a_place_outside_is_refused(row, col): assert re.match(r"(row|col) = .*: give a whole number 0\.\.\d", message(lambda: region_at(np.zeros((H, W), int), row, col)))


# ---- the brush

def covered(shape, points, size):
    "The pixels of a stroke, by the distance of each of them from each piece of the line."
    mask = np.zeros(shape, bool)
    for p, q in zip([points[0], *points[:-1]], points):
        for y in np.ndindex(shape):
            p_, q_, y_ = (np.array(v, float) for v in (p, q, y))
            d = q_ - p_
            t = min(1, max(0, (y_ - p_) @ d / (d @ d))) if d.any() else 0
            mask[y] |= np.linalg.norm(y_ - p_ - t * d) <= size / 2 + 1e-9
    return mask


@settings(max_examples=60)
@given(STROKES, st.sampled_from((1, 2, 3, 4.5, 9)))
def test_a_stroke_covers_what_is_near_its_line(points, size):
    mask = stroke((H, W), points, size)
    assert np.array_equal(mask, covered((H, W), points, size))
    assert np.array_equal(mask, stroke((H, W), points[::-1], size)), "the same from its other end"
    assert np.array_equal(mask.T, stroke((W, H), [p[::-1] for p in points], size))
    assert (mask <= stroke((H, W), points, size + 1)).all()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40)), min_size=1, max_size=6))
def test_the_thinnest_stroke_has_no_gaps(points):
    mask = stroke((31, 41), points, 1)
    assert ndimage.label(mask, np.ones((3, 3)))[1] == 1 and all(mask[p] for p in points)


@pytest.mark.parametrize("points", [[], [3, 4], [[1, 2, 3]], None, "ab", [[0, math.nan]], [["a", "b"]], [[1, 2], [3]], {"row": 1}])
def test_what_is_no_stroke_is_refused(points): assert "a stroke is a list of at least one (row, col)" in message(lambda: stroke((H, W), points))


@pytest.mark.parametrize("size", [0, -1, 1e9, "3", None, math.nan])
def test_what_is_no_brush_is_refused(size): assert message(lambda: stroke((H, W), [(0, 0)], size)).startswith("size = ")


# ---- vectors

def angle(a, b): return 2 * torch.atan2((a / a.norm() - b / b.norm()).norm(), (a / a.norm() + b / b.norm()).norm()).item()


@given(st.integers(0, 10**6), st.integers(2, 64), st.floats(0, 1))
def test_slerp_turns_and_stretches_evenly(seed, z_dim, t):
    a, b = draw_noise(2, z_dim, seed).double()
    s = slerp(a, b, t)
    assume(1e-3 < angle(a, b) < math.pi - 1e-3)
    assert s.norm().item() == pytest.approx((1 - t) * a.norm().item() + t * b.norm().item())
    assert angle(a, s) == pytest.approx(t * angle(a, b), abs=1e-6) and angle(s, b) == pytest.approx((1 - t) * angle(a, b), abs=1e-6)
    assert torch.allclose(s, slerp(b, a, 1 - t))


def test_slerp_at_its_ends_and_where_there_is_no_arc():
    a, b = draw_noise(5, 8, 0), draw_noise(5, 8, 1)
    assert torch.equal(slerp(a, b, 0), a) and torch.equal(slerp(a, b, 1), b) and slerp(a, b, 0.5).dtype == torch.float32
    assert torch.allclose(slerp(a, b, 0.3)[2], slerp(a[2], b[2], 0.3)), "row by row"
    assert torch.equal(slerp(a, 2 * a, 0.5), 1.5 * a) and torch.allclose(slerp(a, -a, 0.25), 0.5 * a) and torch.equal(slerp(a, 0 * a, 0.5), 0.5 * a)
    nearly = torch.tensor([1.0, 1e-9])
    assert torch.isfinite(slerp(torch.tensor([1.0, 0.0]), nearly, 0.5)).all() and torch.isfinite(slerp(torch.tensor([1.0, 0.0]), -nearly, 0.5)).all()
    slerp(a, b, 0)[0] = 99
    assert a.max() < 50, "the result is no view"


@given(SPECS)
def test_a_description_stands_for_one_vector(spec):
    def made(s): return draw_noise(1, Z, s.seed)[0] if isinstance(s, Seed) else slerp(made(s.a), made(s.b), s.t)
    assert torch.equal(vector(spec, Z), made(spec)) and hash(spec) == hash(copy.deepcopy(spec)) and spec == copy.deepcopy(spec)
    vector(spec, Z).zero_()
    assert torch.equal(vector(spec, Z), made(spec)), "nobody can spoil what is remembered"


@pytest.mark.parametrize("bad", [-1, 2**63, 0.5, "1", None, True, math.nan])
def test_what_is_no_seed_is_refused(bad): assert message(lambda: Seed(bad)).startswith("seed = ")


def test_what_is_no_interpolation_is_refused():
    for t in (-0.1, 1.1, math.nan, "0.5", None): assert message(lambda: Slerp(Seed(0), Seed(1), t)).startswith("t = ")
    assert "between two of Seed or Slerp" in message(lambda: Slerp(0, Seed(1), 0.5))
    deep = Seed(0)
    with pytest.raises(EditError, match="64 deep"):
        for _ in range(100): deep = Slerp(deep, Seed(1), 0.5)
    assert deep.depth == 64 and torch.isfinite(vector(deep, Z)).all()


# ---- noise maps

@given(MAPS, st.lists(SPECS, min_size=N, max_size=N), MASKS, st.integers(0, 9))
def test_noise_changes_where_it_is_told_to(index, specs, mask, seed):
    noise = NoiseMap(index, tuple(specs))
    pixels = np.array([specs[i] for i in index.reshape(-1)], object).reshape(H, W)
    assert len(set(noise.specs)) == len(noise.specs) == len(set(pixels.reshape(-1))), "no vector twice, none without a pixel"
    changed = noise.where(mask, lambda old: Slerp(old, Seed(seed), 0.5))
    for p in np.ndindex(H, W):
        assert noise.specs[noise.index[p]] == pixels[p]
        assert changed.specs[changed.index[p]] == (Slerp(pixels[p], Seed(seed), 0.5) if mask[p] else pixels[p])
    z = changed.tensor(Z)
    assert z.shape == ((1, Z) if len(changed.specs) == 1 else (1, Z, H, W)) and z.dtype == torch.float32
    full = z.reshape(1, Z, *(z.shape[2:] or (1, 1))).expand(1, Z, H, W)
    for p in np.ndindex(H, W): assert torch.equal(full[0, :, p[0], p[1]], vector(changed.specs[changed.index[p]], Z))
    assert noise.same(NoiseMap(noise.index, noise.specs)) and noise.same(changed) == (not mask.any())
    assert noise.where(mask, lambda old: old).same(noise)


def test_noise_maps_with_many_vectors():
    many = NoiseMap(np.arange(400).reshape(20, 20), tuple(map(Seed, range(400))))
    assert many.index.dtype == np.uint16 and torch.equal(many.tensor(Z)[0, :, 19, 19], vector(Seed(399), Z))
    assert NoiseMap(np.arange(256).reshape(16, 16), tuple(map(Seed, range(256)))).index.dtype == np.uint8
    assert "too many" in message(lambda: NoiseMap(np.arange(66000).reshape(660, 100), tuple(map(Seed, range(66000)))))
    assert "do not fit 2 noise vectors" in message(lambda: NoiseMap(np.array([[2]]), (Seed(0), Seed(1)))) and "do not fit 0" in message(lambda: NoiseMap(np.array([[0]]), ()))
    reverse = NoiseMap(np.array([[1, 0]]), (Seed(1), Seed(0)))
    assert reverse.same(NoiseMap(np.array([[0, 1]]), (Seed(0), Seed(1)))), "the order of the table does not matter"


# ---- sessions, against a naive editor

class Naive:
    "The same editor without any sharing: every pixel has its own class, noise description, lock; undo copies everything."
    def __init__(self, label):
        self.now = dict(label=label.copy(), original=label.copy(), noise=np.full(label.shape, Seed(0), object), locked=np.zeros(label.shape, bool))
        self.selection, self.past, self.future, self.drag = np.zeros(label.shape, bool), [], [], None

    def keep(self): return copy.deepcopy((self.now, self.selection))

    def change(self, name, value):
        "One step, where it changes anything."
        if all(np.array_equal(self.now[n], v) for n, v in {name: value}.items()): return
        self.past.append(self.keep())
        self.future, self.now[name] = [], value

    def put(self, mask, value): self.change("label", np.where(mask & ~self.now["locked"], value, self.now["label"]).astype(np.uint8))

    def select(self, mask, add):
        if add: mask = self.selection & ~mask if not (mask & ~self.selection).any() else self.selection | mask
        self.selection = mask

    def noise(self, mask, new):
        mask = mask & ~self.now["locked"]
        if not mask.any(): raise EditError("locked")
        made = self.now["noise"].copy()
        for p in zip(*np.nonzero(mask)): made[p] = new(made[p])
        self.change("noise", made)

    def target(self): return self.selection if self.selection.any() else ~self.selection

    def do(self, kind, **a):
        if kind != "interpolate": self.drag = None
        locked, label = self.now["locked"], self.now["label"]
        if kind == "select_region": self.select(flood(label, a["row"], a["col"]), a["add"])
        if kind == "select_class": self.select(label == a["class_id"], a["add"])
        if kind in ("select_all", "select_none"): self.selection = np.full(label.shape, kind == "select_all")
        if kind == "lock": self.change("locked", locked | self.selection)
        if kind == "unlock": self.change("locked", locked & ~self.selection)
        if kind == "unlock_all": self.change("locked", locked & False)
        if kind == "paint": self.put(covered(label.shape, a["points"], a["size"]), a["class_id"])
        if kind == "erase": self.put(covered(label.shape, a["points"], a["size"]), self.now["original"])
        if kind == "fill": self.put(flood(label, a["row"], a["col"]), a["class_id"])
        if kind == "fill_selection":
            if not self.selection.any(): raise EditError("nothing selected")
            self.put(self.selection, a["class_id"])
        if kind == "resample": self.noise(~(locked & False), lambda old: Seed(a["seed"]))
        if kind == "resample_selection": self.noise(self.target(), lambda old: Seed(a["seed"]))
        if kind == "interpolate":
            if self.drag is None: self.drag = self.keep(), copy.deepcopy((self.past, self.future))
            (self.now, self.selection), (self.past, self.future) = copy.deepcopy(self.drag)
            new, t = Seed(a["seed"]), a["t"]
            self.noise(self.target(), lambda old: old if t == 0 or old == new else new if t == 1 else Slerp(old, new, t))
        for name, here, there in (("undo", self.past, self.future), ("redo", self.future, self.past)):
            if kind == name and here:
                there.append(self.keep())
                self.now, self.selection = here.pop()


ROW, COL, CLASS, ADD, SIZE = st.integers(0, H - 1), st.integers(0, W - 1), st.integers(0, N - 1), st.booleans(), st.sampled_from((1, 3, 6))
def event(kind, **arguments): return st.fixed_dictionaries({"kind": st.just(kind), **arguments})
ONE_EVENT = st.one_of(
    event("select_region", row=ROW, col=COL, add=ADD), event("select_class", class_id=CLASS, add=ADD), event("select_all"), event("select_none"),
    event("lock"), event("unlock"), event("unlock_all"), event("paint", points=STROKES, class_id=CLASS, size=SIZE), event("erase", points=STROKES, size=SIZE),
    event("fill", row=ROW, col=COL, class_id=CLASS), event("fill_selection", class_id=CLASS), event("resample", seed=SEEDS), event("resample_selection", seed=SEEDS), event("interpolate", seed=SEEDS, t=T),
    event("interpolate", seed=SEEDS, t=T), event("undo"), event("redo"))
SESSIONS = st.lists(ONE_EVENT, max_size=20)


def run(state, events):
    "All states of a session; an event that is refused changes nothing."
    states = [state]
    for e in events:
        try: states.append(apply_event(states[-1], json.loads(json.dumps(e))))
        except EditError: states.append(states[-1])
    return states


def digest(state):
    "Everything that a state says, as plain data."
    names = ("label", "original", "selection", "locked")
    return ([getattr(state, n).tolist() for n in names], state.noise.index.tolist(), state.noise.specs, state.brush_class, state.brush_size, len(state.past), len(state.future),
            [k["label"].tolist() for k in state.past], state.before_drag is not None)


@settings(max_examples=300)
@given(MAPS, SESSIONS)
def test_sessions_agree_with_a_naive_editor(label, events):
    state, naive = start(label), Naive(label)
    for e in events:
        refused = []
        for editor in (lambda: naive.do(**e), lambda: apply_event(state, e)):
            try:
                result = editor()
                refused.append(False)
            except EditError: refused.append(True)
        assert refused[0] == refused[1]
        if not refused[1]: state = result
        assert np.array_equal(state.label, naive.now["label"]) and np.array_equal(state.selection, naive.selection) and np.array_equal(state.locked, naive.now["locked"])
        assert all(state.noise.specs[state.noise.index[p]] == naive.now["noise"][p] for p in np.ndindex(H, W))
        assert (len(state.past), len(state.future)) == (len(naive.past), len(naive.future))


@given(MAPS, SESSIONS)
def test_undo_goes_back_to_the_start_and_redo_forward_again(label, events):
    first, last = start(label), run(start(label), events)[-1]
    back = last
    while back.past: back = back.undo()
    assert np.array_equal(back.label, first.label) and back.noise.same(first.noise) and not back.locked.any() and back.undo().undo() is back.undo()
    forward = last
    while forward.future: forward = forward.redo()
    while back.future: back = back.redo()
    assert back.label is forward.label and back.noise is forward.noise and back.locked is forward.locked and back.redo().redo() is back.redo()


@given(MAPS, SESSIONS)
def test_no_method_changes_the_state_it_is_called_on(label, events):
    given_label = label.copy()
    states, before = [start(label)], []
    for e in events:
        before.append(digest(states[-1]))
        states.append(run(states[-1], [e])[-1])
    assert [digest(s) for s in states[:-1]] == before and np.array_equal(label, given_label)
    for s in states:
        for array in (s.label, s.original, s.selection, s.locked, s.noise.index):
            with pytest.raises(ValueError): array[0, 0] = 1


LASTING = [k for k in EVENTS if k not in ("unlock", "unlock_all", "undo", "redo", "load_label", "blank")]


@given(MAPS, SESSIONS, MASKS, st.lists(ONE_EVENT.filter(lambda e: e["kind"] in LASTING), min_size=1, max_size=5))
def test_locked_pixels_never_change(label, events, mask, later):
    before = run(start(label), events)[-1]._with(selection=mask).lock()
    after, kept = run(before, later)[-1], before.locked
    assert mask[kept].sum() == mask.sum() and (after.label == before.label)[kept].all() and np.array_equal(noise_of(after)[:, kept], noise_of(before)[:, kept])


@given(MAPS, SESSIONS, MASKS, SEEDS)
def test_resampling_a_selection_leaves_all_other_vectors(label, events, mask, seed):
    before = run(start(label), events)[-1].unlock_all()._with(selection=mask)
    inside = mask if mask.any() else ~mask
    after, half = before.resample_selection(seed), before.interpolate(seed, 0.5)
    for changed in (after, half): assert np.array_equal(noise_of(changed)[:, ~inside], noise_of(before)[:, ~inside]) and changed.label is before.label
    assert (noise_of(after)[:, inside] == vector(Seed(seed), Z)[:, None].numpy()).all()


@given(MAPS, SESSIONS, st.lists(st.tuples(SEEDS, T), min_size=1, max_size=5))
def test_a_drag_is_one_step_from_where_it_began(label, events, moves):
    before = run(start(label), events)[-1].unlock_all().select_none()
    dragged = before
    for seed, t in moves: dragged = dragged.interpolate(seed, t)
    assert digest(dragged) == digest(before.interpolate(*moves[-1])) and len(dragged.past) - len(before.past) in (0, 1)
    assert dragged.interpolate(0, 0).noise is before.noise and len(dragged.interpolate(0, 0).past) == len(before.past)
    if len(dragged.past) > len(before.past): assert dragged.undo().noise is before.noise


def test_a_drag_ends_with_any_other_event():
    state = start().interpolate(1, 0.5)
    assert state.select_none().interpolate(2, 0.5).noise.specs == (Slerp(Slerp(Seed(0), Seed(1), 0.5), Seed(2), 0.5),)
    assert state.interpolate(2, 0.5).noise.specs == (Slerp(Seed(0), Seed(2), 0.5),)
    for e in ("lock", "undo", "redo", "select_all", "unlock_all", "set_brush"): assert getattr(state, e)().before_drag is None
    assert start().interpolate(1, 0).undo().before_drag is None, "even where there is nothing to undo"


def test_what_is_equal_stays_the_same_object():
    state = start(seed=5)
    assert state.paint([(0, 0)], 0).select_none().unlock_all().resample(5).set_brush() is state, "nothing new, no new state"
    painted = state.paint([(0, 0)], 2)
    assert painted.noise is state.noise and painted.original is state.original and painted.undo().label is state.label
    assert state.resample(1).label is state.label and state.select_all().label is state.label


def test_the_history_is_long_and_ends():
    state = start()
    for i in range(HISTORY + 20): state = state.resample(i + 1)
    assert HISTORY >= 100 and len(state.past) == HISTORY
    for _ in range(HISTORY): state = state.undo()
    assert state.noise.specs == (Seed(20),) and state.undo() is state


def test_variants():
    state = start(np.repeat([[0, 1]], H, 0).repeat([4, 3], 1).astype(np.uint8)).select_class("road")
    made = state.variants(range(4, 7))
    assert [v.noise.specs for v in made] == [(Seed(0), Seed(s)) for s in (4, 5, 6)] and not state.past and all(len(v.past) == 1 for v in made)
    assert "locked" in message(lambda: state.lock().variants([1]))


def test_brush_and_names():
    state = start().set_brush("car", 3)
    assert state.paint([(2, 2)]).label[1:4, 1:4].tolist() == [[2] * 3] * 3 and (state.paint([(2, 2)]).label == 2).sum() == 9
    assert (state.fill(0, 0).label == 2).all() and np.array_equal(state.fill(0, 0).erase([(2, 2)], 20).label, state.label)
    assert "nothing is selected" in message(lambda: state.fill_selection()) and (state.select_all().fill_selection("tree").label == 3).all()
    assert "did you mean 'tree'" in message(lambda: state.set_brush("trea")) and "class_id = 4" in message(lambda: state.paint([(0, 0)], 4))


def test_another_label_map():
    state = start().select_all().lock().unlock_all().resample(3).paint([(0, 0)], 1)
    other, photo = np.ones((4, 5), np.int64), np.zeros((4, 5, 3), np.uint8)
    loaded = state.load_label(other, photo)
    assert loaded.label.shape == loaded.selection.shape == loaded.noise.index.shape == (4, 5) and loaded.label.dtype == np.uint8 and loaded.noise.specs == (Seed(3),)
    assert np.array_equal(loaded.photo, photo) and not loaded.selection.any() and loaded.load_label(other, seed=8).noise.specs == (Seed(8),)
    assert loaded.undo().label is state.label and loaded.undo().photo is None and loaded.undo().redo().label is loaded.label
    blank = state.blank(3, 8, "tree")
    assert (blank.label == 3).all() and blank.label.shape == (3, 8) and state.blank().label.shape == state.label.shape and (blank.paint([(0, 0)], 1).erase([(0, 0)]).label == 3).all()
    mixed = start(np.array([[0, 0, 1]])).select_class(1).resample_selection(9)
    assert mixed.load_label(other).noise.specs == (Seed(0),), "the vector that most pixels had"


@pytest.mark.parametrize("label, says", [(np.zeros((2, 3)), "whole numbers"), (np.zeros((1, 2, 3), int), "(H, W)"), (np.full((2, 2), 4), "0..3"), (np.full((2, 2), -1), "0..3"), ([[1, 2], [3]], "same length"),
                                         (np.zeros((0, 4), int), "(H, W)"), (np.zeros((2, 2), bool), "whole numbers"), ("road", "whole numbers")])
def test_what_is_no_label_map_is_refused(label, says):
    assert says in message(lambda: start().load_label(label)) and says in message(lambda: ExplorerState.start(FOUR, Z, label))


def test_what_is_no_photo_is_refused():
    for photo in (np.zeros((H, W, 3)), np.zeros((H, W), np.uint8), np.zeros((H + 1, W, 3), np.uint8)): assert "a photo for this label map is uint8" in message(lambda: start().load_label(start().label, photo))
    assert "z_dim" in message(lambda: ExplorerState.start(FOUR, -1, start().label))


def test_many_classes_fit_too():
    many = ClassSet("many", tuple(f"c{i}" for i in range(300)), tuple((i % 256, i // 256, 0) for i in range(300)), False, ((),) * 300)
    state = ExplorerState.start(many, Z, np.array([[0, 299]]))
    assert state.label.dtype == np.uint16 and state.fill(0, 0, 298).label.tolist() == [[298, 299]]
    assert torch.equal(read_recipe(json.loads(json.dumps(recipe(state))))[0], tensors(state)[0])


# ---- events

def test_every_kind_of_event_names_a_method():
    examples = dict(select_region=dict(row=0, col=0), select_class=dict(class_id="sky"), set_brush=dict(size=4), paint=dict(points=[[0, 0]], class_id=1), erase=dict(points=[[0, 0]]), fill=dict(row=1, col=1),
                    resample=dict(seed=1), resample_selection=dict(seed=1), interpolate=dict(seed=1, t=0.5), load_label=dict(label=[[0, 1], [2, 3]]), blank=dict(height=2, width=3))
    for kind in EVENTS: assert isinstance(apply_event(start().select_all(), json.loads(json.dumps({"kind": kind, **examples.get(kind, {})}))), ExplorerState)
    methods = {n for n in dir(ExplorerState) if not n.startswith("_") and callable(getattr(ExplorerState, n))}
    assert methods - set(EVENTS) == {"start", "class_id", "variants"}


@pytest.mark.parametrize("bad, says", [
    ({}, "no event of kind None"), ("paint", "no event of kind None"), ({"kind": "pant"}, "did you mean 'paint'"), ({"kind": "start"}, "no event of kind"), ({"kind": "__init__"}, "no event of kind"), ({"kind": ["undo"]}, "no event of kind"),
    ({"kind": "paint"}, "it takes points, class_id, size"), ({"kind": "undo", "row": 1}, "it takes no arguments"), ({"kind": "select_region", "row": 1, "column": 1}, "it takes row, col, add"),
    ({"kind": "fill", "row": 6, "col": 0}, "row = 6: give a whole number 0..5"), ({"kind": "resample", "seed": -1}, "seed = -1"), ({"kind": "interpolate", "seed": 1, "t": 2}, "t = 2: give a number 0..1"),
    ({"kind": "select_class", "class_id": "rode"}, "did you mean 'road'"), ({"kind": "select_class", "class_id": 4}, "class_id = 4"), ({"kind": "blank", "height": 0}, "height = 0")])
def test_events_that_cannot_be_are_refused(bad, says): assert says in message(lambda: apply_event(start(), bad))


JUNK = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=4), x, max_size=2), max_leaves=6)


@settings(max_examples=150)
@given(st.sampled_from([k for k in EVENTS if k not in ("undo", "redo")]), st.dictionaries(st.sampled_from(("row", "col", "add", "class_id", "points", "size", "seed", "t", "label", "photo", "width")), JUNK, max_size=3))
def test_nothing_but_edit_errors_comes_out_of_junk(kind, arguments):
    assume(kind != "blank")
    try: assert isinstance(apply_event(start(), {"kind": kind, **arguments}), ExplorerState)
    except EditError as e: assert len(str(e)) > 10


# ---- recipes

@given(MAPS, SESSIONS)
def test_a_recipe_gives_the_same_label_map_and_noise(label, events):
    state = run(start(label), events)[-1]
    content = json.loads(json.dumps(recipe(state, name="tiny", digest="abc", precision="bf16")))
    read, z, about = read_recipe(content, FOUR, Z)
    assert torch.equal(read, torch.from_numpy(np.array(state.label)).long()[None]) and read.dtype == torch.int64
    assert torch.equal(z, state.noise.tensor(Z)) and z.dtype == torch.float32 and about == dict(name="tiny", digest="abc", precision="bf16")
    again = state_from_recipe(content)
    assert np.array_equal(again.label, state.label) and again.noise.same(state.noise) and again.class_set == FOUR and again.z_dim == Z
    assert recipe(again, **about) == content


def test_a_recipe_in_a_file(tmp_path):
    state = start(seed=4).select_region(0, 0).paint([(1, 1)], 2).select_class(2).interpolate(7, 0.25)
    write_recipe(tmp_path / "street.json", recipe(state, name="x"))
    for path in (tmp_path / "street.json", str(tmp_path / "street.json")): assert torch.equal(read_recipe(path)[1], state.noise.tensor(Z))
    photo = np.zeros((H, W, 3), np.uint8)
    assert np.array_equal(state_from_recipe(tmp_path / "street.json", photo).photo, photo)
    assert "street.json: made with the 4 classes of four, but this generator knows the 35 of Cityscapes" in message(lambda: read_recipe(tmp_path / "street.json", CITYSCAPES))
    assert "noise of 3 channels, but this generator has 64" in message(lambda: read_recipe(tmp_path / "street.json", FOUR, 64))
    (tmp_path / "cut.json").write_text((tmp_path / "street.json").read_text()[:40])
    assert re.search(r"cut\.json: this is not valid JSON .*line \d", message(lambda: read_recipe(tmp_path / "cut.json")))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name in ("none.json", "bytes.json", "deep.json", "."): assert "cannot be read" in message(lambda: read_recipe(tmp_path / name))


def png_text(array):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8)).save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_recipe_of_version_1_stays_readable():
    old = {"format": "dpgan recipe", "version": 1, "size": [1, 3], "classes": {"name": "two", "names": ["a", "b"], "colours": [[0, 0, 0], [255, 255, 255]], "dont_care": False, "raw_ids": [[0], [1]]},
           "z_dim": 2, "label": png_text([[0, 1, 1]]), "noise": {"index": png_text([[0, 1, 1]]), "specs": [{"seed": 3}, {"slerp": [{"seed": 3}, {"seed": 4}], "t": 0.5}]}, "generator": {"name": "n"}}
    label, z, about = read_recipe(old)
    assert label.tolist() == [[[0, 1, 1]]] and about == {"name": "n"}
    assert torch.equal(z[0, :, 0], torch.stack([vector(Seed(3), 2), *[slerp(draw_noise(1, 2, 3)[0], draw_noise(1, 2, 4)[0], 0.5)] * 2], 1))


def test_a_recipe_gives_the_same_pixels():
    G = Generator(N, base_channels=2, z_dim=Z, pyramid_channels=2).eval()
    label = np.random.default_rng(0).integers(0, N, (8, 8)).repeat(8, 0).repeat(8, 1)
    state = start(label).select_region(20, 20).resample_selection(5).lock().select_none().interpolate(9, 0.3).paint([(5, 5), (40, 60)], "tree", 9)
    assert torch.equal(G.sample(*read_recipe(json.loads(json.dumps(recipe(state))))[:2]), G.sample(*tensors(state)))


GOOD = recipe(start(seed=1).paint([(1, 1)], 2).select_class(2).resample_selection(2), name="x")


def noise_with(**new): return GOOD | {"noise": GOOD["noise"] | new}


@pytest.mark.parametrize("bad, says", [
    ({}, "no recipe"), (GOOD | {"format": "x"}, "no recipe"), (GOOD | {"version": 2}, "version 2"), ({k: v for k, v in GOOD.items() if k not in ("label", "noise")}, "'label', 'noise' missing"),
    (GOOD | {"size": [H, W + 1]}, f'"label" is {H} x {W} pixels, the recipe says {H} x {W + 1}'), (GOOD | {"size": 3}, '"size" = 3'), (GOOD | {"size": [10**9, 1]}, "size = 1000000000"),
    (GOOD | {"label": "!"}, '"label" is no PNG'), (GOOD | {"label": None}, '"label" is no PNG'), (GOOD | {"label": png_text(np.full((H, W), 9))}, "values up to 9, allowed are whole numbers 0..3"),
    (GOOD | {"label": png_text(np.zeros((H, W, 3)))}, "holds colours"), (noise_with(specs=[]), "a list"), (noise_with(specs=[{"seed": 1}]), '"index" holds values up to 1'), (noise_with(specs=[{"seed": 1}, {"seed": "2"}]), "seed = '2'"),
    (noise_with(specs=[{"seed": 1}, {"slerp": [{"seed": 1}], "t": 0}]), "a noise vector is"), (noise_with(index=GOOD["label"][:50]), '"index" is no PNG'), (GOOD | {"noise": 1}, '"noise" must hold'),
    (GOOD | {"z_dim": -1}, "z_dim = -1"), (GOOD | {"generator": None}, '"generator" = None'), (GOOD | {"classes": {"name": "x"}}, '"classes" cannot be read'), (GOOD | {"classes": None}, '"classes" cannot be read')])
def test_recipes_that_do_not_fit_are_refused(bad, says): assert says in message(lambda: read_recipe(bad)) and message(lambda: state_from_recipe(bad)).startswith("recipe: ")


def test_a_recipe_nested_without_end():
    spec = {"seed": 1}
    for _ in range(5000): spec = {"slerp": [spec, {"seed": 2}], "t": 0.5}
    assert "nested too deeply" in message(lambda: read_recipe(noise_with(specs=[{"seed": 1}, spec])))


@settings(max_examples=150)
@given(st.sampled_from([*GOOD, "index", "specs", "names", "colours", "raw_ids", "seed"]), JUNK)
def test_junk_in_a_recipe_is_an_edit_error(place, junk):
    bad = copy.deepcopy(GOOD)
    for part in (bad, bad["noise"], bad["classes"], bad["noise"]["specs"][0]):
        if place in part: part[place] = junk
    try: label, z, about = read_recipe(bad)
    except EditError as e: assert str(e).startswith("recipe: ")


# ---- label files

def png(array, mode=None, **kw):
    buffer = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(np.asarray(array), mode)).save(buffer, format="png", **kw)
    return buffer.getvalue()


@given(MAPS)
def test_label_files_of_ids_and_of_colours(label):
    assert np.array_equal(read_label_file(png(label), FOUR, H, W), label)
    assert np.array_equal(read_label_file(png(colourise(label, FOUR)), FOUR, H, W), label)
    assert np.array_equal(read_label_file(png(Image.fromarray(colourise(label, FOUR)).convert("RGBA")), FOUR, H, W), label)
    assert np.array_equal(read_label_file(png(Image.fromarray(colourise(label, FOUR)).quantize(4)), FOUR, H, W), label), "an index that means colours"
    by_id = Image.fromarray(label)
    by_id = by_id.convert("P")
    for colours in ([c for colour in FOUR.colours for c in colour], [1, 2, 3] * 4):
        by_id.putpalette(colours)
        assert np.array_equal(read_label_file(png(by_id), FOUR, H, W), label), "an index that means ids, whatever its colours"


def test_label_files_of_few_and_of_many_bits(tmp_path):
    label = np.array([[0, 1, 2, 3]], np.uint8)
    indexed = Image.fromarray(label).convert("P")
    indexed.putpalette([7, 7, 7] * 4)
    for bits in (2, 4, 8): assert read_label_file(png(indexed, bits=bits), FOUR, 1, 4).tolist() == label.tolist()
    assert read_label_file(png(label.astype(np.uint16)), FOUR, 1, 4).tolist() == label.tolist()
    assert read_label_file(png(Image.fromarray(label > 1)), FOUR, 1, 4).tolist() == [[0, 0, 1, 1]]
    (tmp_path / "x.png").write_bytes(png(label))
    assert read_label_file(tmp_path / "x.png", FOUR, 1, 4).tolist() == label.tolist() and read_label_file(str(tmp_path / "x.png"), FOUR, 1, 4).dtype == np.uint8
    import struct, zlib
    def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    grey2 = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(b"\0" + bytes([0b00011011]))) + chunk(b"IEND", b"")
    assert read_label_file(grey2, FOUR, 1, 4).tolist() == label.tolist(), "grey of two bits"


def test_ids_are_the_data_sets():
    assert read_label_file(png(np.array([[255, 7, 33]], np.uint8)), CITYSCAPES, 1, 3).tolist() == [[0, 7, 33]]
    assert read_label_file(png(np.array([CITYSCAPES.colours[18]], np.uint8)[None]), CITYSCAPES, 1, 1).tolist() == [[CITYSCAPES.colours.index(CITYSCAPES.colours[18])]], "the first class of a colour"


@pytest.mark.parametrize("height, width", [(3, 7), (12, 14), (7, 5), (1, 1)])
def test_resizing_takes_the_nearest_pixels(height, width):
    label = np.random.default_rng(0).integers(0, N, (H, W)).astype(np.uint8)
    if (height, width) != (H, W): assert f"{H} x {W} pixels (height x width), wanted are {height} x {width}; resize=True" in message(lambda: read_label_file(png(label), FOUR, height, width))
    expected = np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))
    assert np.array_equal(read_label_file(png(label), FOUR, height, width, resize=True), expected)
    assert np.array_equal(read_label_file(png(colourise(label, FOUR)), FOUR, height, width, resize=True), expected)


def test_label_files_that_cannot_be_used(tmp_path):
    label = np.zeros((H, W), np.uint8)
    label[2, 3], label[4, 1:3] = 9, 77
    says = message(lambda: read_label_file(png(label), FOUR, H, W))
    assert "2 of 3 values mean no class: id 77: 2 pixels, first at row 4, column 1; id 9: 1 pixel, first at row 2, column 3" in says
    rgb = colourise(np.zeros((H, W), int), FOUR)
    rgb[5, 6] = (1, 2, 3)
    assert "colour (1, 2, 3): 1 pixel, first at row 5, column 6" in message(lambda: read_label_file(png(rgb), FOUR, H, W))
    assert "and 2 more" in message(lambda: read_label_file(png(np.arange(10, 10 + H, dtype=np.uint8)[:, None].repeat(W, 1)), FOUR, H, W))
    glass = np.dstack([colourise(np.zeros((H, W), int), FOUR), np.full((H, W), 128, np.uint8)])
    assert "transparent" in message(lambda: read_label_file(png(glass), FOUR, H, W))
    assert "mode LA" in message(lambda: read_label_file(png(Image.new("LA", (W, H))), FOUR, H, W))
    for source in (b"", b"nothing", tmp_path): assert "cannot be read as a picture" in message(lambda: read_label_file(source, FOUR, H, W))
    assert "there is no such file" in message(lambda: read_label_file(tmp_path / "missing.png", FOUR, H, W))
    assert message(lambda: read_label_file(png(label)[:45], FOUR, H, W)).startswith("label map: cannot be read")
    (tmp_path / "odd.png").write_bytes(png(label))
    assert "odd.png: 2 of 3" in message(lambda: read_label_file(tmp_path / "odd.png", FOUR, H, W))


# ---- pictures of a change

@given(MASKS)
def test_distances_are_a_chessboards(mask):
    expected = ndimage.distance_transform_cdt(~mask, "chessboard") if mask.any() else np.full((H, W), H + W)
    assert np.array_equal(distance_to(mask), expected)


@given(MASKS, st.integers(0, 99))
def test_the_shares_of_a_leak_add_up(mask, seed):
    assume(mask.any())
    change = np.random.default_rng(seed).random((H, W)).astype(np.float32)
    found = leak(change, mask)
    assert found["inside"] + sum(b["share"] for b in found["bands"]) == pytest.approx(1) and found["farthest"] == distance_to(mask).max()
    assert found["mean_inside"] == pytest.approx(change[mask].mean(), rel=1e-5) and json.dumps(found)
    for b in found["bands"]:
        ring = (distance_to(mask) >= b["from"]) & (distance_to(mask) <= b["to"])
        assert b["share"] == pytest.approx(change[ring].sum(dtype=float) / change.sum(dtype=float), abs=1e-6)
    assert leak(change * mask, mask)["inside"] == 1 and leak(change * mask, mask)["farthest"] == 0 and leak(change * 0, mask)["inside"] == 0


def test_difference_and_heat():
    a, b = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)
    b[0, 0], b[1, 1, 0] = 255, 255
    assert difference(a, b).tolist() == [[1, 0], [0, pytest.approx(1 / 3)]] and np.array_equal(difference(a, b), difference(b, a)) and difference(a, b).dtype == np.float32
    shades = heat(np.linspace(0, 0.5, 50)[None])[0].astype(int).sum(1)
    assert shades[0] == 0 and (np.diff(shades) >= 0).all() and shades[-1] == shades[25] and heat(np.ones((2, 3))).shape == (2, 3, 3) and heat(np.ones((2, 3))).dtype == np.uint8
    assert "cannot be compared" in message(lambda: difference(a, b[:1])) and np.array_equal(label_rgb(start()), colourise(start().label, FOUR))
