"""Weights in 4 and 8 bits: of a frozen base while an adapter is trained, and of a whole model afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpcft.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig


def fence_cpu_repacking() -> None:
    """Keep bitsandbytes from repacking 4-bit weights in place on CPUs with avx512_bf16.

    In 0.50 the first forward in eval mode rewrites the weights for a faster kernel. Training afterwards gets a
    wrong gradient through the base, without an error, and saving writes the altered weights. The repacking is
    asked for only where this function says that the CPU could use it.
    """
    import bitsandbytes.nn.modules as modules

    modules.has_avx512bf16 = lambda: False


def nf4_config(compute_dtype: torch.dtype, keep: tuple[str, ...] = ()) -> BitsAndBytesConfig:
    """QLoRA's weights (Dettmers et al. 2023): NF4, quantisation constants quantised again.

    Args:
        compute_dtype: of the products.
        keep: modules that stay as they are, such as a head that is trained.
    """
    from transformers import BitsAndBytesConfig

    fence_cpu_repacking()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        # ZeRO-3 partitions parameters of the compute type only; a byte tensor would stay whole on every rank.
        bnb_4bit_quant_storage=compute_dtype,
        llm_int8_skip_modules=list(keep) or None,
    )


def int8_config(keep: tuple[str, ...] = ()) -> BitsAndBytesConfig:
    """Weights in 8 bits with outlier features in 16 (Dettmers et al. 2022).

    Args:
        keep: modules that stay as they are.
    """
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(keep) or None)


def post_training_config(method: str, dtype: torch.dtype, device: torch.device) -> Any:
    """How a whole model is stored after training, as transformers takes it.

    Args:
        method: of `quantize.method`.
        dtype: of the products.

    Raises:
        ConfigError: the method needs CUDA.
    """
    from transformers import BitsAndBytesConfig, TorchAoConfig

    library, _, form = method.partition("-")
    if library == "torchao":
        from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

        if form == "int4" and device.type != "cuda":
            raise ConfigError("torchao-int4 needs CUDA", where="quantize.method", hint="bnb-nf4 works on a CPU too")
        return TorchAoConfig(Int4WeightOnlyConfig() if form == "int4" else Int8WeightOnlyConfig(version=2))
    if form == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=form,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
