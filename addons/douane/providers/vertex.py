"""Vertex AI: Google's models, Anthropic's and Mistral's in Google's cloud.

A region has a host of its own, and they are listed here: a certificate for names like ``*-aiplatform.googleapis.com``
could not be constrained below ``googleapis.com``. Formats: https://docs.cloud.google.com/vertex-ai/docs/reference/rest,
and the recordings of ``shared/wire``; regions: https://docs.cloud.google.com/vertex-ai/docs/general/locations.
"""

import re

from douane.providers.anthropic import ANTHROPIC, COUNT_TOKENS, MESSAGES
from douane.providers.base import Operation, Provider
from douane.providers.google import CACHES, GOOGLE, INTERACT, NAME, POLL, SEGMENT, rows
from douane.providers.openai import CHAT, OPENAI

__all__ = ["vertex"]

_REGIONS = """
    africa-south1
    asia-east1 asia-east2 asia-northeast1 asia-northeast2 asia-northeast3 asia-south1 asia-south2 asia-southeast1
    asia-southeast2 asia-southeast3 australia-southeast1 australia-southeast2
    europe-central2 europe-north1 europe-north2 europe-southwest1 europe-west1 europe-west2 europe-west3 europe-west4
    europe-west6 europe-west8 europe-west9 europe-west10 europe-west12
    me-central1 me-central2 me-west1
    northamerica-northeast1 northamerica-northeast2 northamerica-south1 southamerica-east1 southamerica-west1
    us-central1 us-east1 us-east4 us-east5 us-south1 us-west1 us-west2 us-west3 us-west4
    us eu
"""

_HOSTS = ("aiplatform.googleapis.com", *(f"aiplatform.{area}.rep.googleapis.com" for area in ("us", "eu")),
          *(f"{region}-aiplatform.googleapis.com" for region in _REGIONS.split()))

_V = "/(?:v1|v1beta1)"
_PLACE = f"{_V}/projects/[A-Za-z0-9][A-Za-z0-9._:-]*/locations/{SEGMENT}"
_HERE = f"{_V}(?:/projects/[A-Za-z0-9][A-Za-z0-9._:-]*/locations/{SEGMENT})?"
"""Without a project where the key says it."""
_MODEL = f"{_HERE}/(?:publishers/google/models/(?!.*/)|(?=endpoints/))(?P<model>(?:endpoints/)?{NAME})"
_PREDICT = "(?:rawPredict|streamRawPredict)"
_CLAUDE = f"{_HERE}/publishers/anthropic/models"

_OPERATIONS = (
    *rows(_MODEL),
    Operation("count_tokens", "POST", re.compile(f"{_CLAUDE}/count-tokens:rawPredict"), COUNT_TOKENS, ANTHROPIC),
    Operation("messages", "POST", re.compile(f"{_CLAUDE}/(?P<model>{NAME}):{_PREDICT}"), MESSAGES, ANTHROPIC),
    Operation("chat", "POST", re.compile(f"{_HERE}/publishers/mistralai/models/(?P<model>{NAME}):{_PREDICT}"), CHAT, OPENAI),
    Operation("chat", "POST", re.compile(f"{_PLACE}/endpoints/openapi/chat/completions"), CHAT, OPENAI),
    Operation("models", "GET", re.compile(f"{_HERE}/publishers/{SEGMENT}/models(?:/{SEGMENT})?")),
    Operation("caches", "POST", re.compile(f"{_PLACE}/cachedContents"), CACHES),
    Operation("caches", "GET", re.compile(f"{_PLACE}/cachedContents(?:/{SEGMENT})?")),
    Operation("caches", "PATCH", re.compile(f"{_PLACE}/cachedContents/{SEGMENT}"), CACHES),
    Operation("caches", "DELETE", re.compile(f"{_PLACE}/cachedContents/{SEGMENT}")),
    Operation("interactions", "POST", re.compile(f"{_PLACE}/interactions"), INTERACT),
    Operation("interactions", "GET", re.compile(f"{_PLACE}/interactions/{SEGMENT}"), POLL),
)


def vertex() -> Provider:
    return Provider("vertex", GOOGLE, _HOSTS, None, (b"authorization", b"Bearer "), (b"authorization", b"x-goog-api-key"),
                    _OPERATIONS, prices="google")
