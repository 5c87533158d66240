"""Root filesystems: recipes that firkin builds by itself, kept in the store by content."""

from firkin.image.shelf import ensure

__all__ = ["ensure"]
