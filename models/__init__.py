"""PortraitNet and its encoder."""

from models.large import PortraitNetLarge
from models.lite import PortraitNetLite
from models.mobilenetv2 import InvertedResidual, MobileNetV2
from models.portraitnet import D_block, PortraitNet, count_macs, count_parameters

__all__ = [
    "D_block",
    "InvertedResidual",
    "MobileNetV2",
    "PortraitNet",
    "PortraitNetLarge",
    "PortraitNetLite",
    "count_macs",
    "count_parameters",
]
