"""Small verbs on the kernel and the disk. Knows nothing of machines."""
