from __future__ import annotations

import dataclasses

import pytest

from medllm.datasets import ImageRecord, RunLengthMask, Selection
from medllm.errors import LabelError
from medllm.evaluate import open_study, outlined_phantoms, outlined_records
from medllm.evaluate.explanations.raster import SIDE
from medllm.evaluate.sample import draw_sample


@pytest.fixture
def study_of(root):
    study = open_study("csv", root)

    def make(*records):
        return dataclasses.replace(study, selection=Selection(records, {}))

    return make


def record(root, name="0.png", **told):
    return ImageRecord("csv", root / name, name, **{"labels": {}, **told})


BOX = ((10.0, 20.0, 30.0, 40.0),)


def test_images_without_an_outline_are_counted_and_left_out(outlined):
    assert len(outlined.images) == 13
    assert outlined.left_out == {"without an outline of a finding asked for": 1}
    assert dict(outlined.images[0].outlined_as) == {"nodule": "nodule", "effusion": "effusion"}
    assert dict(outlined.images[1].outlined_as) == {"nodule": "nodule"}


def test_an_opacity_stands_for_pneumonia_only_where_nothing_else_is_asked(
    study_of, root, new_tiny_model
):
    labelled = {"pneumonia": 1, "lung_opacity": 1}
    opacity = record(root, "0.png", labels=labelled, boxes={"lung_opacity": BOX})
    pneumonia = record(root, "1.png", labels=labelled, boxes={"pneumonia": BOX})
    other = record(root, "2.png", labels={"pneumonia": 0}, boxes={"lung_opacity": BOX})
    study = study_of(opacity, pneumonia, other)
    both = outlined_records(study, new_tiny_model(("pneumonia", "lung_opacity")))
    assert [dict(one.outlined_as) for one in both.images] == [
        {"lung_opacity": "lung_opacity"},
        {"pneumonia": "pneumonia"},
        {"lung_opacity": "lung_opacity"},
    ]
    alone = outlined_records(study, new_tiny_model(("pneumonia",)))
    assert [dict(one.outlined_as) for one in alone.images] == [
        {"pneumonia": "lung_opacity"},
        {"pneumonia": "pneumonia"},
    ]


def test_an_outline_of_what_the_label_says_is_not_there_is_none(study_of, root, tiny_model):
    mask = RunLengthMask((0, 50), 96, 96)
    drawn = {"masks": {"nodule": mask}, "boxes": {"effusion": BOX}}
    labels = [{"nodule": 0, "effusion": 1}, {"nodule": 1, "effusion": 0}, {}]
    study = study_of(
        *(record(root, f"{at}.png", labels=of, **drawn) for at, of in enumerate(labels))
    )
    images = outlined_records(study, tiny_model).images
    assert [set(image.outlined_as) for image in images] == [
        {"effusion"},
        {"nodule"},
        {"nodule", "effusion"},
    ]


def test_a_mask_is_the_outline_where_there_is_one(study_of, root, tiny_model):
    # 96 columns of 96 pixels: the first 48 columns are inside.
    mask = RunLengthMask((0, 48 * 96), 96, 96)
    study = study_of(record(root, masks={"nodule": mask}, boxes={"nodule": BOX}))
    (image,) = outlined_records(study, tiny_model).images
    outline = image.open().outlines["nodule"]
    assert outline[:, : SIDE // 2].all()
    assert not outline[:, SIDE // 2 :].any()


def test_a_mask_of_another_size_is_told(study_of, root, tiny_model):
    study = study_of(record(root, masks={"nodule": RunLengthMask((0, 50), 10, 10)}))
    (image,) = outlined_records(study, tiny_model).images
    with pytest.raises(LabelError, match="mask of nodule is 10 x 10; the image has 96 x 96"):
        image.open()


def test_what_cannot_be_compared_is_refused_with_a_remedy(study_of, root, tiny_model):
    with pytest.raises(LabelError, match=r"has a box or a mask of a finding; write boxes.csv"):
        outlined_records(study_of(record(root)), tiny_model)
    with pytest.raises(LabelError, match="outlines of hernia; 'tiny' is asked for pneumonia, eff"):
        outlined_records(study_of(record(root, boxes={"hernia": BOX})), tiny_model)
    with pytest.raises(LabelError, match="does not answer for 'hernia'"):
        outlined_records(study_of(record(root, boxes={"hernia": BOX})), tiny_model, ["hernia"])


def test_the_limit_draws_a_sample_and_counts_the_others(root, tiny_model):
    study = open_study("csv", root)
    few = outlined_records(study, tiny_model, limit=3)
    paths = [image.path for image in outlined_records(study, tiny_model).images]
    assert [image.path for image in few.images] == list(draw_sample(paths, 3, str, {}).images)
    assert few.left_out["beyond the limit"] == len(paths) - 3 == 10
    assert any("3 of 13 images, drawn by chance" in caveat for caveat in few.caveats)


def test_a_limit_of_phantoms_takes_the_first_seeds(tiny_model):
    three, five = (outlined_phantoms(tiny_model, limit=n).images for n in (3, 5))
    assert [image.path for image in three] == [image.path for image in five[:3]]


def test_phantoms_have_the_lesion_that_is_asked_for(tiny_model):
    drawn = outlined_phantoms(tiny_model, ["nodule"], limit=3)
    assert len({image.patient_id for image in drawn.images}) == 3
    for image in drawn.images:
        opened = image.open()
        assert opened.outlines["nodule"].any()
        assert opened.scan.pixels.shape == (256, 256)


def test_phantoms_of_opacities_serve_a_model_of_pneumonia(new_tiny_model):
    (image,) = outlined_phantoms(new_tiny_model(("pneumonia",)), limit=1).images
    assert dict(image.outlined_as) == {"pneumonia": "lung_opacity"}
    with pytest.raises(LabelError, match="outlines of cardiomegaly, effusion"):
        outlined_phantoms(new_tiny_model(("hernia",)))


def test_the_same_image_is_known_by_the_same_words_and_a_moved_box_is_not(
    study_of, root, tiny_model
):
    moved = ((11.0, 20.0, 30.0, 40.0),)
    known = [
        outlined_records(study_of(record(root, boxes={"nodule": box})), tiny_model).images[0].known
        for box in (BOX, BOX, moved)
    ]
    assert known[0] == known[1] != known[2]
