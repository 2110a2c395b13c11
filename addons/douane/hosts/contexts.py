"""The TLS contexts our leaves are served with: one a governed host, made anew when its leaf is replaced."""

from typing import Any

from OpenSSL import SSL

from douane.ca import Authority, Leaf

__all__ = ["TlsContexts"]

KEPT = 256
"""Contexts: of a suffix there are as many hosts as somebody asks for."""


class TlsContexts:
    """HTTP/1.1 is all that is offered: the layer above speaks nothing else."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._made: dict[str, tuple[Leaf, SSL.Context]] = {}

    def of(self, host: str) -> SSL.Context:
        """Raises RefusedError where *host* is not governed."""
        leaf = self._authority.leaf(host)
        known = self._made.get(host)
        if known is None or known[0] is not leaf:
            while len(self._made) >= KEPT:
                del self._made[next(iter(self._made))]
            known = self._made[host] = (leaf, _context(leaf))
        return known[1]


def _context(leaf: Leaf) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.use_certificate(leaf.certificate)
    context.use_privatekey(leaf.key)
    context.add_extra_chain_cert(leaf.intermediate)
    context.set_alpn_select_callback(_http1)
    return context


def _http1(connection: SSL.Connection, offers: list[bytes]) -> Any:
    return b"http/1.1" if b"http/1.1" in offers else SSL.NO_OVERLAPPING_PROTOCOLS
