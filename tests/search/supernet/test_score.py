"""Scores of subnets: AUC against scikit-learn, batch norm against the statistics themselves, sizes, order."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from tutelage.records import InputError
from tutelage.search.spaces.space import SPACES
from tutelage.search.supernet import build_supernet, extract, forward_subnet, prefix, recalibrate_bn, score_subnets
from tutelage.search.supernet.prefix import SubnetTree
from tutelage.search.supernet.scoring import mean_auc, resize, score_logits
from tutelage.search.supernet.standard_errors import auc_std, error_std, loss_std


def test_auc_agrees_with_scikit_learn_with_ties_and_an_absent_class():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    probabilities = rng.dirichlet(np.ones(4), 200).round(1)
    truth = labels[:, None] == np.arange(4)
    expected = np.mean([roc_auc_score(truth[:, i], probabilities[:, i]) for i in range(3)])
    assert mean_auc(probabilities, truth) == pytest.approx(expected)
    assert np.isnan(mean_auc(probabilities, np.ones((200, 4), bool)))


def test_scores_of_known_logits():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0]])
    score = score_logits(logits, torch.tensor([0, 1, 1, 1]))
    assert (score.error, score.auc) == (0.25, pytest.approx(5 / 6))  # of 3 pairs two are right, one is a tie
    assert score.loss == pytest.approx((3 * np.log1p(np.exp(-2)) + np.log1p(np.exp(2))) / 4)
    many = score_logits(logits, torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]]), multi_label=True)
    assert (many.error, many.auc) == (0.0, 1.0)


def test_recalibration_averages_batches_by_their_images():
    norm = nn.BatchNorm2d(2)
    a, b, c = (torch.randn(n, 2, 4, 4) + shift for n, shift in ((6, 0.0), (6, 1.0), (2, 9.0)))
    recalibrate_bn(nn.Sequential(norm, nn.Dropout(0.5)), [a, b, c])
    torch.testing.assert_close(norm.running_mean, torch.cat([a, b, c]).mean((0, 2, 3)))
    variances = [x.transpose(0, 1).flatten(1).var(1) for x in (a, b, c)]
    torch.testing.assert_close(norm.running_var, (6 * variances[0] + 6 * variances[1] + 2 * variances[2]) / 14)
    assert norm.momentum == 0.1
    assert norm.training


@pytest.mark.parametrize("sizes", [(4, 1), (1, 4), (1, 1, 1), (1, 1, 0, 3), (5, 1, 1)])
def test_a_calibration_batch_of_one_image_joins_its_neighbour(sizes):
    """At one pixel batch norm of one image has no variance, and torch refuses it."""
    images = torch.randn(sum(sizes), 2, 1, 1)
    norm = nn.BatchNorm2d(2)
    recalibrate_bn(norm, list(torch.split(images, list(sizes))))
    torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)))
    assert (norm.running_var > 0).all()


@pytest.mark.parametrize("sizes", [(), (1,), (0, 1, 0)])
def test_fewer_than_two_calibration_images_are_refused(sizes):
    with pytest.raises(InputError, match="at least 2 images"):
        recalibrate_bn(nn.BatchNorm2d(2), [torch.randn(n, 2, 4, 4) for n in sizes])


def test_subnets_score_as_when_cut_out_calibrated_and_run_alone():
    torch.set_num_threads(1)
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((32, 40))
    net = build_supernet(space, 3, in_channels=1)
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(30, 1, 40, 40, generator=generator), torch.arange(30) % 3
    calibration = [torch.randn(n, 1, 40, 40, generator=generator) for n in (16, 1)]
    archs = [space.smallest(), *space.decode(space.random(1, np.random.default_rng(2)))]
    seen: list[int] = []
    scores = score_subnets(
        net, archs, calibration, images, labels, batch_size=8, progress=lambda _, done, total: seen.append(done)
    )
    assert seen == sorted(seen)
    assert seen[-1] == 2
    assert scores == score_subnets(net, archs, calibration, images, labels, batch_size=8)
    torch.set_num_threads(2)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    shared = score_subnets(net, [*archs, archs[0]], calibration, images, labels, batch_size=8, workers=2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert shared == [*scores, scores[0]]  # in order, each by its own statistics, one thread each: the same bits
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    for arch, score in zip(archs, scores, strict=True):
        alone = extract(net, arch)
        recalibrate_bn(alone, [resize(batch, arch.r) for batch in calibration])
        alone.eval()
        with torch.no_grad():
            expected = score_logits(alone(resize(images, arch.r)), labels)
        assert score.loss == pytest.approx(expected.loss, rel=1e-3)
        assert score.auc == pytest.approx(expected.auc, abs=0.02)


@pytest.mark.parametrize("name", ["ofa_mbv3_w1.0", "ofa_proxyless_w1.3", "ofa_resnet50", "resnet_small_w1.0_stem1"])
def test_a_tree_of_subnets_gives_the_logits_of_each_calibrated_alone(name):
    torch.set_num_threads(1)
    space = SPACES[name].with_resolutions((32,))
    net = build_supernet(space, 3).double()
    generator = torch.Generator().manual_seed(0)
    images, *calibration = (torch.randn(n, 3, 32, 32, generator=generator).double() for n in (4, 8, 4))
    archs = [space.smallest(), *space.decode(space.random(1, np.random.default_rng(3)))]
    tree = SubnetTree(net.eval(), archs)
    for index in (1, 0):  # in any order
        tree.calibrate(index, calibration[index])
    tree.settle()
    for arch, logits in zip(archs, tree.evaluate(images), strict=True):
        recalibrate_bn(net, calibration, forward=partial(forward_subnet, net, arch, track=True))
        with torch.no_grad():
            expected = forward_subnet(net.eval(), arch, images)
        assert expected.std() > 1e-3
        torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-9)


def test_what_subnets_have_in_common_is_computed_once(monkeypatch):
    space = SPACES["ofa_mbv3_w1.0"].with_resolutions((32,))
    net = build_supernet(space, 3).eval()
    first = space.smallest()
    genes = space.encode([first])
    (column,) = [position for position, gene in enumerate(space.genes) if (gene.field, gene.place) == ("ks", 16)]
    genes[0, column] += 1
    second = space.decode(genes)[0]  # another kernel in the last block but one
    calls = []
    plain = prefix.convolve_same

    def counted(*args):
        calls.append(args)
        return plain(*args)

    monkeypatch.setattr(prefix, "convolve_same", counted)
    images = torch.randn(4, 3, 32, 32)
    counts = []
    for archs in ([first], [first, second], [first, first]):
        calls.clear()
        tree = SubnetTree(net, archs)
        tree.calibrate(0, images)
        tree.settle()
        tree.evaluate(images)
        counts.append(len(calls))
    assert counts[2] == counts[0]
    assert counts[1] - counts[0] == 2 * (2 * 3 + 2)  # two blocks and a head, in calibration and in evaluation


def test_standard_errors_by_hand() -> None:
    assert error_std(0.25, 100) == pytest.approx(np.sqrt(26 / 102 * 76 / 102 / 100))
    assert error_std(0.0, 10) > 0  # no error in ten images is no certainty
    assert loss_std(np.array([1.0, 3.0])) == pytest.approx(1.0)  # sqrt 2 over sqrt 2
    # Placements of the positives (1, 1/2) and of the negatives (1/2, 1): variances of 1/8, each over two images.
    scores, truth = np.array([[0.9], [0.4], [0.5], [0.1]]), np.array([[True], [True], [False], [False]])
    assert auc_std(scores, truth) == pytest.approx(np.sqrt(1 / 16 + 1 / 16))
    perfect = np.array([[0.9], [0.8], [0.2], [0.1]])
    assert auc_std(perfect, truth) == 0.25  # half an image of two
    assert np.isnan(auc_std(scores, np.ones((4, 1), dtype=bool)))


def test_the_standard_error_of_an_auc_is_the_spread_over_draws_of_images() -> None:
    rng = np.random.default_rng(0)
    found, said = [], []
    for _ in range(300):
        truth = np.arange(60) < 20
        scores = rng.standard_normal(60) + truth
        found.append(mean_auc(scores[:, None], truth[:, None]))
        said.append(auc_std(scores[:, None], truth[:, None]))
    assert np.mean(said) == pytest.approx(np.std(found), rel=0.15)
