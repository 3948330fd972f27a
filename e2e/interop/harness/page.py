"""Writes docs/interop.md."""


def write(results, rows, missing):
    return ""
