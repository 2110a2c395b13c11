"""Whose a host is: exact names first, then ``*.suffix``, where the first label is the customer's.

Law 3: one look-up, used wherever a host is decided. A pattern stands for names of one label more, never for the suffix
itself nor for what is deeper, and only on the default port. A host that several providers share is told apart by the
root of their paths there; what is below none of these is nobody's call.
"""

from collections.abc import Iterable, Iterator, Mapping

from douane.providers.base import Provider

__all__ = ["ANY", "ByHost"]

ANY = "*."
"""What a pattern begins with."""


class ByHost(Mapping[str, Provider]):
    """Host (lower case, ``host`` or ``host:port``) → provider; the keys are ``Provider.hosts``, patterns among them.
    Look-ups take the same time however many there are."""

    __slots__ = ("_by_name", "_names", "_owners")

    def __init__(self, providers: Iterable[Provider]) -> None:
        """Where two providers claim one host and root, the first has it: who reads policy files refuses that before."""
        self._owners: dict[str, tuple[Provider, ...]] = {}
        self._by_name: dict[str, Provider] = {}
        for provider in providers:
            self._by_name.setdefault(provider.name, provider)
            for host in provider.hosts:
                owners = (*self._owners.get(host, ()), provider)
                self._owners[host] = tuple(sorted(owners, key=lambda one: -len(one.root)))
        self._names = frozenset(host.partition(":")[0] for host in self._owners if not host.startswith("["))

    def __getitem__(self, host: str) -> Provider:
        """The one without a root of its own, where several share *host*."""
        owners = self._of(host)
        if not owners:
            raise KeyError(host)
        return owners[-1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._owners)

    def __len__(self) -> int:
        return len(self._owners)

    def at(self, host: str, path: str) -> tuple[Provider, str | None] | None:
        """Whose a call for *path* (raw) on *host* is, and its path below that provider's root; None in place of it where it
        is below nobody's."""
        owners = self._of(host)
        for provider in owners:
            if not provider.root or path.startswith(f"{provider.root}/"):
                return provider, path[len(provider.root):]
        return (owners[-1], None) if owners else None

    def named(self, name: str) -> Provider | None:
        """The provider of that name."""
        return self._by_name.get(name)

    def governs(self, name: str) -> bool:
        """Whether *name* (a host without port) is a governed host, on whatever port. ``localhost`` is not: it says of no
        connection whose it is."""
        return (name in self._names and name != "localhost") or bool(self._of(name))

    def _of(self, host: str) -> tuple[Provider, ...]:
        owners = self._owners.get(host)
        if owners is None:
            label, dot, suffix = host.partition(".")
            owners = self._owners.get(f"{ANY}{suffix}", ()) if dot and label not in ("", "*") else ()
        return owners
