"""The rows, in the order in which they are tried.

A row is a class with a number, what it tries, and three functions: `tried(side)` makes its
objects and returns a result, `shown(result)` says it in a few words, and
`judged(plain, meshed)` compares two of them. The last two are pure.
"""

from . import connections, pods, protocols, resilience

ROWS = sorted(
    [*connections.ROWS, *pods.ROWS, *protocols.ROWS, *resilience.ROWS],
    key=lambda row: row.number,
)
