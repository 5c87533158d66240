"""One VMM process, Firecracker or firkin-vmm: this room never asks which."""
