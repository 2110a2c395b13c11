"""The providers that are built in. Operations that stand in no row are unknown, and ``unknown_operations`` decides."""

from douane.providers.anthropic import anthropic
from douane.providers.azure import azure
from douane.providers.base import Provider
from douane.providers.bedrock import bedrock, sagemaker
from douane.providers.cohere import cohere
from douane.providers.google import google
from douane.providers.ollama import ollama
from douane.providers.openai_more import openai
from douane.providers.shaped import shaped
from douane.providers.vertex import vertex

__all__ = ["builtin"]


def builtin() -> dict[str, Provider]:
    """Name → provider."""
    providers = (
        openai(),
        anthropic(),
        bedrock(),
        sagemaker(),
        google(),
        vertex(),
        azure(),
        cohere(),
        ollama(),
        *shaped(),
    )
    return {provider.name: provider for provider in providers}
