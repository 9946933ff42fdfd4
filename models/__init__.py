"""PortraitNet and its encoder."""

from models.lite import PortraitNetLite
from models.mobilenetv2 import InvertedResidual, MobileNetV2
from models.portraitnet import D_block, PortraitNet, count_macs, count_parameters

__all__ = [
    "D_block",
    "InvertedResidual",
    "MobileNetV2",
    "PortraitNet",
    "PortraitNetLite",
    "count_macs",
    "count_parameters",
]
