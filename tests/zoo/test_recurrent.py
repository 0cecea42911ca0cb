import pytest
import torch
from torch import nn

from zoo.networks import CRNN, Recurrent, ShapeError

LENGTHS = torch.tensor([7, 1, 4])


def sequences(steps=7, features=3):
    return torch.randn(len(LENGTHS), steps, features, generator=torch.Generator().manual_seed(0))


def padded_with(inputs, lengths, value):
    """The same sequences with something else in their padding."""
    valid = torch.arange(inputs.shape[1]) < lengths[:, None]
    return torch.where(valid[:, :, None], inputs, value)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("read", ["last", "every"])
def test_each_sequence_is_read_as_if_it_were_alone(cell, bidirectional, num_layers, read):
    network = Recurrent(3, 4, 2, cell, num_layers, bidirectional, read=read)
    inputs = sequences()
    outputs = network(inputs, LENGTHS)
    for index, length in enumerate(LENGTHS.tolist()):
        alone = network(inputs[index : index + 1, :length])[0]
        mine = outputs[index] if read == "last" else outputs[index, :length]
        torch.testing.assert_close(mine, alone, rtol=1e-5, atol=1e-6)
    for value in (0.0, 1e6, torch.nan):
        assert torch.equal(network(padded_with(inputs, LENGTHS, value), LENGTHS), outputs)
    if read == "every":
        assert outputs[1, 1:].abs().max() == 0.0  # zeros in the padding
    longer = torch.cat([inputs, torch.full((3, 5, 3), 9.0)], dim=1)
    more = network(longer, LENGTHS)
    torch.testing.assert_close(more if read == "last" else more[:, :7], outputs)


def test_it_is_torchs_own_cell_under_a_linear_head():
    network = Recurrent(3, 4, 2, "lstm")
    states, (final, _) = network.cells(sequences())
    torch.testing.assert_close(network(sequences()), network.head(states[:, -1]))
    assert torch.equal(final[0], states[:, -1])
    # 4 gates of (3 + 4) weights and two biases for each of 4 units, and a head of 4 weights and a bias for 2
    assert sum(parameter.numel() for parameter in network.parameters()) == 4 * 4 * (3 + 4 + 2) + 2 * 5


def test_gradients_do_not_come_from_the_padding():
    network, inputs = Recurrent(3, 4, 2, "gru"), sequences().requires_grad_()
    network(inputs, LENGTHS).sum().backward()
    assert inputs.grad[1, 1:].abs().max() == 0.0
    assert inputs.grad[1, 0].abs().min() > 0.0


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([7, 0, 4]), "sequence 1 has length 0: each has at least one of the steps"),
        (torch.tensor([7, 1, 8]), "sequence 2 has length 8, but the batch is padded to 7 steps"),
        (torch.tensor([7, 1]), r"lengths must be of shape \(3,\)"),
        (torch.tensor([7.0, 1.0, 4.0]), "type int64, got .* float32"),
        (torch.ones(3, dtype=torch.int64, device="meta"), "lengths must stay on the CPU, got them on meta"),
        ([7, 1, 4], "lengths must be a tensor, got list"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths, message):
    with pytest.raises(ShapeError, match=message):
        Recurrent(3, 4, 2)(sequences(), lengths)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(3, 7), r"expected sequences of shape \(batch, steps, 3\), got \(3, 7\)"),
        (torch.zeros(3, 7, 2), r"got \(3, 7, 2\)"),
        (torch.zeros(3, 0, 3), "nothing to read"),
        (torch.zeros(0, 7, 3), "nothing to read"),
        (torch.zeros(3, 7, 3, dtype=torch.int64), "expected floating-point sequences"),
    ],
)
def test_inputs_that_are_no_sequences_are_refused(inputs, message):
    with pytest.raises(ShapeError, match=message):
        Recurrent(3, 4, 2)(inputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "ltsm"}, "cell must be one of 'rnn', 'lstm', 'gru', got 'ltsm'; did you mean 'lstm'"),
        ({"read": "first"}, "read must be one of 'last', 'every'"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1"),
        ({"num_layers": 0}, "num_layers must be an integer of at least 1"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recurrent(3, 4, 2, **arguments)


# ---------------------------------------------------------------------- CRNN

WIDTHS = torch.tensor([40, 8, 23])


def lines(width=40, height=16):
    return torch.randn(3, 1, height, width, generator=torch.Generator().manual_seed(1))


def crnn(**settings):
    return CRNN(**({"out_features": 5, "image_height": 16, "channels": (4, 6, 8), "hidden": 7} | settings))


@pytest.mark.parametrize("training", [True, False])
def test_a_line_is_read_as_if_it_were_alone_however_far_it_was_padded(training):
    network, images = crnn().train(training), lines()
    steps = network.num_steps(WIDTHS)
    assert steps.tolist() == [10, 2, 5]
    outputs = network(images, WIDTHS)
    assert outputs.shape == (3, 10, 5)
    for index, (width, count) in enumerate(zip(WIDTHS.tolist(), steps.tolist(), strict=True)):
        alone = network(images[index : index + 1, :, :, :width])[0]
        torch.testing.assert_close(outputs[index, :count], alone, rtol=1e-4, atol=1e-5)
        assert outputs[index, count:].abs().sum() == 0.0
    wider = torch.cat([images, torch.full((3, 1, 16, 24), torch.nan)], dim=3)
    torch.testing.assert_close(network(wider, WIDTHS)[:, :10], outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["last", "every", "crnn"])
def test_the_weights_learn_nothing_from_the_padding(kind):
    if kind == "crnn":
        network, clean, lengths = crnn(), lines(), WIDTHS
        beyond = (torch.arange(40) >= WIDTHS[:, None])[:, None, None]
    else:
        network, clean, lengths = Recurrent(3, 4, 2, "lstm", 2, bidirectional=True, read=kind), sequences(), LENGTHS
        beyond = (torch.arange(7) >= LENGTHS[:, None])[:, :, None]
    gradients = []
    for padding in (0.0, 1e6, torch.nan):
        network.zero_grad()
        network(clean.masked_fill(beyond, padding), lengths).square().sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert gradients[0].abs().max() > 0.01
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0])


@pytest.mark.parametrize(("halve_width", "steps"), [(0, 40), (1, 20), (3, 5)])
def test_the_number_of_steps_is_the_width_halved_as_often_as_asked(halve_width, steps):
    network = crnn(halve_width=halve_width)
    assert network(lines()).shape == (3, steps, 5)
    assert network.num_steps(torch.tensor([40])).tolist() == [steps]


@pytest.mark.parametrize(
    ("images", "widths", "message"),
    [
        (torch.zeros(3, 1, 15, 40), None, r"expected images of shape \(batch, 1, 16, width\), got \(3, 1, 15, 40\)"),
        (torch.zeros(3, 2, 16, 40), None, r"got \(3, 2, 16, 40\)"),
        (
            torch.zeros(3, 1, 16, 40),
            torch.tensor([40, 3, 5]),
            "image 1 is 3 wide: no step is left of it when halved 2 times",
        ),
        (torch.zeros(3, 1, 16, 40), torch.tensor([40, 0, 5]), "image 1 has length 0"),
        (torch.zeros(3, 1, 16, 40), torch.tensor([40, 40]), r"lengths must be of shape \(3,\)"),
        (torch.zeros(3, 1, 16, 40), torch.ones(3, device="meta"), "lengths must stay on the CPU, got them on meta"),
        (torch.zeros(3, 1, 16, 3), None, "3 wide have no step left when halved 2 times"),
        (
            torch.zeros(3, 1, 16, 40),
            torch.tensor([41, 40, 40]),
            "image 0 has length 41, but the batch is padded to 40 columns",
        ),
    ],
)
def test_images_and_widths_that_do_not_fit_are_refused(images, widths, message):
    with pytest.raises(ShapeError, match=message):
        crnn()(images, widths)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": ()}, "channels must name at least one block and no more than 4"),
        ({"channels": (1,) * 5}, "no more than 4"),
        ({"halve_width": 4}, "halve_width must be from 0 to 3"),
        ({"cell": "lstn"}, "did you mean 'lstm'"),
    ],
)
def test_a_crnn_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        crnn(**arguments)


def test_both_can_be_initialised_and_copied():
    for network, inputs in ((Recurrent(3, 4, 2), sequences()), (crnn(), lines())):
        again = type(network)(**({"in_features": 3, "hidden": 4, "out_features": 2} if inputs.ndim == 3 else {
            "out_features": 5, "image_height": 16, "channels": (4, 6, 8), "hidden": 7}))  # fmt: skip
        again.load_state_dict(network.state_dict())
        assert isinstance(again, nn.Module)
        assert torch.equal(again(inputs), network(inputs))
