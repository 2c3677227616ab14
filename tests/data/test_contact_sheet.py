import numpy as np
import pytest
from matplotlib.patches import Rectangle

from foveal.data import read_classification
from foveal.data.contact_sheet import contact_sheet
from foveal.data.scenes import CLASSES, DOMAINS, Scenes
from foveal.data.scenes.plan import SPLITS, plan


def shown(axes):
    """Return the pixels of an axes' picture."""
    (image,) = axes.images
    return np.asarray(image.get_array())


def test_any_layout_shows_pictures_with_their_classes():
    data = read_classification(None)
    sheet = contact_sheet(data, "test", count=11, seed=3)
    assert len(sheet.axes) == 11
    pictures = data.splits["test"]
    found = {np.asarray(pictures.load(k)).tobytes(): pictures.targets[k] for k in range(2000)}
    for axes in sheet.axes:
        assert axes.get_title() == data.classes[found[shown(axes).tobytes()]]
    other = contact_sheet(data, "test", count=11, seed=4)
    assert {shown(axes).tobytes() for axes in sheet.axes} != {
        shown(axes).tobytes() for axes in other.axes
    }


def test_small_sets_are_shown_whole(paint_classes, tmp_path):
    paint_classes(".", {"a": 6, "b": 6})
    data = read_classification(tmp_path)
    assert len(contact_sheet(data, count=50).axes) == len(data.splits["train"])


@pytest.fixture
def few_scenes(monkeypatch):
    """Make scenes for validation few, so that shown ones are found quickly."""
    monkeypatch.setitem(SPLITS, "val", 100)
    plan.cache_clear()
    yield
    plan.cache_clear()


def test_scenes_show_every_label_and_domain(few_scenes):
    data = read_classification(None, "scenes", multi_label=True, domain="night")
    sheet = contact_sheet(data, "val", count=3)
    assert len(sheet.axes) == 3 + 3 * (5 + len(DOMAINS))
    by_picture = {Scenes("val", domain="night")[k].image.tobytes(): k for k in range(100)}
    for column in range(3):
        top = sheet.axes[column]
        index = by_picture[shown(top).tobytes()]
        scene = Scenes("val", domain="night")[index]
        names = {CLASSES[k] for k in scene.item_categories}
        title = top.get_title().rstrip("…")
        assert title.split(",")[0] in names
        below = sheet.axes[3 + 9 * column : 12 + 9 * column]
        semantic, items, salient, boundaries, skeleton, *domains = below
        assert {text.get_text() for text in semantic.texts} >= names
        boxes = [patch for patch in items.patches if isinstance(patch, Rectangle)]
        corners = [[p.get_x() + 0.5, p.get_y() + 0.5] for p in boxes]
        assert corners == scene.boxes[:, :2].tolist()
        assert (shown(salient)[scene.saliency > 0] == scene.image[scene.saliency > 0]).all()
        for axes, lines in ((boundaries, scene.boundaries), (skeleton, scene.skeleton)):
            colours = {tuple(colour) for colour in shown(axes)[lines > 0]}
            assert len(colours) == 1
            assert not (shown(axes)[lines == 0] == colours.pop()).all(axis=-1).any()
        for axes, domain in zip(domains, DOMAINS, strict=True):
            assert (shown(axes) == Scenes("val", domain=domain)[index].image).all()
    assert [text.get_text() for text in sheet.axes[3 + 5].texts] == ["clean"]


def test_what_cannot_be_shown(paint_classes, tmp_path):
    data = read_classification(None)
    with pytest.raises(ValueError, match="needs at least one picture, not 0"):
        contact_sheet(data, count=0)
    paint_classes("val", {"a": 2, "b": 2})
    data = read_classification(tmp_path)
    with pytest.raises(ValueError, match="split train has no pictures: none: the layout has only"):
        contact_sheet(data, "train")
