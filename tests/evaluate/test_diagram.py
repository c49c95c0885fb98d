from itertools import combinations

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from fgsynth.evaluate import diagram


def test_boxes_do_not_overlap_and_hold_their_text():
    figure, _ = diagram.method()
    figure.canvas.draw()
    (ax,) = figure.axes
    boxes = [patch.get_window_extent() for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    assert len(boxes) == len(diagram.BOXES)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    texts = {text.get_text(): text.get_window_extent() for text in ax.texts}
    for box, extent in zip(diagram.BOXES.values(), boxes, strict=True):
        inside = texts[box.text]
        assert extent.x0 < inside.x0 < inside.x1 < extent.x1, box.text
        assert extent.y0 < inside.y0 < inside.y1 < extent.y1, box.text
    plt.close("all")


def test_every_box_is_on_the_path_from_real_images_to_the_classifier():
    figure, arrows = diagram.method()
    plt.close(figure)
    assert set(arrows["from"]) | set(arrows["to"]) == set(diagram.BOXES)
    assert set(arrows["from"]) == set(diagram.BOXES) - {"classifier"}
    assert set(arrows["to"]) == set(diagram.BOXES) - {"real", "prompt"}
