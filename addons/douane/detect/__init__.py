"""The PII scanner: texts in, spans out. Presidio finds them, in worker processes; this process never imports it.

Law: a text is scanned to its end or :class:`ScanFailedError` is raised; nothing is skipped. Nothing here opens a network
connection, and no text is kept once its call is answered."""

from typing import TYPE_CHECKING, Any

from douane.detect.values import DEFAULT_ENTITIES, ENTITIES, ScanFailedError, Span, Wanted

__all__ = ["DEFAULT_ENTITIES", "ENTITIES", "ScanFailedError", "Scanner", "Span", "Wanted"]

if TYPE_CHECKING:
    from douane.detect.scanner import Scanner


def __getattr__(name: str) -> Any:
    """The scanner when it is asked for: who looks for secrets alone needs no event loop."""
    if name == "Scanner":
        from douane.detect.scanner import Scanner

        return Scanner
    raise AttributeError(name)
