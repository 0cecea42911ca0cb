"""Plain ``nn.Module`` networks: constructor arguments in, logits out, torch and nothing else."""

from zoo.networks.blocks import ConvBlock
from zoo.networks.checks import ShapeError
from zoo.networks.convnet import ConvNet
from zoo.networks.initialization import initialize
from zoo.networks.lenet import LeNet5
from zoo.networks.linear import Linear, Polynomial
from zoo.networks.mlp import MLP
from zoo.networks.perceptron import Perceptron

__all__ = ["MLP", "ConvBlock", "ConvNet", "LeNet5", "Linear", "Perceptron", "Polynomial", "ShapeError", "initialize"]
