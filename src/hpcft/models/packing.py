"""Which models keep rows apart that are laid end to end in one sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcft.models.groups import FAMILIES

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def keeps_rows_apart(config: PretrainedConfig) -> bool:
    """Whether rows of one sequence of shape (1, T) do not see each other.

    The model is given `position_ids` that start again at 0 with each row, and no attention mask; transformers then
    makes the mask of each row from the positions. The table of families says where a test has shown it.
    """
    family = FAMILIES.get(config.model_type)
    return family is not None and family.keeps_rows_apart
