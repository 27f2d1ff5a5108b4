"""What a profile's container needs on the nodes, as far as it can be seen from here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcft.cluster.findings import Finding, green, grey, red, yellow
from hpcft.cluster.profile import Profile

_IMAGES = (".sif", ".simg", ".img", ".sqsh")
_BINDS = ("-B", "-b", "--bind")


def container_findings(profile: Profile) -> list[Finding]:
    """Whether the program, the image and the bound folders of `container` are there; nothing of a profile without one.

    The nodes may have what this machine lacks: only what is surely wrong is red.
    """
    if not profile.container:
        return []
    where = f"container in the profile {profile.name}"
    program, *words = profile.container
    found = []
    if shutil.which(program) is None:
        message = f"there is no {program} here"
        if profile.modules or profile.setup:
            found.append(grey("container", f"{message}; the profile's modules or setup may bring it"))
        else:
            mend = "modules: [NAME] in the profile, where the nodes have it by a module"
            found.append(yellow("container", message, mend, where))
    for image in _images(words):
        found += _image(image, where)
    for folder in _bound(words):
        if not Path(folder).exists():
            message = f"{folder}, which the container is to see, is not here; without it on a node nothing starts"
            found.append(yellow("container", message, "a folder that the nodes have", where))
    return found or [green("container", f"{program} and what it is given are here")]


def _images(words: Sequence[str]) -> list[str]:
    return [word for word in words if word.endswith(_IMAGES) and not word.startswith("-") and "://" not in word]


def _image(image: str, where: str) -> list[Finding]:
    path = Path(image)
    if not path.is_absolute():
        message = f"{image} would be looked for in each run's own directory"
        return [red("container", message, f"write its whole path, such as {path.absolute()}", where)]
    if path.exists():
        return []
    message = f"there is no image {image}"
    if path.parent.is_dir():
        return [red("container", message, f"put it there, or name one that is: ls {path.parent}", where)]
    return [yellow("container", f"{message} here", "an image where all nodes see it", where)]


def _bound(words: Sequence[str]) -> Iterator[str]:
    """The folders of the node that Apptainer, Singularity or Charliecloud is told to show.

    >>> list(_bound(["exec", "--bind", "/a:/b:ro,/c", "--bind=/d", "x.sif"]))
    ['/a', '/c', '/d']
    """
    for option, value in zip(words, [*words[1:], ""], strict=True):
        name, _, own = option.partition("=")
        if name in _BINDS and (own or value):
            yield from (part.partition(":")[0] for part in (own or value).split(","))
