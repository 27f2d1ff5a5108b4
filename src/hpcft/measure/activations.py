"""What a training step holds in memory beside weights and optimizer states, counted and not guessed.

The model's twin does a step on fake tensors, which have shapes and types and no numbers, and every tensor that its
operations make is counted until nothing holds it any more: what autograd saves for the backward, what the loss makes
of the logits, what checkpointing throws away and computes again. So the count follows any architecture, adapter and
attention. It is made on fake CPU tensors, as no GPU is needed for it; kernels of a GPU may work in a little more.
"""

from __future__ import annotations

import copy
import warnings
import weakref
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any

from hpcft.measure.flops import twin

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig
    from transformers import PretrainedConfig


# Layers of the twins of a deep model. Kinds of layers take turns by two, three or six where they do.
_SHALLOW = (6, 12)


@dataclass(frozen=True)
class Shape:
    """The shape of a step.

    Attributes:
        rows, length: of a training batch of one rank.
        eval_rows: of a batch whose loss is validated; 0 without validation.
        checkpointing: activations are computed again in the backward.
        fused_loss: the logits are never there as a whole (Liger).
        compute: type of the arithmetic, `float32`, `bfloat16` or `float16`.
        base: type of the base's matrices. rest: of its other weights. trained: of what an adapter trains.
        autocast: the arithmetic's type is chosen operation by operation, and not by the weights.
        gpu: dropout keeps a byte a number, and not the number's own type.
    """

    rows: int
    length: int
    eval_rows: int
    checkpointing: bool
    fused_loss: bool
    compute: str
    base: str
    rest: str
    trained: str
    autocast: bool
    gpu: bool


@dataclass(frozen=True)
class Held:
    """Bytes on one rank.

    Attributes:
        activations: most at one moment, without gradients.
        with_gradients: most at one moment of both, in a step that begins without gradients.
        validation: most at one moment of a validation batch.
        logits: of the training batch in the arithmetic's type, in float32, and of their gradient; 0 where the loss
            is fused. They are part of `activations`.
    """

    activations: int
    with_gradients: int
    validation: int
    logits: int


def held(config: PretrainedConfig, adapter: PeftConfig | None, shape: Shape, *, num_labels: int | None = None) -> Held:
    """Do one step on the twin; of a deep model on two shallow ones, since each further layer holds the same again.

    Args:
        config: the base model's.
        adapter: PEFT's, or None where all weights are trained.
        num_labels: classes of a classifier; None for a model that writes text.

    Raises:
        Whatever a model's own code meets on tensors without numbers. The figure then does not exist.
    """
    layers = int(config.num_hidden_layers)
    if layers <= _SHALLOW[1]:
        return _held(config, adapter, shape, num_labels)
    one, two = (_held(_of_depth(config, n), adapter, shape, num_labels) for n in _SHALLOW)
    further = (layers - _SHALLOW[0]) / (_SHALLOW[1] - _SHALLOW[0])

    def at(name: str) -> int:
        first, second = getattr(one, name), getattr(two, name)
        return round(first + further * (second - first))

    return Held(at("activations"), at("with_gradients"), at("validation"), one.logits)


def _of_depth(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    shallow = copy.deepcopy(config)
    shallow.num_hidden_layers = layers
    if getattr(shallow, "layer_types", None):
        shallow.layer_types = shallow.layer_types[:layers]
    return shallow


def _held(config: PretrainedConfig, adapter: PeftConfig | None, shape: Shape, num_labels: int | None) -> Held:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _twin(config, adapter, shape, num_labels)
        with FakeTensorMode():
            _give_memory(model, shape, full=adapter is None)
            model.train()
            if shape.gpu:
                _drop_as_gpus_do(model)
            if shape.checkpointing:
                model.enable_input_require_grads()
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            training = _train(model, shape, num_labels)
            validation = 0
            if shape.eval_rows:
                model.eval()
                with torch.no_grad():
                    validation = _validate(model, shape, num_labels)
    logits = 0
    if num_labels is None and not shape.fused_loss:
        size = 2 if shape.compute != "float32" else 4
        logits = shape.rows * shape.length * config.vocab_size * (size + 4 + 4)
    return Held(training.most, training.most_with_gradients, validation, min(logits, training.most))


def _twin(config: PretrainedConfig, adapter: PeftConfig | None, shape: Shape, num_labels: int | None) -> Any:
    model = twin(config, num_labels, "sdpa")
    # The names of the matrices, before an adapter stands around them.
    model.matrices = _matrices(model)
    if adapter is None:
        return model
    from peft import get_peft_model

    return get_peft_model(model, adapter)


def _matrices(model: Any) -> set[int]:
    from torch import nn

    from hpcft.models.groups import FAMILIES

    family = FAMILIES.get(model.config.model_type)
    kept = () if family is None else (*family.lm_head, *family.head, "pooler", "pooler.dense")
    found = set()
    for name, module in model.named_modules():
        matrix = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        if matrix and not any(name == end or name.endswith(f".{end}") for end in kept):
            found.add(id(module.weight))
    return found


def _give_memory(model: Any, shape: Shape, *, full: bool) -> None:
    """Replace tensors without a place by fake ones of the CPU, each weight with its own type."""
    import torch

    made: dict[int, Any] = {}
    for module in model.modules():
        for name, old in list(module._parameters.items()):
            if old is None:
                continue
            if id(old) not in made:
                trained = old.requires_grad and not full
                kind = shape.trained if trained else shape.base if id(old) in model.matrices else shape.rest
                new = torch.empty(old.shape, dtype=getattr(torch, kind))
                made[id(old)] = torch.nn.Parameter(new, requires_grad=old.requires_grad)
            module._parameters[name] = made[id(old)]
        for name, old in list(module._buffers.items()):
            if old is not None:
                module._buffers[name] = torch.empty(old.shape, dtype=old.dtype)


def _drop_as_gpus_do(model: Any) -> None:
    import torch

    def forward(module: Any, values: torch.Tensor) -> torch.Tensor:
        return torch.native_dropout(values, module.p, module.training)[0]

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and module.p > 0:
            module.forward = MethodType(forward, module)  # type: ignore[method-assign]


def _train(model: Any, shape: Shape, num_labels: int | None) -> Any:
    import torch

    counter = _counter()
    for tensor in [*model.parameters(), *model.buffers()]:
        counter.leave_out(tensor)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(counter.take_gradient)
    batch = _batch(shape.rows, shape.length, num_labels)
    with counter:
        with torch.autocast("cpu", dtype=getattr(torch, shape.compute), enabled=shape.autocast):
            if shape.fused_loss and num_labels is None:
                batch.pop("labels")
                loss = model(**batch, logits_to_keep=1).logits.float().sum()
            else:
                output = model(**batch)
                loss = output.loss
                del output
        loss.backward()
    model.zero_grad(set_to_none=True)
    return counter


def _validate(model: Any, shape: Shape, num_labels: int | None) -> int:
    import torch

    counter = _counter()
    for tensor in [*model.parameters(), *model.buffers()]:
        counter.leave_out(tensor)
    with counter, torch.autocast("cpu", dtype=getattr(torch, shape.compute), enabled=shape.autocast):
        model(**_batch(shape.eval_rows, shape.length, num_labels))
    return int(counter.most)


def _batch(rows: int, length: int, num_labels: int | None) -> dict[str, torch.Tensor]:
    import torch

    ids = torch.zeros((rows, length), dtype=torch.long)
    labels = ids if num_labels is None else torch.zeros(rows, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def _counter() -> Any:
    """A context in which the memory of every new tensor is counted, until the last tensor that uses it is gone."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Counter(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.now = self.gradients = self.most = self.most_with_gradients = 0
            self._sizes: dict[int, int] = {}

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self._add(leaf.untyped_storage())
            return result

        def leave_out(self, tensor: torch.Tensor) -> None:
            """What is there before is not counted."""
            self._sizes[tensor.untyped_storage()._cdata] = 0

        def take_gradient(self, parameter: torch.Tensor) -> None:
            """A weight's gradient is complete: from here on it counts as a gradient."""
            gradient: Any = parameter.grad
            key = gradient.untyped_storage()._cdata
            size = self._sizes.get(key, 0)
            self._sizes[key] = 0
            self.now -= size
            self.gradients += size

        def _add(self, storage: Any) -> None:
            key = storage._cdata
            if key in self._sizes:
                return
            self._sizes[key] = storage.nbytes()
            self.now += self._sizes[key]
            self.most = max(self.most, self.now)
            self.most_with_gradients = max(self.most_with_gradients, self.now + self.gradients)
            weakref.finalize(storage, self._drop, key)

        def _drop(self, key: int) -> None:
            self.now -= self._sizes.pop(key, 0)

    return Counter()
