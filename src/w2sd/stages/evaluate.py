"""Stage `evaluate`: a trained model on the test split, measured beside the models it is compared with."""

from __future__ import annotations

import math
from typing import Any

from w2sd.atomic import read_json
from w2sd.data.pairs import CONFLICTING, read
from w2sd.metrics.accuracy import accuracy
from w2sd.pipeline.stage import Task
from w2sd.stages import engine, scoring

HELPFUL = "helpful.parquet"  # predictions of held-out pairs of the conflicting facet


def run(task: Task) -> dict[str, Any]:
    """Write `predictions.parquet`, and `helpful.parquet` where there are held-out pairs of the conflicting facet.

    What the student's own metrics say is returned: accuracy, and `pgr` where references are given.
    """
    table, split = read(task.params["data"]), task.params["split"]
    read_before = ("model", "reference", "features")
    references = {role: folder for role, folder in task.inputs.items() if role not in read_before}
    scored = scoring.prepare(task, table.rows(split), references)
    logged = engine.test(task, scored.student, scored.loader, scored.student.fit)
    scoring.write(task, scored)
    metrics = {name: None if math.isnan(value) else value for name, value in logged.items()}
    metrics |= {
        "n/dropped_long": scored.encoded.dropped_long,
        "n/truncated_prompts": scored.encoded.truncated_prompts,
        "n/equal_tokens": scored.encoded.equal_tokens,
    }
    metrics |= {"n/pairs": len(scored.examples), "n/steps": read_json(task.inputs["model"] / "metrics.json")["n/steps"]}
    if hasattr(task.params["data"], "judge"):
        predicted = scored.student.columns()["logits"].argmax(axis=1).tolist()
        judged = task.params["data"].judge(scored.examples, predicted)
        metrics |= {f"judged/{name}": value for name, value in judged.items()}
    if split == "test" and (helpful := table.rows(split, CONFLICTING)):
        scored = scoring.prepare(task, helpful, {}, HELPFUL)
        engine.predict(task, scored.student, scored.loader, scored.student.fit)
        scoring.write(task, scored, HELPFUL)
        metrics["helpful/accuracy"] = accuracy(scored.student.p_correct)
    return metrics
