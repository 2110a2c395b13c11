"""The PII scanner: texts in, spans out. Presidio finds them, in worker processes; this process never imports it.

Law: a text is scanned to its end or :class:`ScanFailedError` is raised; nothing is skipped. Nothing here opens a network
connection, and no text is kept once its call is answered."""

from douane.detect.scanner import Scanner
from douane.detect.values import DEFAULT_ENTITIES, ENTITIES, ScanFailedError, Span, Wanted

__all__ = ["DEFAULT_ENTITIES", "ENTITIES", "ScanFailedError", "Scanner", "Span", "Wanted"]
