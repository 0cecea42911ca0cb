"""Plain ``nn.Module`` networks: constructor arguments in, logits out, torch and nothing else."""

from zoo.networks.blocks import ConvBlock
from zoo.networks.checks import ShapeError
from zoo.networks.convnet import ConvNet
from zoo.networks.crnn import CRNN
from zoo.networks.dropout import Dropout
from zoo.networks.ensemble import Ensemble
from zoo.networks.initialization import initialize
from zoo.networks.lenet import LeNet5
from zoo.networks.linear import Linear, Polynomial
from zoo.networks.mlp import MLP
from zoo.networks.perceptron import Perceptron
from zoo.networks.recurrent import Recurrent
from zoo.networks.vgg import VGG

__all__ = [
    "CRNN",
    "MLP",
    "VGG",
    "ConvBlock",
    "ConvNet",
    "Dropout",
    "Ensemble",
    "LeNet5",
    "Linear",
    "Perceptron",
    "Polynomial",
    "Recurrent",
    "ShapeError",
    "initialize",
]
