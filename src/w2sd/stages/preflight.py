"""What is checked before the first stage: can every model read every row it will be given?"""

from __future__ import annotations

import torch

from w2sd.config import RunConfig
from w2sd.data.pairs import CONFLICTING, SPLITS, TARGET, read
from w2sd.errors import Refused, within
from w2sd.stages.encoding import encode_for


def check(run: RunConfig) -> None:
    """Refuse broken rows, foreign tokens, responses that do not fit and devices that are not there."""
    if run.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise Refused("trainer.accelerator", "gpu", "cpu: no CUDA device is visible here")
    table = read(run.data)
    everything = [pair for facet in (TARGET, CONFLICTING) for split in SPLITS for pair in table.rows(split, facet)]
    *between, _ = run.chain.students(run.strong)
    for role, model in (("weak", run.weak), ("strong", run.strong), *(("chain", model) for model in between)):
        with within(role):
            if (text := model.text(run.data)) is not None:
                text.documents(model)
            encode_for(model.open_config(), model.open_tokenizer(), run.data, everything)
