"""What is checked before the first stage: can every model read every row it will be given?"""

from __future__ import annotations

from w2sd.config import RunConfig
from w2sd.data.pairs import CONFLICTING, SPLITS, TARGET, read
from w2sd.stages.encoding import encode_for


def check(run: RunConfig) -> None:
    """Refuse broken rows, foreign tokens and responses that do not fit, before anything is trained or stored."""
    table = read(run.data)
    everything = [pair for facet in (TARGET, CONFLICTING) for split in SPLITS for pair in table.rows(split, facet)]
    for model in dict.fromkeys([run.weak, *run.chain.students(run.strong)]):
        encode_for(model.open_config(), model.open_tokenizer(), run.data, everything)
