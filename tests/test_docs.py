"""What the pages say is there: links and their anchors, commands, knobs and options, names in programs."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from string import Template

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from w2sd import score
from w2sd.cli import CONF
from w2sd.config import RunConfig
from w2sd.overrides import options
from w2sd.pipeline.plan import plan
from w2sd.report import cli as report
from w2sd.stages.compare import HEADLINES

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page for folder in (".", "docs", "experiments", "benchmarks") for page in (ROOT / folder).glob("*.md")
) + sorted((ROOT / "experiments").glob("*/**/*.md"))
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
each_page = pytest.mark.parametrize("name", [name for name in NAMES if name != "CHANGELOG.md"])  # which is history
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What a reader puts in, and what a cluster says.
PLACES = {"FOLDER": "folder", "DIR": "folder", "NAME": "someone/data", "OPTION": "world_m"}
SAID = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4", "T": "folder"}
READERS = ["model@weak=gpt2", "model@strong=gpt2"]
EXAMPLE = "tempered"  # an objective that a page adds


def prose(name: str) -> str:
    return FENCE.sub("", (ROOT / name).read_text())


# --- links ------------------------------------------------------------------------------------------------------------


@cache
def anchors(page: Path) -> set[str]:
    """What GitHub makes of headings: lower case, hyphens for blanks, no other signs, a number for a second one."""
    found: Counter[str] = Counter()
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        found[re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")] += 1
    return {f"{anchor}-{n}" if n else anchor for anchor, times in found.items() for n in range(times)}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(name)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        place = (ROOT / name).parent / path if path else ROOT / name
        if not place.exists() or (anchor and anchor not in anchors(place.resolve())):
            lost.append(link)
    assert lost == []


def test_every_page_of_docs_and_every_experiment_is_linked() -> None:
    linked = {
        ((ROOT / name).parent / link.partition("#")[0]).resolve()
        for name in NAMES
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(name))
    }
    assert [name for name in NAMES if "/" in name and ROOT / name not in linked] == []


# --- commands ---------------------------------------------------------------------------------------------------------


def lines(block: str) -> Iterator[str]:
    """The commands of a shell block, one line each; of loops as many turns as say every value once."""
    block = block.replace("\\\n", " ")
    loops = {name: shlex.split(values) for name, values in re.findall(r"for (\w+) in (.*); do", block)}
    for turn in range(max(map(len, loops.values()), default=1)):
        said = {name: values[turn % len(values)] for name, values in loops.items()}
        yield from Template(block).safe_substitute(SAID | said).splitlines()


@cache
def commands(name: str) -> list[list[str]]:
    """The words of every command on a page that a test can judge, in blocks and between backticks."""
    text = (ROOT / name).read_text()
    shown = [line for kind, block in FENCE.findall(text) if kind == "bash" for line in lines(block)]
    shown += [" ".join(span.split()) for span in re.findall(r"`((?:w2sd|make|python)\b[^`]* [^`]+)`", prose(name))]
    found = []
    for line in shown:
        words = shlex.split(line, comments=True)
        while words and re.match(r"exec$|[A-Z_0-9]+=", words[0]):
            words.pop(0)
        if words and words[0] in JUDGES and EXAMPLE not in line:
            found.append(words)
    return found


def plans(words: list[str], asked: Callable[..., RunConfig]) -> bool:
    """Whether the last job of a command can be planned, with two rows in each file that it names.

    `...` stands for more words: models that read the data, where there is no other. What goes on top of an experiment
    is left to the test of options and knobs, because to compose is what takes the time.
    """
    words = [re.sub(r"\b[A-Z]+$", lambda place: PLACES.get(place[0], place[0]), word) for word in words]
    for path in re.findall(r"=([\w./]+\.(?:jsonl|csv|parquet))\b", " ".join(words)):
        Path(path).write_text("title,body,stars\nGood,as bread,5\nBad,as well,1\n")
    job = [re.sub(r"=(?![\[{]).*,", "=", word) for word in words if not re.match(r"-m$|\.\.\.$|hydra/", word)]
    if "..." in words and not any(word.startswith("model@") for word in job):
        job += READERS
    is_elsewhere = any(re.match("experiment=|--(help|cfg|config-dir)", word) for word in words)
    return is_elsewhere or bool(plan(asked(*job)))


def is_there(words: list[str]) -> bool:
    """Whether the file, the module or the target of make is."""
    if words[0].startswith("-"):
        return words[0] == "-m" and importlib.util.find_spec(words[1]) is not None
    return (ROOT / words[0]).is_file() or f"\n{words[0]}:" in (ROOT / "Makefile").read_text()


JUDGES: dict[str, Callable[..., object]] = {
    "w2sd": plans,
    "w2sd-report": lambda words, _: report._parser().parse_args([word for word in words if word != "..."]),
    "w2sd-score": lambda words, _: score._parser().parse_args(words),
    "python": lambda words, _: is_there(words),
    "make": lambda words, _: is_there(words),
}


@each_page
def test_every_command_can_be_given(name: str, at_home: Path, asked: Callable[..., RunConfig]) -> None:
    Path("tokenizer").rename("folder")
    for program, *words in commands(name):
        assert JUDGES[program](words, asked), words


def test_commands_are_found() -> None:
    assert sum(program == "w2sd" for name in NAMES for program, *_ in commands(name)) > 80


# --- knobs and names --------------------------------------------------------------------------------------------------


@cache
def knobs(group: str) -> set[str]:
    """The fields of all options of a group."""
    targets = {OmegaConf.load(path).get("_target_") for path in (CONF / group).rglob("*.yaml")}
    return {knob for cls in targets if cls for knob in get_class(cls).__dataclass_fields__}


@each_page
def test_every_option_and_knob_is_there(name: str) -> None:
    lost = []
    for words in [*re.findall(r"`([^`]+)`", prose(name)), *(" ".join(words) for words in commands(name))]:
        for group, knob, values in re.findall(r"(?<![\w.@])(\w+)(?:@[\w.]+)?(?:\.(\w+))?=([\w/,]*)", words):
            folder = {"weak": "model", "strong": "model"}.get(group, group)
            if not (CONF / folder).is_dir() or EXAMPLE in words:
                continue
            if knob:
                lost += [f"{folder}.{knob}"] if knob not in knobs(folder) else []
            else:
                known = {"", *PLACES, *options(CONF / folder)}
                lost += [f"{folder}={value}" for value in values.split(",") if value.rstrip("/") not in known]
    assert set(lost) <= {"experiment=paper/"}  # any of them


@each_page
def test_every_name_that_a_program_imports_is_there(name: str) -> None:
    for program in (block for kind, block in FENCE.findall((ROOT / name).read_text()) if kind == "python"):
        imported = {}
        for node in (tree := ast.parse(program)).body:  # what is for types alone stays closed
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("w2sd"):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    place = f"{node.module}.{alias.name}"
                    imported[alias.name] = getattr(module, alias.name, None) or importlib.import_module(place)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
                assert hasattr(imported[node.value.id], node.attr), (node.value.id, node.attr)


def test_the_headline_figures_are_listed() -> None:
    table = (
        (ROOT / "docs" / "concepts.md").read_text().partition("What `compare` finds")[2].partition("\n\nWhat needs")[0]
    )
    assert set(re.findall(r"`([a-z/_]+)`", table.partition("|---|---|")[2])) == set(HEADLINES)
