"""A small data set in the style of the E2E challenge, made from our own words.

Attributes of a venue in, a sentence about it out, two or three references an input; the same rows for the same seed.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

_FIRST = "Amber Birch Cedar Copper Crown Harbour Ivy Lantern Maple Marble Olive Pepper Quill River Saffron Velvet"
_SECOND = "Anchor Barn Corner Garden Hearth House Kettle Kitchen Lodge Mill Oven Room Spoon Table Terrace Yard"
VENUES = [f"The {a} {b}" for a in _FIRST.split() for b in _SECOND.split()]
KINDS = ("restaurant", "coffee shop", "pub")
FOODS = ("Chinese", "English", "Fast food", "French", "Indian", "Italian", "Japanese")
PRICES = ("cheap", "moderate", "high", "less than £20", "more than £30")
RATINGS = ("low", "average", "high", "1 out of 5", "3 out of 5", "5 out of 5")
AREAS = ("riverside", "city centre")
NEARS = ("the Old Bridge", "the Clock Tower", "the Glass Theatre", "the Market Hall", "the Stone Arch")


@dataclass(frozen=True)
class Row:
    """A meaning representation and one sentence that says it."""

    mr: str
    ref: str


@dataclass(frozen=True)
class Venue:
    """Attributes of one venue; those that are None are not told."""

    name: str
    kind: str
    food: str | None
    price: str | None
    rating: str | None
    area: str | None
    family: bool | None
    near: str | None

    def meaning(self) -> str:
        """The attributes as `name[…], eatType[…], …`, those that are told."""
        family = None if self.family is None else ("yes" if self.family else "no")
        slots = (
            ("name", self.name),
            ("eatType", self.kind),
            ("food", self.food),
            ("priceRange", self.price),
            ("customer rating", self.rating),
            ("area", self.area),
            ("familyFriendly", family),
            ("near", self.near),
        )
        return ", ".join(f"{slot}[{value}]" for slot, value in slots if value is not None)

    def tells_more_than_its_kind(self) -> bool:
        """Whether any attribute besides name and kind is told."""
        rest = (self.food, self.price, self.rating, self.area, self.family, self.near)
        return any(value is not None for value in rest)


def _venue(rng: random.Random, name: str) -> Venue:
    def maybe(values: tuple[str, ...], chance: float) -> str | None:
        return rng.choice(values) if rng.random() < chance else None

    return Venue(
        name=name,
        kind=rng.choice(KINDS),
        food=maybe(FOODS, 0.8),
        price=maybe(PRICES, 0.6),
        rating=maybe(RATINGS, 0.6),
        area=maybe(AREAS, 0.6),
        family=rng.choice((True, False)) if rng.random() < 0.5 else None,
        near=maybe(NEARS, 0.5),
    )


def _price(price: str) -> str:
    return f"{price} prices" if price in ("cheap", "moderate", "high") else f"meals for {price}"


def _rating(rating: str) -> str:
    article = "an" if rating == "average" else "a"
    return f"{article} {rating} customer rating" if " " not in rating else f"a customer rating of {rating}"


def _area(area: str) -> str:
    return f"{'by' if area == 'riverside' else 'in'} the {area}"


def _plain(v: Venue) -> str:
    text = f"{v.name} is a {v.kind}"
    text += f" that serves {v.food} food" if v.food else ""
    text += f" {_area(v.area)}" if v.area else ""
    text += f" near {v.near}" if v.near else ""
    text += "."
    offers = [_price(v.price)] if v.price else []
    offers += [_rating(v.rating)] if v.rating else []
    text += f" It has {' and '.join(offers)}." if offers else ""
    if v.family is not None:
        text += " Families are welcome." if v.family else " It is not for families."
    return text


def _place_first(v: Venue) -> str:
    places = ([_area(v.area)] if v.area else []) + ([f"near {v.near}"] if v.near else [])
    kind = f"{v.food} {v.kind}" if v.food else v.kind
    article = "an" if kind[0] in "EI" else "a"
    start = (
        f"{' '.join(places)} there is {article} {kind} called {v.name}" if places else f"{v.name} is {article} {kind}"
    )
    text = start[0].upper() + start[1:]
    text += f", with {_price(v.price)}" if v.price else ""
    text += f". Guests give it {_rating(v.rating)}" if v.rating else ""
    if v.family is not None:
        text += ". Children are welcome" if v.family else ". It is for adults"
    return text + "."


def _visit(v: Venue) -> str:
    friendly = "" if v.family is None else ("family friendly " if v.family else "adults only ")
    text = (
        f"For {v.food} food visit {v.name}, a {friendly}{v.kind}" if v.food else f"Visit {v.name}, a {friendly}{v.kind}"
    )
    text += f" near {v.near}" if v.near else ""
    text += f" {_area(v.area)}" if v.area else ""
    offers = [_price(v.price)] if v.price else []
    offers += [_rating(v.rating)] if v.rating else []
    return text + (f", with {' and '.join(offers)}." if offers else ".")


def _notice(v: Venue) -> str:
    told = [f"{v.food} {v.kind}" if v.food else v.kind]
    told += [_area(v.area)] if v.area else []
    told += [f"near {v.near}"] if v.near else []
    told += [_price(v.price)] if v.price else []
    told += [f"rated {v.rating}"] if v.rating else []
    told += [] if v.family is None else ["families welcome" if v.family else "adults only"]
    return f"{v.name}: {'; '.join(told)}"


_STYLES = (_plain, _place_first, _visit)


def make_venues(count: int, seed: int) -> list[Venue]:
    """Distinct venues; a name may come again with other attributes."""
    rng = random.Random(seed)  # noqa: S311 (made data, not a secret)
    venues: dict[str, Venue] = {}
    while len(venues) < count:
        venue = _venue(rng, rng.choice(VENUES))
        if not venue.tells_more_than_its_kind():
            continue  # two styles would say it in the same words
        venues.setdefault(venue.meaning(), venue)
    return list(venues.values())


def make_rows(inputs: int, seed: int) -> list[Row]:
    """Rows for a number of distinct inputs, each with two or three references that stand together."""
    rng = random.Random(seed + 1)  # noqa: S311
    rows: list[Row] = []
    for venue in make_venues(inputs, seed):
        styles = _STYLES if rng.random() < 0.5 else _STYLES[:2]
        rows += [Row(venue.meaning(), style(venue)) for style in styles]
    return rows


def make_notices(count: int, seed: int) -> list[Row]:
    """Rows of a second task on such inputs: a short notice instead of sentences, one for each of `count` venues."""
    return [Row(venue.meaning(), _notice(venue)) for venue in make_venues(count, seed)]


def write_csv(path: Path, rows: list[Row]) -> None:
    """Write rows as the E2E challenge's files are: columns `mr` and `ref`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("mr", "ref"))
        writer.writerows((row.mr, row.ref) for row in rows)
