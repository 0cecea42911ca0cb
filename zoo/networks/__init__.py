"""Plain ``nn.Module`` networks: constructor arguments in, logits out, torch and nothing else."""

from zoo.networks.blocks import ConvBlock
from zoo.networks.checks import ShapeError
from zoo.networks.convnet import ConvNet
from zoo.networks.lenet import LeNet5

__all__ = ["ConvBlock", "ConvNet", "LeNet5", "ShapeError"]
