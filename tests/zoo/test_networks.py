import ast
import copy
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import zoo.networks
from zoo.networks import (
    MLP,
    VGG,
    ConvBlock,
    ConvNet,
    Ensemble,
    LeNet5,
    Linear,
    Perceptron,
    Polynomial,
    ShapeError,
    initialize,
)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (LeNet5(), 61_706),  # LeCun et al. 1998 without the table and the trainable subsampling
        (LeNet5(in_channels=3), 61_706 + 2 * 6 * 25),
        (LeNet5(num_classes=26), 61_706 + 16 * 85),
        # Three 3x3 convolutions without bias, two numbers a channel for each norm, 28 -> 14 -> 7 -> 3.
        (ConvNet(), (144 + 32) + (4_608 + 64) + (18_432 + 128) + (64 * 3 * 3 * 10 + 10)),
        (ConvNet(norm=None), (144 + 16) + (4_608 + 32) + (18_432 + 64) + (64 * 3 * 3 * 10 + 10)),
        # 28 -> 24 -> 12 -> 8 -> 4
        (
            ConvNet(channels=(16, 32), hidden=128, kernel_size=5, padding=0),
            (400 + 32) + (12_800 + 64) + (512 * 128 + 128) + (128 * 10 + 10),
        ),
        # Five 3x3 convolutions without bias, two numbers a channel for each norm, and ten sums over 128 means.
        (VGG(), (288 + 64) + (18_432 + 36_864 + 2 * 128) + (73_728 + 147_456 + 2 * 256) + (1_280 + 10)),
        (VGG(3, 4, (6,), (2,), 5, norm=None), (450 + 6) + (900 + 6) + (24 + 4)),
        (Ensemble([Linear(3, 2), Perceptron(3)]), 8 + 4),
        # 29 -> 13 -> 5 by strides
        (
            ConvNet(
                channels=(5, 50), hidden=100, kernel_size=5, padding=0, image_size=29, norm=None, stride=2, pool=None
            ),
            (125 + 5) + (6_250 + 50) + (1_250 * 100 + 100) + (100 * 10 + 10),
        ),
        (ConvBlock(3, 8, norm="layer"), 3 * 8 * 9 + 16),
        (ConvBlock(3, 8, activation="prelu"), 3 * 8 * 9 + 8 + 1),
        (Linear(), 2),
        (Linear(784, 10), 7_850),
        (Perceptron(5), 6),
        (Polynomial(5, 2, 3), 3 * (2 * 5 + 1)),  # the domain is no parameter
        (MLP(784, (256, 128), 10), 200_960 + 32_896 + 1_290),
        (MLP(4, (3,), 2, norm="layer", activation="prelu"), (15 + 6 + 1) + 8),
        (MLP(4, (3,), 2, norm="batch", dropout=0.5), (12 + 6) + 8),  # no bias before batch norm
    ],
)
def test_the_number_of_parameters_is_as_counted_by_hand(network, expected):
    assert count(network) == expected


def test_the_default_convnet_has_29178_parameters():
    assert count(ConvNet()) == 29_178


@pytest.mark.parametrize(
    ("network", "shape", "expected"),
    [
        (LeNet5(), (5, 1, 32, 32), (5, 10)),
        (LeNet5(3, 7), (2, 3, 32, 32), (2, 7)),
        (ConvNet(), (5, 1, 28, 28), (5, 10)),
        (ConvNet(3, 4, (8,), hidden=5, image_size=9), (1, 3, 9, 9), (1, 4)),
        (ConvNet(channels=[4, 4], kernel_size=4, padding=2, image_size=12), (2, 1, 12, 12), (2, 10)),
        (VGG(), (5, 1, 28, 28), (5, 10)),
        (VGG(channels=(4, 4, 4), depths=(1, 1, 1)), (1, 1, 4, 9), (1, 10)),
        (VGG(3, 7, [4], [3], 7, "layer"), (2, 3, 1, 1), (2, 7)),
        (Ensemble([Linear(12, 4), MLP(12, (3,), 4)]), (5, 3, 2, 2), (5, 4)),
        (ConvNet(channels=(4, 4), stride=2, pool=None, image_size=9), (2, 1, 9, 9), (2, 10)),
        (ConvNet(channels=(4,), stride=3, pool=3, image_size=30), (2, 1, 30, 30), (2, 10)),
        (ConvBlock(2, 6, 5), (2, 2, 9, 7), (2, 6, 9, 7)),
        (ConvBlock(2, 6, 5, stride=2, padding=0), (2, 2, 9, 7), (2, 6, 3, 2)),
        (ConvBlock(2, 6, pool=3), (2, 2, 9, 7), (2, 6, 3, 2)),
        (Linear(3, 4), (5, 3), (5, 4)),
        (Linear(12, 4), (0, 3, 2, 2), (0, 4)),
        (Perceptron(3), (1, 3), (1, 1)),
        (Polynomial(10, 3, 4), (5, 3), (5, 4)),
        (Polynomial(1, 4), (5, 2, 2), (5, 1)),
        (MLP(784, (5,), 10, norm="batch"), (1, 1, 28, 28), (1, 10)),
        (MLP(784, [5, 6], 10, norm="layer"), (0, 1, 28, 28), (0, 10)),
    ],
)
def test_outputs_have_the_documented_shape(network, shape, expected):
    assert network.eval()(torch.randn(shape)).shape == expected


@pytest.mark.parametrize(
    ("stride", "expected"), [(1, [[0.0, 1.0, 0.0], [7.0, 25.0, 13.0], [4.0, 19.0, 8.0]]), (2, [[0.0, 0.0], [4.0, 8.0]])]
)
def test_a_block_sums_neighbours_adds_its_bias_and_cuts_at_zero(stride, expected):
    block = ConvBlock(1, 1, stride=stride)
    nn.init.ones_(block.conv.weight)
    nn.init.constant_(block.conv.bias, -20.0)
    images = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    assert block(images)[0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("norm", "groups"), [("batch", None), ("group", 4), ("layer", 1)], ids=["batch", "group", "layer"]
)
def test_norms_are_zero_mean_and_unit_variance_by_hand(norm, groups):
    block = ConvBlock(2, 12, norm=norm)  # 12 channels: 4 groups, the largest number up to 8 that divides both
    images = torch.randn(5, 2, 6, 6) * 3 + 1
    convolved = functional.conv2d(images, block.conv.weight, padding=1)
    if groups is None:
        mean = convolved.mean(dim=(0, 2, 3), keepdim=True)
        variance = convolved.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
        expected = (convolved - mean) / (variance + 1e-5).sqrt()
    else:
        parts = convolved.reshape(5, groups, -1)
        mean, variance = parts.mean(dim=2, keepdim=True), parts.var(dim=2, keepdim=True, unbiased=False)
        expected = ((parts - mean) / (variance + 1e-5).sqrt()).reshape(convolved.shape)
    assert block.conv.bias is None
    torch.testing.assert_close(block(images), expected.relu(), rtol=1e-4, atol=1e-5)


def test_layer_norm_is_that_of_torch_over_channels_height_and_width():
    block = ConvBlock(3, 4, norm="layer")
    images = torch.randn(2, 3, 5, 5)
    convolved = functional.conv2d(images, block.conv.weight, padding=1)
    expected = functional.layer_norm(convolved, convolved.shape[1:]).relu()
    torch.testing.assert_close(block(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", torch.relu),
        ("leaky_relu", lambda x: torch.where(x > 0, x, 0.01 * x)),
        ("prelu", lambda x: torch.where(x > 0, x, 0.25 * x)),
        ("sigmoid", lambda x: 1 / (1 + (-x).exp())),
        ("tanh", torch.tanh),
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))),
    ],
)
def test_activations(activation, function):
    block = ConvBlock(1, 3, activation=activation)
    images = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(block(images), function(block.conv(images)))


def test_a_block_pools_what_it_convolved_before_the_norm_takes_its_statistics():
    block = ConvBlock(2, 4, norm="batch", pool=2)
    images = torch.randn(5, 2, 6, 6) * 3 + 1
    pooled = functional.max_pool2d(functional.conv2d(images, block.conv.weight, padding=1), 2)
    expected = functional.batch_norm(pooled, None, None, training=True).relu()
    torch.testing.assert_close(block(images), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(block.norm.running_mean, 0.1 * pooled.mean(dim=(0, 2, 3)))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "prelu", "sigmoid", "tanh"])
def test_without_a_norm_it_makes_no_difference_that_a_block_pools_before_its_activation(activation):
    block = ConvBlock(1, 3, activation=activation, pool=2)
    images = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(block(images), functional.max_pool2d(block.activation(block.conv(images)), 2))


@pytest.mark.parametrize("pool", [0, -2, 2.0, True])
def test_a_pool_of_no_size_is_refused(pool):
    with pytest.raises(ValueError, match="pool must be an integer of at least 1"):
        ConvBlock(1, 2, pool=pool)


def test_convnet_is_convolution_pooling_norm_activation_and_two_layers():
    network = ConvNet(2, 3, (4,), hidden=5, image_size=6, activation="tanh")
    images = torch.randn(2, 2, 6, 6)
    conv, first, second = (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    pooled = functional.max_pool2d(functional.conv2d(images, conv.weight, conv.bias, padding=1), 2)
    features = functional.batch_norm(pooled, None, None, training=True).tanh()
    expected = second(first(features.flatten(1)).tanh())
    torch.testing.assert_close(network(images), expected)


def test_lenet_is_the_published_chain_of_layers():
    network = LeNet5()
    images = torch.randn(2, 1, 32, 32)
    weights = list(network.parameters())
    maps = functional.avg_pool2d(functional.conv2d(images, *weights[0:2]).tanh(), 2)
    maps = functional.avg_pool2d(functional.conv2d(maps, *weights[2:4]).tanh(), 2)
    hidden = functional.linear(maps.flatten(1), *weights[4:6]).tanh()
    expected = functional.linear(functional.linear(hidden, *weights[6:8]).tanh(), *weights[8:10])
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize("build", [LeNet5, ConvNet])
def test_the_outputs_are_logits(build):
    network = build().eval()
    logits = network(torch.randn(4, 1, network.image_size, network.image_size))
    assert logits.min() < 0
    assert not torch.allclose(logits.sum(dim=1), torch.ones(4))


@pytest.mark.parametrize(
    ("argument", "value", "valid", "nearest"),
    [
        ("norm", "btach", ["batch", "group", "layer"], "batch"),
        ("norm", "Layer", ["batch", "group", "layer"], "layer"),
        ("activation", "rellu", ["relu", "leaky_relu", "prelu", "sigmoid", "tanh", "gelu"], "relu"),
        ("activation", "tahn", ["relu", "tanh"], "tanh"),
    ],
)
@pytest.mark.parametrize("build", [lambda **names: ConvBlock(1, 2, **names), ConvNet])
def test_an_unknown_name_lists_the_valid_ones_and_the_nearest(build, argument, value, valid, nearest):
    with pytest.raises(ValueError, match=f"{argument} must be one of") as caught:
        build(**{argument: value})
    assert all(repr(name) in str(caught.value) for name in [*valid, value])
    assert str(caught.value).endswith(f"did you mean {nearest!r}?")


def test_a_name_like_no_other_gets_no_suggestion():
    with pytest.raises(ValueError, match=r"got 'zzz'$"):
        LeNet5(activation="zzz")


@pytest.mark.parametrize(
    ("network", "shape", "parts"),
    [
        (ConvNet(), (1, 28, 28), ["(batch, 1, 28, 28)", "(1, 28, 28)", "unsqueeze(0)"]),
        (LeNet5(), (1, 32, 32), ["(batch, 1, 32, 32)", "(1, 32, 32)", "unsqueeze(0)"]),
        (ConvNet(), (28, 28), ["(batch, 1, 28, 28)", "(28, 28)"]),
        (ConvNet(), (2, 3, 28, 28), ["(2, 3, 28, 28)", "in_channels=1"]),
        (LeNet5(3), (2, 1, 32, 32), ["(2, 1, 32, 32)", "in_channels=3"]),
        (ConvNet(), (2, 1, 32, 28), ["(2, 1, 32, 28)", "28x28"]),
        (LeNet5(), (2, 1, 28, 28), ["(2, 1, 28, 28)", "32x32"]),
        (VGG(), (1, 28, 28), ["(batch, 1, height, width)", "(1, 28, 28)", "unsqueeze(0)"]),
        (VGG(3), (2, 1, 28, 28), ["(2, 1, 28, 28)", "in_channels=3"]),
        (VGG(), (2, 1, 28, 3), ["at least 4", "(2, 1, 28, 3)", "fewer stages"]),
    ],
)
def test_images_of_another_shape_are_refused_with_both_shapes(network, shape, parts):
    with pytest.raises(ShapeError) as caught:
        network(torch.zeros(shape))
    assert all(part in str(caught.value) for part in parts)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5, float("nan")])
def test_dropout_must_lie_in_its_range(dropout):
    with pytest.raises(ValueError, match="dropout must be at least 0 and less than 1, got"):
        ConvNet(dropout=dropout)


def test_dropout_drops_its_share_before_the_last_layer_in_training_only():
    network = ConvNet(channels=(2,), hidden=2000, norm=None, activation="sigmoid", dropout=0.3)
    seen = []
    network.head[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.randn(4, 1, 28, 28)
    network.train()(images)
    network.eval()(images)
    dropped = seen[0] == 0
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.03)
    torch.testing.assert_close(seen[0], torch.where(dropped, 0.0, seen[1] / 0.7))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 0}, "stride must be an integer of at least 1, got 0"),
        ({"pool": 0}, "pool must be an integer of at least 1, got 0"),
        ({"stride": 3, "channels": (4,) * 3}, "image_size=28 is too small for 3 blocks"),
        ({"channels": (4,) * 5}, "image_size=28 is too small for 5 blocks with kernel_size=3"),
        ({"kernel_size": 9, "padding": 0, "channels": (4, 4), "image_size": 20}, "too small for 2 blocks"),
        ({"channels": ()}, "channels must name at least one block"),
        ({"channels": (8, 0)}, "must be an integer of at least 1, got 0"),
        ({"in_channels": 0}, "in_channels must be an integer of at least 1, got 0"),
        ({"num_classes": 2.0}, "num_classes must be an integer of at least 1, got 2.0"),
        ({"hidden": 0}, "hidden must be an integer of at least 1, got 0"),
        ({"kernel_size": -3}, "kernel_size must be an integer of at least 1, got -3"),
        ({"image_size": True}, "image_size must be an integer of at least 1, got True"),
    ],
)
def test_a_convnet_that_cannot_be_is_refused_with_its_numbers(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvNet(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": ()}, "channels must name at least one stage"),
        ({"depths": (1, 2)}, "depths must hold a number for each of the 3 stages, got 2"),
        ({"depths": (1, 0, 1)}, "depths must be an integer of at least 1, got 0"),
        ({"kernel_size": 4}, "takes an odd kernel_size, got 4"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1"),
        ({"norm": "bach"}, "norm must be one of .* did you mean 'batch'"),
    ],
)
def test_a_vgg_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VGG(**arguments)


def test_vgg_is_stages_of_convolutions_pooled_between_them_and_the_mean_over_the_image():
    network = VGG(2, 3, (4, 5), (2, 1), norm=None, activation="tanh")
    images = torch.randn(2, 2, 6, 8)
    first, second, third, last = (part for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear))
    maps = functional.conv2d(images, first.weight, first.bias, padding=1).tanh()
    maps = functional.max_pool2d(functional.conv2d(maps, second.weight, second.bias, padding=1), 2).tanh()
    maps = functional.conv2d(maps, third.weight, third.bias, padding=1).tanh()
    assert maps.shape == (2, 5, 3, 4)
    torch.testing.assert_close(network(images), last(maps.mean(dim=(2, 3))))
    assert first.weight.is_contiguous(memory_format=torch.channels_last)


class Says(nn.Module):
    """Gives everyone the logits of these probabilities, whatever the inputs."""

    def __init__(self, *probabilities):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(probabilities).log() + 3.0)  # a constant more changes no softmax

    def forward(self, inputs):
        return self.logits.expand(len(inputs), -1)


@pytest.mark.parametrize(
    ("members", "soft", "hard"),
    [
        # Two of three say 1; the mean says 0. Each vote counts 2/7, the mean 1/7.
        ([(0.9, 0.1), (0.4, 0.6), (0.4, 0.6)], (17 / 30, 13 / 30), (2 + 17 / 30, 4 + 13 / 30)),
        # One vote for each of the three: the mean decides.
        ([(0.6, 0.4, 0.0), (0.0, 0.9, 0.1), (0.1, 0.1, 0.8)], (0.7 / 3, 1.4 / 3, 0.3), ()),
    ],
)
def test_votes_by_hand(members, soft, hard):
    inputs = torch.zeros(2, 1)
    networks = [Says(*(max(share, 1e-30) for share in shares)) for shares in members]
    mean = Ensemble(networks)(inputs).softmax(dim=1)
    torch.testing.assert_close(mean, torch.tensor([soft] * 2))
    shares = Ensemble(networks, voting="hard")(inputs).softmax(dim=1)
    counts = torch.zeros(len(soft))
    for member in members:
        counts[max(range(len(member)), key=member.__getitem__)] += 1
    expected = (counts + 0.5 * torch.tensor(soft)) / (len(members) + 0.5)
    torch.testing.assert_close(shares, expected.expand(2, -1))
    assert shares.argmax(dim=1).tolist() == [1, 1]
    assert mean.argmax(dim=1).tolist() == [soft.index(max(soft))] * 2
    assert not hard or shares[0].tolist() == pytest.approx([value / 7 for value in hard])


def test_an_ensemble_in_half_precision_votes_in_32_bits():
    logits = Ensemble([Linear(3, 2), Linear(3, 2)]).bfloat16()(torch.zeros(4, 3, dtype=torch.bfloat16))
    assert logits.dtype == torch.float32
    assert Ensemble([Linear(3, 2)]).double()(torch.zeros(4, 3, dtype=torch.float64)).dtype == torch.float64


def test_an_ensemble_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="at least one member, got none"):
        Ensemble([])
    with pytest.raises(ValueError, match="voting must be one of 'soft', 'hard', got 'sotf'; did you mean 'soft'"):
        Ensemble([Linear()], voting="sotf")


def test_the_smallest_image_that_fits_is_taken():
    assert ConvNet(channels=(4,) * 4, image_size=16)(torch.zeros(2, 1, 16, 16)).shape == (2, 10)
    with pytest.raises(ValueError, match="image_size=15 is too small for 4 blocks"):
        ConvNet(channels=(4,) * 4, image_size=15)


def test_convnet_is_channels_last_and_takes_either_order():
    network = ConvNet().eval()
    kernels = [parameter for parameter in network.parameters() if parameter.ndim == 4]
    assert len(kernels) == 3
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    assert not kernels[1].is_contiguous()
    features = network.features(torch.randn(2, 1, 28, 28).contiguous(memory_format=torch.channels_last))
    assert features.is_contiguous(memory_format=torch.channels_last)
    images = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(network(images), network(images.contiguous(memory_format=torch.channels_last)))


@pytest.mark.parametrize("path", sorted(Path(zoo.networks.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_networks_import_torch_alone(path):
    allowed = sys.stdlib_module_names | {"torch"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["zoo.networks" if node.level else node.module]
        else:
            continue
        assert all(name.partition(".")[0] in allowed or name.startswith("zoo.networks") for name in names)


@pytest.mark.parametrize("norm", [None, "batch", "group", "layer"])
def test_a_block_says_that_a_single_image_needs_a_batch_dimension(norm):
    with pytest.raises(ShapeError, match=r"unsqueeze\(0\)"):
        ConvBlock(1, 4, norm=norm)(torch.zeros(1, 8, 8))


def test_images_of_bytes_are_refused():
    with pytest.raises(ShapeError, match="uint8"):
        ConvNet()(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))


# ---------------------------------------------------------------------- linear, perceptron, MLP


def set_parameters(network, *values):
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), values, strict=True):
            parameter.copy_(torch.tensor(value, dtype=torch.float64))
    return network


def test_linear_is_a_weighted_sum_and_a_bias():
    network = set_parameters(Linear(3, 2), [[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]], [10.0, 20.0])
    assert network(torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, -1.0]])).tolist() == [[16.0, 19.5], [9.0, 19.5]]


@pytest.mark.parametrize(
    ("activation", "expected"), [("sigmoid", [1 / (1 + math.e), 0.5, 1 / (1 + 1 / math.e)]), ("step", [0.0, 1.0, 1.0])]
)
def test_a_perceptron_gives_logits_and_predicts_with_its_activation(activation, expected):
    neuron = set_parameters(Perceptron(2, activation), [[2.0, -1.0]], [-3.0])
    inputs = torch.tensor([[1.0, 0.0], [1.0, -1.0], [2.0, 0.0]])
    assert neuron(inputs).tolist() == [[-1.0], [0.0], [1.0]]
    assert neuron.predict(inputs).flatten().tolist() == pytest.approx(expected)
    assert neuron.activate(torch.tensor([-1.0, 0.0, 1.0])).tolist() == pytest.approx(expected)


def test_the_step_is_in_the_precision_of_the_logits():
    neuron = Perceptron(2, "step").double()
    assert neuron.predict(torch.randn(3, 2).double()).dtype == torch.float64


def test_an_mlp_by_hand():
    network = set_parameters(
        MLP(2, (2, 1), 1), [[1.0, 1.0], [1.0, -1.0]], [0.0, -1.0], [[2.0, 3.0]], [1.0], [[4.0]], [5.0]
    )
    # (3, 0) -> relu -> 2 * 3 + 3 * 0 + 1 = 7 -> 33; (-1, 2) -> (0, 2) -> 7 -> 33; (-3, -4) -> (0, 0) -> 1 -> 9
    assert network(torch.tensor([[2.0, 1.0], [1.0, -2.0], [-3.0, 0.0]])).flatten().tolist() == [33.0, 33.0, 9.0]


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", functional.relu),
        ("leaky_relu", functional.leaky_relu),
        ("prelu", lambda x: functional.prelu(x, torch.tensor([0.25]))),
        ("sigmoid", torch.sigmoid),
        ("tanh", torch.tanh),
        ("gelu", functional.gelu),
    ],
)
def test_an_mlp_is_linear_norm_and_activation_for_each_hidden_layer(norm, activation, function):
    network = MLP(6, (5, 4), 3, activation, norm)
    first, second, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    normalise = {
        None: lambda x: x,
        "batch": lambda x: functional.batch_norm(x, None, None, training=True),
        "layer": lambda x: functional.layer_norm(x, x.shape[1:]),
    }[norm]
    images = torch.randn(7, 1, 2, 3)
    expected = last(function(normalise(second(function(normalise(first(images.flatten(1))))))))
    torch.testing.assert_close(network(images), expected)


def test_an_mlp_drops_its_share_after_every_hidden_layer_in_training_only():
    network = MLP(3, (2000, 1000), 1, activation="sigmoid", dropout=0.3)
    dropped = []
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(
                lambda _, inputs, outputs: dropped.append((outputs == 0).float().mean().item())
            )
    network.train()(torch.randn(4, 3))
    network.eval()(torch.randn(4, 3))
    assert dropped == [pytest.approx(0.3, abs=0.03)] * 2 + [0.0] * 2


def test_batch_norm_is_told_apart_in_training_and_evaluation():
    network = MLP(2, (3,), 1, norm="batch")
    for lonely in (torch.zeros(1, 2), torch.zeros(1, 1, 2)):
        with pytest.raises(ShapeError, match="batch norm cannot be trained with a single sample: use larger batches"):
            network(lonely)
    assert network.eval()(torch.zeros(1, 2)).shape == (1, 1)
    assert MLP(2, (3,), 1, norm="layer")(torch.zeros(1, 2)).shape == (1, 1)


def test_an_mlp_of_two_layers_learns_xor_and_a_perceptron_does_not():
    inputs = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    targets = torch.tensor([[0.0], [1.0], [1.0], [0.0]])

    def fit(network):
        optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(network(inputs), targets)
            loss.backward()
            optimizer.step()
        return loss.item()

    assert fit(MLP(2, (8,), 1, "tanh")) < 0.05
    assert fit(Perceptron(2)) == pytest.approx(math.log(2), abs=1e-3)  # no line does better than a coin


MLP_ACTIVATIONS = ["relu", "leaky_relu", "prelu", "sigmoid", "tanh", "gelu"]


@pytest.mark.parametrize(
    ("build", "argument", "value", "valid", "nearest"),
    [
        (MLP, "activation", "rellu", MLP_ACTIVATIONS, "relu"),
        (MLP, "activation", None, MLP_ACTIVATIONS, None),
        (MLP, "activation", nn.ReLU, MLP_ACTIVATIONS, None),
        (MLP, "activation", np.array(["relu", "tanh"]), MLP_ACTIVATIONS, None),
        (MLP, "norm", "btach", ["batch", "layer"], "batch"),
        (MLP, "norm", "group", ["batch", "layer"], None),
        (MLP, "norm", "none", ["batch", "layer"], None),
        (MLP, "norm", 0, ["batch", "layer"], None),
        (Perceptron, "activation", "setp", ["sigmoid", "step"], "step"),
        (Perceptron, "activation", True, ["sigmoid", "step"], None),
    ],
)
def test_an_unknown_name_is_answered_with_the_valid_ones(build, argument, value, valid, nearest):
    arguments = {"in_features": 2, "hidden": (3,), "out_features": 1} if build is MLP else {}
    names = ", ".join(map(repr, valid)) + (" or None" if argument == "norm" else "")
    with pytest.raises(ValueError, match="must be one of") as caught:
        build(**arguments, **{argument: value})
    hint = f"; did you mean {nearest!r}?" if nearest else ""
    assert str(caught.value) == f"{argument} must be one of {names}, got {value!r}{hint}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": ()}, r"hidden must name at least one layer, got an empty sequence: .* zoo\.networks\.Linear"),
        ({"hidden": 5}, r"hidden must be a sequence of widths, such as \(128, 64\), got 5"),
        ({"hidden": "ab"}, "hidden must be a sequence of widths, .* got 'ab'"),
        ({"hidden": b"ab"}, "hidden must be a sequence of widths, .* got b'ab'"),
        ({"hidden": None}, "hidden must be a sequence of widths, .* got None"),
        ({"hidden": np.array([3])}, r"hidden must be a sequence of widths, .* got array\(\[3\]\)"),
        ({"hidden": (0,)}, "hidden must be an integer of at least 1, got 0"),
        ({"hidden": (4, -1)}, "hidden must be an integer of at least 1, got -1"),
        ({"hidden": (4.0,)}, r"hidden must be an integer of at least 1, got 4\.0"),
        ({"hidden": (True,)}, "hidden must be an integer of at least 1, got True"),
        ({"hidden": ("4",)}, "hidden must be an integer of at least 1, got '4'"),
        ({"in_features": 0}, "in_features must be an integer of at least 1, got 0"),
        ({"in_features": np.int64(4)}, r"in_features must be an integer of at least 1, got (np\.int64\()?4"),
        ({"out_features": float("nan")}, "out_features must be an integer of at least 1, got nan"),
        ({"dropout": 1.0}, r"dropout must be at least 0 and less than 1, got 1\.0"),
        ({"dropout": -0.1}, r"dropout must be at least 0 and less than 1, got -0\.1"),
        ({"dropout": float("nan")}, "dropout must be at least 0 and less than 1, got nan"),
        ({"dropout": "0.5"}, r"dropout must be at least 0 and less than 1, got '0\.5'"),
        ({"dropout": None}, "dropout must be at least 0 and less than 1, got None"),
        ({"dropout": False}, "dropout must be at least 0 and less than 1, got False"),
    ],
)
def test_an_mlp_that_cannot_be_is_refused_with_its_numbers(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        MLP(**({"in_features": 2, "hidden": (3,), "out_features": 1} | arguments))
    assert "\n" not in str(caught.value)


def test_a_share_may_be_an_integer_or_a_number_of_numpy():
    assert not any(isinstance(module, nn.Dropout) for module in MLP(2, (3,), 1, dropout=0).modules())
    assert [m.p for m in MLP(2, (3,), 1, dropout=np.float32(0.5)).modules() if isinstance(m, nn.Dropout)] == [0.5]


@pytest.mark.parametrize(
    ("build", "argument"),
    [(Linear, "in_features"), (Linear, "out_features"), (Perceptron, "in_features"), (Polynomial, "degree")],
)
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "2", None])
def test_sizes_must_be_positive_integers(build, argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be an integer of at least 1, got {value!r}"):
        build(**{argument: value})


FLAT = {
    "linear": lambda width: Linear(width, 2),
    "perceptron": Perceptron,
    "polynomial": lambda width: Polynomial(3, width),
    "mlp": lambda width: MLP(width, (5,), 2),
}


@pytest.mark.parametrize(
    ("width", "inputs", "message"),
    [
        (4, torch.zeros(()), r"expected inputs of shape \(batch, 4\), got \(\)$"),
        (4, torch.zeros(4), r"got \(4,\); a single sample needs a batch dimension, add it with inputs.unsqueeze\(0\)"),
        (1, torch.zeros(9), r"got \(9,\); a batch of single numbers is made with inputs.unsqueeze\(1\)"),
        (4, torch.zeros(2, 3), r"\(batch, 4\), got \(2, 3\), which is 3 numbers a sample: .* in_features=4"),
        (4, torch.zeros(2, 1, 3, 3), r"got \(2, 1, 3, 3\), which is 9 numbers a sample"),
        (4, torch.zeros(2, 0), r"got \(2, 0\), which is 0 numbers a sample"),
        (4, torch.zeros(2, 4, dtype=torch.int64), r"expected floating-point inputs, got torch\.int64: convert"),
        (4, torch.zeros(2, 4, dtype=torch.bool), r"expected floating-point inputs, got torch\.bool"),
        (4, torch.zeros(2, 4, dtype=torch.complex64), r"expected floating-point inputs, got torch\.complex64"),
    ],
)
@pytest.mark.parametrize("build", FLAT.values(), ids=FLAT)
def test_inputs_of_another_shape_or_type_are_refused(build, width, inputs, message):
    with pytest.raises(ShapeError, match=message):
        build(width)(inputs)


@pytest.mark.parametrize("inputs", [np.zeros((2, 4), np.float32), [[0.0] * 4], None])
@pytest.mark.parametrize("build", FLAT.values(), ids=FLAT)
def test_what_is_no_tensor_is_refused(build, inputs):
    kind = type(inputs).__name__
    with pytest.raises(TypeError, match=rf"expected a tensor of shape \(batch, 4\), got {kind}"):
        build(4)(inputs)


# ---------------------------------------------------------------------- polynomial


def condition_number(network, inputs):
    """Of the Gram matrix of the features and the constant one."""
    features = network.features(inputs).double()
    features = torch.cat([torch.ones(len(features), 1), features], dim=1)
    return torch.linalg.cond(features.T @ features / len(features)).item()


@pytest.mark.parametrize("degree", [1, 5, 10])
@pytest.mark.parametrize("low", [-3.0, 0.0, 1e3])
@pytest.mark.parametrize("width", [1e-2, 6.0, 1e4])
@pytest.mark.parametrize("given", [True, False], ids=["given", "placed"])
def test_the_features_are_well_conditioned_on_any_range(degree, low, width, given):
    inputs = torch.linspace(low, low + width, 2001)[:, None]
    network = Polynomial(degree, domain=(low, low + width) if given else None)
    assert condition_number(network, inputs) < 1.2
    if degree == 10:  # else the test would prove nothing
        powers = (inputs.double() / inputs.abs().max()) ** torch.arange(11)
        assert torch.linalg.cond(powers.T @ powers / len(powers)).item() > 1e6


def test_the_features_are_legendre_polynomials_of_unit_variance():
    network = Polynomial(10, 2, domain=(-1.0, 1.0))
    inputs = torch.stack([torch.linspace(-1, 1, 7), torch.linspace(1, 0, 7)], dim=1)
    features = network.features(inputs).reshape(7, 2, 10)
    for k in range(1, 11):
        expected = np.polynomial.legendre.legval(inputs.double().numpy(), [0] * k + [math.sqrt(2 * k + 1)])
        torch.testing.assert_close(features[:, :, k - 1], torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-5)


def test_a_polynomial_reaches_any_polynomial_and_gives_its_coefficients():
    true = torch.tensor([[1.0, -2.0, 0.5, 0.25], [0.0, 3.0, 0.0, -1.0]]).double()  # of 1, x, x^2, x^3 for each input
    inputs = torch.rand(200, 2).double() * 4 - 1
    targets = sum(true[i, k] * inputs[:, i] ** k for i in range(2) for k in range(4))[:, None]
    network = Polynomial(3, 2).double()
    features = torch.cat([network.features(inputs), torch.ones(200, 1)], dim=1)
    solution = torch.linalg.lstsq(features, targets).solution.flatten()
    set_parameters(network, [solution[:-1].tolist()], [solution[-1].item()])
    constants, coefficients = network.coefficients()
    assert (constants.shape, coefficients.shape) == ((1,), (1, 2, 3))
    assert constants.item() == pytest.approx(1.0, abs=1e-9)
    torch.testing.assert_close(coefficients[0], true[:, 1:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("degree", [1, 2, 10])
def test_the_coefficients_are_the_same_function(degree):
    network = Polynomial(degree, 2, 3, domain=(-2.0, 3.0))
    inputs = torch.rand(20, 2) * 5 - 2
    constants, coefficients = network.coefficients()
    powers = inputs.double()[:, :, None] ** torch.arange(1, degree + 1)
    values = constants + torch.einsum("bik,oik->bo", powers, coefficients)
    torch.testing.assert_close(network(inputs).double(), values, rtol=1e-4, atol=1e-5)


def test_gradient_descent_recovers_the_coefficients_of_degree_ten_far_from_zero():
    network = Polynomial(10, domain=(1000.0, 1010.0))
    truth = copy.deepcopy(network)
    nn.init.normal_(truth.linear.weight)
    inputs = torch.linspace(1000, 1010, 400)[:, None]
    targets = truth(inputs).detach()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.4)
    for _ in range(100):
        optimizer.zero_grad()
        functional.mse_loss(network(inputs), targets).backward()
        optimizer.step()
    torch.testing.assert_close(network.linear.weight, truth.linear.weight, atol=1e-3, rtol=0)


def test_the_domain_widens_in_training_alone():
    def domain(network):
        return list(zip(network.low.tolist(), network.high.tolist(), strict=True))

    network = Polynomial(2, 2)
    inputs = torch.tensor([[50.0, 60.0]])
    assert torch.equal(network.eval()(inputs), Polynomial.forward(network, inputs))
    assert domain(network) == [(math.inf, -math.inf)] * 2  # nothing was seen: [-1, 1] serves
    assert network.features(torch.tensor([[0.5, -1.0]]))[0, [0, 2]].tolist() == pytest.approx(
        [0.5 * math.sqrt(3), -math.sqrt(3)]
    )
    network.train()(torch.tensor([[1.0, 20.0], [3.0, -10.0], [2.0, 0.0]]))
    assert domain(network) == [(1, 3), (-10, 20)]
    network(torch.tensor([[5.0, 0.0]]))
    assert domain(network) == [(1, 5), (-10, 20)]
    network.eval()(torch.tensor([[100.0, 100.0]]))
    assert domain(network) == [(1, 5), (-10, 20)]


def test_features_never_leave_their_bounds_in_training_however_small_the_batches():
    """|P_k| is at most 1 on the domain, and an input beyond it may be huge at a high power."""
    network, draws = Polynomial(10), torch.rand(2000, 1) * 6 - 3
    for batch in torch.split(draws, 4):
        bounds = torch.tensor([math.sqrt(2 * k + 1) for k in range(1, 11)])
        assert (network.features(batch).abs() <= bounds * 1.0001).all()
    features = torch.cat([torch.ones(2000, 1), network.eval().features(draws)], dim=1).double()
    assert torch.linalg.cond(features) < 1.5


@pytest.mark.parametrize(("value", "margin"), [(0.0, 1.0), (0.5, 1.0), (-7.0, 7.0), (1e10, 1e10)])
@pytest.mark.parametrize("samples", [1, 3])
def test_a_constant_input_is_the_middle_of_its_domain(value, margin, samples):
    network = Polynomial(4)
    features = network.features(torch.full((samples, 1), value))
    assert (network.low.item(), network.high.item()) == (value, value)
    assert [end.item() for end in network._ends()] == pytest.approx([value, margin])
    # P_k(0) is 0, -1/2, 0, 3/8
    expected = [0.0, -0.5 * math.sqrt(5), 0.0, 0.375 * 3]
    assert features[0].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (torch.zeros(0, 1), (2.0, 4.0)),
        (torch.tensor([[1.0], [float("nan")]]), (1.0, 4.0)),
        (torch.tensor([[float("inf")], [float("-inf")]]), (2.0, 4.0)),
    ],
)
def test_what_is_no_number_has_no_say_in_the_domain(inputs, expected):
    network = Polynomial(2)
    network(inputs)
    outputs = network(torch.tensor([[2.0], [4.0]]))
    assert (network.low.item(), network.high.item()) == expected
    assert outputs.isfinite().all()


def test_a_domain_as_wide_as_32_bits_makes_no_infinities():
    assert Polynomial(3)(torch.tensor([[-3e38], [3e38], [0.0]])).isfinite().all()


@pytest.mark.parametrize(
    "domain",
    [(1, -1), (1, 1), (1,), (), (1, 2, 3), 5, "ab", "12", (0, None), (0, math.nan), (-math.inf, 0), ("a", "b")],
)
def test_a_domain_that_is_none_is_refused(domain):
    with pytest.raises(
        ValueError, match="domain must be two finite numbers, the lower one first, or None, got "
    ) as caught:
        Polynomial(2, domain=domain)
    assert str(caught.value).endswith(repr(domain))


@pytest.mark.parametrize("domain", [(1e8, 1e8 + 1), (0, 1e39), (-3e38, 3e38)])
def test_a_domain_that_32_bits_cannot_hold_is_refused(domain):
    with pytest.raises(ValueError, match=r"domain is too narrow or too wide for float32, got .*: shift and scale"):
        Polynomial(2, domain=domain)


@pytest.mark.parametrize(
    "domain", [[-3, 5], (np.float32(-3), np.int64(5)), torch.tensor([-3.0, 5.0]), np.array([-3, 5])]
)
def test_a_domain_may_be_any_pair_of_numbers(domain):
    network = Polynomial(2, 2, domain=domain)
    network(torch.tensor([[100.0, 100.0]]))
    assert (network.low.tolist(), network.high.tolist()) == ([-3.0, -3.0], [5.0, 5.0])


def test_a_polynomial_comes_back_from_its_state_dict_with_its_domain():
    network = Polynomial(5)
    network(torch.tensor([[10.0], [20.0]]))
    again = Polynomial(5)
    again.load_state_dict(network.state_dict())
    inputs = torch.tensor([[-1.0], [15.0], [30.0]])
    assert torch.equal(again.eval()(inputs), network.eval()(inputs))
    again.train()(torch.tensor([[12.0]]))  # the domain is not taken anew
    assert (again.low.item(), again.high.item()) == (10.0, 20.0)


def test_a_copy_of_a_polynomial_goes_its_own_way():
    network = Polynomial(2)
    duplicate = copy.deepcopy(network)
    network(torch.tensor([[10.0], [20.0]]))
    duplicate(torch.tensor([[1.0], [2.0]]))
    assert [(part.low.item(), part.high.item()) for part in (network, duplicate)] == [(10.0, 20.0), (1.0, 2.0)]


def test_a_polynomial_takes_the_precision_it_is_given():
    network = Polynomial(5, domain=(-2.0, 2.0))
    inputs = torch.linspace(-2, 2, 9).double()[:, None]
    single = network(inputs)
    double = network.double()(inputs)
    assert (single.dtype, double.dtype, network.low.dtype) == (torch.float32, torch.float64, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


def test_the_slope_reaches_the_inputs():
    network = Polynomial(3, domain=(-1.0, 1.0))
    inputs = torch.tensor([[0.3]], requires_grad=True)
    network(inputs).sum().backward()
    _, [[[a, b, c]]] = network.coefficients()
    assert inputs.grad.item() == pytest.approx((a + 2 * b * 0.3 + 3 * c * 0.09).item(), rel=1e-4)


# ---------------------------------------------------------------------- initialisation


@pytest.mark.parametrize(
    ("layer", "fan_in", "fan_out"),
    [(nn.Linear(400, 250), 400, 250), (nn.Conv2d(16, 100, 5), 16 * 25, 100 * 25), (nn.Conv1d(80, 200, 5), 400, 1000)],
    ids=["linear", "2d", "1d"],
)
@pytest.mark.parametrize("name", ["constant", "zeros", "normal", "xavier", "kaiming"])
def test_initialisations_have_their_mean_and_standard_deviation(layer, fan_in, fan_out, name):
    nn.init.ones_(layer.bias)
    assert initialize(layer, name) is layer
    mean, std = layer.weight.mean().item(), layer.weight.std().item()
    expected = {
        "constant": (0.01, 0.0),
        "zeros": (0.0, 0.0),
        "normal": (0.0, 0.02),
        "xavier": (0.0, math.sqrt(2 / (fan_in + fan_out))),
        "kaiming": (0.0, math.sqrt(2 / fan_in)),
    }[name]
    assert (mean, std) == (pytest.approx(expected[0], abs=1e-3), pytest.approx(expected[1], rel=0.02, abs=1e-7))
    assert layer.bias.tolist() == [0.0] * len(layer.bias)
    if name == "xavier":
        bound = math.sqrt(6 / (fan_in + fan_out))
        assert 0.99 * bound < layer.weight.abs().max().item() <= bound


def test_norms_and_learnt_activations_keep_the_values_they_begin_with():
    norms = [nn.BatchNorm2d(3), nn.GroupNorm(1, 3), nn.LayerNorm([3, 4, 4]), nn.RMSNorm([4, 4])]
    network = initialize(nn.Sequential(nn.Conv2d(3, 3, 1), *norms, nn.PReLU(3)), "zeros")
    assert [module.weight.unique().tolist() for module in network] == [[0.0], [1.0], [1.0], [1.0], [1.0], [0.25]]
    normal = initialize(nn.LayerNorm([3, 4]), "normal")
    assert (normal.weight.unique().tolist(), normal.bias.unique().tolist()) == ([1.0], [0.0])


def test_recurrent_layers_and_embeddings_are_initialised():
    network = initialize(nn.ModuleList([nn.GRU(3, 4), nn.Embedding(5, 6)]), "constant")
    values = {name: parameter.unique().tolist() for name, parameter in network.named_parameters()}
    assert {name for name, value in values.items() if value == [0.0]} == {"0.bias_ih_l0", "0.bias_hh_l0"}
    assert sum(value == [pytest.approx(0.01)] for value in values.values()) == 3


def test_units_that_begin_alike_stay_alike():
    inputs, targets = torch.randn(64, 3), torch.randn(64, 1)

    def distinct_units(name):
        network = initialize(MLP(3, (8,), 1, "tanh"), name)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
        for _ in range(20):
            optimizer.zero_grad()
            functional.mse_loss(network(inputs), targets).backward()
            optimizer.step()
        return len(network.hidden[0].weight.mul(1e4).round().unique(dim=0))

    assert (distinct_units("constant"), distinct_units("zeros"), distinct_units("xavier")) == (1, 1, 8)


def test_no_gradient_reaches_the_hidden_layers_of_an_mlp_of_zeros():
    network = initialize(MLP(3, (8, 8), 1), "zeros")
    network(torch.randn(4, 3)).sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad.any()}
    assert reached == {"head.bias"}


@pytest.mark.parametrize("network", [Linear(3), Perceptron(3), Polynomial(3, 3), MLP(3, (4,), 1), LeNet5(), ConvNet()])
def test_every_network_can_be_initialised(network):
    initialize(network, "constant")
    weights = [parameter for parameter in network.parameters() if parameter.ndim >= 2]
    assert all(weight.unique().tolist() == [pytest.approx(0.01)] for weight in weights)
    assert len(weights) >= 1


def test_initialisation_leaves_the_order_of_the_memory():
    network = initialize(ConvNet(), "kaiming")
    kernels = [parameter for parameter in network.parameters() if parameter.ndim == 4]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_none_leaves_a_network_as_it_is():
    network = Linear(3)
    before = network.linear.weight.clone()
    assert torch.equal(initialize(network, None).linear.weight, before)


def test_a_generator_makes_the_draws_repeatable_and_leaves_the_global_one():
    networks = Linear(3), Linear(3)
    before = torch.get_rng_state()
    first, second = (initialize(network, "xavier", torch.Generator().manual_seed(5)) for network in networks)
    assert torch.equal(first.linear.weight, second.linear.weight)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("value", ["xaveir", "none", "", 5, True, np.array(["zeros", "normal"])])
def test_an_unknown_initialisation_is_refused_with_the_valid_ones(value):
    with pytest.raises(ValueError, match="init must be one of") as caught:
        initialize(Linear(), value)
    names = "'constant', 'zeros', 'normal', 'xavier', 'kaiming' or None"
    assert str(caught.value).startswith(f"init must be one of {names}, got {value!r}")
