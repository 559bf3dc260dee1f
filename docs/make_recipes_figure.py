"""Draw docs/recipes.svg and docs/recipes.ko.svg: how the recipes follow each other.

Run it after a change: `python docs/make_recipes_figure.py`. It needs nothing but Python.
"""

from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1164, 448
BOX_WIDTH, BOX_HEIGHT, GAP, LEFT, TOP = 190, 104, 32, 16, 104
# The column of what an encoder is used for.
USE_WIDTH, USE_HEIGHT, USE_TOP, USE_STEP = 232, 84, 56, 96
CHIP_TOP, CHIP_HEIGHT = 268, 54
FONT = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans KR', 'Apple SD Gothic Neo', 'Malgun Gothic', NanumGothic, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
INK, GREY, LINE = "#24292f", "#57606a", "#8c959f"
# (fill, border) of what is given, of a recipe, and of what comes out.
GIVEN, RECIPE, RESULT = ("#f6f8fa", "#afb8c1"), ("#e8f1fb", "#4f86c6"), ("#eaf6ec", "#4a9a5c")

TEXTS = {
    "en": {
        "title": "How the recipes follow each other",
        "either": "one of the two, or both in this order",
        "encoder": ("Pre-trained encoder", "", ["BERT, RoBERTa, XLM-R,", "CamemBERT, KLUE, …"]),
        "dapt": ("DAPT", "configs/dapt.py", ["continues pre-training", "on the domain's language"]),
        "tapt": ("TAPT", "configs/tapt.py", ["continues pre-training", "on the task's own texts"]),
        "export": ("export/", "", ["weights, tokenizer,", "model card"]),
        "finetune": ("Fine-tuning", "configs/finetune.py", ["labels train the whole model"]),
        "features": ("Feature extraction", "configs/feature_extraction.py", ["frozen; labels train the head"]),
        "embed": ("Embeddings", "configs/embed.py", ["vectors of texts, in files"]),
        "use": ("transformers", "", ["fill-mask, its own trainers, …"]),
        "evaluate": ("Evaluation", "configs/evaluate.py", ["loss, scores, predictions"]),
        "scratch": ("From scratch", "configs/scratch.py", ["new tokenizer and encoder"]),
        "domain": ["texts of the domain", "(no labels)"],
        "task": ["the task's training texts", "(labels not used)"],
        "corpus": ["a large corpus", "(no labels)"],
        "note": ["The export/ of each recipe is the model.path of the next.", "The pre-trained encoder itself can be the model.path, too."],
    },
    "ko": {
        "title": "레시피가 이어지는 순서",
        "either": "둘 중 하나만, 또는 이 순서로 둘 다",
        "encoder": ("사전학습된 인코더", "", ["BERT, RoBERTa, XLM-R,", "CamemBERT, KLUE, …"]),
        "dapt": ("DAPT", "configs/dapt.py", ["도메인의 텍스트로", "사전학습을 이어 감"]),
        "tapt": ("TAPT", "configs/tapt.py", ["과제의 텍스트로", "사전학습을 이어 감"]),
        "export": ("export/", "", ["가중치, 토크나이저,", "모델 카드"]),
        "finetune": ("파인튜닝", "configs/finetune.py", ["라벨로 모델 전체를 학습"]),
        "features": ("특징 추출", "configs/feature_extraction.py", ["인코더는 고정, 헤드만 학습"]),
        "embed": ("임베딩", "configs/embed.py", ["텍스트의 벡터를 파일로"]),
        "use": ("transformers", "", ["빈칸 채우기, 자체 학습 도구 등"]),
        "evaluate": ("평가", "configs/evaluate.py", ["손실, 점수, 예측"]),
        "scratch": ("처음부터", "configs/scratch.py", ["새 토크나이저, 새 인코더"]),
        "domain": ["도메인 텍스트", "(라벨 없음)"],
        "task": ["과제의 학습용 텍스트", "(라벨은 쓰지 않음)"],
        "corpus": ["큰 말뭉치", "(라벨 없음)"],
        "note": ["각 레시피의 export/가 다음 레시피의 model.path가 됩니다.", "사전학습된 인코더를 바로 model.path로 주어도 됩니다."],
    },
}


def render(language: str) -> str:
    """Return the figure as an SVG document.

    Args:
      language: "en" or "ko".
    """
    words = TEXTS[language]
    left = [LEFT + column * (BOX_WIDTH + GAP) for column in range(5)]
    middle = TOP + BOX_HEIGHT / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(str(words["title"]))}" font-family="{FONT}">',
        f'<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 L10 5 L0 10 z" fill="{LINE}"/></marker></defs>',
        # A background, so that the figure can be read on a dark page.
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10" fill="#ffffff" stroke="#d0d7de"/>',
        text(LEFT + 4, 38, words["title"], size=19, weight=600, anchor="start"),
    ]
    for column, (name, colours) in enumerate([("encoder", GIVEN), ("dapt", RECIPE), ("tapt", RECIPE), ("export", RESULT)]):
        parts.append(box(left[column], TOP, BOX_HEIGHT, words[name], colours))
        if column:
            parts.append(arrow(left[column] - GAP + 3, middle, left[column] - 4, middle))
    parts += uses(words, left[4], middle)
    parts.append(bracket(left[1], left[2] + BOX_WIDTH, TOP - 14, words["either"]))
    for column, name in ((1, "domain"), (2, "task")):
        parts.append(chip(left[column], CHIP_TOP, words[name]))
        centre = left[column] + BOX_WIDTH / 2
        parts.append(arrow(centre, CHIP_TOP - 3, centre, TOP + BOX_HEIGHT + 5))
    # Below the others: what is measured, and where an encoder comes from that was not downloaded.
    height = 84
    top = CHIP_TOP - 15
    parts.append(box(left[3], top, height, words["evaluate"], RECIPE))
    centre = left[3] + BOX_WIDTH / 2
    parts.append(arrow(centre, TOP + BOX_HEIGHT + 3, centre, top - 5))
    parts.append(box(left[0], top, height, words["scratch"], RECIPE))
    centre = left[0] + BOX_WIDTH / 2
    parts.append(arrow(centre, top - 3, centre, TOP + BOX_HEIGHT + 5))
    parts.append(chip(left[0], top + height + 22, words["corpus"], height=44))
    parts.append(arrow(centre, top + height + 19, centre, top + height + 5))
    for line, content in enumerate(words["note"]):
        parts.append(text(left[1], HEIGHT - 54 + 22 * line, content, size=14, fill=GREY, anchor="start"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def uses(words: dict[str, Any], x: float, middle: float) -> list[str]:
    """Return the boxes of what an encoder is used for, one below the other at `x`, and the lines to them from the left at `middle`."""
    stem = x - GAP / 2 - 1
    tops = [USE_TOP + USE_STEP * i for i in range(4)]
    first, last = tops[0] + USE_HEIGHT / 2, tops[-1] + USE_HEIGHT / 2
    path = f"M{x - GAP + 3:g} {middle:g} H{stem:g} M{stem:g} {first:g} V{last:g}"
    parts = [f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.8"/>']
    for top, (name, colours) in zip(tops, [("finetune", RECIPE), ("features", RECIPE), ("embed", RECIPE), ("use", GIVEN)], strict=True):
        parts.append(arrow(stem, top + USE_HEIGHT / 2, x - 4, top + USE_HEIGHT / 2))
        parts.append(box(x, top, USE_HEIGHT, words[name], colours, USE_WIDTH))
    return parts


def text(
    x: float, y: float, words: object, *, size: int, weight: int = 400, fill: str = INK, anchor: str = "middle", font: str = ""
) -> str:
    family = f' font-family="{font}"' if font else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{anchor}"{family}>{escape(str(words))}</text>'
    )


def box(x: float, y: float, height: float, words: Any, colours: tuple[str, str], width: float = BOX_WIDTH) -> str:
    """Return a titled box; words are (title, file or "", lines)."""
    title, file, lines = words
    centre = x + width / 2
    rows = [(title, 16, 600, INK, "", 21)]
    if file:
        rows.append((file, 12, 400, "#2f5f97", MONO, 18))
    rows += [(line, 13, 400, GREY, "", 18) for line in lines]
    baseline = y + (height - sum(row[5] for row in rows)) / 2 - 4
    parts = [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="9" fill="{colours[0]}" '
        f'stroke="{colours[1]}" stroke-width="1.5"/>'
    ]
    for words_, size, weight, fill, font, step in rows:
        baseline += step
        parts.append(text(centre, baseline, words_, size=size, weight=weight, fill=fill, font=font))
    return "\n".join(parts)


def chip(x: float, y: float, lines: Any, height: float = CHIP_HEIGHT) -> str:
    """Return an input, two lines in a rounded outline."""
    centre = x + BOX_WIDTH / 2
    first, second = lines
    return "\n".join(
        [
            f'<rect x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{height:g}" rx="{height / 2:g}" fill="#fff8e6" '
            f'stroke="#d4a72c" stroke-width="1.2"/>',
            text(centre, y + height / 2 - 3, first, size=13),
            text(centre, y + height / 2 + 14, second, size=12, fill=GREY),
        ]
    )


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{LINE}" stroke-width="1.8" marker-end="url(#tip)"/>'


def bracket(x1: float, x2: float, y: float, words: object) -> str:
    return "\n".join(
        [
            f'<path d="M{x1:g} {y + 7:g} v-7 H{x2:g} v7" fill="none" stroke="{LINE}" stroke-width="1.4"/>',
            text((x1 + x2) / 2, y - 9, words, size=13, fill=GREY),
        ]
    )


def main() -> None:
    """Write both files beside this script."""
    here = Path(__file__).parent
    (here / "recipes.svg").write_text(render("en"), "utf-8")
    (here / "recipes.ko.svg").write_text(render("ko"), "utf-8")


if __name__ == "__main__":
    main()
