"""A benchmark of a user's own."""

from stic_eval.evals.benchmark import Benchmark, HubData

from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.types import Generation, Sample, Score

benchmark = Benchmark(
    name="own",
    title="Own",
    version=1,
    source=HubData("nobody/own", "test"),
    to_sample=lambda row: Sample(str(row["id"]), (), row["question"], row["answer"]),
    generation=Generation(max_new_tokens=4),
    score=lambda sample, text: Score(float(text == sample.target), text),
    aggregate=summarize,
    protocol="the question; accuracy",
    images=False,
)
