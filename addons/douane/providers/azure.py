"""Azure: OpenAI's operations by deployment and by model, other models of Foundry, Claude.

Format: https://learn.microsoft.com/azure/ai-foundry/openai/reference, and the recordings of ``shared/wire``. Hosts are the
customers' own. The model is the deployment's name, which a customer makes up: the price is that of the model that the answer
names. Azure takes a doubled slash at the start of a path for one, and so do these rows; no other spelling.
"""

import re
from dataclasses import replace

from douane.providers.anthropic import ANTHROPIC, anthropic
from douane.providers.base import Operation, Provider
from douane.providers.openai import OPENAI
from douane.providers.openai_more import openai_rows

__all__ = ["azure"]

_HOSTS = ("*.openai.azure.com", "*.cognitiveservices.azure.com", "*.services.ai.azure.com", "*.openai.azure.us",
          "*.cognitiveservices.azure.us", "*.openai.azure.cn", "*.cognitiveservices.azure.cn")
"""The last four: the clouds for the US government and in China."""
_DEPLOYMENT = "/(?:/)?openai/deployments/(?P<model>[A-Za-z0-9][A-Za-z0-9._-]{0,63})"
"""The path names the model, whatever the body says."""
_DEPLOYED = frozenset({"chat", "completions", "embeddings", "images", "audio"})
_SERVERLESS = frozenset({"chat", "embeddings"})
_VERSION_1 = "/(?:/)?(?:api/projects/[A-Za-z0-9][A-Za-z0-9_-]*/)?openai(?:/v1)?"


def _rows() -> tuple[Operation, ...]:
    """Older ``api-version``s have responses, files and batches below ``/openai`` too."""
    return (
        *openai_rows(_DEPLOYMENT, _DEPLOYED),
        *openai_rows(_VERSION_1),
        *(replace(row, path=re.compile("/(?:/)?voice-live/realtime")) for row in openai_rows("", ("realtime",))),
        *openai_rows("/(?:/)?models", _SERVERLESS),
        *(replace(row, path=re.compile(f"/(?:/)?anthropic(?:{row.path.pattern})"), family=ANTHROPIC)
          for row in anthropic().operations))


def azure() -> Provider:
    return Provider("azure", OPENAI, _HOSTS, None, (b"api-key", b""), (b"api-key", b"authorization", b"x-api-key"), _rows(),
                    prices="azure")
