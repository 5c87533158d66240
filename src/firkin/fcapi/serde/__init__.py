"""JSON as Firecracker's serde_json reads it: the same documents accepted, the same words, line and column where not.

`reader` knows JSON, `shapes` turns our types into what serde expects of a document. Nothing is duplicated from the
types: what they cannot say in Python (names of Rust structs, checks of a text) stands beside them as data, see `wire`.
"""
