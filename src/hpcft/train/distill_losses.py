"""How a student is compared with its teacher, token by token.

Each comparison gives a figure for each of n tokens, or their sum; what it is divided by is the objective's concern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import log_softmax, normalize

from hpcft.data.encode import IGNORED

# Numbers that are in float32 at a time: what a core's cache holds, and what keeps a GPU busy.
_CHUNK = {"cpu": 2**18, "cuda": 2**25}


@dataclass(frozen=True)
class TopK:
    """A teacher's likeliest tokens.

    Attributes:
        values: their logits, shape (n, k). tokens: their numbers, shape (n, k).
        rest: logarithm of the sum of exp(logit / T) over all other tokens, shape (n,).
    """

    values: torch.Tensor
    tokens: torch.Tensor
    rest: torch.Tensor

    @classmethod
    def of(cls, logits: torch.Tensor, k: int, temperature: float) -> TopK:
        """Of logits of shape (n, vocabulary), by chunks."""
        k = min(k, logits.shape[-1])
        parts: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for part in logits.split(_rows(logits)):
            values, tokens = part.float().topk(k, dim=-1)
            others = part.float().scatter(-1, tokens, -torch.inf).div_(temperature)
            parts.append((values, tokens, others.logsumexp(-1)))
        if not parts:
            return cls(logits.new_zeros((0, k)), logits.new_zeros((0, k), dtype=torch.long), logits.new_zeros(0))
        values, tokens, rest = (torch.cat(each) for each in zip(*parts, strict=True))
        return cls(values, tokens, rest)

    def __getitem__(self, rows: slice) -> TopK:
        return TopK(self.values[rows], self.tokens[rows], self.rest[rows])

    def dense(self, vocabulary: int) -> torch.Tensor:
        """Logits of shape (n, vocabulary); minus infinity where they are not known."""
        whole = self.values.new_full((self.values.shape[0], vocabulary), -torch.inf)
        return whole.scatter_(-1, self.tokens.long(), self.values)


def _rows(logits: torch.Tensor) -> int:
    return max(1, _CHUNK.get(logits.device.type, _CHUNK["cuda"]) // max(1, logits.shape[-1]))


def response(
    student: torch.Tensor,
    teacher: torch.Tensor | TopK,
    labels: torch.Tensor | None,
    temperature: float,
    *,
    kl_weight: torch.Tensor | float,
    ce_weight: torch.Tensor | float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compare next-token distributions.

    Σ KL(p_T ‖ q_T) with p_T and q_T the softmax of the teacher's and the student's logits divided by T, and
    Σ −log q_1(label). Where the vocabularies were padded to different sizes, the teacher says nothing of the tokens
    that it has not, and is not asked for those that the student has not.

    The gradient is made along with the loss, chunk by chunk: beside it no second copy of the logits is held, and none
    in float32.

    Args:
        student: logits of shape (n, vocabulary).
        teacher: logits of shape (n, its vocabulary), or its likeliest tokens; all others then count as one.
        labels: shape (n,); None where the data has no answers.
        kl_weight, ce_weight: of the two sums in the loss.

    Returns:
        The loss, and both sums without weights and without gradients; scalars in float32.
    """
    loss, kl, ce = _Response.apply(student, teacher, labels, temperature, kl_weight, ce_weight)
    return loss, kl, ce


class _Response(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: torch.Tensor,
        teacher: torch.Tensor | TopK,
        labels: torch.Tensor | None,
        temperature: float,
        kl_weight: torch.Tensor | float,
        ce_weight: torch.Tensor | float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        wanted, size = ctx.needs_input_grad[0], _rows(student)
        kind = torch.float32 if student.dtype == torch.float16 else student.dtype
        # A float16 that is not scaled yet would lose what is small.
        gradient = torch.empty_like(student, dtype=kind) if wanted else None
        kl = torch.zeros((), dtype=torch.float32, device=student.device)
        ce = torch.zeros_like(kl)
        for start in range(0, student.shape[0], size):
            rows = slice(start, start + size)
            logits = student[rows].float()
            hard = None if labels is None else log_softmax(logits, -1)
            soft = hard if hard is not None and temperature == 1 else log_softmax(logits / temperature, -1)
            each, expected = _divergence(soft, teacher[rows], temperature)
            kl += each.sum()
            if hard is not None and labels is not None:
                ce -= hard.gather(-1, labels[rows, None]).sum()
            if gradient is None:
                continue
            own = soft.exp()
            own[:, : expected.shape[-1]] -= expected
            own *= kl_weight / temperature
            if hard is not None and labels is not None:
                # Not in place: at T = 1 they are the same.
                answer = hard.exp()
                answer.scatter_add_(-1, labels[rows, None], answer.new_full((answer.shape[0], 1), -1.0))
                own += answer.mul_(ce_weight)
            gradient[rows] = own
        ctx.gradient = gradient
        ctx.kind = student.dtype
        ctx.mark_non_differentiable(kl, ce)
        return kl_weight * kl + ce_weight * ce, kl, ce

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: torch.Tensor, *_: Any) -> tuple[Any, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        return gradient.mul_(scale).to(ctx.kind), None, None, None, None, None


def _divergence(soft: torch.Tensor, teacher: torch.Tensor | TopK, temperature: float) -> tuple[torch.Tensor, Any]:
    """KL of each row, and the probabilities that the student is drawn to, of its first so many tokens.

    Args:
        soft: logarithms of the student's softened probabilities.
    """
    if isinstance(teacher, TopK):
        tokens = teacher.tokens.long()
        known = torch.cat([teacher.values.float() / temperature, teacher.rest.float()[:, None]], -1)
        known = log_softmax(known, -1)
        others = soft.scatter(-1, tokens, -torch.inf).logsumexp(-1, keepdim=True)
        mine = torch.cat([soft.gather(-1, tokens), others], -1)
        # Where all tokens are among the likeliest there are no others, and nothing to learn of them.
        shares = known.exp()
        each = torch.where(shares > 0, shares * (known - mine), 0.0).sum(-1)
        factor = torch.nan_to_num(known[:, -1:] - others, nan=0.0, posinf=0.0)
        return each, (soft + factor).exp().scatter(-1, tokens, shares[:, :-1])
    told = log_softmax(teacher[:, : soft.shape[-1]].float() / temperature, -1)
    expected = told.exp()
    difference = told.sub_(soft[:, : told.shape[-1]])
    return torch.linalg.vecdot(expected, difference), expected


def feature(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of hidden states of length 1, shape (n,); both of shape (n, width)."""
    return (normalize(student.float(), dim=-1) - normalize(teacher.float(), dim=-1)).square().mean(-1)


def relation(student: torch.Tensor, teacher: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """How differently the tokens of a row are alike: mean squared difference of the cosines of each token with all
    those of its row, shape (n,). The widths may differ.

    Args:
        student, teacher: hidden states of shapes (n, width).
        counts: tokens of each row, one after the other.
    """
    pairs = zip(*(normalize(states.float(), dim=-1).split(counts) for states in (student, teacher)), strict=True)
    return torch.cat([(own @ own.T - told @ told.T).square().mean(-1) for own, told in pairs])


def attention(student: torch.Tensor, teacher: torch.Tensor, flat: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of attention maps over the tokens that a token sees, and over the heads; where their
    numbers differ, of the heads' means. Shape (n,).

    Args:
        student, teacher: shapes (rows, heads, length, length).
        flat: the tokens' places in rows · length. seen: how many tokens each sees, with itself; both of shape (n,).
    """
    if student.shape[1] != teacher.shape[1]:
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    own, told = (maps.float().transpose(1, 2).flatten(0, 1)[flat] for maps in (student, teacher))
    return (own - told).square().sum(-1).mean(-1) / seen


def places_of(
    ids: torch.Tensor,
    labels: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Where a batch's answers are predicted: the n places before a label, or, without labels, before any token.

    Args:
        ids, labels, position_ids, attention_mask: of shape (rows, length); positions that start again at 0 keep rows
            apart that are laid end to end, and then there is no mask.

    Returns:
        `kept`: the distinct places in a row, ascending; `among`: each place's number among rows · kept; `flat`: among
        rows · length; `rows`: which row it belongs to; `seen`: tokens of the row up to it; `labels`, if any: the next
        token. All but `kept` of shape (n,), row by row.
    """
    if labels is not None:
        wanted = labels[:, 1:].ne(IGNORED)
    else:
        wanted = torch.ones_like(ids[:, 1:], dtype=torch.bool)
        if attention_mask is not None:
            wanted = attention_mask[:, 1:].bool()
        if position_ids is not None:
            wanted = wanted & position_ids[:, 1:].ne(0)
    row, at = wanted.nonzero(as_tuple=True)
    kept, among = at.unique(return_inverse=True)
    found = {"kept": kept, "among": row * kept.numel() + among, "flat": row * ids.shape[1] + at}
    if position_ids is None:
        found |= {"rows": row, "seen": at + 1}
    else:
        starts = position_ids.eq(0).cumsum(-1) - 1
        found |= {"rows": starts[row, at], "seen": position_ids[row, at] + 1}
    if labels is not None:
        found["labels"] = labels[row, at + 1]
    return found
