"""How much memory a type of GPU has, from what the profile says or from its name."""

from __future__ import annotations

import re

from hpcft.cluster.profile import Profile

# GB of 1024³ bytes as CUDA shows them, rounded down; the smaller first where a name stands for two sizes.
_KNOWN: dict[str, tuple[float, ...]] = {
    "b200": (178,),
    "h200": (139,),
    "gh200": (94,),
    "h100": (79,),
    "h800": (79,),
    "h20": (95,),
    "a100": (39, 79),
    "a800": (79,),
    "a40": (44,),
    "a30": (23,),
    "a10": (22,),
    "l40s": (44,),
    "l40": (44,),
    "l4": (22,),
    "v100": (15, 31),
    "p100": (12, 15),
    "t4": (14,),
    "a6000": (47,),
    "a5000": (23,),
    "a4000": (15,),
    "rtx8000": (44,),
    "rtx6000": (22, 47),
    "5090": (31,),
    "4090": (23,),
    "3090": (23,),
    "2080ti": (10,),
    "1080ti": (10,),
}
# The types of before 2020, whose tensor cores do not compute in bfloat16.
_WITHOUT_BFLOAT16 = frozenset(("v100", "p100", "t4", "rtx8000", "2080ti", "1080ti"))
_SIZE = re.compile(r"(\d+)\s*gi?b")


def gpu_memory(profile: Profile, gpu_type: str | None) -> tuple[float | None, str]:
    """GB of 1024³ bytes of one GPU, or None, and how that is known.

    Args:
        gpu_type: as the site calls it; None where the job names none.
    """
    told = profile.gpu_memory_gb
    if gpu_type is not None and gpu_type in told:
        return told[gpu_type], f"gpu_memory_gb of profile {profile.name}"
    if gpu_type is None:
        if len(told) == 1:
            name, size = next(iter(told.items()))
            return size, f"gpu_memory_gb of profile {profile.name}, {name}"
        return None, "no type of GPU is asked for; say it with resources.gpu_type, or gpu_memory_gb in the profile"
    if named := _SIZE.search(gpu_type.lower()):
        # A part of it is the driver's and the error correction's own.
        return round(0.96 * int(named[1]), 1), f"from the name {gpu_type}"
    known = _known(gpu_type)
    if known is None:
        return None, f"{gpu_type} is not known here; say it with gpu_memory_gb in the profile"
    sizes = _KNOWN[known]
    if len(sizes) > 1:
        shown = " or ".join(f"{size:g}" for size in sizes)
        return sizes[0], f"{gpu_type} comes with {shown} GB; gpu_memory_gb in the profile says which"
    return sizes[0], f"the usual {gpu_type}"


def computes_bfloat16(gpu_type: str | None) -> bool:
    """Whether a type of GPU has bfloat16 arithmetic of its own; one that is not known is taken for a newer one."""
    return gpu_type is None or _known(gpu_type) not in _WITHOUT_BFLOAT16


def _known(gpu_type: str) -> str | None:
    name = re.sub(r"[_\-. ]", "", gpu_type.lower())
    longest_first = sorted(_KNOWN, key=len, reverse=True)
    return next((known for known in longest_first if re.search(rf"(?<![0-9]){known}(?![0-9])", name)), None)
