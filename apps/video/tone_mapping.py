"""HDR to SDR: frames in HLG or PQ, BT.2020, become sRGB images."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from portraitnet.images import Image, cv2

WHITE = 203  # nits of diffuse white in HDR; becomes about 75 % of SDR. Source: ITU-R BT.2408
PEAK = 1000  # nits that become the white of SDR; brighter pixels are clipped
LUMA = (0.0593, 0.6780, 0.2627)  # of linear B, G, R in BT.2020
# Linear B, G, R: BT.2020 to BT.709. Source: ITU-R BT.2087.
TO_BT709 = np.float32(
    [[1.1187, -0.1006, -0.0182], [-0.0083, 1.1329, -0.1246], [-0.0728, -0.5876, 1.6605]]
)
LEVELS = 65536  # of a 16-bit sample


def tone_map(signal: NDArray[np.uint16], transfer: str) -> Image:
    """Convert an HDR image to SDR.

    Colours are scaled by x -> x (1 + x / p**2) / (1 + x), where x is the largest of R, G and B as a
    multiple of WHITE, and p is PEAK. So the hue stays, and highlights keep their detail.

    Args:
        signal: (H, W, 3) uint16 BGR, 0..65535, BT.2020 with the transfer function.
        transfer: "HLG" or "PQ".

    Returns:
        (H, W, 3) uint8 BGR, sRGB.

    Source: Reinhard et al., "Photographic Tone Reproduction for Digital Images", SIGGRAPH 2002,
        equation 4; the transfer functions: ITU-R BT.2100, tables 4 and 5.
    """
    linear = _linear(transfer)[signal]
    if transfer == "HLG":  # from the light of the scene to the light of a display of PEAK
        luma = cv2.transform(linear, np.float32([LUMA]))
        linear *= cv2.pow(luma, 0.2)[:, :, None] * np.float32(PEAK / WHITE)
    x = linear.max(axis=2)
    linear *= ((1 + x / np.float32((PEAK / WHITE) ** 2)) / (1 + x))[:, :, None]
    color = cv2.transform(linear, TO_BT709)
    return _srgb()[(np.clip(color, 0, 1, out=color) * np.float32(LEVELS - 1)).astype(np.uint16)]


@cache
def _linear(transfer):
    """Light of each of the LEVELS, float32: HLG 0..1 of the scene, PQ as a multiple of WHITE."""
    value = np.arange(LEVELS) / (LEVELS - 1)
    if transfer == "HLG":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12).astype("f4")
    power = value ** (32 / 2523)
    light = np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)
    return (10000 / WHITE * light ** (16384 / 2610)).astype(np.float32)


@cache
def _srgb():
    """The sRGB value, uint8, of each of the LEVELS of linear light. Source: IEC 61966-2-1."""
    light = np.arange(LEVELS) / (LEVELS - 1)
    value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * value).astype(np.uint8)
