"""What of a call is searched: its texts, read once, and the keys by which a searched text is known again, made once for all who
search: the policies and the log.

Law: what is kept of a call goes with it."""

from douane.call import Call
from douane.detect.memory import Keys
from douane.policy import positions
from douane.providers.base import Wire
from douane.redaction import Text, read_text

__all__ = ["read_texts", "text_keys"]


def read_texts(call: Call, wire: Wire) -> tuple[Text, ...]:
    """What of each of the *call*'s :func:`~douane.policy.positions` must be searched."""
    found, walked = positions(call, wire), call.walked
    if walked.texts is None:
        walked.texts = tuple([read_text(one.text) for one in found])
    return walked.texts


def text_keys(call: Call) -> Keys:
    """The keys of its texts, for its tenant."""
    tenant = call.principal.tenant
    found: Keys | None = call.walked.keys
    if found is None or found.tenant != tenant:
        found = call.walked.keys = Keys(tenant)
    return found
