"Statistics on features and label maps, against independent implementations and properties that must hold."
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpgan.metrics import (ConfusionMatrix, MetricError, Moments, covariance_root, diversity, frechet_distance, frechet_from_moments, kernel_distance,
                           manifold_scores, neighbour_radii, pixel_distance, polynomial_kernel, unbiased_mmd)


def features(n, m, seed=0, scale=1.0, shift=0.0):
    "Rows of a Gaussian with a spectrum that falls, as features have it."
    return torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * torch.linspace(1, 0.2, m) * scale + shift


def moments(x):
    made = Moments(x.shape[1])
    for part in x.split(37): made.update(part)
    return made


# ---- Frechet distance

@pytest.mark.parametrize("n, k, m", [(600, 500, 64), (300, 900, 128), (2000, 2000, 32)])
def test_frechet_is_that_of_pytorch_fid(n, k, m):
    from pytorch_fid.fid_score import calculate_frechet_distance
    x, y = features(n, m), features(k, m, 1, 1.3, 0.2)
    statistics = [s for f in (x.numpy(), y.numpy()) for s in (f.mean(0), np.cov(f, rowvar=False))]
    expected = calculate_frechet_distance(*statistics)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_from_moments(moments(x), moments(y)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n, k, m", [(40, 60, 200), (40, 300, 200), (300, 40, 200), (200, 200, 200)])
def test_frechet_with_fewer_images_than_features(n, k, m):
    "Against the eigenvalues of the product of covariances; rows and roots may be mixed."
    x, y = features(n, m), features(k, m, 1, 0.7, -0.1)
    sx, sy = torch.cov(x.T), torch.cov(y.T)
    root_x = covariance_root(sx)
    cross = torch.linalg.eigvalsh(root_x @ sy @ root_x.T).clamp(min=0).sqrt().sum()
    expected = ((x.mean(0) - y.mean(0)).square().sum() + sx.trace() + sy.trace() - 2 * cross).item()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(x, y) == pytest.approx(frechet_from_moments(moments(x), moments(y)), rel=1e-6)


def test_frechet_of_known_gaussians():
    "Two samples moved and scaled to exact means and covariances: the distance is (difference of means)^2 + (difference of deviations)^2 a feature."
    x = features(100, 5)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), (x - x.mean(0)).T, upper=False).T
    a, b = torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor([2.0, 2, 1, 4, 0.5])
    assert frechet_distance(white * a, white * b + 3) == pytest.approx(5 * 9 + ((a - b) ** 2).sum().item(), rel=1e-9)


@pytest.mark.parametrize("n, m", [(50, 200), (300, 40)])
def test_frechet_properties(n, m):
    x, y = features(n, m), features(n, m, 1, shift=0.3)
    assert frechet_distance(x, x) < 1e-6 and frechet_distance(x, x.flip(0)) < 1e-6
    d = frechet_distance(x, y)
    assert d == pytest.approx(frechet_distance(y, x), rel=1e-9) == pytest.approx(frechet_distance(x[torch.randperm(n)], y), rel=1e-9)
    assert frechet_distance(3 * x, 3 * y) == pytest.approx(9 * d, rel=1e-9)
    farther = [frechet_distance(x, x + s) for s in (0.0, 0.1, 0.3, 1.0)]
    assert farther == sorted(farther) and farther[3] == pytest.approx(m, rel=1e-6)


def test_legacy_float32_is_the_field_s_float32():
    "The value that pytorch_fid gives for float32 statistics, up to what float32 leaves open; below the exact one where covariances are singular."
    from pytorch_fid.fid_score import calculate_frechet_distance
    x, y = (features(128, 512, s, 0.4, 0.4).relu() for s in (0, 1))
    f32 = [t for f in (x.float(), y.float()) for t in (f.mean(0).numpy(), ((f - f.mean(0)).T @ (f - f.mean(0)) / (len(f) - 1)).numpy())]
    exact, legacy, theirs = frechet_distance(x, y), frechet_distance(x, y, legacy_fp32=True), calculate_frechet_distance(*f32)
    assert legacy < exact and theirs < exact
    assert abs(legacy - theirs) < 0.3 * (exact - theirs) and legacy == pytest.approx(exact, rel=0.01)


@given(st.lists(st.integers(1, 20), min_size=2, max_size=6), st.integers(0, 1000))
def test_moments_do_not_depend_on_batches(sizes, seed):
    x = features(sum(sizes), 4, seed, shift=50.0)
    whole, left, right = Moments(4), Moments(4), Moments(4)
    whole.update(x)
    for i, part in enumerate(x.split(sizes)): (left, right)[i % 2].update(part)
    left.merge(right)
    assert left.n == len(x) and torch.allclose(left.mean, x.mean(0), rtol=1e-12)
    assert torch.allclose(left.covariance, whole.covariance, atol=1e-10) and torch.allclose(whole.covariance, torch.cov(x.T), atol=1e-10)


def test_moments_of_nothing():
    a, b = Moments(3), Moments(3)
    a.merge(b)
    assert a.n == 0
    with pytest.raises(MetricError, match="0 images are too few"): a.covariance


# ---- kernel distance

def test_kernel_distance_is_the_field_s():
    from torchmetrics.image.kid import poly_mmd
    x, y = features(60, 32), features(60, 32, 1, shift=0.2)
    assert unbiased_mmd(x, y).item() == pytest.approx(poly_mmd(x, y).item(), rel=1e-9)
    mean, std = kernel_distance(x, y, subsets=20, subset_size=60)
    assert mean == pytest.approx(unbiased_mmd(x, y).item(), rel=1e-9) and std < 1e-9
    rng = torch.Generator().manual_seed(3)
    by_hand = [unbiased_mmd(x[torch.randperm(60, generator=rng)[:20]], y[torch.randperm(60, generator=rng)[:20]]).item() for _ in range(10)]
    assert kernel_distance(x, y, subsets=10, subset_size=20, seed=3) == pytest.approx((np.mean(by_hand), np.std(by_hand, ddof=1)), rel=1e-9)


def test_kernel_distance_is_unbiased():
    values = [kernel_distance(features(60, 16, s), features(60, 16, 1000 + s), subsets=1, subset_size=60)[0] for s in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / len(values) ** 0.5
    assert min(values) < 0 < kernel_distance(features(60, 16), features(60, 16, 1, shift=1.0))[0]
    assert polynomial_kernel(torch.ones(1, 4), torch.ones(1, 4)).item() == 8


# ---- precision, recall, density, coverage

@given(st.integers(1, 4), st.integers(0, 50), st.integers(1, 9))
def test_manifold_scores_by_their_definition(k, seed, rows):
    x, y = features(12, 3, seed), features(10, 3, seed + 1, 1.5)
    near = torch.cdist(x, y)
    radius = lambda f: torch.cdist(f, f).sort(1).values[:, k]
    inside = near <= radius(x)[:, None]
    scores = manifold_scores(x, y, k, rows)
    assert scores["precision"] == pytest.approx(inside.any(0).double().mean().item()) and scores["coverage"] == pytest.approx(inside.any(1).double().mean().item())
    assert scores["recall"] == pytest.approx((near <= radius(y)).any(1).double().mean().item()) and scores["density"] == pytest.approx(inside.double().sum(0).mean().item() / k)
    assert torch.allclose(neighbour_radii(x, k, rows), radius(x))


def test_manifold_scores_tell_failures_apart():
    x = torch.cat([features(100, 4, 0, shift=-5.0), features(100, 4, 1, shift=5.0)])
    dropped, spread = manifold_scores(x, features(200, 4, 2, shift=5.0)), manifold_scores(x, features(200, 4, 3, 12.0))
    assert dropped["precision"] > 0.9 and dropped["recall"] < 0.55 and dropped["coverage"] < 0.55
    assert spread["precision"] < 0.4 and spread["density"] < 0.4
    assert manifold_scores(x, x) == {"precision": 1.0, "recall": 1.0, "density": pytest.approx(1.2, abs=0.02), "coverage": 1.0}


# ---- label maps

def test_iou_is_that_of_torchmetrics():
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
    rng = torch.Generator().manual_seed(0)
    truth, prediction = (torch.randint(-1, 6, (4, 16, 16), generator=rng) for _ in range(2))
    prediction = torch.where(torch.rand(truth.shape, generator=rng) < 0.6, truth, prediction).clamp(min=0)
    truth[truth == 4], prediction[prediction == 4] = 3, 2   # class 4 nowhere
    table = ConfusionMatrix(6)
    for p, t in zip(prediction, truth): table.update(p, t)
    kept = [c for c in range(6) if c != 4]
    each = MulticlassJaccardIndex(6, average="none", ignore_index=-1)(prediction, truth)
    assert torch.allclose(table.iou()[kept], each[kept].double(), atol=1e-6) and table.iou()[4].isnan()
    assert table.mean_iou() == pytest.approx(MulticlassJaccardIndex(6, average="macro", ignore_index=-1)(prediction, truth).item(), abs=1e-6)
    assert table.pixel_accuracy() == pytest.approx(MulticlassAccuracy(6, average="micro", ignore_index=-1)(prediction, truth).item(), abs=1e-6)


@given(st.integers(0, 1000))
def test_confusion_matrix_properties(seed):
    rng = torch.Generator().manual_seed(seed)
    truth, prediction = torch.randint(-1, 4, (3, 5, 7), generator=rng), torch.randint(0, 4, (3, 5, 7), generator=rng)
    whole, a, b = ConfusionMatrix(4), ConfusionMatrix(4), ConfusionMatrix(4)
    whole.update(prediction, truth); a.update(prediction[:1], truth[:1]); b.update(prediction[1:], truth[1:])
    a.merge(b)
    assert torch.equal(a.counts, whole.counts) and whole.counts.sum() == (truth >= 0).sum()
    other = torch.where(truth < 0, (prediction + 1) % 4, prediction)   # what is predicted on don't care has no say
    again = ConfusionMatrix(4)
    again.update(other, truth)
    assert torch.equal(again.counts, whole.counts)
    perfect = ConfusionMatrix(4)
    perfect.update(truth.clamp(min=0), truth)
    assert perfect.mean_iou() == 1 and perfect.pixel_accuracy() == 1


# ---- diversity

def test_diversity_is_the_mean_over_pairs():
    samples = [torch.full((2, 3, 4, 4), v) for v in (-1.0, 0.0, 1.0)]
    assert torch.allclose(diversity(samples, pixel_distance), torch.full((2,), (0.5 + 1 + 0.5) / 3))
    assert diversity(samples[:1] * 4, pixel_distance).tolist() == [0, 0]


# ---- bad input

@pytest.mark.parametrize("call, words", [
    (lambda: frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3)), "real images: 1 images are too few"),
    (lambda: frechet_distance(torch.zeros(5, 3), torch.zeros(5, 4)), "3 features, generated ones 4"),
    (lambda: frechet_distance(torch.zeros(5, 3), torch.full((5, 3), torch.nan)), "5 of 5 images are not finite"),
    (lambda: frechet_distance(torch.zeros(5), torch.zeros(5, 3)), "must have shape"),
    (lambda: frechet_from_moments(moments(torch.zeros(5, 3)), moments(torch.zeros(5, 2))), "same network"),
    (lambda: moments(torch.full((2, 3), torch.inf)), "not finite"),
    (lambda: kernel_distance(torch.zeros(3, 3), torch.zeros(9, 3)), "too few"),
    (lambda: kernel_distance(torch.zeros(9, 3), torch.zeros(9, 3), subset_size=10), "subsets of 10"),
    (lambda: manifold_scores(torch.zeros(6, 3), torch.zeros(9, 3)), "needs 7 or more"),
    (lambda: diversity([torch.zeros(1, 3, 4, 4)], pixel_distance), "two samples"),
    (lambda: ConfusionMatrix(3).update(torch.tensor([3]), torch.tensor([0])), "predictions must be 0..2"),
    (lambda: ConfusionMatrix(3).update(torch.tensor([0]), torch.tensor([-2])), "true classes must be -1..2"),
    (lambda: ConfusionMatrix(3).update(torch.zeros(2), torch.zeros(3)), "differ in shape"),
    (lambda: ConfusionMatrix(3).pixel_accuracy(), "no pixel was scored")])
def test_bad_input_is_refused(call, words):
    with pytest.raises(MetricError, match=words): call()
