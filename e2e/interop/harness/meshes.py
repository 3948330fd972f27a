"""The meshes of an attack, which differ in what lets a caller in: rules, nothing, or a
certificate and nothing else.
"""

import typing


class Mesh(typing.NamedTuple):
    name: str
    access: str
    mtls: str

    def has_rules(self):
        return self.access == "enforce"

    def lets_strangers_in(self):
        """Whether a peer without a certificate may request anything."""
        return not self.has_rules() and self.mtls == "permissive"


# `strict` has no rules: an unauthenticated peer is refused for its missing certificate, and not
# that no rule names it as well.
MESHES = (Mesh("enforce", "enforce", "permissive"), Mesh("open", "open", "permissive"), Mesh("strict", "open", "strict"))
