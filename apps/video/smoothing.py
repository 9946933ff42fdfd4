"""Temporal smoothing of a video's masks, against flicker."""

import cv2
import numpy as np

from portraitnet.geometry import resize
from portraitnet.images import Image, Probability

FLOOR = 0.1  # weight of the new mask where nothing in the frame has changed
# Change of the luma (0..255) that the motion does not explain: up to NOISE the change is sensor
# noise; from CHANGED on the frame shows something new, and the previous mask has no weight.
NOISE, CHANGED = 2, 8
# The same two limits for the probability: a mask that differs in a whole window does not flicker.
DOUBT, MOVED = 0.25, 0.75
WINDOW = (5, 5)  # both changes are averaged in this window, pixels of the network input


class Smoother:
    """Mixes each frame's probability with the previous result, moved along the optical flow.

    The previous result has the weight 1 - FLOOR. The weight decreases where the moved frame differs
    from the new frame, or the moved mask from the new mask. So a moving person leaves no trail, and
    nothing remains after a cut. benchmarks/video_quality.py measures flicker and lag.

    Call the object with the frames in order; make a new object for each video.
    """

    def __init__(self):
        self.flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self.luma = self.probability = None

    def __call__(self, network_input: Image, probability: Probability) -> Probability:
        """Smooth the network's probability of the next frame.

        Args:
            network_input: (h, w, 3) uint8 BGR, the frame as `Predictor.prepare` returns it.
            probability: float32 0..1, the network's probability of this input: as large as the
                input or, after a second look (`Predictor.run`), larger.

        Returns:
            float32, 0..1, of the probability's size.
        """
        shape = probability.shape
        luma = cv2.cvtColor(resize(network_input, *shape), cv2.COLOR_BGR2GRAY)
        if self.luma is not None:  # the last frame may have had another number of looks
            self.luma, self.probability = (resize(p, *shape) for p in (self.luma, self.probability))
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
