"""The arithmetic of the metrics, against closed forms, brute force, scipy and torch-fidelity."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from threadpoolctl import threadpool_limits

from harness.metrics import recipes
from harness.metrics.distances.frechet import extrapolated, frechet_distance
from harness.metrics.distances.inception_score import bootstrap_scores, inception_score, refuse_sorted
from harness.metrics.distances.kernel import discrepancy, kernel_distances
from harness.metrics.distances.matrix_root import trace_of_root
from harness.metrics.distances.neighbours import precision_recall
from harness.metrics.moments import Gaussian, merge, of_block, of_weighted, stream


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def spd(generator, size, condition=1e3):
    """A random symmetric positive definite matrix with a known spread of eigenvalues."""
    q, _ = np.linalg.qr(generator.standard_normal((size, size)))
    matrix = (q * np.geomspace(1, 1 / condition, size)) @ q.T
    return (matrix + matrix.T) / 2


# Moments


def test_moments_are_those_of_numpy(generator):
    rows = generator.standard_normal((1000, 7)) + 5
    moments = stream([rows[:300], rows[300:]], block=128)
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.gaussian().covariance, np.cov(rows, rowvar=False), rtol=1e-12, atol=1e-14)
    population = moments.gaussian("population").covariance
    np.testing.assert_allclose(population, np.cov(rows, rowvar=False, bias=True), rtol=1e-12, atol=1e-14)


def test_moments_do_not_lose_digits_to_a_large_mean(generator):
    rows = generator.standard_normal((500, 3))
    near, far = stream([rows]), stream([rows + 1e8])
    np.testing.assert_allclose(far.scatter, near.scatter, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_moments_are_bit_identical_for_any_batch_size(generator, batch):
    rows = generator.standard_normal((1000, 5)).astype(np.float32)
    whole = stream([rows], block=128)
    parts = stream((rows[i : i + batch] for i in range(0, 1000, batch)), block=128)
    assert parts.mean.tobytes() == whole.mean.tobytes()
    assert parts.scatter.tobytes() == whole.scatter.tobytes()


def test_merging_blocks_in_order_is_bit_identical_to_streaming(generator):
    rows = generator.standard_normal((300, 5))
    blocks = [of_block(rows[i : i + 100]) for i in range(0, 300, 100)]  # as if three processes had made them
    merged = merge(merge(blocks[0], blocks[1]), blocks[2])
    assert merged.scatter.tobytes() == stream([rows], block=100).scatter.tobytes()


def test_weighted_moments_are_those_of_repeated_rows(generator):
    rows, weights = generator.standard_normal((50, 4)), generator.integers(0, 4, 50)
    repeated = of_block(np.repeat(rows, weights, axis=0))
    weighted = of_weighted(rows, weights)
    assert weighted.count == repeated.count
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-12)
    np.testing.assert_allclose(weighted.scatter, repeated.scatter, rtol=1e-12, atol=1e-12)


def test_features_that_are_not_finite_are_refused_by_sample():
    rows = np.ones((300, 3))
    rows[217, 1] = np.nan
    with pytest.raises(ValueError, match="sample 217 are not finite"):
        stream([rows], block=100)


# Fréchet distance


def test_frechet_distance_of_gaussians_in_closed_form():
    a = Gaussian(np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    b = Gaussian(np.array([3.0, 0.0, 4.0]), np.diag([4.0, 4.0, 1.0]))
    result = frechet_distance(a, b)
    assert result.value == pytest.approx(25 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2, rel=1e-13)
    assert (result.rank, result.solver) == (3, "cholesky")


def test_frechet_distance_of_a_gaussian_to_itself_is_zero(generator):
    a = Gaussian(generator.standard_normal(50), spd(generator, 50))
    assert abs(frechet_distance(a, a).value) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 64, 300, 2048])
def test_frechet_distance_is_scipys_by_matrix_square_root(generator, size):
    a, b = (Gaussian(generator.standard_normal(size), spd(generator, size)) for _ in range(2))
    with threadpool_limits(1):  # scipy's and torch's threads would fight over the cores
        root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b).value == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("more", "fewer", "features"), [(31, 25, 60), (31, 6, 60), (40, 5, 500), (9, 8, 2048)])
def test_frechet_distance_without_full_rank_is_the_nuclear_norm_of_the_centred_features(
    generator, more, fewer, features
):
    x, y = (generator.standard_normal((n, features)) for n in (more, fewer))
    with pytest.warns(UserWarning, match=f"{fewer} samples for {features} features"):
        result = frechet_distance(of_block(x).gaussian(), of_block(y).gaussian())
    centred_x, centred_y = x - x.mean(axis=0), y - y.mean(axis=0)
    nuclear = np.linalg.svd(centred_x @ centred_y.T, compute_uv=False).sum() / np.sqrt((more - 1) * (fewer - 1))
    expected = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    expected += x.var(axis=0, ddof=1).sum() + y.var(axis=0, ddof=1).sum() - 2 * nuclear
    assert result.value == pytest.approx(expected, rel=1e-10)
    assert (result.rank, result.solver) == (fewer - 1, "eigh")


def test_a_count_that_is_too_low_is_not_believed(generator):
    x = generator.standard_normal((40, 200)) * np.geomspace(1, 1e-3, 200)
    honest = of_block(x).gaussian()
    lying, other = Gaussian(honest.mean, honest.covariance, 5), Gaussian(np.zeros(200), spd(generator, 200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert frechet_distance(lying, other).value == pytest.approx(frechet_distance(honest, other).value, rel=1e-12)


def test_sets_without_any_variance_are_as_far_apart_as_their_means():
    a, b = (of_block(np.full((10, 3), level)).gaussian() for level in (1.0, 3.0))
    assert frechet_distance(a, b).value == pytest.approx(12.0, rel=1e-14)


def test_a_singular_covariance_of_unknown_count_falls_back_to_eigenvalues(generator):
    full, flat = spd(generator, 10), np.diag([1.0] * 5 + [0.0] * 5)
    trace, rank, solver = trace_of_root(full, flat)
    root = scipy.linalg.sqrtm(scipy.linalg.sqrtm(full) @ flat @ scipy.linalg.sqrtm(full)).real
    assert (rank, solver) == (5, "eigh")
    assert trace == pytest.approx(np.trace(root), rel=1e-6)  # scipy's own error here; its root of zero is 1e-8


def test_the_extrapolated_distance_removes_the_bias_of_few_samples(generator):
    rows = generator.standard_normal((2000, 16))
    truth = Gaussian(np.zeros(16), np.eye(16))
    biased = frechet_distance(of_block(rows).gaussian(), truth).value
    assert biased > 0.02
    assert abs(extrapolated(rows, truth, seed=0)) < biased / 3


# Precision and recall


def brute_force(reference, samples, k=3):
    """Every distance in float64, every sort in full."""

    def squared(u, v):
        return ((u[:, None] - v[None]) ** 2).sum(axis=-1)

    radius_r, radius_s = (np.sort(squared(x, x), axis=1)[:, k] for x in (reference, samples))
    cross = squared(reference, samples)
    return (cross <= radius_r[:, None]).any(axis=0).mean(), (cross <= radius_s).any(axis=1).mean()


@pytest.mark.parametrize("tile", [1000, 64, 50, 7])
def test_precision_and_recall_are_those_of_brute_force_for_any_tile(generator, tile):
    reference = generator.integers(-3, 4, (150, 6)).astype(np.float64)  # integers: exact, and full of ties
    samples = generator.integers(-4, 5, (130, 6)).astype(np.float64)
    found = precision_recall(reference=reference, samples=samples, tile=tile)
    assert (found.precision, found.recall) == pytest.approx(brute_force(reference, samples), abs=1e-15)
    half = precision_recall(reference=reference, samples=samples, tile=tile, arithmetic="adm_fp16")
    assert (half.precision, half.recall) == (found.precision, found.recall)  # small integers are exact in halves too


def test_half_precision_rounds_the_distances_and_survives_overflow(generator):
    reference, samples = (np.abs(generator.standard_normal((300, 64)) * s).astype(np.float32) for s in (2.2, 2.3))
    single = precision_recall(reference=reference, samples=samples)
    half = precision_recall(reference=reference, samples=samples, arithmetic="adm_fp16")
    assert (single.precision, single.recall) != (half.precision, half.recall)
    assert half.precision == pytest.approx(single.precision, abs=0.05)
    large = precision_recall(reference=reference * 200, samples=samples * 200, arithmetic="adm_fp16")
    assert (large.precision, large.recall) == (single.precision, single.recall)  # 65,504 exceeded: single precision


def test_mode_collapse_gives_high_precision_and_low_recall(generator):
    reference = generator.standard_normal((400, 8))
    collapsed = reference[:1] + 0.05 * generator.standard_normal((300, 8))
    found = precision_recall(reference=reference, samples=collapsed)
    assert found.precision > 0.95
    assert found.recall < 0.05
    swapped = precision_recall(reference=collapsed, samples=reference)
    assert (swapped.precision, swapped.recall) == (found.recall, found.precision)


def test_precision_and_recall_refuse_what_they_cannot_use():
    rows = np.zeros((10, 2))
    with pytest.raises(ValueError, match="choose from fp32, adm_fp16"):
        precision_recall(reference=rows, samples=rows, arithmetic="bf16")
    with pytest.raises(ValueError, match="the samples has 3"):
        precision_recall(reference=rows, samples=rows[:3])


# Inception Score


def test_inception_score_of_certain_and_of_ignorant_predictions():
    certain = np.tile(1000.0 * np.eye(10), (20, 1))  # underflows to zero probability, and stays finite
    assert inception_score(certain) == pytest.approx([10.0], rel=1e-12)
    assert inception_score(np.zeros((100, 10))) == pytest.approx([1.0], rel=1e-12)


def test_inception_score_is_of_consecutive_chunks_the_last_one_short(generator):
    logits = generator.standard_normal((25, 6))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    def direct(q):
        return np.exp((q * (np.log(q) - np.log(q.mean(axis=0)))).sum(axis=1).mean())

    expected = [direct(p[:10]), direct(p[10:20]), direct(p[20:])]
    assert inception_score(logits, chunk=10) == pytest.approx(expected, rel=1e-12)


def test_a_set_sorted_by_class_is_refused_and_a_shuffled_or_collapsed_one_is_not(generator):
    classes = np.repeat(np.arange(10), 100)
    logits = 3 * np.eye(10)[classes] + generator.standard_normal((1000, 10))
    with pytest.raises(ValueError, match="sorted by class"):
        refuse_sorted(logits, chunk=100)
    assert np.mean(inception_score(logits, chunk=100)) < 0.7 * np.mean(inception_score(logits, chunk=1000))
    refuse_sorted(logits, chunk=1000)  # one chunk: the order does not enter
    refuse_sorted(generator.permutation(logits), chunk=100)
    refuse_sorted(np.tile(5 * np.eye(10)[:1], (1000, 1)), chunk=100)
    noise = generator.standard_normal((1000, 10))
    with pytest.raises(ValueError, match="share their labels"):
        refuse_sorted(noise, labels=classes, chunk=100)


def test_bootstrapped_scores_scatter_around_the_score(generator):
    logits = 2 * generator.standard_normal((2000, 5))
    score = np.mean(inception_score(logits, chunk=500))
    replicates = bootstrap_scores(logits, 30, seed=0, chunk=500)
    assert np.mean(replicates) == pytest.approx(score, abs=4 * np.std(replicates))
    assert 0 < np.std(replicates) < 0.1 * score


# Kernel distance


def test_kernel_discrepancy_in_sums_written_out(generator):
    x, y = generator.standard_normal((2, 6, 3))

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6)]
    within = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs if i != j) / 30
    expected = within - 2 * sum(k(x[i], y[j]) for i, j in pairs) / 36
    assert discrepancy(x, y) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_is_unbiased_and_sees_a_shift(generator):
    x, y = generator.standard_normal((2, 600, 4))
    same = kernel_distances(samples=x, reference=y, subsets=20, size=100)
    shifted = kernel_distances(samples=x + 1, reference=y, subsets=20, size=100)
    assert abs(np.mean(same)) < np.std(same)
    assert np.mean(shifted) > 10 * abs(np.mean(same))
    with pytest.raises(ValueError, match="the reference has only 50"):
        kernel_distances(samples=x, reference=y[:50], size=100)


# Against torch-fidelity


def test_values_are_torch_fidelitys_on_the_same_features(generator):
    pytest.importorskip("torch_fidelity", reason="pip install torch-fidelity")
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = (np.maximum(generator.standard_normal((500, 48)) + s, 0).astype(np.float32) for s in (0, 0.1))
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    theirs = fid_statistics_to_metric(fid_features_to_statistics(tx), fid_features_to_statistics(ty), False)
    ours = frechet_distance(stream([x]).gaussian(), stream([y]).gaussian()).value
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)

    theirs = kid_features_to_metric(tx.double(), ty.double(), kid_subsets=10, kid_subset_size=100, verbose=False)
    distances = kernel_distances(samples=x, reference=y, subsets=10, size=100)
    assert np.mean(distances) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert np.std(distances) == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-6)

    theirs = isc_features_to_metric(tx, splits=5, shuffle=False)
    scores = inception_score(x, chunk=100)
    assert np.mean(scores) == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert np.std(scores) == pytest.approx(theirs["inception_score_std"], rel=1e-6)

    theirs = prc_features_to_metric(tx, ty, verbose=False, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=False)
    found = precision_recall(reference=y, samples=x)
    assert found.precision == pytest.approx(theirs["precision"], rel=1e-6)
    assert found.recall == pytest.approx(theirs["recall"], rel=1e-6)


# Recipes


def test_a_name_is_a_recipe():
    (fid,) = recipes.parse(["fid50k"])
    assert (fid.distance.name, fid.space.name, fid.count, fid.stream) == ("fid", "inception", 50_000, "pool")
    assert [r.name for r in recipes.parse(["adm1k", "fid1k"])] == ["fid1k", "sfid1k", "is1k", "pr1k"]
    fd, clips, sparse = recipes.parse(["fd1797@digits", "fvd2048_16f", "fvd2048_128f_subsample8f"])
    assert (fd.distance.name, fd.space.name, fd.count) == ("fd", "digits", 1797)
    assert (clips.count, clips.frames, clips.stride) == (2048, 16, 1)
    assert (sparse.frames, sparse.stride) == (16, 8)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("fid", "unknown metric 'fid'; choose from fid50k"),
        ("fjd50k", "unknown metric"),
        ("fid1k@digits", "a distance on digits features is not FID; use fd1k@digits"),
        ("adm1k@digits", "Inception features alone"),
        ("fd50k", "fd is defined on digits and efficientnet-lite0 features"),
        ("fvd2048", "metrics on I3D or VideoMAE state frames, as fvd2048_16f"),
        ("fid50k_16f", "and no others do"),
        ("is1k@cifar", "is is defined on inception and digits"),
        ("fid1", "at least 2"),
        ("fvd16_15f_subsample4f", "cannot be subsampled"),
    ],
)
def test_an_unknown_name_is_refused_with_the_choices(name, complaint):
    with pytest.raises(ValueError, match=complaint):
        recipes.parse([name])


def test_no_warning_for_a_set_that_is_large_enough(generator):
    rows = generator.standard_normal((100, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(of_block(rows).gaussian(), Gaussian(np.zeros(5), np.eye(5)))
