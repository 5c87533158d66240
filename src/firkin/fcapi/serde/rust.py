"""How Rust prints what it found to programmers."""

from __future__ import annotations


def rust_string(text: str) -> str:
    """As Rust prints a string to programmers."""
    special = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
    shown = (special.get(c) or (c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text)
    return '"' + "".join(shown) + '"'


def rust_float(value: float) -> str:
    """As serde_json prints a float: Python's digits, with the exponent in another dress."""
    mantissa, has_exponent, exponent = repr(value).partition("e")
    if not has_exponent:
        return mantissa
    if int(exponent) == -5:
        sign = "-" if value < 0 else ""
        return f"{sign}0.0000{mantissa.lstrip('-').replace('.', '')}"
    return f"{mantissa}e{int(exponent):+d}"
