import ast
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import zoo.networks
from zoo.networks import ConvBlock, ConvNet, LeNet5, ShapeError


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
        (ConvBlock(3, 8, norm="layer"), 3 * 8 * 9 + 16),
        (ConvBlock(3, 8, activation="prelu"), 3 * 8 * 9 + 8 + 1),
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
        (ConvBlock(2, 6, 5), (2, 2, 9, 7), (2, 6, 9, 7)),
        (ConvBlock(2, 6, 5, stride=2, padding=0), (2, 2, 9, 7), (2, 6, 3, 2)),
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


def test_convnet_is_convolution_norm_activation_pooling_and_two_layers():
    network = ConvNet(2, 3, (4,), hidden=5, image_size=6, activation="tanh", norm=None)
    images = torch.randn(2, 2, 6, 6)
    conv, first, second = (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    features = functional.max_pool2d(functional.conv2d(images, conv.weight, conv.bias, padding=1).tanh(), 2)
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
