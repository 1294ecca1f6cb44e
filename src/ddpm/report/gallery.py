"""The page's pictures: grids of samples side by side, films of earlier steps, denoising strips."""

from ddpm.report.album import Shown
from ddpm.report.markup import Markup, joined, tag
from ddpm.report.pictures import Embedded
from ddpm.report.report import Report
from ddpm.report.tables import run_name

PIXELATED_BELOW = 500  # pictures narrower than this are of small images, which a browser would blur


def at_step(step: int | None) -> str:
    return "step not known" if step is None else f"step {step:,}"


def image(picture: Embedded, alt: str) -> Markup:
    small = "pixels" if picture.width < PIXELATED_BELOW and not picture.scaled else None
    return tag(
        "img", src=picture.address, width=picture.width, height=picture.height, alt=alt, class_=small, decoding="async"
    )


def card(report: Report, number: int, shown: Shown | None, what: str, missing: str) -> Markup:
    """A picture under its run's name, or the sentence that says why there is none."""
    name = tag("figcaption", run_name(report, number), tag("small", at_step(shown.step)) if shown else None)
    if shown is None or shown.picture is None:
        return tag("figure", name, tag("p", shown.problem if shown else missing, class_="missing"), class_="card")
    alt = f"{what} of {report.labels[number]}, {at_step(shown.step)}"
    scaled = tag("small", "shown smaller than its file") if shown.picture.scaled else None
    return tag("figure", name, image(shown.picture, alt), scaled, class_="card")


def weights_of(report: Report) -> list[str]:
    """Kinds of weights that drew grids, averaged ones first."""
    return list(dict.fromkeys(name for album in report.albums for name in album.grids))


def grids(report: Report) -> Markup:
    kinds = weights_of(report)
    if not kinds:
        return tag("p", "None of these runs has drawn samples yet: there are no pictures in samples/.")
    first, rest = kinds[0], kinds[1:]
    parts: list[object] = [tag("p", seeds(report)), row_of(report, first)]
    if any(album.films.get(first) for album in report.albums):
        rows = [film(report, number, first) for number in range(len(report.runs))]
        parts.append(tag("details", tag("summary", "Earlier steps"), rows))
    for name in rest:
        parts.append(tag("details", tag("summary", f"The same samples of the {name} weights"), row_of(report, name)))
    return joined(parts)


def row_of(report: Report, weights: str) -> Markup:
    cards = [
        card(report, number, album.grids.get(weights), f"Samples of the {weights} weights", "It has no such samples.")
        for number, album in enumerate(report.albums)
    ]
    return tag("div", cards, class_="cards")


def seeds(report: Report) -> str:
    decide = ("seed", "data.size", "data.channels")
    known = {repr([run.setting(key) for key in decide]) for run in report.runs if run.config}
    first = f"Drawn with the {weights_of(report)[0]} weights. "
    if len(report.runs) == 1:
        return first
    if len(known) == 1:
        return first + "All runs have the same seed, so the same place in each grid began from the same noise."
    return first + "The runs differ in seed or size, so their grids did not begin from the same noise."


def film(report: Report, number: int, weights: str) -> Markup:
    album = report.albums[number]
    frames = [
        tag("li", image(each.picture, f"Samples at {at_step(each.step)}"), tag("small", at_step(each.step)))
        if each.picture
        else tag("li", tag("small", each.problem))
        for each in album.films.get(weights, [])
    ]
    left_out = album.left_out.get(weights, 0)
    more = tag("small", f"{left_out:,} more are left out") if left_out else None
    strip = (
        tag("ol", frames, class_="film", tabindex="0")
        if frames
        else tag("p", "It has no earlier ones.", class_="missing")
    )
    return tag("div", tag("p", run_name(report, number), " ", more), strip)


def strips(report: Report) -> Markup:
    if not any(album.strip for album in report.albums):
        return tag("p", "No run has a denoising strip yet: it is drawn at the end of training.")
    cards = [
        card(report, number, album.strip, "Denoising strip", "It has no denoising strip.")
        for number, album in enumerate(report.albums)
    ]
    about = "From noise on the left to a sample on the right: x_t above the x0 that is predicted from it."
    return joined(tag("p", about), tag("div", cards, class_="cards wide"))
