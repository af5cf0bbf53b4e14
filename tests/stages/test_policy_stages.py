"""Stages of policies: where each begins, what it reads and records, and that a reference is the right one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import hydra
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.builders import figures_of, refused
from tests.stages.chain import Chain
from w2sd.atomic import read_json, write_json
from w2sd.cli import CONF
from w2sd.config import read
from w2sd.conflicts.implicit import Implicit
from w2sd.conflicts.placebo import RandomHelpful
from w2sd.data import pairs as data
from w2sd.data.batch import AnswerRows
from w2sd.data.loader import Loader
from w2sd.data.pairs import Pair, coin
from w2sd.errors import StageFailed
from w2sd.models import heads
from w2sd.models.heads import PolicyModel
from w2sd.parts.adapter import Adapter
from w2sd.parts.fit import Fit
from w2sd.parts.trainer import Trainer
from w2sd.pipeline.launch import runtime
from w2sd.pipeline.plan import plan
from w2sd.pipeline.stage import Task, stream
from w2sd.pipeline.store import Store
from w2sd.predictions import read_predictions, write_predictions
from w2sd.stages import engine, evaluate, label, reference, sft, train
from w2sd.stages.encoding import encode_for
from w2sd.supervision.teacher import Hard, Soft
from w2sd.worker import execute

OVERRIDES = [
    *("objective=dpo", "objective.beta=.5", "objective.labelled_by=reference_free", "supervision=hard"),
    *("data.gt=64", "data.w2s=64", "data.w2s_parts=2", "data.test=100"),
    *("data.helpful=16", "data.helpful_test=16", "data.unrelated=16"),
    *("weak.width=8", "weak.layers=1", "weak.heads=2", "strong.width=12", "strong.layers=1", "strong.heads=2"),
    *("fit.epochs=1", "seed=5"),
]
CONTRACT = {
    **dict.fromkeys(("id", "cluster"), pa.string()),
    **dict.fromkeys(("margin", "p_correct"), pa.float64()),
    **dict.fromkeys(("n_prompt", "n_chosen", "n_rejected"), pa.int32()),
    **dict.fromkeys(("logp_chosen", "logp_rejected", "ref_logp_chosen", "ref_logp_rejected"), pa.float64()),
    **{"stratum": pa.string(), "known": pa.bool_()},
}


@torch.no_grad()
def log_probs_by_hand(folder: Path, pairs: list[Pair]) -> np.ndarray:
    """Of the better and the worse answer, text by text: the sum of ln softmax over the words of the answer, [n, 2]."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model").double().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")

    def ask(prompt: str, answer: str) -> float:
        ids = tokenizer(prompt + answer, return_tensors="pt")["input_ids"]
        n = len(tokenizer(answer)["input_ids"])
        log_p = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        return sum(log_p[t, ids[0, t + 1]].item() for t in range(ids.shape[1] - 1 - n, ids.shape[1] - 1))

    return np.array([[ask(pair.prompt, side) for side in (pair.chosen, pair.rejected)] for pair in pairs])


def weights(folder: Path) -> bytes:
    return (folder / "model/model.safetensors").read_bytes()


# --- what is recorded -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["label/weak", "evaluate/weak", "evaluate/ceiling", "evaluate/student"])
def test_predictions_have_the_log_probabilities_beside_the_contract(chain: Chain, name: str) -> None:
    files = ["predictions.parquet", *(["helpful.parquet"] if name.startswith("evaluate") else [])]
    for file in files:
        found = {field.name: field.type for field in pq.read_schema(chain.folder(name) / file)}
        assert {key: CONTRACT[key] for key in found} == found
        assert found.keys() >= CONTRACT.keys() - {"known", "stratum"}


@pytest.mark.parametrize(
    ("name", "trained", "fine_tuned"),
    [
        ("label/weak", "train/weak", "sft/weak"),
        ("evaluate/ceiling", "train/ceiling", "sft/ceiling"),
        ("evaluate/student", "train/student", "sft/student"),
    ],
)
def test_log_probabilities_are_what_the_saved_models_say_of_the_text(
    chain: Chain, name: str, trained: str, fine_tuned: str
) -> None:
    found = chain.columns(name)
    by_id = {pair.id: pair for pair in chain.table.examples}
    pairs = [by_id[id] for id in found["id"]]
    policy, was = (log_probs_by_hand(chain.folder(stage), pairs) for stage in (trained, fine_tuned))
    assert abs(policy - was).max() > 1e-3  # they are not the same
    assert np.column_stack([found["logp_chosen"], found["logp_rejected"]]) == pytest.approx(policy, abs=1e-4)
    assert np.column_stack([found["ref_logp_chosen"], found["ref_logp_rejected"]]) == pytest.approx(was, abs=1e-4)
    assert set(found["n_chosen"]) == set(found["n_rejected"]) == {5}  # the world has no end token


def test_margins_can_be_computed_again_by_the_reading_that_was_asked_for(chain: Chain) -> None:
    """Labels leave the reference out here, measurements do not."""
    for name, adjusted in [("label/weak", False), ("evaluate/weak", True), ("evaluate/student", True)]:
        found = chain.columns(name)
        sums = found["logp_chosen"] - found["logp_rejected"]
        expected = 0.5 * (sums - adjusted * (found["ref_logp_chosen"] - found["ref_logp_rejected"]))
        assert found["margin"] == pytest.approx(expected, abs=1e-12)
        assert found["p_correct"] == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-12)


def test_another_reading_gives_other_predictions_of_the_same_model(chain: Chain) -> None:
    """What this run asks for counts, not what the run did that trained the model."""
    asked = replace(chain.run.objective, labelled_by="legacy", measured_by="legacy")
    other = chain._replace(stages=plan(chain.run._replace(objective=asked)))
    for name, file in [
        ("label/weak", "predictions.parquet"),
        ("evaluate/weak", "predictions.parquet"),
        ("evaluate/weak", "helpful.parquet"),
    ]:
        assert other.stages[name].inputs["model"].key == chain.stages["train/weak"].key
        stage = other.stages[name]
        execute(stage.spec(), runtime(stage, chain.run), chain.store, lambda done, total: None)
        found, before = other.columns(name, file), chain.columns(name, file)
        assert found["margin"] == pytest.approx((before["logp_chosen"] - before["logp_rejected"]) / 50, abs=1e-12)
        assert abs(found["p_correct"] - before["p_correct"]).max() > 1e-3


def test_the_chain_ends_in_a_comparison_of_policies(chain: Chain) -> None:
    compared = figures_of(chain.folder("compare"))
    for role in ("weak", "student", "ceiling"):
        found = chain.columns(f"evaluate/{role}")
        assert compared[f"accuracy/{role}"] == pytest.approx((found["margin"] > 0).mean())
        assert compared[f"steps/{role}"] == 2
        assert f"helpful/accuracy/{role}" in compared


def test_policies_of_the_world_write_answers_of_its_length(chain: Chain) -> None:
    """Nothing was configured: rungs have no end token, and the answers of the world have five words."""
    compared = figures_of(chain.folder("compare"))
    for role in ("weak", "student", "ceiling"):
        folder = chain.folder(f"generate/{role}")
        rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        assert len({row["prompt"] for row in rows}) == 4
        assert {(row["n_tokens"], row["ended"], len(row["text"].split())) for row in rows} == {(5, False, 5)}
        figures = read_json(folder / "metrics.json")
        assert figures.pop("n/prompts") == 4
        assert figures == {name: compared[f"{name}/{role}"] for name in figures}
        assert (figures["generation/length"], figures["generation/ended"]) == (5, 0)


@pytest.mark.parametrize("name", ["label/weak", "evaluate/student"])
def test_scoring_again_writes_the_same_bytes_whatever_the_memory(
    chain: Chain, task: Callable[..., Task], name: str
) -> None:
    stage = {"label": label, "evaluate": evaluate}[name.partition("/")[0]]
    written = (chain.folder(name) / "predictions.parquet").read_bytes()
    again, thrifty = task(name), task(name)._replace(trainer=Trainer(micro_tokens=48))
    assert stage.run(again) == read_json(chain.folder(name) / "metrics.json")
    assert (again.out / "predictions.parquet").read_bytes() == written
    stage.run(thrifty)
    cut_up = read_predictions(thrifty.out / "predictions.parquet")
    assert cut_up.margin == pytest.approx(read_predictions(again.out / "predictions.parquet").margin, abs=1e-4)


# --- the reference ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "split", "n"), [("student_w2s", "w2s", 160), ("student_test", "test", 116)])
def test_a_reference_is_asked_about_every_row_of_a_split_once(chain: Chain, name: str, split: str, n: int) -> None:
    said = chain.columns(f"reference/{name}", "logps.parquet")
    pairs = chain.table.split(split)
    assert len(pairs) == n
    assert said["id"].tolist() == [pair.id for pair in pairs]
    expected = log_probs_by_hand(chain.folder("sft/student"), pairs)
    assert np.column_stack([said["logp_chosen"], said["logp_rejected"]]) == pytest.approx(expected, abs=1e-4)
    assert len(set(said["tokens"])) == len({(pair.prompt, pair.chosen, pair.rejected) for pair in pairs})


def test_asking_a_reference_again_writes_the_same_bytes(chain: Chain, task: Callable[..., Task]) -> None:
    again = task("reference/student_test")
    assert reference.run(again) == read_json(chain.folder("reference/student_test") / "metrics.json")
    written = (chain.folder("reference/student_test") / "logps.parquet").read_bytes()
    assert (again.out / "logps.parquet").read_bytes() == written


def test_before_its_first_step_a_policy_is_its_reference(
    chain: Chain, task: Callable[..., Task], tmp_path: Path
) -> None:
    """To the rounding of other batches: every margin is 0, and every loss is ln 2."""
    at = task("train/student", {"fit": Fit(lr=1e-30, batch=32)})
    train.run(at)
    write_json(at.out / "spec.json", {**chain.stages["train/student"].spec(), "digests": {}})
    write_json(at.out / "metrics.json", {"n/steps": 2})
    scored = task("evaluate/student", model=at.out)
    evaluate.run(scored)
    assert abs(read_predictions(scored.out / "predictions.parquet").margin).max() < 1e-5
    curve = (at.logs / "metrics.csv").read_text().splitlines()
    place = curve[0].split(",").index("train/loss")
    assert [float(line.split(",")[place]) for line in curve[1:]] == pytest.approx([np.log(2)] * 2, abs=1e-5)


def other_reference(chain: Chain, folder: Path, **changes: Any) -> Path:
    """The student's reference with something changed."""
    folder.mkdir()
    source = chain.folder("reference/student_w2s")
    said = pq.read_table(source / "logps.parquet").to_pydict()
    lost = changes.get("lost", 0)
    if changes.get("other"):
        said["tokens"][3] = said["tokens"][4]
    pq.write_table(pa.table({name: column[lost:] for name, column in said.items()}), folder / "logps.parquet")
    write_json(folder / "metrics.json", read_json(source / "metrics.json"))
    return folder


BROKEN = {
    "another model": (None, "model"),
    "fewer rows": ({"lost": 10}, "10"),
    "another template": ({"other": True}, "tokens template"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_reference_of_another_model_or_template_is_refused_in_one_line_before_training(
    chain: Chain, task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    changes, accepted = BROKEN[case]
    folder = chain.folder("reference/ceiling_gt")
    if changes is not None:
        folder = other_reference(chain, tmp_path / "reference", **changes)
    monkeypatch.setattr(engine, "train", lambda *_: pytest.fail("it was trained"))
    conflict = {"conflict": Implicit(0.25)}  # whose rows are asked for as well
    with refused("reference", ANY, accepted):
        train.run(task("train/student", conflict, reference=folder))


@pytest.mark.parametrize("change", ["prompts", "chosen", "rejected", "exchanged", "boundary"])
def test_a_reference_has_read_the_same_tokens_and_not_only_as_many(chain: Chain, change: str) -> None:
    folder, pairs, model = chain.folder("reference/student_test"), chain.table.rows("test"), chain.run.strong
    encoded = encode_for(model.open_config(), model.open_tokenizer(), chain.run.data, pairs, "never")
    made_for = read_json(folder / "metrics.json")["model"]
    assert reference.join(folder, made_for, pairs, encoded).shape == (len(pairs), 2)
    prompt, chosen, rejected = encoded.prompts[7], encoded.chosen[7], encoded.rejected[7]
    others = {
        "prompts": {"prompts": prompt + 1},
        "chosen": {"chosen": chosen + 1},
        "rejected": {"rejected": rejected + 1},
        "exchanged": {"chosen": rejected, "rejected": chosen},
        "boundary": {"prompts": np.append(prompt, chosen[0]), "chosen": chosen[1:]},
    }
    sides = {side: [*getattr(encoded, side)] for side in ("prompts", "chosen", "rejected")}
    for side, ids in others[change].items():
        sides[side][7] = ids
    with refused("reference", pairs[7].id, "tokens"):
        reference.join(folder, made_for, pairs, encoded._replace(**sides))


def test_predictions_beside_the_reference_of_another_model_are_refused(chain: Chain, task: Callable[..., Task]) -> None:
    with refused("reference", ANY, "model"):
        evaluate.run(task("evaluate/student", reference=chain.folder("reference/weak_test")))


def test_there_is_never_a_second_model_in_memory(
    chain: Chain, task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    init = heads.PolicyModel.__init__

    def counted(self: PolicyModel, lm: Any) -> None:
        opened.append(type(lm).__name__)
        init(self, lm)

    monkeypatch.setattr(heads.PolicyModel, "__init__", counted)
    train.run(task("train/student"))
    assert opened == ["LlamaForCausalLM"]


# --- where each begins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "name", "base"), [(sft, "sft/student", "pretrain/strong"), (train, "train/student", "sft/student")]
)
def test_a_training_begins_where_the_one_before_it_ended(
    chain: Chain, task: Callable[..., Task], stage: Any, name: str, base: str
) -> None:
    at = task(name, {"fit": Fit(lr=1e-12, batch=64)})
    stage.run(at)
    before = PolicyModel.load(chain.folder(base)).state_dict()
    after, trained = (PolicyModel.load(folder).state_dict() for folder in (at.out, chain.folder(name)))
    for weight, value in before.items():
        torch.testing.assert_close(after[weight], value)
    assert any((trained[weight] - value).abs().max() > 1e-4 for weight, value in before.items())


@pytest.mark.parametrize(("stage", "name"), [(sft, "sft/student"), (train, "train/student")])
def test_training_again_gives_the_same_weights_and_another_seed_does_not(
    chain: Chain, task: Callable[..., Task], stage: Any, name: str
) -> None:
    again, other = task(name), task(name, {"seed": 6})
    torch.manual_seed(123)
    assert stage.run(again) == read_json(chain.folder(name) / "metrics.json")
    stage.run(other)
    assert weights(again.out) == weights(chain.folder(name))
    assert weights(other.out) != weights(chain.folder(name))


def test_a_training_says_how_much_it_trained(chain: Chain) -> None:
    said = read_json(chain.folder("train/student") / "metrics.json")
    n = sum(parameter.numel() for parameter in PolicyModel.load(chain.folder("train/student")).parameters())
    counts = {"n/extra": 0, "n/steps": 2, "n/parameters": n, "n/trained": n, "n/truncated_prompts": 0}
    assert said == {"n/pairs": 64, "n/end_token": 0, **counts, "n/dropped_long": 0}
    said = read_json(chain.folder("sft/student") / "metrics.json")
    assert said == {"n/answers": 64, "n/undecided": 0, "n/end_token": 0, **counts, "n/dropped_long": 0}


@pytest.mark.parametrize(("stage", "name"), [(sft, "sft/weak"), (train, "train/weak")])
def test_what_is_frozen_is_not_counted_as_trained(task: Callable[..., Task], stage: Any, name: str) -> None:
    class AllButTheHead(Adapter):
        def apply(self, model: Any, seed: int = 0) -> None:
            model.head.requires_grad_(False)

    at = task(name, {"adapter": AllButTheHead()})
    said, n_head = stage.run(at), PolicyModel.load(at.out).head.weight.numel()
    assert said["n/trained"] == said["n/parameters"] - n_head > 0


@pytest.mark.parametrize(("stage", "name"), [(sft, "sft/weak"), (train, "train/weak")])
def test_a_training_that_diverges_writes_nothing(task: Callable[..., Task], stage: Any, name: str) -> None:
    at = task(name, {"fit": Fit(lr=1e30, batch=16)})
    with pytest.raises(StageFailed, match=r"\b(nan|inf)\b.* [12] .*1e\+30"):
        stage.run(at)
    assert not list(at.out.iterdir())


# --- what a fine-tuning reads -----------------------------------------------------------------------------------------


def labels(folder: Path, pairs: list[Pair], p_correct: np.ndarray) -> Path:
    """A teacher's predictions."""
    folder.mkdir()
    columns = {"id": [pair.id for pair in pairs], "cluster": [pair.cluster for pair in pairs]}
    numbers = {"margin": np.log(p_correct / (1 - p_correct)), "p_correct": p_correct}
    write_predictions(folder / "predictions.parquet", columns | numbers)
    return folder


@pytest.fixture
def answers(
    chain: Chain, task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[list[str], dict[str, Any], list[tuple[Any, ...]]]]:
    """The texts that a fine-tuning reads, what it says, and how it was to be trained."""

    def read_by(name: str, params: dict[str, Any] | None = None, **inputs: Path) -> Any:
        seen: dict[str, Any] = {}

        def catch(task: Task, learner: Any, loader: Loader, *_: Any) -> None:
            seen.update(rows=loader.rows, how=(learner.fit, task.stream, learner.n_steps))

        monkeypatch.setattr(engine, "train", catch)
        at = task(name, params, **inputs)
        said = sft.run(at)
        tokenizer = at.params["model"].open_tokenizer()
        assert isinstance(seen["rows"], AnswerRows)
        texts = [tokenizer.decode([*text.prompt, *text.answers[0]]) for text in seen["rows"].texts]
        assert {len(answer) for text in seen["rows"].texts for answer in text.answers} == {5}
        return texts, said, seen["how"]

    return read_by


@pytest.mark.parametrize("supervision", [Soft(), Hard()])
def test_a_student_is_fine_tuned_on_the_answer_that_its_teacher_prefers(
    chain: Chain, answers: Any, tmp_path: Path, supervision: Any
) -> None:
    """Of two that it finds equal, on the one in the first slot, which a coin put there."""
    pairs = chain.table.rows("w2s")
    p = np.random.default_rng(0).uniform(0.05, 0.95, len(pairs))
    p[:20] = 0.5
    texts, said, _ = answers("sft/student", {"supervision": supervision}, labels=labels(tmp_path / "l", pairs, p))
    assert said["n/undecided"] == 20
    expected = []
    for pair, confidence in zip(pairs, p, strict=True):
        better = not coin(pair.id) if confidence == 0.5 else confidence > 0.5
        expected.append(pair.prompt + (pair.chosen if better else pair.rejected))
    assert texts == expected
    assert len({coin(pair.id) for pair in pairs[:20]}) == 2


def test_weak_model_and_ceiling_are_fine_tuned_on_the_better_answer(chain: Chain, answers: Any) -> None:
    for role in ("weak", "ceiling"):
        texts, _, how = answers(f"sft/{role}")
        assert texts == [pair.prompt + pair.chosen for pair in chain.table.rows("gt")]
        assert how == (chain.run.sft.fit, stream({"stream": role, "seed": 0}), 2)


def test_a_fine_tuning_that_sees_the_conflict_reads_the_answers_that_the_conflict_prefers(
    chain: Chain, answers: Any, tmp_path: Path
) -> None:
    own = answers("sft/student")[0]
    helpful = chain.table.rows("w2s", data.CONFLICTING)
    texts, said, how = answers("sft/student", {"conflict": Implicit(0.25)})
    assert texts == own + [pair.prompt + pair.chosen for pair in helpful]
    assert (said["n/answers"], said["n/extra"], how[2]) == (80, 16, 3)
    texts, said, how = answers("sft/student", {"conflict": Implicit(0.25, match_steps=True)})
    assert (said["n/extra"], how[2]) == (16, 2)
    texts, _, _ = answers("sft/student", {"conflict": RandomHelpful(0.25)})  # by a coin
    better = [text.endswith(pair.chosen) for text, pair in zip(texts[64:], helpful, strict=True)]
    assert 0 < sum(better) < len(helpful)


# --- the whole way on text --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("append_eos", ["auto", "never"])
def test_weak_and_strong_tokenizers_may_differ_and_need_neither_padding_nor_beginning_nor_end(
    append_eos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels travel by pair id. The weak model's tokenizer has no special token, the strong one's all of them."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "data"))
    from families import FAMILIES

    FAMILIES["bare"]().save_pretrained(tmp_path / "bare")
    FAMILIES["llama2"]().save_pretrained(tmp_path / "llama2")
    rows = []
    for n in range(60):
        prompt = f"\n\nHuman: Tell me {n} of them.\n\nAssistant:"
        rows.append({"prompt": prompt, "chosen": f" No {n}, ask a baker!", "rejected": f" Yes, {n} it is, or {n + 1}"})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = {"width": 8, "layers": 1, "heads": 2, "context": 64}
    overrides = ["objective=dpo", "data=files", f"data.path={tmp_path / 'pairs.jsonl'}", "fit.epochs=1"]
    overrides.append(f"data.append_eos={append_eos}")
    for place, architecture, family in (("weak", "gpt2", "bare"), ("strong", "llama", "llama2")):
        knobs = {**small, "architecture": architecture, "tokenizer": tmp_path / family}
        overrides += [f"model@{place}=scratch", *(f"{place}.{knob}={value}" for knob, value in knobs.items())]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        run = read(hydra.compose("config", [*overrides, f"store={tmp_path / 's'}", f"out={tmp_path / 'o'}"]))
    from w2sd.stages import preflight

    preflight.check(run)
    whole = Chain(run, plan(run), Store(tmp_path / "s"))
    for stage in whole.stages.values():
        execute(stage.spec(), runtime(stage, run), whole.store, lambda done, total: None)
    by_id = {pair.id: pair for pair in whole.table.examples}
    for role, family in (("weak", "bare"), ("student", "llama2")):
        tokenizer, found = FAMILIES[family](), whole.columns(f"evaluate/{role}")
        n_end = tokenizer.eos_token_id is not None and append_eos == "auto"
        fitted, tuned = (read_json(whole.folder(f"{kind}/{role}") / "metrics.json") for kind in ("train", "sft"))
        assert fitted["n/end_token"] == n_end * 2 * fitted["n/pairs"]  # both answers, and the one that is taught
        assert tuned["n/end_token"] == n_end * tuned["n/answers"]
        for id, n, m in zip(found["id"], found["n_chosen"], found["n_prompt"], strict=True):
            pair = by_id[id]
            running = tokenizer(pair.prompt + pair.chosen)["input_ids"]
            assert n + m == len(running) + n_end
        assert np.isfinite(found["margin"]).all()
