"""`stic-eval run`: the whole experiment, from configuration to side-by-side table."""

from __future__ import annotations

from stic_eval.cli import options as o


def run(
    model: o.Model = None,
    revision: o.Revision = None,
    profile: o.Profile = None,
    system_prompt: o.SystemPrompt = None,
    chat_template: o.ChatTemplate = None,
    trust_remote_code: o.TrustRemoteCode = None,
    engine: o.Engine = None,
    adapter: o.Adapters = None,
    method: o.Methods = None,
    benchmarks: o.Benchmarks = None,
    protocol: o.Protocol = None,
    dar: o.Dar = None,
    solver: o.Solvers = None,
    limit: o.Limit = None,
    seed: o.Seeds = None,
    jobs: o.Jobs = 1,
    images: o.Images = None,
    sft_data: o.SftData = None,
    pairs: o.Pairs = None,
    image_root: o.ImageRoot = None,
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
    gradient_checkpointing: o.GradientCheckpointing = None,
    output: o.Output = None,
    dry_run: o.DryRun = False,
    resume: o.Resume = True,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Train what the methods need, evaluate them and the baseline, print and save the table."""
    flags = o.given(locals())
    if adapter and not config and not method:
        # Somebody's adapter by itself is evaluated, and nothing trained beside it that nobody has named.
        flags["methods"] = ["baseline"]
    built = o.configure(preset, config, option, flags)
    if dry_run:
        from stic_eval.cli.dryrun import print_plan

        print_plan(built, option or (), jobs=jobs, fresh=not resume)
        return
    from stic_eval.cli.conduct import evaluate

    evaluate(built, option or (), jobs=jobs, fresh=not resume, verbose=verbose, quiet=quiet)
