"""Models that exist already: every weight from safetensors or none, known by content, with the tokenizer as saved."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.builders import refused
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from w2sd.models.heads import RewardModel
from w2sd.models.hub import Hub, load_backbone, load_tokenizer
from w2sd.models.scratch import ARCHITECTURES, Scratch

TEXT = "\n\nHuman: why so?\n\nAssistant: no! 漢字 yes yes"


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> ByteLevelBPETokenizer:
    """A byte-level BPE like GPT-2's, trained on the spot."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([TEXT] * 4, vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False)
    return trained


@pytest.fixture(scope="module")
def causal() -> GPT2LMHeadModel:
    """A tiny GPT-2."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=32, vocab_size=300))


@pytest.fixture
def folder(tmp_path: Path, causal: GPT2LMHeadModel, bpe: ByteLevelBPETokenizer) -> Path:
    """What `save_pretrained` makes of the tiny GPT-2 and its tokenizer."""
    place = tmp_path / "tiny"
    causal.save_pretrained(place)
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>")
    fast.save_pretrained(place)
    return place


def rewrite(folder: Path, change: Any) -> None:
    """Change the tensors of a saved model."""
    path = folder / "model.safetensors"
    tensors = change(load_file(path))
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_folder_gives_the_weights_that_were_saved(folder: Path, causal: GPT2LMHeadModel) -> None:
    hub = Hub(str(folder))
    backbone = hub.open_backbone(None)
    saved = causal.transformer.state_dict()
    assert backbone.state_dict().keys() == saved.keys()
    assert all(torch.equal(weights, saved[name]) for name, weights in backbone.state_dict().items())
    assert {weights.dtype for weights in backbone.parameters()} == {torch.float32}
    assert hub.open_config().n_embd == 8
    assert hub.open_tokenizer().decode(hub.open_tokenizer()(TEXT)["input_ids"]) == TEXT
    assert hub.text(None) is None


def test_half_precision_on_disk_is_single_precision_in_training(folder: Path) -> None:
    rewrite(folder, lambda tensors: {name: weights.bfloat16() for name, weights in tensors.items()})
    backbone = Hub(str(folder)).open_backbone(None)
    assert {weights.dtype for weights in backbone.parameters()} == {torch.float32}


def test_a_model_is_handed_over_in_train_mode(folder: Path) -> None:
    """In eval mode, as transformers has it, the dropout that `fit.dropout` asks for would silently stay off."""
    assert all(module.training for module in Hub(str(folder)).open_backbone(None).modules())


def test_a_backbone_without_language_head_is_as_good(folder: Path, causal: GPT2LMHeadModel) -> None:
    shutil.rmtree(folder)
    causal.transformer.save_pretrained(folder)
    backbone = Hub(str(folder)).open_backbone(None)
    assert torch.equal(backbone.wte.weight, causal.transformer.wte.weight)


def test_a_folder_gives_the_whole_language_model(folder: Path, causal: GPT2LMHeadModel) -> None:
    lm = Hub(str(folder)).open_language_model(None)
    assert all(torch.equal(weights, causal.state_dict()[name]) for name, weights in lm.state_dict().items())
    assert {weights.dtype for weights in lm.parameters()} == {torch.float32}
    assert all(module.training for module in lm.modules())
    assert lm.lm_head.weight is lm.transformer.wte.weight


def test_an_embedding_that_is_the_head_too_need_not_be_saved_twice(folder: Path, causal: GPT2LMHeadModel) -> None:
    """As the published GPT-2 has it: a backbone, whose names have no prefix."""
    shutil.rmtree(folder)
    causal.transformer.save_pretrained(folder)
    lm = Hub(str(folder)).open_language_model(None)
    assert torch.equal(lm.lm_head.weight, causal.transformer.wte.weight)


def test_what_was_trained_further_replaces_what_is_on_the_hub(folder: Path, tmp_path: Path) -> None:
    hub = Hub("someone/has-this-model")  # and is not asked for it
    trained = Hub(str(folder)).open_language_model(None)
    with torch.no_grad():
        trained.transformer.wte.weight.add_(1)
    trained.save_pretrained(tmp_path / "trained" / "model")
    lm = hub.open_language_model(tmp_path / "trained")
    assert torch.equal(lm.transformer.wte.weight, trained.transformer.wte.weight)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with refused("id", str(folder), "*.safetensors"):
        Hub(str(folder))


def test_pickled_weights_are_refused(folder: Path, causal: GPT2LMHeadModel) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(causal.state_dict(), folder / "pytorch_model.bin")
    with refused("id", str(folder), "*.safetensors"):
        Hub(str(folder))


def test_a_folder_without_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with refused("id", str(folder), "config.json"):
        Hub(str(folder))


@pytest.mark.parametrize("place", ["./nowhere", "/nowhere/at/all", "~/nowhere-of-mine"])
def test_a_folder_that_is_not_there_is_refused(place: str) -> None:
    with refused("id", place, "folder"):
        Hub(place)


def test_missing_weights_are_refused_by_name_and_never_random(folder: Path) -> None:
    lost = "transformer.h.0.mlp.c_fc.weight"
    rewrite(folder, lambda tensors: {name: weights for name, weights in tensors.items() if name != lost})
    for open_part in (Hub(str(folder)).open_backbone, Hub(str(folder)).open_language_model):
        with refused("id", str(folder), "h.0.mlp.c_fc.weight"):
            open_part(None)


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text().replace('"n_layer": 1', '"n_layer": 2'))
    with refused("id", str(folder)) as refusal:
        Hub(str(folder)).open_backbone(None)
    assert "h.1." in refusal.value.accepted


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_positions": 64}))
    with refused("id", str(folder)):
        Hub(str(folder)).open_backbone(None)


def test_a_truncated_file_of_weights_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with refused("id", str(folder)):
        Hub(str(folder)).open_backbone(None)


def shard(folder: Path, causal: GPT2LMHeadModel) -> list[Path]:
    """Save the model in several files and an index."""
    (folder / "model.safetensors").unlink()
    causal.save_pretrained(folder, max_shard_size="8KB")
    return sorted(folder.glob("model-*.safetensors"))


def test_whole_weights_are_not_objected_to(folder: Path, causal: GPT2LMHeadModel) -> None:
    Hub(str(folder)).check_weights()
    assert len(shard(folder, causal)) > 1
    Hub(str(folder)).check_weights()


@pytest.mark.parametrize("kept", [0, 7, 1000, -1], ids=["empty", "in its length", "in its header", "by one byte"])
@pytest.mark.parametrize("is_sharded", [False, True])
def test_a_file_of_weights_that_was_cut_off_is_found_without_loading_it(
    folder: Path, causal: GPT2LMHeadModel, is_sharded: bool, kept: int
) -> None:
    path = shard(folder, causal)[-1] if is_sharded else folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with refused("id", str(folder), path.name):
        Hub(str(folder)).check_weights()


def test_a_file_that_only_points_to_weights_is_found(folder: Path) -> None:
    """What git leaves where large files were not fetched."""
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with refused("id", str(folder), "model.safetensors"):
        Hub(str(folder)).check_weights()


def test_missing_files_of_weights_are_found(folder: Path, causal: GPT2LMHeadModel) -> None:
    first, *_ = shard(folder, causal)
    content = load_file(first)
    save_file(dict(list(content.items())[1:]), first, metadata={"format": "pt"})
    with refused("id", str(first), next(iter(content))):
        Hub(str(folder)).check_weights()
    first.unlink()
    with refused("id", str(folder), f"{first.name} model.safetensors.index.json"):
        Hub(str(folder)).check_weights()
    (folder / "model.safetensors.index.json").write_text("[]")
    with refused("id", str(folder / "model.safetensors.index.json"), "index"):
        Hub(str(folder)).check_weights()
    (folder / "model.safetensors.index.json").unlink()
    with refused("id", str(folder), "model.safetensors"):
        Hub(str(folder)).check_weights()


@pytest.fixture
def fetched(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model's weights in the cache of the hub, as it lays them out."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshot = tmp_path / "cache" / "models--someone--tiny" / "snapshots" / "abc"
    shutil.copytree(folder, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    return snapshot / "model.safetensors"


@pytest.mark.parametrize("is_offline", [False, True])
def test_weights_from_the_hub_are_looked_at_where_they_are_kept(
    fetched: Path, is_offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", is_offline)
    Hub("someone/tiny").check_weights()
    fetched.write_bytes(fetched.read_bytes()[:-1])
    with refused("id", "someone/tiny", "model.safetensors"):
        Hub("someone/tiny").check_weights()
    fetched.unlink()
    if is_offline:  # nobody will bring them
        with refused("id", "someone/tiny", "model.safetensors"):
            Hub("someone/tiny").check_weights()
    else:
        Hub("someone/tiny").check_weights()


BROKEN = {
    "cut off": ("tokenizer.json", '{"version": "1.0", "mod'),
    "empty": ("tokenizer.json", ""),
    "of nothing": ("tokenizer.json", "{}"),
    "a list": ("tokenizer.json", "[]"),
    "a list for a config": ("tokenizer_config.json", "[]"),
    "half a config": ("tokenizer_config.json", "{"),
}


@pytest.mark.parametrize(("name", "content"), BROKEN.values(), ids=BROKEN)
def test_a_broken_tokenizer_is_refused(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with refused("id", str(folder), "tokenizer"):
        Hub(str(folder)).open_tokenizer()
    with refused("tokenizer", str(folder), "tokenizer"):
        load_tokenizer(folder)


def test_broken_merges_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("a b c d\n")
    with refused("tokenizer", str(tmp_path), "tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ['{"model_type": "gpt2", "vocab_size": "many"}', '{"model_type": "x"}', "{"])
def test_a_broken_config_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with refused("id", str(folder), "config"):
        Hub(str(folder)).open_config()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_without_its_tokenizer_is_refused(architecture: str, tmp_path: Path) -> None:
    words().save_pretrained(tmp_path / "words")
    part = Scratch(architecture, width=8, layers=1, context=32, tokenizer=str(tmp_path / "words"))
    part.open_backbone(None).save_pretrained(tmp_path / "bare")
    with refused("id", str(tmp_path / "bare")):
        Hub(str(tmp_path / "bare")).open_tokenizer()


def test_identity_follows_content_and_not_place(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Hub(str(folder)).identity()
    elsewhere = shutil.copytree(folder, tmp_path / "else" / "where")
    assert Hub(str(elsewhere)).identity() == original
    monkeypatch.chdir(tmp_path)
    assert Hub("tiny").identity() == original  # a folder wins over a hub id of the same name
    assert str(tmp_path) not in json.dumps(original)

    rewrite(elsewhere, lambda tensors: {name: weights + 1 for name, weights in tensors.items()})
    assert Hub(str(elsewhere)).identity() != original


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_every_file_that_decides_is_part_of_the_identity(folder: Path, name: str) -> None:
    original = Hub(str(folder)).identity()
    (folder / name).write_text((folder / name).read_text() + "\n")
    assert Hub(str(folder)).identity() != original


def test_a_hub_model_is_known_by_id_and_revision() -> None:
    names = [Hub("someone/a"), Hub("someone/b"), Hub("someone/a", revision="abc")]
    assert len({json.dumps(hub.identity(), sort_keys=True) for hub in names}) == 3
    assert Hub("someone/a").identity() == Hub("someone/a").identity()


@pytest.mark.parametrize("open_part", ["open_config", "open_tokenizer", "open_backbone", "open_language_model"])
def test_a_hub_id_without_network_is_refused_by_name(open_part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub = Hub("nobody/has-this-model", revision="v1")
    with refused("id", hub.id, "hub"):
        getattr(hub, open_part)(*([None] if open_part in ("open_backbone", "open_language_model") else []))


def save_wholly(bpe: ByteLevelBPETokenizer, place: Path) -> None:
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>")
    fast.save_pretrained(place)


def save_one_file(bpe: ByteLevelBPETokenizer, place: Path) -> None:
    bpe.save(str(place / "tokenizer.json"))


def save_pair(bpe: ByteLevelBPETokenizer, place: Path) -> None:
    bpe.save_model(str(place))


@pytest.mark.parametrize(
    ("save", "end"), [(save_wholly, "<|endoftext|>"), (save_one_file, None), (save_pair, "<|endoftext|>")]
)
def test_a_tokenizer_is_read_in_each_of_three_forms(
    save: Any, end: str | None, bpe: ByteLevelBPETokenizer, tmp_path: Path
) -> None:
    save(bpe, tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert ids == bpe.encode(TEXT).ids
    assert tokenizer.decode(ids) == TEXT
    assert (tokenizer.eos_token, len(tokenizer)) == (end, bpe.get_vocab_size())


def test_a_pair_of_files_without_an_end_of_text_has_none(tmp_path: Path) -> None:
    plain = ByteLevelBPETokenizer()
    plain.train_from_iterator([TEXT] * 4, vocab_size=280, show_progress=False)
    plain.save_model(str(tmp_path))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.eos_token is None
    assert tokenizer(TEXT)["input_ids"] == plain.encode(TEXT).ids


@pytest.mark.parametrize("files", [(), ("vocab.json",), ("merges.txt",), ("config.json",)])
def test_a_folder_without_a_tokenizer_is_refused(files: tuple[str, ...], tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with refused("tokenizer", str(tmp_path), "tokenizer.json"):
        load_tokenizer(tmp_path)


def words() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({f"w{n}": n for n in range(30)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("form", ["words", "bytes"])
def test_a_tokenizer_comes_back_as_it_was_saved_whatever_model_lies_beside_it(
    architecture: str, form: str, bpe: ByteLevelBPETokenizer, tmp_path: Path
) -> None:
    """A trained model is scored with the tokenizer that it was trained with."""
    source = tmp_path / "source"
    if form == "words":
        words().save_pretrained(source)
    else:
        save_wholly(bpe, source)
    part = Scratch(architecture, width=8, layers=1, context=32, tokenizer=str(source))
    tokenizer, text = part.open_tokenizer(), "w3 w22 w4" if form == "words" else TEXT
    RewardModel(part.open_backbone(None)).save(tmp_path, tokenizer)

    expected = tokenizer(text)["input_ids"]
    assert len(expected) >= 3
    readers = [load_tokenizer(tmp_path / "model"), Hub(str(tmp_path / "model")).open_tokenizer()]
    if architecture != "qwen2":  # for which transformers makes a Qwen2 tokenizer of any vocabulary
        readers.append(AutoTokenizer.from_pretrained(tmp_path / "model"))
    for reader in readers:
        assert reader(text)["input_ids"] == expected
        assert reader.eos_token == tokenizer.eos_token


def test_a_place_on_a_ladder_does_not_change_what_a_model_is(folder: Path) -> None:
    for place in (str(folder), "someone/tiny"):
        assert Hub(place, ladder="tiny", height=2.0).identity() == Hub(place).identity()


@pytest.mark.parametrize(("ladder", "height"), [("tiny", 0.0), ("tiny", -1.0), ("tiny", math.inf), ("", 2.0)])
def test_a_ladder_and_a_height_there_come_together(ladder: str, height: float) -> None:
    with refused("height", height):
        Hub(ladder=ladder, height=height)


def test_a_model_of_the_store_brings_no_code_along(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if somebody would answer yes: nobody is asked."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}, "model_type": "evil"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with refused("store", str(folder), "code"):
        load_backbone(folder)
    assert not (folder / "ran").exists()
