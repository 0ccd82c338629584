"""Executing programs over data sets."""

from neurodeploy.emulate.dataset import DatasetExecution, execute_dataset

__all__ = ["DatasetExecution", "execute_dataset"]
