"""The relay's HTTP/1.1 client: pooled connections over verified TLS, and nothing it does not need.

Law: **a connection is pooled only when nothing about it is in doubt.** An answer that was cut, closed early, timed
out, framed wrongly or followed by more bytes costs its connection; a body is never reported whole unless its framing
said so.

======================  ===============================================================================
``settings``            ``Timeouts`` and ``Limits``
``request``             a request's head as bytes; refuses what would not stay one head (no I/O)
``reader``              an answer's bytes as head and pieces of body (no I/O)
``tls``                 contexts that trust what was configured and nothing the environment says
``dial``                from a target to an open connection: names, addresses, proxy, TLS, and clear errors
``connection``          one connection, one exchange at a time: flow control, time-outs, early answers
``answer``              what the caller holds
``websocket``           a connection that was upgraded: messages both ways, under back-pressure
``pool``                who gets which connection
======================  ===============================================================================
"""

from douane.upstream.answer import Answer
from douane.upstream.pool import Pool
from douane.upstream.settings import Limits, Timeouts

__all__ = ["Answer", "Limits", "Pool", "Timeouts"]
