"""What a model is shown before it answers anew, and that its answers are log-probabilities of the classes' words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CohereForCausalLM, GPT2LMHeadModel, PreTrainedModel

from tests.builders import refused
from w2sd.config import RunConfig
from w2sd.data.layout import Text, plain
from w2sd.data.pairs import Item, Table
from w2sd.identity import digest
from w2sd.models.heads import PolicyModel
from w2sd.parts.stopping import Stopping, is_held_out
from w2sd.parts.words import InContext
from w2sd.pipeline.plan import plan
from w2sd.stages import refine
from w2sd.stages.refine import _ask, check_distinct, contexts, words_of

ITEMS = [Item(digest(text), digest(text), "w2s", text, 0) for text in ("ab", "cde", "f", "ghij", "kl")]
SAID = {item.id: n % 2 for n, item in enumerate(ITEMS)}
WORDS = [np.array([1], dtype=np.int32), np.array([2, 3], dtype=np.int32)]


TOKENS = [np.array([n], dtype=np.int32) for n in (1, 2, 30)]
SIZES = {  # the second scales its logits
    GPT2LMHeadModel: {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 32},
    CohereForCausalLM: {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "logit_scale": 0.5,
        "pad_token_id": 0,
    },
}
LEAD = 39


def letters(text: str, *, add_special_tokens: bool, verbose: bool) -> dict[str, list[int]]:
    """A tokenizer of single characters."""
    return {"input_ids": [LEAD] * add_special_tokens + [ord(letter) - 90 for letter in text]}


def own(item: Item) -> list[int]:
    return letters(item.text, add_special_tokens=False, verbose=False)["input_ids"]


@pytest.mark.parametrize("n", [0, 1, 2, 4, 9])
@pytest.mark.parametrize("separator", ["", "|"])
def test_others_stand_before_an_item_with_the_words_of_their_weak_labels(n: int, separator: str) -> None:
    found = contexts(ITEMS, SAID, WORDS, InContext(n, separator=separator), letters, 1000)
    for item, (ids, n_shown) in zip(ITEMS, found, strict=True):
        assert ids[0] == LEAD
        assert ids[-len(item.text) :].tolist() == own(item)
        before = ids[1 : -len(item.text)].tolist()
        between = [ord(letter) - 90 for letter in separator]
        shown = [[*own(other), *WORDS[SAID[other.id]].tolist(), *between] for other in ITEMS if other is not item]
        seen = [part for part in shown if str(part)[1:-1] in str(before)]
        assert len(seen) == n_shown == min(n, 4)  # each once, and never the item itself
        assert sum(map(len, seen)) == len(before)


def test_examples_are_shown_whole_or_not_at_all() -> None:
    for room in (8, 12, 16):
        for item, (ids, n_shown) in zip(
            ITEMS, contexts(ITEMS, SAID, WORDS, InContext(3, separator=""), letters, room), strict=True
        ):
            assert len(ids) <= room - 2  # and the longest word has two tokens
            before = ids[1 : -len(item.text)].tolist()
            shown = [[*own(other), *WORDS[SAID[other.id]].tolist()] for other in ITEMS if other is not item]
            seen = [part for part in shown if str(part)[1:-1] in str(before)]
            assert sum(map(len, seen)) == len(before)
            assert len(seen) == n_shown


def test_an_item_that_leaves_no_room_is_cut_from_the_left_and_shown_alone() -> None:
    for item, (ids, _) in zip(ITEMS, contexts(ITEMS, SAID, WORDS, InContext(3), letters, 6), strict=True):
        assert ids.tolist() == [LEAD, *own(item)[-3:]]  # and two more for the longest word


def test_words_that_leave_no_room_for_an_item_are_refused() -> None:
    """Of a model that is of no certain length, beside the longest text that the data have."""
    how = InContext(words=["aa", "bbb"], separator="")
    for config in (SimpleNamespace(max_position_embeddings=6, vocab_size=99), SimpleNamespace(vocab_size=99)):
        words, context = words_of(how, ("no", "yes"), letters, config, 6)
        assert ([len(word) for word in words], context) == ([3, 4], 6)  # with the space before each
    with refused("refinement.words", accepted="5"):
        words_of(how, ("no", "yes"), letters, config, 5)


@pytest.mark.parametrize("knob", [{"examples": -1}, {"examples": 1001}, {"seed": -1}, {"words": ["a", "a"]}])
def test_an_impossible_refinement_is_refused(knob: dict[str, Any]) -> None:
    with refused(*next(iter(knob.items()))):
        InContext(**knob)


def test_examples_depend_on_the_seed_and_the_item_alone() -> None:
    first, again, other = (
        [ids for ids, _ in contexts(ITEMS, SAID, WORDS, InContext(2, seed=seed), letters, 99)] for seed in (0, 0, 1)
    )
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


def test_what_is_held_out_and_the_others_are_shown_to_their_own_kind_alone() -> None:
    held = [is_held_out(item.cluster, 0.5) for item in ITEMS]
    assert 2 <= sum(held) <= len(held) - 2
    refinement = InContext(4, separator="")
    found = contexts(ITEMS, SAID, WORDS, refinement, letters, 1000, 0.5)
    for item, (ids, _), is_held in zip(ITEMS, found, held, strict=True):
        mates = [each for each, other in zip(ITEMS, held, strict=True) if other == is_held and each is not item]
        expected = sorted(n for mate in mates for n in [*own(mate), *WORDS[SAID[mate.id]].tolist()])
        assert sorted(ids[1 : -len(item.text)].tolist()) == expected


def language_model(kind: type[PreTrainedModel] = GPT2LMHeadModel) -> PolicyModel:
    torch.manual_seed(0)
    config = kind.config_class(**SIZES[kind], vocab_size=40, bos_token_id=1, eos_token_id=1)
    return PolicyModel(kind(config)).eval()


def texts_of(words: list[np.ndarray]) -> list[Text]:
    return [Text(ids, tuple(words)) for ids, _ in contexts(ITEMS, SAID, words, InContext(1, separator=""), letters, 30)]


@pytest.mark.parametrize("micro_tokens", [1, 10**6])
@pytest.mark.parametrize("words", [WORDS, TOKENS], ids=["words", "tokens"])
def test_answers_are_the_log_probabilities_of_the_words(micro_tokens: int, words: list[np.ndarray]) -> None:
    model, texts = language_model(), texts_of(words)
    found = _ask(model, texts, micro_tokens)
    for n, (prompt, answers) in enumerate(texts):
        for word, answer in enumerate(answers):
            ids = torch.from_numpy(np.concatenate([prompt, answer]).astype(np.int64))[None]
            log_p = model.lm(ids).logits[0].log_softmax(dim=-1).detach()
            places = range(len(prompt), ids.shape[1])
            assert found[n, word] == pytest.approx(sum(log_p[at - 1, ids[0, at]].item() for at in places), abs=1e-5)


@pytest.mark.parametrize("kind", SIZES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("piece", [1, 256])
def test_words_of_one_token_are_read_at_once_and_as_they_are_one_by_one(
    kind: type[PreTrainedModel], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refine, "PIECE", piece)
    model, texts = language_model(kind), texts_of(TOKENS)
    assert model.has_plain_head == (kind is GPT2LMHeadModel)
    with torch.inference_mode():
        expected = [model(plain([text])).numpy() for text in texts]
    rows: list[int] = []
    model.backbone.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    assert _ask(model, texts, 10**6) == pytest.approx(np.array(expected), abs=1e-5)
    assert sum(rows) == len(texts)


def test_where_nothing_is_before_a_word_it_has_no_probability_however_it_is_asked() -> None:
    nothing = np.zeros(0, dtype=np.int32)
    assert _ask(language_model(), [Text(nothing, tuple(TOKENS))], 10).tolist() == [[0.0] * len(TOKENS)]


def test_words_of_the_same_tokens_are_refused() -> None:
    with refused("refinement.words", "b", "a"):
        check_distinct("refinement.words", [WORDS[0], WORDS[0]], ["a", "b"])
    with refused("refinement.words", "", "token"):
        check_distinct("refinement.words", [np.zeros(0, dtype=np.int32)], [""])


def test_pairs_are_not_asked_about(asked: Callable[..., RunConfig]) -> None:
    with refused("refinement", accepted="refinement=none"):
        plan(asked("refinement=in_context"))


def test_what_is_held_out_is_part_of_what_labels_are_made_of(asked: Callable[..., RunConfig]) -> None:
    overrides = ["data=world_classes", "refinement=world"]
    plain, watched = (plan(asked(*overrides, f"stopping={how}"))["refine/student"] for how in ("none", "labels"))
    assert "holdout" not in plain.params
    assert watched.params["holdout"] == Stopping().holdout


def test_the_stage_shows_to_each_other_what_is_held_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The share that its key has is the one that decides who is shown."""
    shares: list[float] = []

    class Seen(Exception):
        pass

    def contexts(*given: Any) -> None:
        shares.append(given[-1])
        raise Seen

    model = SimpleNamespace(lm=SimpleNamespace(config=None), eval=lambda: SimpleNamespace(to=lambda place: None))
    monkeypatch.setattr(refine, "open_policy", lambda task: (model, letters))
    monkeypatch.setattr(refine, "read_distributions", lambda folder: {item.id: np.array([0.4, 0.6]) for item in ITEMS})
    monkeypatch.setattr(refine, "read", lambda data: Table(ITEMS, {}))
    monkeypatch.setattr(refine, "words_of", lambda *given: (WORDS, 99))
    monkeypatch.setattr(refine, "contexts", contexts)
    for asked, share in (({}, 0.0), ({"holdout": 0.25}, 0.25)):
        data = SimpleNamespace(classes=("no", "yes"))
        params = {"refinement": InContext(2), "data": data, "split": "w2s", "context": 99, **asked}
        task: Any = SimpleNamespace(
            params=params, inputs={"labels": tmp_path}, trainer=SimpleNamespace(accelerator="cpu")
        )
        with pytest.raises(Seen):
            refine.run(task)
        assert shares.pop() == share
