"The explorer without a browser: every event, bursts, slow and failing generators, files, both faces, and a Python without anywidget."
import asyncio
import base64
import json
import re
import subprocess
import sys
import threading
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

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
from dpgan.data import SCENES, SceneList
from dpgan.editing import EVENTS, ExplorerState, NoiseMap, Seed, Slerp, label_rgb, read_label_file, read_recipe
from dpgan.explore import (STATIC, VIEW, VIEWS, Canvas, Explorer, Painter, Post, Renderer, Workbench, as_picture, control, draw_outline, enlarge, explore, label_file, label_runs, look,
                           marked, new_events, noise_text, outline, panel, png, session_sheet, sheet, uploads)
from dpgan.features import weights_digest
from dpgan.generator import Generator
from dpgan.inference import FastGenerator
from dpgan.labels import CITYSCAPES, COCO_STUFF, image_to_uint8
from tiny import tiny_trainer

ROOT = Path(__file__).resolve().parent.parent
ANYWIDGET = module.anywidget is not None
needs_canvas = pytest.mark.skipif(not ANYWIDGET, reason='no canvas without anywidget: pip install "dpgan[explore]"')
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
    "seed": {"seed": 77}, "other": {"seed": 5}, "variants": {"count": 3}, "take": {"index": 0}, "view": {"view": "difference"}, "example": {"index": 3}, "load": {"content": None}, "fill_selection": {"class_id": 8}}


def test_every_event_is_tried():
    own = {name.removeprefix("on_") for name in dir(Workbench) if name.startswith("on_")}
    assert ALL_EVENTS.keys() >= set(EVENTS) | own


@pytest.mark.parametrize("canvas", FACES)
@pytest.mark.parametrize("kind", ALL_EVENTS)
def test_every_event_is_done_and_drawn(start, kind, canvas):
    ex = make(Slow(0), start.select_region(2, 2).paint([[50, 50]], 3, 9).resample(3).undo(), canvas)
    if kind == "take": ex.send("variants", count=2)
    event = {"kind": kind, **ALL_EVENTS[kind]}
    if kind == "load": event["content"] = label_file(start.label[::-1], SCENES)
    before = ex.state
    ex.do(event); ex.wait()
    assert not said(ex) and shows(ex)
    changes = {"variants": ex.state is before and len(ex.strip.children) == 3, "view": ex.view.value == "difference", "seed": ex.seed.value == 77, "other": ex.other.value == 5,
               "unlock": True, "unlock_all": True, "set_brush": ex.state.brush_size == 4, "undo": ex.state.past == before.past[:-1]}
    assert changes.get(kind, ex.state is not before)
    if kind not in ("variants", "view", "seed", "other", "undo", "take", "redo") and kind in EVENTS and kind not in ("resample", "interpolate"):
        assert np.array_equal(ex.state.label, getattr(before, kind)(**ALL_EVENTS[kind]).label)


@pytest.mark.parametrize("event, part", [
    ({"kind": "dance"}, "dance"), ({}, "None"), (None, "None"), ("undo", "None"), ({"kind": "select_region", "row": 64, "col": 0}, "row"), ({"kind": "select_region"}, "row"),
    ({"kind": "resample", "seed": -1}, "seed"), ({"kind": "resample", "seed": "x"}, "seed"), ({"kind": "take", "index": 0}, "variants first"), ({"kind": "view", "view": "x"}, "before"),
    ({"kind": "example", "index": 500}, "0..499"), ({"kind": "load", "content": b"no picture"}, "PNG"), ({"kind": "interpolate", "t": 2}, "t = 2"), ({"kind": "variants", "count": 1, "x": 2}, "x"),
    ({"kind": "fill_selection", "class_id": 1}, "selected"), ({"kind": "paint", "points": [], "stroke": "s"}, "points")])
def test_what_cannot_be_done_is_said_and_changes_nothing(start, event, part):
    ex = make(Slow(0), start)
    ex.do(event); ex.wait()
    assert part in said(ex) and ex.state is start and "<b>" in ex.status.value and shows(ex)
    ex.send("select_all")
    assert not said(ex) and "seed 0" in ex.status.value


def test_everything_locked_is_said(start):
    ex = make(Slow(0), start.select_all().lock())
    ex.send("resample")
    assert "locked" in said(ex)


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
    assert ex.state is ex.session.variants[2] and np.array_equal(ex.image, ex.session.strip[2]) and len(ex.strip.children) == 4
    ex.send("undo"); ex.wait()
    assert ex.state.noise.specs == (Seed(0),) and not ex.strip.children


def test_the_slider_is_one_step_and_returns_to_zero(start):
    ex = make(Slow(0), start)
    for t in (0.2, 0.5, 0.8): ex.slider.value = t
    assert ex.state.noise.specs == (Slerp(Seed(0), Seed(2), 0.8),) and len(ex.state.past) == 1 and ex.session.mix == 0.8
    ex.other.value = 6
    assert ex.state.noise.specs == (Slerp(Seed(0), Seed(6), 0.8),) and len(ex.state.past) == 1
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


def test_a_file_of_another_size_is_offered_to_be_resized(start):
    ex, content = make(Slow(0), start), ({"content": memoryview(label_file(np.repeat(start.label, 2, 0), SCENES))},)
    ex.load({"new": content})
    assert "128 x 64" in said(ex) and "resize" in said(ex) and ex.state is start
    ex.resize.value = True
    ex.load({"new": content})
    assert not said(ex) and np.array_equal(ex.state.label, start.label)


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
    assert ex.session.about == {"name": "scenes", "digest": weights_digest(load_pretrained("scenes")[0]), "precision": "off"}, "what `dpgan generate --recipe` compares"
    assert isinstance(ex.side, module.CanvasSide if ANYWIDGET else module.PlainSide)


def test_explore_a_run_of_ones_own(run):
    ex = explore(run, canvas=False, precision="off", device="cpu")
    assert ex.image.shape == (64, 64, 3) and len(ex.session.pairs) == 500 and not said(ex) and ex.session.about["precision"] == "off"


def test_explore_says_what_does_not_fit(run, tmp_path):
    with pytest.raises(CheckpointError, match="scenes"): explore("no-such-generator")
    with pytest.raises(CheckpointError, match="no checkpoint"): explore(tmp_path)
    with pytest.raises(ValueError, match="precision"): explore(run, precision="float8")


def test_without_a_data_set_it_starts_blank(run, monkeypatch):
    opened = module.open_generator(run, "cpu")
    other = SimpleNamespace(data=SimpleNamespace(dataset="folder", height=64, width=64))
    monkeypatch.setattr(module, "open_generator", lambda *where: (opened[0], other, opened[2]))
    ex = explore(run, canvas=False)
    assert set(ex.state.label.flat) == {1} and not ex.session.pairs and not hasattr(ex.state.photo, "shape")
    ex.send("example", index=0)
    assert "explore(checkpoint, data)" in said(ex)


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


def test_large_seeds_are_kept_or_refused(start):
    ex = make(Slow(0), start)
    ex.do({"kind": "resample", "seed": 2**40})
    ex.wait()
    assert ex.state.noise.specs == (Seed(2**40),) and ex.seed.value == ex.session.seed == 2**40 + 1
    ex.do({"kind": "resample", "seed": 2**53})
    assert "a seed is a whole number" in said(ex)


def test_a_folder_named_scenes_does_not_hide_the_shipped_generator(tmp_path, monkeypatch):
    (tmp_path / "scenes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert explore(canvas=False).image.shape == (64, 128, 3)
