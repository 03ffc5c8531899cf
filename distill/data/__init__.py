"""Image data: `load_dataset` by name, checks of what lies on disk, splits, caches, augmentation and loaders."""

from .check import check_path
from .dataset import SPLITS, DataReport, Dataset, Request
from .registry import DATASETS, load_dataset
from .sets.phantom import phantom

__all__ = ["DATASETS", "SPLITS", "DataReport", "Dataset", "Request", "check_path", "load_dataset", "phantom"]
