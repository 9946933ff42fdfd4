"""What a video asks of its masks beyond a photo's: no flicker."""

import numpy as np

from portraitnet.images import cv2

FLOOR = 0.1  # share of the new mask where nothing says that the old one is out of date
# Of the luma (0..255) after motion is taken out: up to NOISE it is noise, from CHANGED on the photo
# shows something new and the old mask counts for nothing.
NOISE, CHANGED = 2, 8
# The same for the probability: a mask that differs in a whole window is no flicker.
DOUBT, MOVED = 0.25, 0.75
WINDOW = (5, 5)  # in which both are averaged, pixels of the network input


class Smoother:
    """Mixes each frame's probability with the previous one, carried along by the photo's motion.

    The previous result is moved by the optical flow between the two frames and then counts for
    1 - FLOOR, but less where the moved frame does not look like the new one, or the moved mask is
    far from the new one: so that little trails behind a movement, and nothing stays after a cut.
    benchmarks/video_quality.py measures it.

    Call it with the frames in order; make a new one for each video.
    """

    def __init__(self):
        self.flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self.luma = self.probability = None

    def __call__(self, network_input: np.ndarray, probability: np.ndarray) -> np.ndarray:
        """Smooth the network's answer for the next frame.

        Args:
            network input: (h, w, 3) uint8 BGR, the frame as `Predictor.prepare` returns it.
            probability: (h, w) float32 0..1, the network's answer for it.

        Returns:
            (h, w) float32, 0..1.
        """
        luma = cv2.cvtColor(network_input, cv2.COLOR_BGR2GRAY)
        if self.luma is not None and self.luma.shape == luma.shape:
            moved_luma, moved = self._moved(luma)
            change = cv2.blur(cv2.absdiff(_soft(luma), _soft(moved_luma)), WINDOW)
            weight = _ramp(change.astype(np.float32), NOISE, CHANGED)
            difference = np.abs(cv2.blur(probability - moved, WINDOW))
            weight = np.maximum(weight, _ramp(difference, DOUBT, MOVED))
            weight = FLOOR + (1 - FLOOR) * weight
            probability = moved + weight * (probability - moved)
        self.luma, self.probability = luma, probability
        return probability

    def _moved(self, luma):
        """The previous luma and probability, moved to where `luma` shows their content."""
        flow = self.flow.calc(luma, self.luma, None)
        flow += np.dstack(np.meshgrid(*map(np.arange, luma.shape[::-1]))).astype(np.float32)
        return (
            cv2.remap(plane, flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for plane in (self.luma, self.probability)
        )


def _soft(luma):
    return cv2.blur(luma, (3, 3))


def _ramp(value, low, high):
    """0 up to `low`, 1 from `high` on, linear between."""
    return np.clip((value - low) / (high - low), 0, 1)
