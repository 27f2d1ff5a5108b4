"""What the words of torch, NCCL, gloo, CUDA, the hub, Slurm and this tool mean: a table, and nothing else.

A line is given to the first rule whose pattern it has. Of all lines that have a rule, the one of the lowest tier
counts, and of those the earliest: the first cause and not what came of it.

Tiers: 0 is said by Slurm, the kernel or the driver about memory and hardware, after the fact but with authority;
1 is first-hand; 2 says that a rank was lost or waited for, which may be the cause or come of one; 3 is what the
others say when one has died, and what an exit code alone tells.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from hpcft.cluster.explain.verdict import Cause


class Kind(enum.Enum):
    """Who wrote a line."""

    WORKER = "worker"  # our own last words: `failed with exit code 78: …`
    EXCEPTION = "exception"  # the last line of a traceback
    NATIVE = "native"  # C++ parts and the driver
    SLURM = "slurm"  # slurmstepd, srun, the batch shell
    FACTS = "facts"  # what sacct and squeue answer


@dataclass(frozen=True)
class Rule:
    """One meaning.

    Attributes:
        kinds: whose lines it is for; empty: anyone's.
    """

    cause: Cause
    tier: int
    pattern: re.Pattern[str]
    kinds: frozenset[Kind]


def _rule(cause: Cause, tier: int, pattern: str, *kinds: Kind) -> Rule:
    return Rule(cause, tier, re.compile(pattern), frozenset(kinds))


_SLURM = (Kind.SLURM, Kind.FACTS)

RULES: tuple[Rule, ...] = (
    # Memory of the node, from the kernel through Slurm; 20.11 and older, later ones, the accounting plugin's own limit.
    _rule(Cause.HOST_OOM, 0, r"oom[-_ ]kill|[Tt]asks? [\d,-]+: Out Of Memory", *_SLURM),
    _rule(Cause.HOST_OOM, 0, r"exceeded (?:\w+ )?memory limit \(|Exceeded job memory limit$", *_SLURM),
    _rule(Cause.HOST_OOM, 0, r"State=OUT_OF_MEMORY|Reason=OutOfMemory", *_SLURM),
    _rule(Cause.HOST_OOM, 0, r"Out of memory: Kill(?:ed)? process|Memory cgroup out of memory"),
    # Hardware, and nodes that are gone.
    _rule(Cause.NODE_FAILURE, 0, r"State=(?:NODE_FAIL|BOOT_FAIL)|DUE TO NODE FAILURE|[Nn]ode failure on", *_SLURM),
    _rule(Cause.NODE_FAILURE, 0, r"Reason=(?:NodeDown|NodeFail|BootFail|JobLaunchFailure|Prolog)", *_SLURM),
    _rule(Cause.NODE_FAILURE, 0, r"launch.failed.requeued.held|Unable to create step.*[Pp]rolog", *_SLURM),
    _rule(Cause.NODE_FAILURE, 0, r"\bXid\b.*\d|fallen off the bus|GPU is lost|ECC [Ee]rror|ECCUncorrectable"),
    _rule(Cause.NODE_FAILURE, 0, r"Unable to determine the device handle|NVLink.*(?:[Ee]rror|fail)"),
    # A job that asks for what its Python or its driver cannot do is refused on each node alike.
    _rule(Cause.BAD_CONFIG, 1, r"shows none to it.*(?:built without CUDA|driver runs CUDA)"),
    _rule(Cause.NODE_FAILURE, 1, r"shows none to it|this node has no GPU|No CUDA GPUs are available"),
    _rule(Cause.NODE_FAILURE, 1, r"no CUDA-capable device|CUDA driver initialization failed|system not yet initial"),
    _rule(Cause.NODE_FAILURE, 1, r"CUDA error: unknown error|all CUDA-capable devices are busy"),
    _rule(Cause.NODE_FAILURE, 1, r"\[Errno 5\]|Input/output error|[Ss]tale (?:NFS )?file handle|\[Errno 116\]"),
    _rule(Cause.NODE_FAILURE, 1, r"Transport endpoint is (?:not connected|shut ?down)|\[Errno 10[78]\]"),
    # Memory of the GPU: torch, cuBLAS and cuDNN, bitsandbytes, NCCL's own buffers.
    _rule(Cause.GPU_OOM, 1, r"(?:CUDA|HIP|XPU|MPS backend|CUDA error:) out of memory|\bOutOfMemoryError\b"),
    _rule(Cause.GPU_OOM, 1, r"(?:CUBLAS|CUDNN|CUSOLVER)_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation"),
    _rule(Cause.GPU_OOM, 1, r"Error out of memory at line \d+|Cuda failure (?:2 )?'out of memory'"),
    # Memory of the node, as a process meets it.
    _rule(Cause.HOST_OOM, 1, r"\bMemoryError\b|Cannot allocate memory|\[Errno 12\]|std::bad_alloc"),
    _rule(Cause.HOST_OOM, 1, r"DefaultCPUAllocator: (?:can't allocate|not enough) memory"),
    _rule(Cause.HOST_OOM, 1, r"DataLoader worker .*killed by signal: (?:Killed|Bus error)|out of shared memory"),
    _rule(Cause.HOST_OOM, 1, r"insufficient shared memory"),
    # The loader says the same on a file system without leave to execute; there the worker's first compiled package
    # would have failed already.
    _rule(Cause.HOST_OOM, 1, r"^(?!.*pydantic_core).*failed to map segment from shared object$"),
    # Of our own worker.
    _rule(Cause.NO_STEP, 1, r"no step was gained"),
    _rule(Cause.NAN_LOSS, 1, r"(?i)\b(?:loss|grad\w*|weights?|tensor)\b.{0,80}(?:\bnan\b|\binf(?:inite|inity)?\b)"),
    _rule(Cause.NAN_LOSS, 1, r"(?i)\b(?:loss|grad\w*)\b.{0,40}(?:not|non-?) ?finite"),
    _rule(Cause.SECOND_ATTEMPT, 1, r"of this run is alive \(|is not the newest any more", Kind.WORKER),
    # The system.
    _rule(Cause.PORT_IN_USE, 1, r"EADDRINUSE|[Aa]ddress already in use"),
    _rule(Cause.DISK_FULL, 1, r"(?i)no space left|\[Errno (?:28|122|27)\]|disk quota exceeded|quota is used up"),
    _rule(Cause.DISK_FULL, 1, r"(?i)StorageFull|file (?:too large|size limit exceeded)|file write failed"),
    # The hub; its client says it in a dozen ways.
    _rule(Cause.OFFLINE_DOWNLOAD, 1, r"LocalEntryNotFound|OfflineModeIsEnabled|[Oo]ffline ?mode is enabled"),
    _rule(Cause.OFFLINE_DOWNLOAD, 1, r"[Oo]utgoing traffic has been disabled|HF_\w+_OFFLINE|TRANSFORMERS_OFFLINE"),
    _rule(Cause.OFFLINE_DOWNLOAD, 1, r"[Cc](?:ouldn't|annot|ould not|an't) (?:connect to|reach) .{0,60}huggingface"),
    _rule(Cause.OFFLINE_DOWNLOAD, 1, r"cannot find the (?:appropriate snapshot|requested files)|cached files"),
    _rule(Cause.OFFLINE_DOWNLOAD, 1, r"cannot be had from the hub|the job has no internet"),
    _rule(Cause.OFFLINE_DOWNLOAD, 1, r"Max retries exceeded with url|[Nn]ame resolution|Network is unreachable"),
    # Python and its packages.
    _rule(Cause.IMPORT_ERROR, 1, r"ModuleNotFoundError|ImportError|No module named|undefined symbol"),
    _rule(Cause.IMPORT_ERROR, 1, r"cannot open shared object file|GLIBC(?:XX)?_[\d.]+' not found"),
    _rule(Cause.IMPORT_ERROR, 1, r"execve\(\): .*(?:No such file|Permission denied)", Kind.SLURM),
    _rule(Cause.IMPORT_ERROR, 1, r"^FATAL: .*\bimage\b|pyxis: .*(?:failed|error)|container start failed"),
    _rule(Cause.IMPORT_ERROR, 3, r"module: command not found|Lmod has detected|Unable to locate a modulefile"),
    # A step that does not fit into what the job got.
    _rule(Cause.BAD_CONFIG, 1, r"More processors requested than permitted|Memory required by task", Kind.SLURM),
    _rule(Cause.BAD_CONFIG, 1, r"Requested node configuration is not available|Invalid generic resource", Kind.SLURM),
    # Files.
    _rule(Cause.NO_ACCESS, 1, r"(?i)PermissionError|permission denied|read-only|\[Errno (?:13|30)\]"),
    _rule(Cause.NO_ACCESS, 1, r"ExitCode=0:53|Could not open std(?:out|err) file|chdir\(.*failed", *_SLURM),
    # What Slurm did to the job.
    _rule(Cause.TIME_LIMIT, 1, r"DUE TO TIME LIMIT|State=(?:TIMEOUT|DEADLINE)|Reason=TimeLimit", *_SLURM),
    _rule(Cause.PREEMPTED, 1, r"DUE TO PREEMPTION|State=PREEMPTED", *_SLURM),
    _rule(Cause.CANCELLED, 1, r"JOB \d+ ON \S+ CANCELLED AT \S+ \*\*\*|State=(?:CANCELLED|REVOKED)", *_SLURM),
    # The ranks wait for each other: NCCL, gloo, and the store they meet at.
    _rule(Cause.COLLECTIVE_TIMEOUT, 2, r"Watchdog caught collective operation timeout|heartbeat.{0,40}(?:stuck|hang)"),
    _rule(Cause.COLLECTIVE_TIMEOUT, 2, r"Timed out waiting \d+ ?ms|[Tt]imed out after \d+ ?(?:ms|seconds)"),
    _rule(Cause.COLLECTIVE_TIMEOUT, 2, r"[Ss]ocket [Tt]imeout|wait timeout after|Connect timeout|DistStoreError"),
    _rule(
        Cause.KILLED, 2, r"[Tt]asks? [\d,-]+: (?:Killed|Segmentation fault|Bus error|Illegal instruction)", Kind.SLURM
    ),
    _rule(Cause.KILLED, 2, r"Fatal Python error: (?:Segmentation fault|Bus error|Illegal instruction)"),
    # A worker that refuses says with its exit code what it is about.
    _rule(Cause.BAD_DATA, 1, r"failed with exit code 65\b", Kind.WORKER),
    _rule(Cause.BAD_CONFIG, 1, r"failed with exit code 78\b", Kind.WORKER),
    _rule(Cause.NO_ACCESS, 1, r"failed with exit code 77\b", Kind.WORKER),
    _rule(Cause.BAD_DATA, 1, r"Assertion .*n_classes.* failed"),
    # What the others say when one has died.
    _rule(Cause.COLLECTIVE_TIMEOUT, 3, r"Connection (?:closed|reset|refused)|[Bb]roken pipe|NCCL communicator was"),
    _rule(
        Cause.COLLECTIVE_TIMEOUT, 3, r"ncclRemoteError|ncclSystemError|ncclInternalError|DistBackendError|DistNetwork"
    ),
    _rule(Cause.STOPPED, 3, r"ExitCode=75:0", Kind.FACTS),
    _rule(Cause.BAD_CONFIG, 3, r"ExitCode=78:0", Kind.FACTS),
    _rule(Cause.BAD_DATA, 3, r"ExitCode=65:0", Kind.FACTS),
    # Who may not write says so. 77 without a word, or 120, Python's own when its last words do not leave: they found no
    # room.
    _rule(Cause.DISK_FULL, 3, r"ExitCode=(?:77|120):0", Kind.FACTS),
    _rule(Cause.KILLED, 3, r"ExitCode=0:(?:9|11|7|4)\b", Kind.FACTS),
)


def match(text: str, kind: Kind) -> Rule | None:
    """The rule of a line, None when it says nothing.

    >>> match("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.", Kind.SLURM).cause.value
    'host_oom'
    """
    return next((r for r in RULES if (not r.kinds or kind in r.kinds) and r.pattern.search(text)), None)
