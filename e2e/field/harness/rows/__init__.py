"""The rows, in the order in which they are tried.

A row is a class with a number, what it tries, and three functions: `tried(side)` makes its
objects and returns a result, `shown(result)` says it in a few words, and
`judged(plain, meshed)` compares two of them. The last two are pure.

A row that is `alone` is tried while no other one is, one `in_turn` first without the mesh and
then in it, and one that is `last` behind all others.
"""

from . import addresses, connections, limits, pods, protocols, resilience, uninstalled

ROWS = sorted(
    [*addresses.ROWS, *connections.ROWS, *limits.ROWS, *pods.ROWS, *protocols.ROWS, *resilience.ROWS, *uninstalled.ROWS],
    key=lambda row: row.number,
)
