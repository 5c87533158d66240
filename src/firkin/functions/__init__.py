"""Python functions that run in machines: `@firkin.function`."""
