"""`stic-eval eval`: scores of a model, and of an adapter beside it."""

from __future__ import annotations

from stic_eval.cli import options as o


def eval_(
    model: o.Model = None,
    revision: o.Revision = None,
    profile: o.Profile = None,
    system_prompt: o.SystemPrompt = None,
    chat_template: o.ChatTemplate = None,
    trust_remote_code: o.TrustRemoteCode = None,
    engine: o.Engine = None,
    adapter: o.Adapters = None,
    benchmarks: o.Benchmarks = None,
    protocol: o.Protocol = None,
    dar: o.Dar = None,
    solver: o.Solvers = None,
    limit: o.Limit = None,
    prompts: o.Prompts = None,
    preset: o.Preset = None,
    config: o.Config = None,
    option: o.Overrides = None,
    judge: o.Judge = None,
    judge_base_url: o.JudgeBaseUrl = None,
    judge_api_key_env: o.JudgeApiKeyEnv = None,
    judge_protocol: o.JudgeProtocol = None,
    judge_samples: o.JudgeSamples = None,
    judge_max_requests: o.JudgeMaxRequests = None,
    base_url: o.BaseUrl = None,
    api_key_env: o.ApiKeyEnv = None,
    adapter_name: o.AdapterNames = None,
    concurrency: o.Concurrency = None,
    timeout: o.Timeout = None,
    allow_remote_images: o.AllowRemoteImages = None,
    offline: o.Offline = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    batch_size: o.BatchSize = None,
    attn: o.Attn = None,
    load_in_4bit: o.LoadIn4bit = None,
    load_in_8bit: o.LoadIn8bit = None,
    output: o.Output = None,
    resume: o.Resume = True,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Evaluate a model, optionally with an adapter, without training anything."""
    flags = o.given(locals())
    # Of a server's adapters, those that are named; of a folder's the one that --adapter gives.
    named = [item.partition("=")[0].partition("@")[0] for item in adapter_name or ()]
    flags["methods"] = ["baseline", *named]
    built = o.configure(preset, config, option, flags)
    from stic_eval.cli.conduct import evaluate

    evaluate(built, option or (), jobs=1, fresh=not resume, verbose=verbose, quiet=quiet)
