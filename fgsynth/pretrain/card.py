"""The model card: every number of it comes from the training record and the scores."""

from typing import Any

from fgsynth.miniworld.world import WEB

REQUIRED = {
    "class": 0.80,
    "context": 0.95,
    "worst class": 0.50,
    "reconstruction": 0.03,
    "rare": 0.60,
    "context wins": 0.80,
}
"""What the experiments need of the generator; fixed before it was trained."""


def checks(s: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(what, value against bound, met) for every requirement."""
    made, real = s["generated"], s["real"]
    worst = min(s["by class"], key=s["by class"].get)
    rows: list[tuple[str, float, float, bool]] = [
        ("recognised as the prompted class", made["text and image"]["class"], REQUIRED["class"], True),
        ("recognised as the prompted context", made["text and image"]["context"], REQUIRED["context"], True),
        (f"worst class ({worst})", s["by class"][worst], REQUIRED["worst class"], True),
        *(
            (
                f"points lost in reconstruction, {m} mode",
                real[m]["real"] - real[m]["reconstructed"],
                REQUIRED["reconstruction"],
                False,
            )
            for m in ("majority", "rare")
        ),
        (
            "rare modes from an image of a rare mode",
            s["rare share"]["image of the rare mode"],
            REQUIRED["rare"],
            True,
        ),
        (
            "prompted context wins over the image's",
            made["image of another context"]["context"],
            REQUIRED["context wins"],
            True,
        ),
    ]
    return [
        (
            what,
            f"{100 * value:.1f} % ({'at least' if least else 'at most'} {100 * bound:.0f} %)",
            value >= bound if least else value <= bound,
        )
        for what, value, bound, least in rows
    ]


def percent_table(rows: dict[str, dict[str, float]], corner: str) -> str:
    """A Markdown table of shares in percent; missing cells are empty."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [f"| {corner} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{100 * row[c]:.1f}" if c in row else "" for c in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def card(record: dict[str, Any], s: dict[str, Any]) -> str:
    """The model card in Markdown."""
    recipe = record["recipe"]
    met = "\n".join(f"| {what} | {value} | {'yes' if ok else '**no**'} |" for what, value, ok in checks(s))
    losses = "\n".join(
        f"| {part} | {recipe[part]['updates']:,} of {recipe[part]['batch']} "
        f"| {h['losses'][0]:.4f} | {h['losses'][-1]:.4f} | {h['seconds'] / 60:.0f} |"
        for part, h in record["parts"].items()
    )
    settings = "; ".join(
        f"{name}: CFG {v['cfg']:g}, embedding noise level {v['noise_level']}"
        for name, v in s["settings"].items()
    )
    classes = {k: {"recognised": v} for k, v in s["by class"].items()}
    return f"""# The mini unCLIP

A Stable unCLIP in small, for the mini world: 32 x 32 pictures, 8 x 8 latents, text by cross-attention,
a noised CLIP embedding of a picture as second condition, v-prediction. `StableUnCLIPImg2ImgPipeline` loads
this folder. Written by `python -m fgsynth model-card`; every number is measured.

**Data.** {recipe["pictures"]:,} captioned pictures of the "web" of the mini world (fgsynth/miniworld, draw
`WEB`), rendered from seeds; no picture of a benchmark. Licence: as the project.

**Training.** {record["hardware"]}, {record["threads"]} threads, torch {record["torch"]}.
{record.get("remark", "")}

| part | updates, batch | loss of the first 500 | of the last | minutes |
|---|---|---|---|---|
{losses}

**Settings**, chosen on validation seeds: {settings}. 30 DDIM steps, feedback off. The judge is a network
trained on {recipe["judged"]:,} real pictures of every kind and place, all appearances equally often.

## Required, and met?

| on held-out prompts | measured | met |
|---|---|---|
{met}

## The ceiling: real pictures, by appearance mode (%)

{percent_table(s["real"], "mode")}

## Generated pictures (%)

{percent_table(s["generated"], "condition")}

Share of rare appearances (the web has {100 * (1 - WEB.modes[0]):.0f} %):

{percent_table({"share": s["rare share"]}, "")}

Right kind *and* a photograph, by what is ambiguous about the class's name; prompt: the name alone:

{percent_table(s["ambiguity"], "condition")}

Places recognised:

{percent_table({"places": s["places"]}, "")}

## By class (%), text and image

{percent_table(classes, "class")}
"""
