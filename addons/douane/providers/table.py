"""The providers that are built in. Operations that stand in no row are unknown, and ``unknown_operations`` decides."""

from douane.providers.anthropic import anthropic
from douane.providers.base import Provider
from douane.providers.openai import openai_shaped

__all__ = ["builtin"]


def builtin() -> dict[str, Provider]:
    """Name → provider."""
    providers = (
        openai_shaped("openai", ("api.openai.com", "eu.api.openai.com", "us.api.openai.com"), prices="openai",
                      responses=True),
        anthropic(),
    )
    return {provider.name: provider for provider in providers}
