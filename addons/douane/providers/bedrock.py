"""Amazon Bedrock: the runtime, agents and knowledge bases, the OpenAI and Anthropic endpoints (*mantle*); SageMaker endpoints.

Every region has hosts of its own, and they are listed here: a certificate for all regions could not be constrained below
``amazonaws.com``. Others (China, VPC endpoints) are added by ``providers: bedrock: {hosts: […]}``.
Formats: https://docs.aws.amazon.com/bedrock/latest/APIReference, the recordings of ``shared/wire``; regions: botocore's
endpoints, https://docs.aws.amazon.com/bedrock/latest/userguide/endpoints-region-availability.html.
"""

import re
import struct
from dataclasses import dataclass

import orjson

from douane.providers import bedrock_wires as wires
from douane.providers.anthropic import ANTHROPIC, COUNT_TOKENS, MESSAGES
from douane.providers.base import Operation, Provider, Wire
from douane.providers.framing import Framing, aws_message
from douane.providers.openai import CHAT, MODEL_ID, OPENAI, RESPONSES
from douane.providers.room import openai_room

__all__ = ["AWS", "AwsFamily", "bedrock", "sagemaker"]

_ERRORS = {
    "bad_request": (400, "ValidationException"), "unsupported_coding": (400, "ValidationException"),
    "too_large": (413, "ValidationException"), "host_mismatch": (421, "ValidationException"),
    "budget_exceeded": (400, "ServiceQuotaExceededException"), "rate_limited": (429, "ThrottlingException"),
    "upstream_error": (424, "ModelErrorException"), "upstream_timeout": (408, "ModelTimeoutException"),
}
"""Code of a denial → AWS's status and name for it. boto3 tries again by status (500, 502, 503, 504, 429) and knows no
``x-should-retry``: what another attempt does not mend has another status here. Others: ``AccessDeniedException`` below 500,
``ServiceUnavailableException`` above."""
_LONGEST = 1000
"""Characters of a message in a frame's header."""


@dataclass(frozen=True, slots=True)
class AwsFamily:
    """Denials as ``{"message", "__type", "code"}``; ``__type`` is the exception that AWS's SDKs raise, where no header
    ``x-amzn-errortype`` says it (https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html), ``denial`` our own code."""

    room = staticmethod(openai_room)

    def error(self, status: int, code: str, message: str, call_id: str) -> tuple[int, bytes]:
        status, name = _named(status, code)
        return status, orjson.dumps({"__type": name, "message": message, "denial": code, "requestId": call_id})

    def error_event(self, operation: str, code: str, message: str, call_id: str, framing: Framing) -> bytes:
        """An exception frame. An SDK that does not know this exception in this stream reads the headers ``:error-…``."""
        name = _named(500, code)[1]
        kind = name[0].lower() + name[1:]
        said = message[:_LONGEST].encode("ascii", "replace").decode()
        headers = {":message-type": "exception", ":exception-type": kind, ":content-type": "application/json",
                   ":error-code": name, ":error-message": said}
        return aws_message(b"".join(_header(*one) for one in headers.items()), orjson.dumps({"message": message}))


def _named(status: int, code: str) -> tuple[int, str]:
    return _ERRORS.get(code) or (status, "AccessDeniedException" if status < 500 else "ServiceUnavailableException")


def _header(name: str, value: str) -> bytes:
    """One header of an event stream's message, of type string (7)."""
    return struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()


AWS = AwsFamily()

_RUNTIME = """
    af-south-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2 ap-southeast-1 ap-southeast-2
    ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-6 ap-southeast-7 ca-central-1 ca-west-1 eu-central-1
    eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3 il-central-1 me-central-1 me-south-1
    mx-central-1 sa-east-1 us-east-1 us-east-2 us-gov-east-1 us-gov-west-1 us-west-1 us-west-2
"""
_FIPS = "ca-central-1 us-east-1 us-east-2 us-gov-east-1 us-gov-west-1 us-west-2"
_AGENTS = """
    ap-northeast-1 ap-northeast-2 ap-south-1 ap-southeast-1 ap-southeast-2 ca-central-1 eu-central-1 eu-central-2
    eu-west-1 eu-west-2 eu-west-3 sa-east-1 us-east-1 us-east-2 us-gov-west-1 us-west-2
"""
_MANTLE = """
    ap-northeast-1 ap-south-1 ap-southeast-3 eu-central-1 eu-north-1 eu-south-1 eu-west-1 eu-west-2 sa-east-1 us-east-1
    us-east-2 us-gov-east-1 us-gov-west-1 us-west-2
"""
_SAGEMAKER = """
    af-south-1 ap-east-1 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-southeast-1 ap-southeast-2
    ap-southeast-3 ca-central-1 eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3
    il-central-1 me-central-1 me-south-1 sa-east-1 us-east-1 us-east-2 us-gov-west-1 us-west-1 us-west-2
"""


def _hosts(form: str, regions: str) -> tuple[str, ...]:
    """The first is the one that calls go to which name none (the reverse proxy's)."""
    return tuple(form.format(region) for region in sorted(regions.split(), key=lambda region: region != "us-east-1"))


_HOSTS = (
    *_hosts("bedrock-runtime.{}.amazonaws.com", _RUNTIME),
    *_hosts("bedrock-runtime-fips.{}.amazonaws.com", _FIPS),
    *_hosts("bedrock-agent-runtime.{}.amazonaws.com", _AGENTS),
    *_hosts("bedrock-mantle.{}.api.aws", _MANTLE),
    *_hosts("bedrock.{}.amazonaws.com", "us-east-1 us-east-2 us-west-2 eu-central-1 eu-west-1 ap-northeast-1 ap-southeast-2"),
)
"""The control plane is in the regions where apps look models up most; elsewhere it is asked for by ``hosts:``."""

_MODEL = "/model/(?P<model>[A-Za-z0-9](?:[A-Za-z0-9._:-]|%3[Aa]|%2[Ff])*)"
"""An id, an inference profile, an ARN: what stands between two slashes, with ``:`` and ``/`` perhaps encoded."""
_ID = "[A-Za-z0-9](?:[A-Za-z0-9._:-]|%3[Aa]|%2[Ff])*"


def _row(name: str, path: str, wire: Wire | None, method: str = "POST") -> Operation:
    return Operation(name, method, re.compile(path), wire)


_OPERATIONS = (
    _row("converse", f"{_MODEL}/converse", wires.CONVERSE),
    _row("converse", f"{_MODEL}/converse-stream", wires.CONVERSE_STREAM),
    _row("invoke", f"{_MODEL}/invoke", wires.INVOKE),
    _row("invoke", f"{_MODEL}/invoke-with-response-stream", wires.INVOKE_STREAM),
    _row("count_tokens", f"{_MODEL}/count-tokens", wires.COUNT),
    _row("guardrail", f"/guardrail/{_ID}/version/{_ID}/apply", wires.GUARDRAIL),
    _row("async_invoke", "/async-invoke", wires.ASYNC_INVOKE),
    _row("async_invoke", f"/async-invoke/{_ID}", None, "GET"),
    _row("bedrock_agent", f"/agents/{_ID}/agentAliases/{_ID}/sessions/{_ID}/text", wires.AGENT),
    _row("bedrock_agent", "/retrieveAndGenerate(?:Stream)?", wires.AGENT),
    _row("other", f"/agents/{_ID}", wires.AGENT),
    _row("other", f"/flows/{_ID}/aliases/{_ID}", wires.OTHER),
    _row("other", f"/knowledgebases/{_ID}/retrieve", wires.OTHER),
    _row("other", "/(?:optimize-prompt|generateQuery)", wires.OTHER),
    _row("rerank", "/rerank", wires.OTHER),
    _row("other", f"/(?:inference-profiles|foundation-models)(?:/{_ID})?", None, "GET"),
    Operation("chat", "POST", re.compile("(?:/openai)?/v1/chat/completions"), CHAT, OPENAI),
    Operation("responses", "POST", re.compile("(?:/openai)?/v1/responses"), RESPONSES, OPENAI),
    Operation("models", "GET", re.compile(f"(?:/openai)?/v1/models(?:/{MODEL_ID})?"), None, OPENAI),
    Operation("messages", "POST", re.compile("/anthropic/v1/messages"), MESSAGES, ANTHROPIC),
    Operation("count_tokens", "POST", re.compile("/anthropic/v1/messages/count_tokens"), COUNT_TOKENS, ANTHROPIC),
)

_KEYS = (b"authorization", b"x-api-key", b"x-amz-security-token", b"x-amz-date", b"x-amz-content-sha256")
"""With what a signature is made of: none of an app's own goes with a key of ours."""


def bedrock() -> Provider:
    return Provider("bedrock", AWS, _HOSTS, None, (b"authorization", b"Bearer "), _KEYS, _OPERATIONS, prices="aws",
                    signs=True)


def sagemaker() -> Provider:
    """Endpoints for real-time inference; the endpoint's name is the model."""
    endpoint = f"/endpoints/(?P<model>{_ID})/invocations"
    return Provider("sagemaker", AWS, _hosts("runtime.sagemaker.{}.amazonaws.com", _SAGEMAKER), None,
                    (b"authorization", b"Bearer "), _KEYS,
                    (_row("invoke", endpoint, wires.ENDPOINT), _row("invoke", f"{endpoint}-response-stream", wires.ENDPOINT)),
                    signs=True)
