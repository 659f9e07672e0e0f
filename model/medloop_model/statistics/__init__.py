"""What monitoring measures of images and of a model's answers, and the reference they are held against."""

from medloop_model.statistics.activation import activation_statistics
from medloop_model.statistics.augmentation import moved_by_one_pixel
from medloop_model.statistics.data import data_statistics
from medloop_model.statistics.decision import decision_statistics, softmax
from medloop_model.statistics.reference import Reference, measure_reference

__all__ = [
    "Reference",
    "activation_statistics",
    "data_statistics",
    "decision_statistics",
    "measure_reference",
    "moved_by_one_pixel",
    "softmax",
]
