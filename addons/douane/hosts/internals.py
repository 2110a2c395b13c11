"""Everything of mitmproxy that is not a documented interface and that we lean on, in one place; :mod:`served` has uvicorn's.

``tests/test_internals.py`` holds each of them against the installed version and fails loudly on another.

mitmproxy 12.2
- ``proxy.mode_specs.ProxyMode`` and ``proxy.mode_servers.AsyncioServerInstance`` register subclasses by themselves, which
  is how our mode comes to be: its instance makes our handler and our top layer, so no hook decides who reads a byte first.
- ``ConnectionHandler.server_event`` runs without ever waiting, unless it is called from inside itself.
- ``ConnectionHandler.drain_writers`` is awaited after each event of a connection's reader: where it waits, nothing is read.
- ``TunnelLayer.child_layer`` may be set before the first event.
- ``TimeoutWatchdog.disarm`` keeps a silent connection alive.
- ``mitmproxy.addons`` imports every addon there is (flask, ldap3 …: a quarter of a start in CPU, 11 MB). ``proxyserver``, the
  one that we use, needs none of them: it is imported from a package that has none imported.
"""

import sys
import types

import mitmproxy

if "mitmproxy.addons" not in sys.modules:
    _addons = types.ModuleType("mitmproxy.addons")
    _addons.__path__ = [f"{folder}/addons" for folder in mitmproxy.__path__]
    sys.modules["mitmproxy.addons"] = _addons

from mitmproxy import connection, tls
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import ConnectionState
from mitmproxy.exceptions import OptionsError
from mitmproxy.master import Master
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events, layer, server_hooks
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.tls import ClientTLSLayer, parse_client_hello
from mitmproxy.proxy.mode_servers import AsyncioServerInstance, ProxyConnectionHandler
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.version import VERSION as MITMPROXY_VERSION

__all__ = [
           "MITMPROXY_SERIES",
           "MITMPROXY_VERSION",
           "AsyncioServerInstance",
           "ClientTLSLayer",
           "ConnectionState",
           "Context",
           "Master",
           "Options",
           "OptionsError",
           "ProxyConnectionHandler",
           "ProxyMode",
           "Proxyserver",
           "commands",
           "connection",
           "events",
           "layer",
           "parse_client_hello",
           "server_hooks",
           "starts_like_tls_record",
           "tls",
]

MITMPROXY_SERIES = "12.2."
