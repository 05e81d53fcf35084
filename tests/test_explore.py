"The explorer without a browser: every event, bursts, slow and failing generators, files, both faces, and a Python without anywidget."
import asyncio
import base64
import dataclasses
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import weakref
from datetime import datetime
from io import BytesIO
from pathlib import Path

import ipywidgets as widgets
import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from dpgan import explore as module
from dpgan.checkpoint import CheckpointError, load_pretrained
from dpgan.data import SCENES, SceneList, check_classes
from dpgan.editing import EVENTS, EditError, ExplorerState, NoiseMap, Seed, Slerp, distance_to, label_rgb, read_label_file, read_recipe
from dpgan.explore import (STATIC, VIEW, VIEWS, Canvas, Explorer, Painter, Post, Renderer, Workbench, as_picture, control, draw_outline, enlarge, explore, label_file, label_runs, look,
                           marked, new_events, noise_text, outline, panel, png, session_files, session_sheet, sheet, thumbnail, uploads)
from dpgan.features import weights_digest
from dpgan.generator import Generator
from dpgan.inference import FastGenerator
from dpgan.labels import CITYSCAPES, COCO_STUFF, DataError, image_to_uint8
from tiny import tiny_trainer

ROOT = Path(__file__).resolve().parent.parent
ANYWIDGET = module.anywidget is not None
needs_canvas = pytest.mark.skipif(not ANYWIDGET and os.environ.get("CI") != "true", reason='no canvas without anywidget: pip install "dpgan[explore]"')
FACES = [pytest.param(True, marks=needs_canvas, id="canvas"), pytest.param(False, id="plain")]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return FastGenerator(Generator(SCENES.num_classes, base_channels=4, z_dim=4, pyramid_channels=8, init_gain=1.0).eval())


@pytest.fixture(scope="module")
def start():
    photo, label = SceneList("val").read(7, 64, 64)
    return ExplorerState.start(SCENES, 4, label, photo)


def make(net, state, canvas=False, **kw): return Explorer(Workbench(net, state, {"name": "tiny"}, SceneList("val"), **kw), canvas)


class Slow:
    "A generator that takes its time, counts, and fails where it is told to; the picture says which noise it was drawn from."
    z_dim = 4
    def __init__(self, seconds): self.seconds, self.draws, self.prepares, self.error = seconds, [], 0, None

    def prepare(self, label):
        self.prepares += 1
        return label

    def draw(self, label, z):
        time.sleep(self.seconds)
        self.draws.append(z)
        if self.error: raise self.error
        return torch.tanh(z[:, :3, None, None] if z.dim() == 2 else z[:, :3]).expand(-1, -1, *label.shape[1:])


def shows(ex): return ex.session.shown is ex.state and np.array_equal(ex.image, Painter(Slow(0)).draw(ex.state))
def said(ex): return ex.session.message


# ---- pictures and panels

def test_pictures_of_every_kind():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(as_picture(grey)[..., 1], grey) and as_picture(Image.new("RGBA", (4, 3))).shape == (3, 4, 3)
    figure = plt.figure()
    assert as_picture(figure).shape[2] == 3 and not plt.fignum_exists(figure.number)
    for wrong in (grey.astype(float), grey[None, None], torch.zeros(3, 4), None, np.zeros((3, 4, 4), np.uint8)):
        with pytest.raises(TypeError, match="cannot show"): as_picture(wrong)


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))), st.integers(1, 50))
def test_enlarge_repeats_pixels(picture, width):
    large = enlarge(picture, width)
    times = large.shape[1] // picture.shape[1]
    assert large.shape[1] >= width and np.array_equal(large[::times, ::times], picture) and (times - 1) * picture.shape[1] < width


@pytest.mark.parametrize("choice, kind, value", [((0, 6), widgets.IntSlider, 0), ((1, 9, 2), widgets.IntSlider, 1), ((0, 1.0), widgets.FloatSlider, 0), (["a", "b"], widgets.Dropdown, "a"),
                                                 ({"x": 3}, widgets.Dropdown, 3), (False, widgets.Checkbox, False)])
def test_controls(choice, kind, value):
    made = control("some_name", choice)
    assert isinstance(made, kind) and made.value == value and made.description == "some name"


@pytest.mark.parametrize("choice", [3, (1,), (1, 2, 3, 4), ("a", "b"), [], {}, None])
def test_what_is_no_choice_is_refused(choice):
    with pytest.raises(TypeError, match="is no choice"): control("x", choice)


def test_panel_follows_its_controls_and_starts_at_the_defaults():
    p = panel(lambda level=2, *, name, on=True: np.full((4, 500, 3), level + 10 * (name == "b") + 20 * on, np.uint8), level=(0, 5), name=["a", "b"], on=False)
    assert p.values == {"level": 2, "name": "a", "on": True} and p.pixels.max() == 22 and p.pixels.shape == (4, 500, 3)
    p.controls["name"].value = "b"
    assert p.pixels.max() == 32 and np.array_equal(np.asarray(Image.open(BytesIO(p.shown.value))), p.pixels)


def test_panel_says_what_went_wrong_and_recovers():
    p = panel(lambda n=0: np.full((2, 2), 100 // n, np.uint8), n=(0, 5))
    assert "ZeroDivisionError" in p.message.value and p._repr_mimebundle_()["image/png"]
    p.controls["n"].value = 1
    good = p.pixels
    assert not p.message.value and good[0, 0, 0] == 100
    p.controls["n"].value = 0
    assert "division" in p.message.value and p.pixels is good
    assert "&lt;b&gt;" in panel(lambda n: [][n] if n else (_ for _ in ()).throw(ValueError("<b>")), n=(0, 1)).message.value


def png_of(bundle): return np.asarray(Image.open(BytesIO(base64.b64decode(bundle["image/png"]))))


@pytest.mark.parametrize("canvas", FACES)
def test_mime_bundle_has_the_view_and_a_picture(net, start, canvas):
    ex = make(net, start, canvas)
    for shown in (ex, panel(lambda n: np.zeros((3, 3), np.uint8), n=(0, 1))):
        bundle = shown._repr_mimebundle_()
        assert bundle[VIEW]["model_id"] == shown.widget.model_id and np.array_equal(png_of(bundle), shown.picture())
        json.dumps(bundle)


# ---- the thread

class Gate:
    "Drawing that waits until it is let through, and notes what it has drawn."
    def __init__(self): self.entered, self.open, self.drawn = threading.Event(), threading.Event(), []

    def __call__(self, request):
        self.entered.set()
        assert self.open.wait(20)
        self.drawn.append(request)
        return request


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_a_burst_costs_two_drawings_and_its_last_request_is_drawn(count):
    gate, results = Gate(), []
    r = Renderer(gate, lambda place, request, result, error: results.append(result))
    r.ask(0, 0)
    assert gate.entered.wait(20)
    for i in range(1, count): r.ask(0, i)
    gate.open.set(); r.wait(20)
    assert results == gate.drawn == [0, count - 1][:min(count, 2)]


@settings(max_examples=15)
@given(st.lists(st.floats(0, 0.004), min_size=1, max_size=12), st.floats(0, 0.006))
def test_whatever_the_rhythm_the_last_request_is_drawn_and_none_out_of_order(pauses, takes):
    drawn = []
    r = Renderer(lambda x: time.sleep(takes) or x, lambda place, request, result, error: drawn.append(result))
    for i, pause in enumerate(pauses): r.ask(0, i); time.sleep(pause)
    r.wait(20)
    assert drawn[-1] == len(pauses) - 1 and drawn == sorted(set(drawn))


def test_places_do_not_replace_each_other_and_the_lowest_comes_first():
    gate, drawn = Gate(), []
    r = Renderer(gate, lambda place, request, result, error: drawn.append((place, request)))
    r.ask(0, "first")
    assert gate.entered.wait(20)
    for place in (3, 2, 0, 1): r.ask(place, f"place {place}")
    r.keep((0, 1, 3))
    gate.open.set(); r.wait(20)
    assert drawn == [(0, "first"), (0, "place 0"), (1, "place 1"), (3, "place 3")]


def until(true, seconds=20):
    "Wait for something that happens in another thread."
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def test_busy_only_where_it_takes_long():
    seen = []
    r = Renderer(lambda x: until(lambda: r.slow) if x == "slow" else x, lambda *result: seen.append("done"), lambda: seen.append(r.slow), patience=0.05)
    r.ask(0, "slow"); r.wait(30)
    until(lambda: len(seen) == 3)
    assert seen == [True, "done", False]
    patient, said = Renderer(lambda x: x, lambda *result: None, lambda: said.append(1), patience=20), []
    patient.ask(0, 1); patient.wait(30)
    assert not said and not patient.slow


def test_errors_arrive_and_the_thread_goes_on():
    got = []
    r = Renderer(lambda x: 1 / x, lambda *result: got.append(result))
    for x in (0, 2): r.ask(0, x); r.wait(10)
    assert isinstance(got[0][3], ZeroDivisionError) and got[0][2] is None and got[1][2:] == (0.5, None)


def test_an_idle_thread_ends_and_the_next_request_starts_another():
    r = Renderer(lambda x: x, lambda *result: None, idle=0.05)
    r.ask(0, 1); r.wait(10)
    thread = r.thread
    thread.join(5)
    assert not thread.is_alive() and r.thread is None
    r.ask(0, 2); r.wait(10)
    assert r.thread is not thread


def test_waiting_has_an_end():
    r = Renderer(lambda x: time.sleep(0.3), lambda *result: None)
    r.ask(0, 1)
    with pytest.raises(TimeoutError): r.wait(0.01)
    r.wait(10)


def test_widgets_are_touched_in_the_loop_of_the_thread_that_made_them(start):
    async def kernel():
        ex, threads = make(Slow(0.02), start), []
        inner = ex.session.changed
        ex.session.changed = lambda: (threads.append(threading.current_thread()), inner())
        for seed in range(5): ex.do({"kind": "resample", "seed": seed}); await asyncio.sleep(0.01)
        for _ in range(400): await asyncio.sleep(0.01 if not shows(ex) or len(threads) < 7 else 0)
        assert len(threads) > 6 and set(threads) == {threading.current_thread()}
        assert shows(ex) and np.array_equal(np.asarray(Image.open(BytesIO(ex.side.right.value)))[::6, ::6], ex.image)
    asyncio.run(kernel())
    called = []
    Post()(called.append, 1)
    assert called == [1], "without a loop, at once"


# ---- every event

PAINT = {"points": [[10, 10], [20, 30]], "class_id": "bus", "size": 5}
ALL_EVENTS = {
    "select_region": {"row": 40, "col": 5}, "select_class": {"class_id": 3}, "select_all": {}, "select_none": {}, "lock": {}, "unlock": {}, "unlock_all": {}, "set_brush": {"class_id": 3, "size": 4},
    "paint": PAINT, "erase": {"points": [[50, 50]], "size": 5}, "fill": {"row": 2, "col": 2, "class_id": 8}, "resample": {}, "resample_selection": {"seed": 9}, "interpolate": {"t": 0.5},
    "undo": {}, "redo": {}, "load_label": {"label": np.ones((64, 64), int)}, "blank": {"class_id": "road"},
    "seed": {"seed": 77}, "other": {"seed": 5}, "variants": {"count": 3}, "take": {"index": 0}, "view": {"view": "difference"}, "example": {"index": 3}, "load": {"content": None}, "fill_selection": {"class_id": 8},
    "select_regions": {"places": [[2, 2], [60, 60]]}, "original": {}}


def test_every_event_is_tried():
    own = {name.removeprefix("on_") for name in dir(Workbench) if name.startswith("on_")}
    assert ALL_EVENTS.keys() >= set(EVENTS) | own


@pytest.mark.parametrize("canvas", FACES)
@pytest.mark.parametrize("kind", ALL_EVENTS)
def test_every_event_is_done_and_drawn(start, kind, canvas):
    begin = start.select_class(1).lock().select_class(10).lock().select_class(1) if kind.startswith("unlock") else start.select_region(2, 2)
    ex = make(Slow(0), begin.paint([[8, 8], [50, 50]], 3, 9).resample(3).undo(), canvas)
    if kind == "take": ex.send("variants", count=2)
    event = {"kind": kind, **ALL_EVENTS[kind]}
    if kind == "load": event["content"] = label_file(start.label[::-1], SCENES)
    before = ex.state
    ex.do(event); ex.wait()
    assert not said(ex) and shows(ex)
    changes = {"variants": ex.state is before and len(ex.strip.children) == 3, "view": ex.view.value == "difference", "seed": ex.seed.value == 77, "other": ex.other.value == 5,
               "unlock": np.array_equal(ex.state.locked, start.label == 10), "unlock_all": before.locked.any() and not ex.state.locked.any(), "undo": ex.state.past == before.past[:-1],
               "set_brush": ex.state.brush_size == 4 and ex.class_id.value == 3, "original": (before.label != start.label)[before.selection].any() and np.array_equal(ex.state.label, np.where(before.selection, start.label, before.label))}
    assert changes.get(kind, ex.state is not before)
    if kind not in ("variants", "view", "seed", "other", "undo", "take", "redo") and kind in EVENTS and kind not in ("resample", "interpolate"):
        assert np.array_equal(ex.state.label, getattr(before, kind)(**ALL_EVENTS[kind]).label)


@pytest.mark.parametrize("event, part", [
    ({"kind": "dance"}, "dance"), ({}, "None"), (None, "None"), ("undo", "None"), ({"kind": "select_region", "row": 64, "col": 0}, "row"), ({"kind": "select_region"}, "row"),
    ({"kind": "resample", "seed": -1}, "seed"), ({"kind": "resample", "seed": "x"}, "seed"), ({"kind": "take", "index": 0}, "variants first"), ({"kind": "view", "view": "x"}, "before"),
    ({"kind": "example", "index": 500}, "0..499"), ({"kind": "example", "index": 1.5}, "index = 1.5"), ({"kind": "variants", "count": "a"}, "count = 'a'"), ({"kind": "variants", "count": -2}, "count = -2"),
    ({"kind": "take", "index": "a"}, "variants first"), ({"kind": "load"}, "missing a required argument: 'content'"), ({"kind": "load", "content": 7}, "bytes"), ({"kind": "view", "view": [1]}, "no view [1]"),
    ({"kind": "seed", "seed": True}, "seed = True"), ({"kind": "resample", "seed": 2**53}, "seed = 9007199254740992"), ({"kind": "interpolate", "t": 0.5, "seed": 2**60}, "seed = "), ({"kind": "other", "seed": -1}, "seed = -1"),
    ({"kind": "select_regions", "places": 3}, "places = 3"), ({"kind": "select_regions", "places": [[99, 0]]}, "row = 99"), ({"kind": "original"}, "selected"), ({"kind": "set_brush", "size": 0}, "size = 0"),
    ({"kind": "blank", "height": 100, "width": 70}, "100 x 70"), ({"kind": "load_label", "label": np.ones((64, 65), int)}, "64 x 65"), ({"kind": "load", "content": b"{}"}, "no recipe"), ({"kind": "load", "content": b" {"}, "valid JSON"), ({"kind": "load", "content": b"no picture"}, "PNG"), ({"kind": "interpolate", "t": 2}, "t = 2"), ({"kind": "variants", "count": 1, "x": 2}, "x"),
    ({"kind": "fill_selection", "class_id": 1}, "selected"), ({"kind": "paint", "points": [], "stroke": "s"}, "points")])
def test_what_cannot_be_done_is_said_and_changes_nothing(start, event, part):
    ex = make(Slow(0), start)
    ex.do(event); ex.wait()
    assert part in said(ex) and ex.state is start and "<b>" in ex.status.value and shows(ex) and (ex.session.seed, ex.session.other, ex.session.mix) == (1, 2, 0)
    ex.send("select_all")
    assert not said(ex) and "seed 0" in ex.status.value


def test_everything_locked_is_said(start):
    ex = make(Slow(0), start.select_all().lock())
    ex.send("resample")
    assert "locked" in said(ex) and ex.seed.value == 1, "no seed is used up"


def test_a_failing_generator_is_shown_and_gets_another_chance(start):
    net = Slow(0)
    ex = make(net, start)
    net.error = RuntimeError("out of <memory>")
    ex.send("resample", seed=5); ex.wait()
    assert "RuntimeError" in said(ex) and "out of &lt;memory&gt;" in ex.status.value and not shows(ex)
    net.error = None
    ex.send("select_all"); ex.wait()
    assert shows(ex) and not said(ex)
    net.error = RuntimeError("from the start")
    assert make(net, start.resample(9)).picture().shape[2] == 3


def test_a_burst_of_events_ends_at_the_newest(start):
    net, go = Slow(0), threading.Event()
    ex = make(net, start)
    draw, net.draw = net.draw, lambda *given: go.wait(20) and draw(*given)
    for seed in range(40): ex.send("resample", seed=seed + 1)
    go.set(); ex.wait()
    assert shows(ex) and ex.state.noise.specs == (Seed(40),) and len(net.draws) <= 3 and net.prepares == 1 and len(ex.state.past) == 40


def test_a_slow_generator_is_busy(start):
    net, go = Slow(0), threading.Event()
    ex = make(net, start)
    draw, net.draw = net.draw, lambda *given: go.wait(20) and draw(*given)
    assert not ex.session.busy
    ex.send("resample")
    until(lambda: ex.session.busy and "drawing" in ex.side.caption.value)
    go.set(); ex.wait()
    assert not ex.session.busy and "drawing" not in ex.side.caption.value


def test_many_threads_may_send_events(start):
    ex = make(Slow(0.002), start)
    threads = [threading.Thread(target=lambda k=k: [ex.send("resample", seed=100 * k + i + 1) for i in range(25)]) for k in range(4)]
    for t in threads: t.start()
    for t in threads: t.join(20)
    ex.wait()
    assert len(ex.state.past) == 100 and shows(ex)


# ---- seeds, variants, strokes, views

def test_seeds_count_up_and_can_be_set(start):
    ex = make(Slow(0), start)
    for _ in range(3): ex.send("resample")
    assert ex.state.noise.specs == (Seed(3),) and ex.seed.value == 4
    ex.seed.value = 50
    ex.send("resample_selection")
    assert ex.state.noise.specs == (Seed(50),) and ex.seed.value == 51
    ex.send("variants", count=2)
    assert [v.noise.specs for v in ex.session.variants] == [(Seed(51),), (Seed(52),)] and ex.seed.value == 53
    ex.send("resample", seed=7)
    assert ex.seed.value == 8 and "seed 7 (100%)" in ex.status.value


def test_variants_are_drawn_shown_taken_and_forgotten(start):
    ex = make(Slow(0), start.select_class(10))
    ex.send("variants", count=4); ex.wait()
    assert len(ex.strip.children) == 4 and all(len(box.children[0].value) > 50 for box in ex.strip.children)
    box = ex.strip.children[2]
    assert box.children[1].description == "Take 3"
    box.children[1].click(); ex.wait()
    assert ex.state.noise is ex.session.variants[2].noise and np.array_equal(ex.image, ex.session.strip[2]) and len(ex.strip.children) == 4
    ex.send("undo"); ex.wait()
    assert ex.state.noise.specs == (Seed(0),) and not ex.strip.children


def test_the_slider_is_one_step_and_returns_to_zero(start):
    ex = make(Slow(0), start)
    for t in (0.2, 0.5, 0.8): ex.slider.value = t
    assert ex.state.noise.specs == (Slerp(Seed(0), Seed(2), 0.8),) and len(ex.state.past) == 1 and ex.session.mix == 0.8
    ex.other.value = 6
    assert ex.state.noise.specs == (Slerp(Seed(0), Seed(6), 0.8),) and len(ex.state.past) == 1 and ex.session.mix == ex.slider.value == 0.8
    ex.send("resample", seed=1)
    assert ex.slider.value == 0 and ex.state.noise.specs == (Seed(1),), "moving the slider back is no event"


def test_a_growing_stroke_is_one_step(start):
    ex = make(Slow(0), start)
    points = [[30, 5 * i] for i in range(1, 10)]
    for n in range(1, 10): ex.send("paint", points=points[:n], class_id=8, size=4, stroke="a")
    assert len(ex.state.past) == 1 and np.array_equal(ex.state.label, start.paint(points, 8, 4).label)
    ex.send("paint", points=points[:2], class_id=8, size=9, stroke="b")
    assert len(ex.state.past) == 2
    ex.send("undo"); ex.send("undo")
    assert np.array_equal(ex.state.label, start.label)


def test_views(net, start):
    ex = make(net, start)
    ex.view.value = "before"; ex.wait()
    assert look(ex.session) == (ex.image, "Image (nothing was changed yet)")
    first = ex.image
    ex.send("select_class", class_id="sky"); ex.send("resample_selection", seed=3); ex.wait()
    assert np.array_equal(look(ex.session)[0], first) and not np.array_equal(ex.image, first)
    ex.view.value = "difference"; ex.wait()
    heat, caption = look(ex.session)
    assert heat.shape == (64, 64, 3) and re.search(r"\d+% of it lies inside", caption) and ex.side.caption.value == caption
    ex.view.value = "photo"; ex.wait()
    assert np.array_equal(look(ex.session)[0], start.photo)
    ex.send("blank", class_id=1); ex.wait()
    assert look(ex.session)[1] == "Image (this label map has no photo)" and set(VIEWS) == {"image", "before", "photo", "difference"}


def test_undo_draws_nothing_again(start):
    net = Slow(0)
    ex = make(net, start)
    ex.send("resample", seed=4); ex.wait()
    count = len(net.draws)
    for kind in ("undo", "redo", "undo"): ex.send(kind); ex.wait()
    assert len(net.draws) == count and net.prepares == 1 and shows(ex)


def test_the_painter_forgets(start):
    p = Painter(Slow(0), keep=3)
    for seed in range(9): p.draw(start.resample(seed))
    for c in range(1, 8): p.draw(start.blank(class_id=c))
    assert len(p.pictures) == 3 and len(p.prepared) == 4 and p([None, start])[0] is None


def test_noise_in_words(start):
    specs = tuple(Seed(i) for i in range(6))
    text = noise_text(start._with(noise=NoiseMap(np.arange(64 * 64).reshape(64, 64) % 6, specs)))
    assert text.count("%") == 4 and text.endswith("and 2 more") and "0.50 from seed 1 to seed 2" in noise_text(start.resample(1).interpolate(2, 0.5))


# ---- what the page gets and sends

@given(arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 300)))
def test_runs_hold_the_label_map(label):
    runs = np.frombuffer(label_runs(label), "<u2").reshape(-1, 2)
    assert np.array_equal(np.repeat(*runs.T).reshape(label.shape), label) and runs[:, 1].max() <= label.shape[1]


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_outline_is_the_border(mask):
    lines = outline(mask)
    assert lines.dtype == np.int16 and ((lines[:, 0] == lines[:, 2]) ^ (lines[:, 1] == lines[:, 3])).all()
    padded = np.pad(mask, 1)
    edges = sum(int((np.diff(padded.astype(int), axis=axis) != 0).sum()) for axis in (0, 1))
    assert np.abs(lines[:, 2:] - lines[:, :2]).sum() == edges
    assert np.array_equal(draw_outline(np.zeros((*mask.shape, 3), np.uint8), mask & False), np.zeros((*mask.shape, 3)))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["click", "send", "answer"])), max_size=60))
def test_no_click_is_lost_or_done_twice(script):
    "Two pages click; messages to Python are merged at will, answers come late, and either page may overwrite the other's list."
    trait, handled, done, made = [], {}, [], [0, 0]
    views = [{"events": [], "handled": {}} for _ in range(2)]

    def deliver(page):
        nonlocal handled
        fresh, handled = new_events(views[page]["events"], handled)
        done.extend(fresh)

    for page, action in [*script, (0, "send"), (1, "send")]:
        view = views[page]
        if action == "click":
            made[page] += 1
            view["events"] = [e for e in view["events"] if e["n"] > view["handled"].get(e["session"], 0)] + [{"session": f"page {page}", "n": made[page], "click": made[page], "page": page}]
        elif action == "send": deliver(page)
        else: view["handled"] = dict(handled)
    for page in range(2): assert [e["click"] for e in done if e["page"] == page] == list(range(1, made[page] + 1))


@needs_canvas
def test_the_canvas_does_what_the_page_sends_and_answers(start):
    ex = make(Slow(0), start, canvas=True)
    canvas = ex.side.widget
    event = lambda n, **e: {"session": "p", "n": n, **e}
    canvas.events = [event(1, kind="select_region", row=40, col=5)]
    assert canvas.handled == {"p": 1} and ex.state.selection.any() and canvas.outline == outline(ex.state.selection).tobytes()
    canvas.events = [event(1, kind="select_region", row=40, col=5), event(2, kind="lock"), event(3, kind="fill", row=1, col=1, class_id=8)]
    assert canvas.handled == {"p": 3} and canvas.locked and len(ex.state.past) == 2
    ex.wait()
    assert np.array_equal(np.asarray(Image.open(BytesIO(canvas.picture))), ex.image) and canvas.label == label_runs(ex.state.label) and canvas.size == [64, 64]
    canvas.brush_class = 5
    assert ex.class_id.value == 5 and [c["name"] for c in canvas.classes] == list(SCENES.names) and canvas.classes[1]["colour"] == "#804080"


@needs_canvas
def test_all_that_is_shown_is_in_synced_traits(net, start):
    ex = make(net, start.select_class(1), canvas=True)
    state = ex.side.widget.get_state()
    assert {"label", "outline", "picture", "tool", "brush_class", "brush_size", "events", "handled", "busy", "caption", "_esm"} <= state.keys()
    assert len(state["picture"]) > 100 and "canvas" in state["_esm"]


@needs_canvas
def test_only_what_is_new_is_sent(start):
    ex = make(Slow(0), start, canvas=True)
    changed = []
    ex.side.widget.observe(lambda change: changed.append(change["name"]))
    ex.send("select_region", row=40, col=5); ex.wait()
    assert set(changed) == {"outline"}
    changed.clear()
    ex.send("resample", seed=6); ex.wait()
    assert set(changed) == {"picture"}


def test_script_and_python_agree():
    script = (STATIC / "canvas.js").read_text()
    read = set(re.findall(r'model\.get\("(\w+)"\)', script))
    traits = set(Canvas.class_traits(sync=True))
    assert read <= traits and {"label", "picture", "events", "handled"} <= read
    assert set(re.findall(r'kind: "(\w+)"', script)) | {"paint", "erase"} <= set(EVENTS)
    assert not re.search(r"https?:|import |fetch\(|eval\(", script), "nothing is fetched at run time"
    assert not re.search(r"https?:|@import|url\(", (STATIC / "canvas.css").read_text())


# ---- buttons

def all_widgets(w): return [w, *(x for child in getattr(w, "children", ()) for x in all_widgets(child))]


@pytest.mark.parametrize("canvas", FACES)
def test_buttons_send_their_events(start, canvas):
    ex = make(Slow(0), start, canvas)
    buttons = {w.description: w for w in all_widgets(ex.widget) if isinstance(w, widgets.Button)}
    assert {"Select class", "All", "None", "Lock", "Unlock", "Unlock all", "New noise", "Resample selection", "Variants", "Undo", "Redo", "Load example", "Blank", "Prepare files"} <= buttons.keys()
    press = lambda text: (buttons[text].click(), ex.wait())
    ex.class_id.value = 10
    press("Select class")
    assert np.array_equal(ex.state.selection, start.label == 10)
    press("Lock"); press("All"); press("Unlock")
    assert not ex.state.locked.any()
    press("None"); press("New noise"); press("Undo")
    assert not ex.state.selection.any() and ex.state.noise.specs == (Seed(0),)
    press("Redo")
    assert ex.state.noise.specs == (Seed(1),)
    ex.index.value = 3
    press("Load example")
    assert np.array_equal(ex.state.photo, SceneList("val").read(3, 64, 64)[0])
    press("Blank")
    assert set(ex.state.label.flat) == {10} and all(not w.disabled for w in buttons.values())


def test_no_widget_that_colab_cannot_show(start):
    for canvas in ([True] if ANYWIDGET else []) + [False]:
        kinds = {type(w).__name__ for w in all_widgets(make(Slow(0), start, canvas).widget)}
        assert not kinds & {"Output", "Tab", "Accordion", "TagsInput", "ColorPicker"}


def test_regions_are_chosen_from_a_list(start):
    ex = make(Slow(0), start)
    regions = ex.side.listed
    assert len(regions) == len(ex.side.regions.options) and sum(r.pixels for r in regions) == 64 * 64
    ex.side.regions.value = (0, 2)
    assert ex.state.selection.sum() == regions[0].pixels + regions[2].pixels
    ex.class_id.value = 8
    next(w for w in all_widgets(ex.widget) if getattr(w, "description", "") == "Fill selection").click(); ex.wait()
    assert (ex.state.label[ex.state.selection] == 8).all() and len(ex.state.past) == 1 and ex.state.selection.any(), "the new list selects nothing by itself"
    assert np.array_equal(np.asarray(Image.open(BytesIO(ex.side.label.value))), marked(ex.state, 360))


# ---- files

def test_uploads_of_both_versions_of_ipywidgets(start):
    content = label_file(start.label[::-1], SCENES)
    seven = {"map.png": {"metadata": {"name": "map.png", "type": "image/png", "size": len(content)}, "content": content}}
    eight = ({"name": "map.png", "type": "image/png", "size": len(content), "content": memoryview(content), "last_modified": None},)
    assert uploads(seven) == uploads(eight) == [content] and uploads({}) == uploads(()) == []
    for value in (seven, eight):
        ex = make(Slow(0), start)
        ex.load({"new": value})
        assert not said(ex) and np.array_equal(ex.state.label, start.label[::-1])


def upload(ex, content, name="map.png"):
    "What the page does when a file is chosen, in ipywidgets 7 and 8."
    box = ex.upload
    if hasattr(box, "_counter"): box.metadata, box.data, box._counter = [{"name": name}], [content], box._counter + 1
    else: box.value = ({"name": name, "type": "", "size": len(content), "content": memoryview(content), "last_modified": datetime(2026, 1, 1)},)


def test_a_file_of_another_size_is_kept_and_loaded_when_the_box_is_ticked(start):
    ex, content = make(Slow(0), start), label_file(np.repeat(start.label, 2, 0), SCENES)
    upload(ex, content)
    assert "128 x 64" in said(ex) and "resize" in said(ex) and ex.state is start
    ex.resize.value = True
    assert not said(ex) and np.array_equal(ex.state.label, start.label) and ex.state is not start
    for _ in range(2):
        old = ex.state
        upload(ex, content)
        assert not said(ex) and ex.state is not old, "the same file again"
    ex.resize.value = False
    upload(ex, content)
    ex.send("select_all")
    ex.resize.value, old = True, ex.state
    assert ex.state is old, "the file is forgotten with its message"


def test_a_recipe_is_opened_by_the_upload_button(net, start):
    ex = make(net, start)
    ex.send("select_class", class_id="sky"); ex.send("resample_selection", seed=5); ex.send("paint", **PAINT); ex.wait()
    old, picture, content = ex.state, ex.image, session_files(ex.session)["recipe.json"]
    ex.send("blank", class_id=1); ex.send("resample", seed=9)
    upload(ex, b"\xef\xbb\xbf" + content, "recipe.json"); ex.wait()
    assert not said(ex) and np.array_equal(ex.state.label, old.label) and ex.state.noise.same(old.noise) and np.array_equal(ex.image, picture)
    ex.send("undo")
    assert set(ex.state.label.flat) == {1} and ex.state.noise.specs == (Seed(9),)
    before, kept = ex.state, json.loads(content)
    ex.session.about["digest"] = "abc"
    for change, part in (({"z_dim": 5}, "5 channels"), ({"classes": CITYSCAPES.to_dict()}, "classes of Cityscapes"), ({"generator": {"digest": "other"}}, "weights other"), ({"version": 9}, "version 9")):
        upload(ex, json.dumps({**kept, **change}).encode(), "recipe.json")
        assert part in said(ex) and ex.state is before


@pytest.mark.parametrize("classes", [SCENES, CITYSCAPES, COCO_STUFF], ids=lambda c: c.name)
def test_label_files_are_read_back(classes):
    known = [i for i in range(classes.num_classes) if classes.raw_ids[i]]
    label = np.array(known, np.uint8)[np.arange(64 * 64).reshape(64, 64) % len(known)]
    content = label_file(label, classes)
    assert np.array_equal(read_label_file(content, classes, 64, 64), label)
    assert np.array_equal(np.asarray(Image.open(BytesIO(content)).convert("RGB")), np.array(classes.colours, np.uint8)[label])


def test_a_class_without_an_id_is_written_in_colours():
    label = np.full((64, 64), CITYSCAPES.names.index("license plate"), np.uint8)
    assert np.asarray(Image.open(BytesIO(label_file(label, CITYSCAPES)))).shape == (64, 64, 3)


def test_saved_files_draw_the_same_pixels(net, start, tmp_path):
    ex = make(net, start)
    for event in ({"kind": "select_class", "class_id": "sky"}, {"kind": "resample_selection", "seed": 3}, {"kind": "paint", **PAINT}, {"kind": "interpolate", "t": 0.3, "seed": 8}): ex.do(event)
    ex.save(tmp_path / "new")
    label, z, about = read_recipe(tmp_path / "new" / "recipe.json", SCENES, 4)
    again = image_to_uint8(net.draw(net.prepare(label), z))[0]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "image.png")), again) and about["name"] == "tiny"
    assert np.array_equal(read_label_file(tmp_path / "new" / "label.png", SCENES, 64, 64), ex.state.label)


def test_links_hold_the_files_and_go_when_the_picture_changes(start):
    ex = make(Slow(0), start)
    ex.prepare()
    found = dict(re.findall(r'download="([^"]+)" href="data:[a-z/]+;base64,([^"]+)"', ex.links.value))
    assert found.keys() == {"image.png", "label.png", "recipe.json"} and np.array_equal(np.asarray(Image.open(BytesIO(base64.b64decode(found["image.png"])))), ex.image)
    ex.send("select_none"); ex.wait()
    assert ex.links.value
    ex.send("resample", seed=9); ex.wait()
    assert not ex.links.value


def test_the_picture_of_an_explorer(start):
    ex = make(Slow(0), start.select_class(10))
    small = ex.picture()
    ex.send("variants", count=6); ex.wait()
    assert ex.picture().shape[0] > small.shape[0] and np.array_equal(session_sheet(ex.session), ex.picture())
    assert sheet([[("a", np.zeros((5, 5, 3), np.uint8))]], pad=2).shape == (27, 9, 3)


# ---- opening

@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    trainer = tiny_trainer(out / "run")
    trainer.save(out / "run" / "checkpoints" / "step_00000000")
    return out / "run"


def test_explore_with_no_argument():
    ex = explore(seed=5)
    assert ex.state.noise.specs == (Seed(5),) and ex.image.shape == (64, 128, 3) and ex.state.photo is not None
    assert ex.session.about == {"name": "scenes", "digest": weights_digest(load_pretrained("scenes")[0]), "precision": "off", "threads": torch.get_num_threads()}, "what `dpgan generate --recipe` compares"
    assert isinstance(ex.side, module.CanvasSide if ANYWIDGET else module.PlainSide)


def test_explore_a_run_of_ones_own(run):
    ex = explore(run, canvas=False, precision="off", device="cpu")
    assert ex.image.shape == (64, 64, 3) and len(ex.session.pairs) == 500 and not said(ex) and ex.session.about["precision"] == "off"


def test_explore_says_what_does_not_fit(run, tmp_path):
    with pytest.raises(CheckpointError, match="scenes"): explore("no-such-generator")
    with pytest.raises(CheckpointError, match="no checkpoint"): explore(tmp_path)
    with pytest.raises(ValueError, match="precision"): explore(run, precision="float8")


# ---- data sets of one's own

def write_folder(root, class_set=SCENES):
    "Three scenes as a folder of pairs, with these classes."
    for part in ("images", "labels"): (root / "val" / part).mkdir(parents=True)
    for i in range(3):
        photo, label = SceneList("val").read(i, 64, 64)
        Image.fromarray(photo).save(root / "val" / "images" / f"{i}.png")
        Image.fromarray(np.array([ids[0] for ids in SCENES.raw_ids], np.uint8)[label]).save(root / "val" / "labels" / f"{i}.png")
    classes = [{"id": ids[0], "name": name, "color": list(colour)} for ids, name, colour in zip(class_set.raw_ids, class_set.names, class_set.colours)]
    (root / "classes.json").write_text(json.dumps({"name": "scenes", "void_id": 0, "classes": classes}))
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "mine")


@pytest.fixture(scope="module")
def folder_run(run, folder, tmp_path_factory):
    "The same run, of a folder of pairs."
    out = tmp_path_factory.mktemp("folder") / "run"
    shutil.copytree(run, out)
    for file in [f for f in out.rglob("*.json") if "dataset" in f.read_text()]: file.write_text(re.sub(r'"dataset": *"scenes"', '"dataset": "folder"', file.read_text()))
    (out / "run.json").write_text(json.dumps({**(json.loads((out / "run.json").read_text()) if (out / "run.json").exists() else {}), "data": str(folder)}))
    return out


def test_a_run_finds_its_own_data(folder_run, folder):
    ex = explore(folder_run, canvas=False)
    assert len(ex.session.pairs) == 3 and np.array_equal(ex.state.photo, SceneList("val").read(0, 64, 64)[0]) and not said(ex)
    ex.send("example", index=2)
    assert np.array_equal(ex.state.label, SceneList("val").read(2, 64, 64)[1])
    assert len(explore(folder_run, folder, canvas=False).session.pairs) == 3


def test_without_its_data_it_starts_blank(folder_run, tmp_path):
    out = shutil.copytree(folder_run, tmp_path / "run")
    (out / "run.json").write_text(json.dumps({**json.loads((out / "run.json").read_text()), "data": str(tmp_path / "gone")}))
    ex = explore(out, canvas=False)
    assert set(ex.state.label.flat) == {1} and not ex.session.pairs and ex.state.photo is None
    ex.send("example", index=0)
    assert "explore(checkpoint, data)" in said(ex)


def test_data_of_other_classes_is_refused(run, folder_run, folder, tmp_path):
    last = SCENES.num_classes - 1
    others = {"names": SCENES.names[:1] + SCENES.names[:0:-1], "raw_ids": SCENES.raw_ids[:1] + tuple((i + 50,) for i, in SCENES.raw_ids[1:])}
    for what, value in others.items():
        with pytest.raises(DataError, match=f"other classes.*{what} of class 1") as e: explore(folder_run, write_folder(tmp_path / what, dataclasses.replace(SCENES, **{what: value})), canvas=False)
        assert "the data set it was trained on" in str(e.value)
    fewer = dataclasses.replace(SCENES, **{name: getattr(SCENES, name)[:last] for name in ("names", "colours", "raw_ids")})
    with pytest.raises(DataError, match=f"{last + 1} and {last} classes"): check_classes(SCENES, fewer, "data")
    with pytest.raises(DataError, match="drawn scenes, which need no folder"): explore(run, folder, canvas=False)
    with pytest.raises(DataError, match="drawn scenes, which need no folder"): explore("scenes", folder, canvas=False)


def test_explore_goes_on_from_a_recipe(run, tmp_path):
    ex = explore(run, canvas=False)
    ex.send("select_class", class_id="sky"); ex.send("resample_selection", seed=6); ex.save(tmp_path)
    again = explore(run, canvas=False, recipe=tmp_path / "recipe.json")
    assert np.array_equal(again.image, ex.image) and again.state.noise.same(ex.state.noise)
    kept = json.loads((tmp_path / "recipe.json").read_text())
    assert kept["generator"]["threads"] == torch.get_num_threads()
    with pytest.raises(EditError, match="4 channels"): explore("scenes", recipe=kept)
    with pytest.raises(EditError, match="weights"): explore(run, canvas=False, recipe={**kept, "generator": {"digest": "x"}})
    with pytest.raises(EditError, match="cannot be read"): explore(run, canvas=False, recipe=tmp_path / "none.json")


# ---- without anywidget

WITHOUT = """
import importlib, importlib.machinery, pkgutil, sys
class Without(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None): return None if name.split(".")[0] == "anywidget" else super().find_spec(name, path, target)
sys.meta_path[:] = [Without if f is importlib.machinery.PathFinder else f for f in sys.meta_path if "editable" not in repr(f)]
sys.path.insert(0, {root!r})
import dpgan
for found in pkgutil.iter_modules(dpgan.__path__): importlib.import_module("dpgan." + found.name)
assert "anywidget" not in sys.modules
from dpgan.explore import explore
ex = explore()
assert type(ex.side).__name__ == "PlainSide" and ex.image.shape == (64, 128, 3)
ex.side.regions.value = (0,)
old = ex.image
ex.send("resample_selection", seed=4); ex.wait()
assert (ex.image != old).any() and "image/png" in ex._repr_mimebundle_()
try: explore(canvas=True)
except ImportError as e: print(e)
"""


def test_a_python_without_anywidget():
    done = subprocess.run([sys.executable, "-W", "error::DeprecationWarning:dpgan", "-c", WITHOUT.format(root=str(ROOT))], capture_output=True, text=True, cwd=ROOT / "tests")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "dpgan[explore]" in done.stdout


# ---- what a review found

def test_a_lock_or_a_selection_does_not_empty_the_comparison(start):
    ex = make(Slow(0), start)
    ex.do({"kind": "resample", "seed": 3}); ex.do({"kind": "select_all"}); ex.do({"kind": "lock"}); ex.do({"kind": "view", "view": "difference"})
    ex.wait()
    assert ex.session.before is not None and not np.array_equal(ex.session.before, ex.image)


def test_a_difference_across_sizes_is_said_and_drawing_goes_on(start):
    ex = make(Slow(0), start)
    ex.do({"kind": "view", "view": "difference"}); ex.do({"kind": "blank", "height": 64, "width": 128, "class_id": 1})
    ex.wait()
    assert "size" in look(ex.session)[1] and ex.image.shape == (64, 128, 3)
    ex.do({"kind": "resample", "seed": 9})
    ex.wait()
    assert shows(ex)


def test_a_listener_that_fails_does_not_end_the_drawing(capsys):
    seen = []
    def done(place, request, result, error):
        seen.append(request)
        if request == 1: raise RuntimeError("listener")
    renderer = Renderer(lambda r: r, done)
    for request in (1, 2):
        renderer.ask(0, request)
        renderer.wait(10)
    assert seen == [1, 2] and "listener" in capsys.readouterr().err


def test_a_region_can_be_chosen_again_from_the_list(start):
    ex = make(Slow(0), start)
    ex.side.regions.value = (0,)
    assert ex.state.selection.any()
    ex.send("select_none")
    ex.wait()
    assert ex.side.regions.value == ()
    ex.side.regions.value = (0,)
    assert ex.state.selection.any()


def test_a_folder_named_scenes_does_not_hide_the_shipped_generator(tmp_path, monkeypatch):
    (tmp_path / "scenes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert explore(canvas=False).image.shape == (64, 128, 3)


def test_whoever_is_told_may_fail(capfd):
    told, release = [], threading.Event()
    def done(*result): told.append(result[2]); raise RuntimeError("a view's fault")
    def busy(): told.append("busy"); raise RuntimeError("another")
    r = Renderer(lambda x: until(lambda: "busy" in told) if x == "slow" else x, done, busy, patience=0.01)
    for x in (1, "slow", 2): r.ask(0, x); r.wait(20)
    assert [t for t in told if t != "busy"] == [1, None, 2] and r.thread.is_alive() and "a view's fault" in capfd.readouterr().err


def test_a_renderer_that_has_ended_draws_nothing():
    gate, drawn = Gate(), []
    r = Renderer(gate, lambda *result: drawn.append(result[1]))
    r.ask(0, 1); assert gate.entered.wait(20)
    r.ask(0, 2)
    threading.Timer(0.05, gate.open.set).start()
    r.end(20)
    assert drawn == [1] and r.thread is None
    r.ask(0, 3); r.wait(1)
    assert drawn == [1]


END = """
import sys; sys.path.insert(0, {root!r})
import time
from dpgan.explore import Renderer
def draw(x):
    print("begin", flush=True); time.sleep(0.5); print("end", flush=True)
renderer = Renderer(draw, lambda *result: None)
renderer.ask(0, 1); renderer.ask(1, 2)
time.sleep(0.2)
"""


def test_a_program_ends_after_the_drawing_under_way():
    done = subprocess.run([sys.executable, "-c", END.format(root=str(ROOT))], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "begin\nend\n", "")


@pytest.mark.parametrize("canvas", FACES)
def test_a_closed_explorer_leaves_nothing_behind(start, canvas):
    known = getattr(sys.modules["ipywidgets.widgets.widget"], "_instances", None)
    known = widgets.Widget.widgets if known is None else known  # ipywidgets 7
    gc.collect()
    before, net = set(known), Slow(0)
    ex = make(net, start, canvas)
    ex.send("variants", count=3); ex.wait()
    net, thread = weakref.ref(net), ex.session.renderer.thread
    assert len(known) > len(before) + 40
    ex.close()
    assert set(known) == before and not thread.is_alive()
    ex.do({"kind": "resample"}); ex.close()
    del ex
    until(lambda: gc.collect() >= 0 and net() is None)


def test_a_thumbnail_is_encoded_once(start, monkeypatch):
    ex, made = make(Slow(0), start), []
    monkeypatch.setattr(module, "thumbnail", lambda picture: made.append(id(picture)) or thumbnail(picture))
    ex.send("variants", count=4); ex.wait()
    for view in ("before", "image", "photo"): ex.view.value = view; ex.wait()
    assert len(made) == len(set(made)) == 4
    ex.send("variants", count=3); ex.wait()
    assert len(ex.strip.children) == 3 and all(np.array_equal(np.asarray(Image.open(BytesIO(box.children[0].value))), thumbnail(picture)) for box, picture in zip(ex.strip.children, ex.session.strip))
    assert [thumbnail(np.zeros((8, n, 3), np.uint8)).shape[1] for n in (64, 512, 1024)] == [128, 171, 171]


def test_the_number_of_variants_is_set_beside_the_button(start):
    ex = make(Slow(0), start)
    ex.count.value = 9
    next(w for w in all_widgets(ex.widget) if getattr(w, "description", "") == "Variants").click()
    assert len(ex.session.variants) == 9


def test_large_seeds_stay_what_they_are(start):
    ex = make(Slow(0), start)
    ex.send("resample", seed=2**40)
    assert ex.seed.value == ex.session.seed == 2**40 + 1 and not said(ex)
    ex.send("interpolate", t=0.5, seed=2**45)
    assert ex.other.value == 2**45 and ex.state.noise.specs == (Slerp(Seed(2**40), Seed(2**45), 0.5),)
    ex.send("resample", seed=module.SEEDS)
    assert ex.seed.value == module.SEEDS + 1 and not said(ex)
    ex.send("resample")
    assert "seed = " in said(ex) and ex.state.noise.specs == (Seed(module.SEEDS),)


def test_a_failure_of_a_state_that_is_gone_is_not_said(start):
    net, go = Slow(0), threading.Event()
    ex = make(net, start)
    draw = net.draw
    def fails_once(*given):
        assert go.wait(20)
        net.draw = draw
        raise RuntimeError("gone")
    net.draw = fails_once
    ex.send("resample", seed=4)
    until(lambda: ex.session.renderer.working)
    ex.send("undo"); go.set(); ex.wait()
    assert shows(ex) and not said(ex)


def test_files_of_a_state_without_a_picture_are_refused_in_the_status_line(start, tmp_path):
    net = Slow(0)
    ex = make(net, start)
    net.error = RuntimeError("out of memory")
    ex.send("resample", seed=5); ex.wait(); ex.prepare()
    assert not ex.links.value and "no picture" in said(ex) and "out of memory" in ex.status.value
    with pytest.raises(EditError, match="no picture"): ex.save(tmp_path)
    net.error = None
    ex.send("select_all"); ex.prepare()
    assert "image.png" in ex.links.value and not said(ex)


@pytest.mark.parametrize("canvas", FACES)
def test_without_noise_nothing_pretends(canvas):
    torch.manual_seed(0)
    silent = FastGenerator(Generator(SCENES.num_classes, base_channels=4, z_dim=4, noise=False, pyramid_channels=8, init_gain=1.0).eval())
    ex = make(silent, ExplorerState.start(SCENES, silent.z_dim, SceneList("val").read(7, 64, 64)[1]), canvas)
    texts = {getattr(w, "description", "") for w in all_widgets(ex.widget)}
    assert "without noise" in ex.status.value and not {"New noise", "Variants", "next seed"} & texts
    for event in ({"kind": "resample"}, {"kind": "resample_selection"}, {"kind": "variants"}, {"kind": "interpolate", "t": 0.5}, {"kind": "other", "seed": 3}):
        old = ex.state
        ex.do(event)
        assert "without noise" in said(ex) and ex.state is old and not ex.session.variants
    ex.send("blank", class_id=2); ex.wait()
    assert not said(ex) and ex.session.shown is ex.state


def test_the_list_of_regions_follows_the_selection(start):
    ex = make(Slow(0), start)
    marks = lambda: np.array([ex.state.selection[r.row, r.col] for r in ex.side.listed]).nonzero()[0].tolist()
    ex.side.regions.value = (1,)
    assert ex.state.selection.sum() == ex.side.listed[1].pixels and len(ex.state.past) == 0
    for kind, arguments in (("select_none", {}), ("select_class", {"class_id": 1}), ("select_all", {}), ("select_region", {"row": 40, "col": 5}), ("fill_selection", {"class_id": 9}), ("undo", {})):
        ex.send(kind, **arguments)
        assert list(ex.side.regions.value) == marks(), kind
    ex.send("select_none")
    ex.side.regions.value = (1,)
    assert ex.state.selection.sum() == ex.side.listed[1].pixels, "the same region again"


def test_original_classes_come_back_without_a_canvas(start):
    ex = make(Slow(0), start)
    ex.send("select_class", class_id="sky"); ex.send("fill_selection", class_id=8)
    assert not np.array_equal(ex.state.label, start.label)
    next(w for w in all_widgets(ex.widget) if getattr(w, "description", "") == "Original").click()
    assert np.array_equal(ex.state.label, start.label) and len(ex.state.past) == 2


def test_state_and_controls_speak_of_one_brush(start):
    ex = make(Slow(0), start, canvas=ANYWIDGET)
    ex.send("variants", count=2); ex.wait()
    ex.class_id.value = 8
    assert ex.state.brush_class == 8 and len(ex.session.variants) == 2
    ex.send("set_brush", class_id="road", size=9.4)
    assert ex.class_id.value == SCENES.names.index("road") and ex.state.brush_size == 9.4
    if ANYWIDGET:
        assert ex.side.widget.brush_class == ex.class_id.value and ex.side.widget.brush_size == 9
        ex.side.widget.brush_size = 12
        assert ex.state.brush_size == 12
        ex.side.widget.brush_class = 5
    else: ex.class_id.value = 5
    ex.send("take", index=1)
    assert ex.state.brush_class == ex.class_id.value == 5 and ex.state.noise.specs == (Seed(2),)


@needs_canvas
def test_an_event_that_fails_badly_is_not_sent_again(start):
    ex = make(Slow(0), start, canvas=True)
    ex.session.on_seed = lambda seed: 1 / 0
    with pytest.raises(ZeroDivisionError): ex.side.widget.events = [{"session": "p", "n": 1, "kind": "seed", "seed": 3}]
    assert ex.side.widget.handled == {"p": 1}
    ex.side.widget.events = [{"session": "p", "n": 1, "kind": "seed", "seed": 3}, {"session": "p", "n": 2, "kind": "select_all"}]
    assert ex.state.selection.all()


def test_the_caption_says_how_far_a_change_reaches(net, start):
    ex = make(net, start.select_region(60, 60))
    ex.send("resample_selection", seed=3); ex.send("view", view="difference"); ex.wait()
    change = np.abs(ex.image.astype(int) - ex.session.before).any(-1)
    assert f"the farthest pixel {distance_to(ex.state.selection)[change].max()} away" in look(ex.session)[1]
