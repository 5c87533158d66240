"""firkin-vmm: Firecracker's API, command line and files, driving QEMU's microvm machine without KVM.

One thread: API server, QMP, signals, child and console share one poll(2) loop. Modules import little and lazily: the
engine's start is part of every cold boot (docs/decisions/0002-engine-without-asyncio.md).
"""
