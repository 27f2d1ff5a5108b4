"""The labs: eight PEFT methods, each trained, scored, measured, and merged where its adapter is a change of weights."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from hpcft.errors import ConfigError
from hpcft.spec.layers import Layer, mapping_layer
from hpcft.spec.pipeline import Pipeline, Stage
from hpcft.spec.variants import VARIANTS

# The preset that every lab begins with.
PRESET = "lab"
SECOND_TASK = "quickstart-notices"
# What says which rows the second task has, and how they read.
_ROWS = (
    *("data.dataset", "data.mix", "data.validation", "data.subset", "data.revision", "data.task"),
    *("data.input_column", "data.context_column", "data.target_column", "data.prompt"),
)


@dataclass(frozen=True)
class Lab:
    """A method's lab.

    Attributes:
        number: its place in the course.
        method: the variant that it trains.
        title: what the method is called on pictures.
        about: what is trained, after "trains".
        merges: whether `hpcft merge` can be a stage of it, whatever the model.
        deploy: how what it made is used.
    """

    number: int
    method: str
    title: str
    about: str
    merges: bool
    deploy: str

    @property
    def folder(self) -> str:
        """Name of its folder of notebooks."""
        return f"{self.number:02d}-{self.method}"


_PROMPTS = (
    "Its vectors are tokens in front of the input, not a change of weights: it cannot be merged. Keep the base once "
    "and load the vectors, some kilobytes a task, beside it; each answer pays for as many tokens more."
)
_PREFIXES = (
    "Its vectors are keys and values in front of each layer's own, not a change of weights: it cannot be merged. Keep "
    "the base once and load the vectors of a task beside it; the cache of each answer is longer by them."
)
_LABS = (
    Lab(
        1,
        "lora",
        "LoRA",
        "a product of two thin matrices beside the attention's own",
        True,
        "Merged, it is a model like its base, of the same size and with the same work to do; or keep the base once and "
        "load an adapter for each task beside it.",
    ),
    Lab(
        2,
        "adapter",
        "Adapter Layers",
        "a small network, the bottleneck, behind attention and MLP of each layer",
        False,
        "Its networks stand behind the layers and are not a change of weights: it cannot be merged. Keep the base "
        "once, load every task's adapter beside it and switch between them; AdapterDrop leaves out the lowest layers' "
        "networks where answers must be faster.",
    ),
    Lab(3, "prompt-tuning", "Prompt Tuning", "some vectors in front of the input", False, _PROMPTS),
    Lab(
        4,
        "prefix-tuning",
        "Prefix Tuning",
        "a network that makes keys and values in front of each layer's own",
        False,
        _PREFIXES,
    ),
    Lab(
        5,
        "ia3",
        "IA3",
        "a factor for each key, value and input of the MLP's last product",
        True,
        "Merged, its factors are in the weights: the model has the size of its base and does the same work.",
    ),
    Lab(
        6,
        "bitfit",
        "BitFit",
        "a bias behind each linear layer of attention and MLP",
        False,
        "Where the base has biases, `hpcft merge RUN` adds the trained ones to them, and nothing is left beside the "
        "model. A base without biases, such as a Llama, has no place for them: keep it and load them beside it.",
    ),
    Lab(7, "p-tuning", "P-Tuning", "a network that makes some vectors in front of the input", False, _PROMPTS),
    Lab(8, "p-tuning-v2", "P-Tuning v2", "keys and values in front of each layer's own", False, _PREFIXES),
)
LABS = {lab.method: lab for lab in _LABS}


def title_of(variant: str) -> str:
    """What a variant is called on pictures."""
    return LABS[variant].title if variant in LABS else VARIANTS[variant].label


def find_lab(method: str) -> Lab:
    """The lab of a method.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if method in LABS:
        return LABS[method]
    near = get_close_matches(method, LABS, n=1)
    guess = f"did you mean '{near[0]}'? " if near else ""
    shown = method if len(method) <= 60 else method[:57] + "..."
    raise ConfigError(f"there is no lab of {shown!r}", where="METHOD", hint=f"{guess}there are: {', '.join(LABS)}")


def lab_pipeline(lab: Lab, second_task: str = SECOND_TASK) -> Pipeline:
    """The lab's jobs: the base measured; the method trained, scored, measured, merged; and the pictures of all.

    Args:
        second_task: data set that Adapter Layers train a second adapter on.
    """

    def stage(name: str, kind: str, *of: str, own: tuple[str, ...] = (), **values: str) -> Stage:
        said = {key.replace("__", "."): value for key, value in values.items()}
        return Stage(name, kind, of, mapping_layer(said, f"lab {lab.method}"), own)

    stages = [
        # Without an adapter there is nothing that a variant could say of it.
        stage("base", "bench", variant="full"),
        stage("train", "train", variant=lab.method),
        stage("scores", "evaluate", "train"),
        stage("bench", "bench", "scores"),
    ]
    if lab.merges:
        stages += [stage("merged", "merge", "train"), stage("bench-merged", "bench", "merged")]
    if lab.method == "adapter":
        stages.append(stage("second", "train", own=_ROWS, variant=lab.method, data__dataset=second_task))
    if lab.method == "ia3":
        stages.append(stage("lora", "train", variant="lora"))
    stages.append(stage("pictures", "lab", *(made.name for made in stages), variant=lab.method))
    return Pipeline(f"lab-{lab.method}", Layer(), tuple(stages))
