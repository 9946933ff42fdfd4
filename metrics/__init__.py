"""Segmentation scores of regions, boundaries and alphas, each named with its protocol."""

from metrics.boundary import (
    boundary_band,
    boundary_f_score,
    boundary_iou,
    boundary_weighted_iou,
    distance_to_boundary,
    distance_to_zero,
)
from metrics.matting import (
    MATTING,
    connectivity_error,
    gradient_error,
    interior_transparency,
    matting_scores,
    slopes,
)
from metrics.regions import (
    batch_counts,
    confusion,
    mean_iou,
    person_iou,
    pixel_accuracy,
    ratio,
    smooth_mask,
)
from metrics.scores import PROTOCOLS, SELECTION, Scores, score

__all__ = [
    "MATTING",
    "PROTOCOLS",
    "SELECTION",
    "Scores",
    "batch_counts",
    "boundary_band",
    "boundary_f_score",
    "boundary_iou",
    "boundary_weighted_iou",
    "confusion",
    "connectivity_error",
    "distance_to_boundary",
    "distance_to_zero",
    "gradient_error",
    "interior_transparency",
    "matting_scores",
    "mean_iou",
    "person_iou",
    "pixel_accuracy",
    "ratio",
    "score",
    "slopes",
    "smooth_mask",
]
