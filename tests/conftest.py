"""Warnings are errors here; those of mitmproxy's own imports (pyparsing's old names) are not ours to mend."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import mitmproxy.addons  # noqa: F401
