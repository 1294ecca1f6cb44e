"""The pictures of a run that the page shows, within a number of bytes: the last grid large, earlier ones small."""

from dataclasses import dataclass, field

from ddpm.report.pictures import Drawn, Embedded, embedded
from ddpm.report.runs import Run

MAX_BYTES = 12 * 2**20  # of all pictures, as PNG; base64 makes a third more of them
MAX_WIDTH = 1200
THUMBNAIL = 160
MAX_THUMBNAILS = 10


@dataclass(frozen=True)
class Shown:
    """A picture, or in problem why it cannot be shown."""

    step: int | None
    picture: Embedded | None
    problem: str = ""


@dataclass
class Album:
    """By weights, averaged ones first. grids: the last one. films: earlier ones. left_out: how many more there are."""

    grids: dict[str, Shown] = field(default_factory=dict)
    films: dict[str, list[Shown]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    strip: Shown | None = None


def album(run: Run, num_runs: int) -> Album:
    share = MAX_BYTES // num_runs
    found = Album()
    names = sorted(run.grids, key=lambda name: (not name.startswith("ema"), name))[:3]
    for place, name in enumerate(names):
        pictures = run.grids[name]
        found.grids[name] = shown(pictures[-1], MAX_WIDTH, share // (2 if place == 0 else 8))
        earlier = pictures[:-1]
        chosen = spread(earlier, MAX_THUMBNAILS if place == 0 else 0)
        found.films[name] = [shown(each, THUMBNAIL, share // 8 // MAX_THUMBNAILS) for each in chosen]
        found.left_out[name] = len(earlier) - len(chosen)
    if run.strips:
        found.strip = shown(run.strips[-1], MAX_WIDTH, share // 8)
    return found


def spread(pictures: list[Drawn], num: int) -> list[Drawn]:
    """At most num of them, evenly, with the first and the last."""
    if len(pictures) <= num:
        return pictures
    places = sorted({round(k * (len(pictures) - 1) / max(1, num - 1)) for k in range(num)})
    return [pictures[k] for k in places]


def shown(picture: Drawn, max_width: int, max_bytes: int) -> Shown:
    try:
        return Shown(picture.step, embedded(picture.path, max_width, max_bytes))
    except (ValueError, OSError, MemoryError) as error:
        return Shown(picture.step, None, f"{picture.path.parent.name}/{picture.path.name} cannot be shown: {error}.")
