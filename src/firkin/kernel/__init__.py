"""Kernels: uncompressed x86_64 images and the modules they need, kept in the store by content."""

from firkin.kernel.shelf import ensure

__all__ = ["ensure"]
