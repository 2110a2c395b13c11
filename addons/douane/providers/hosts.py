"""Hosts of AI services whose format we do not read yet.

Law 1 at the door: a call to one of these is no ordinary traffic, and tunnelling it would let prompts pass unseen, so
the edge denies them with the reason given here, unless ``unparsed_ai_hosts: tunnel``. Hosts in the table of providers
are governed, and that table is asked first. Not listed, because their AI paths share a host with traffic that must
pass: Databricks, ``api.cloudflare.com``, ``huggingface.co``; nor the sites
where people sign in (``auth.openai.com``, ``console.anthropic.com``).
"""

import re

__all__ = ["UNPARSED_AI_HOSTS", "UNPARSED_AI_PATTERNS", "unparsed"]

_CHAT_SITE = "a chat site's own format is not read"
_ASSISTANT = "a coding assistant's own format is not read"
_API = "this provider's API is not read yet"
_GATEWAY = "this model gateway's API is not read yet"
_SPEECH = "speech is not read yet"
_IMAGES = "this image and video API is not read yet"

_EXACT = {
    _CHAT_SITE: """
        chatgpt.com chat.openai.com sora.com claude.ai gemini.google.com aistudio.google.com copilot.microsoft.com
        m365.cloud.microsoft grok.com chat.mistral.ai chat.deepseek.com www.perplexity.ai perplexity.ai poe.com
        you.com pi.ai chat.qwen.ai kimi.com www.kimi.com meta.ai www.meta.ai notebooklm.google.com character.ai
    """,
    _ASSISTANT: """
        api.githubcopilot.com copilot-proxy.githubusercontent.com api.cursor.com api.cursor.sh api2.cursor.sh
        api3.cursor.sh api4.cursor.sh api5.cursor.sh server.codeium.com inference.codeium.com
        cloudcode-pa.googleapis.com daily-cloudcode-pa.googleapis.com ampcode.com cody-gateway.sourcegraph.com
        api.tabnine.com cloud.zed.dev llm.zed.dev api.jetbrains.ai grazie.aws.intellij.net api.supermaven.com
    """,
    _API: """
        api.deepinfra.com api.novita.ai api.hyperbolic.xyz
        api.sambanova.ai cloud.sambanova.ai api.studio.nebius.com api.studio.nebius.ai api.tokenfactory.nebius.com
        api.friendli.ai inference.baseten.co integrate.api.nvidia.com ai.api.nvidia.com api.nvcf.nvidia.com
        api.ai21.com api.aleph-alpha.com api.reka.ai api.inflection.ai api.upstage.ai api.liquid.ai
        api.inceptionlabs.ai api.arcee.ai api.llama.com api.minimax.io api.minimax.chat api.minimaxi.com
        api.moonshot.ai api.moonshot.cn api.kimi.com open.bigmodel.cn dashscope.aliyuncs.com
        dashscope-intl.aliyuncs.com dashscope-us.aliyuncs.com ark.cn-beijing.volces.com qianfan.baidubce.com
        aip.baidubce.com hunyuan.tencentcloudapi.com api.hunyuan.cloud.tencent.com spark-api-open.xf-yun.com
        api.siliconflow.cn api.siliconflow.com api.stepfun.com api.stepfun.ai api.baichuan-ai.com
        api.lingyiwanwu.com api.jina.ai api.mixedbread.com
        api-inference.huggingface.co llm.ovh.net oai.endpoints.kepler.ai.cloud.ovh.net
        api.scaleway.ai api.lambda.ai api.lambdalabs.com chat.nineteen.ai api.chutes.ai llm.chutes.ai
        api.featherless.ai api.kluster.ai api.parasail.io api.avian.io api.targon.com inference.do-ai.run
        api.gradient.ai api.publicai.co api.nscale.com inference.api.nscale.com api.venice.ai api.morphllm.com
        api.relace.ai models.inference.ai.azure.com models.github.ai api.inference.net ollama.com
        api.inference.wandb.ai openai.inference.de-txl.ionos.com
    """,
    _GATEWAY: """
        ai-gateway.vercel.sh gateway.ai.cloudflare.com gateway.pydantic.dev gateway-us.pydantic.dev
        gateway-eu.pydantic.dev api.requesty.ai router.requesty.ai oai.helicone.ai anthropic.helicone.ai
        gateway.helicone.ai ai-gateway.helicone.ai api.aimlapi.com api.unify.ai api.withmartian.com llm.kilo.ai
        api.kilo.ai api.braintrust.dev gateway.braintrust.dev api.orq.ai api.edenai.run
    """,
    _SPEECH: """
        api.elevenlabs.io api.us.elevenlabs.io api.deepgram.com api.assemblyai.com streaming.assemblyai.com
        api.cartesia.ai api.hume.ai api.play.ht api.rev.ai api.gladia.io api.speechmatics.com
    """,
    _IMAGES: """
        api.stability.ai fal.run queue.fal.run rest.alpha.fal.ai api.bfl.ai api.bfl.ml api.ideogram.ai
        api.runwayml.com api.dev.runwayml.com api.lumalabs.ai cloud.leonardo.ai api.recraft.ai
        external.api.recraft.ai
    """,
}

UNPARSED_AI_HOSTS: dict[str, str] = {host: reason for reason, hosts in _EXACT.items() for host in hosts.split()}
"""Exact host → why it is not governed."""

_REGION = "[a-z0-9-]+"
_AWS = r"\.amazonaws\.com(?:\.cn)?"

_AZURE = "(?:openai|services\\.ai|cognitiveservices|models\\.ai|inference\\.ai|inference\\.ml)"

UNPARSED_AI_PATTERNS = tuple((re.compile(pattern), reason) for pattern, reason in (
    (rf"{_REGION}\.api\.openai\.com", "this region of OpenAI is not in the table"),
    (r"(?:[a-z0-9-]+\.)+chatgpt\.com", _CHAT_SITE),
    (rf"(?:[a-z0-9-]+\.)+{_AZURE}\.azure\.(?:com|us|cn)", "this Azure host is not in the table"),
    (rf"{_REGION}-aiplatform\.googleapis\.com", "this region of Vertex AI is not in the table"),
    (rf"aiplatform\.{_REGION}\.rep\.googleapis\.com", "this region of Vertex AI is not in the table"),
    (rf"(?:[a-z0-9-]+\.)?bedrock(?:-[a-z-]+)?\.{_REGION}(?:{_AWS}|\.vpce{_AWS}|\.api\.aws)",
     "this region or endpoint of Bedrock is not in the table"),
    (rf"(?:[a-z0-9-]+\.)?runtime(?:-fips)?\.sagemaker\.{_REGION}(?:\.vpce)?{_AWS}",
     "this region of SageMaker is not in the table"),
    (rf"(?:q|codewhisperer)\.{_REGION}\.(?:amazonaws\.com|api\.aws)", _ASSISTANT),
    (rf"{_REGION}\.ml\.cloud\.ibm\.com", "this region of watsonx is not in the table"),
    (rf"inference\.generativeai\.{_REGION}\.oci\.oraclecloud\.com", "Oracle's generative AI is not read yet"),
    (r"(?:[a-z0-9-]+\.)+endpoints\.huggingface\.cloud", "this region of Hugging Face's endpoints is not in the table"),
    (r"(?:[a-z0-9-]+\.)*inference\.heroku\.com", _API),
    (r"(?:[a-z0-9-]+\.)+githubcopilot\.com", _ASSISTANT),
    (r"(?:[a-z0-9-]+\.)+cursor\.sh", _ASSISTANT),
    (r"(?:[a-z0-9-]+\.)+(?:codeium|windsurf)\.com", _ASSISTANT),
    (r"(?:[a-z0-9-]+\.)+api\.baseten\.co", _API),
    (r"(?:[a-z0-9-]+\.)+openrouter\.ai", _GATEWAY),
    (rf"{_REGION}\.dashscope\.aliyuncs\.com|ark\.{_REGION}\.(?:volces|bytepluses)\.com", _API),
))
"""Hosts with a name or region of the user's in them; matched whole."""


def unparsed(host: str) -> str | None:
    """Why *host* (lower case, its port left aside) is an AI host we do not read; None where it is not known as one."""
    name = host.partition(":")[0]
    reason = UNPARSED_AI_HOSTS.get(name)
    if reason is not None:
        return reason
    return next((reason for pattern, reason in UNPARSED_AI_PATTERNS if pattern.fullmatch(name)), None)
