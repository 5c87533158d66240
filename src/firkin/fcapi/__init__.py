"""Firecracker's API as data: one file per resource, one table of routes. Imports nothing else of firkin.

Shapes, defaults and messages follow Firecracker v1.16.1 (its swagger file and `vmm_config`).
"""
