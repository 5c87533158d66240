"""Kernels: taken from a distribution's package or built from its source, kept in the store by content."""

from firkin.kernel.shelf import ensure

__all__ = ["ensure"]
