"""A loaded chain → the plain data that a banner and a status are made of."""

from douane.hosts.banner import Summary
from douane.loader import Loaded, tls_names

__all__ = ["summary"]


def summary(loaded: Loaded) -> Summary:
    chain = loaded.chain
    return Summary(
        revision=chain.revision, files=tuple(name.rpartition("/")[2] for name in chain.files),
        chain=tuple(entry.name for entry in chain.entries), governed=tuple(sorted(chain.providers)),
        tunnels=chain.edge.unknown_hosts == "tunnel", level=chain.audit.level, unprotected=tuple(_unprotected(loaded)),
        tls_names=tuple(tls_names(loaded)), credentials=tuple(sorted(loaded.credential_providers)),
        secret_variables=tuple(sorted(loaded.secret_variables)))


def _unprotected(loaded: Loaded) -> list[str]:
    found = []
    names = {entry.name for entry in loaded.chain.entries}
    if not loaded.credential_providers:
        found.append("no credential is configured: apps still hold and send their own provider keys")
    elif "swap_key" not in names:
        found.append("credentials are configured, but no swap_key in the chain uses them")
    if "redact" not in names:
        found.append("texts are not inspected: PII and secrets in prompts leave as they are")
    if "budget" not in names:
        found.append("no budget: spending is recorded, not held")
    if loaded.chain.edge.tunnel:
        found.append(f"edge: tunnel: {', '.join(loaded.chain.edge.tunnel)}: calls to these pass uninspected and unrecorded")
    if not loaded.has_principals:
        found.append("callers are told apart by nothing but this machine's loopback")
    found.append("an app that ignores HTTPS_PROXY goes past: pair this with egress rules")
    return found
