"""What the labels of others' classifiers mean."""

from __future__ import annotations

import pytest

from medllm.models.labels import finding_of, label_questions


@pytest.mark.parametrize(
    ("label", "key"),
    [
        ("PNEUMONIA", "pneumonia"),
        ("Pleural Effusion", "effusion"),
        ("pleural_effusions", "effusion"),
        ("Effusion", "effusion"),
        ("Lung Opacities", "lung_opacity"),
        ("Masses", "mass"),
        ("lung mass", "mass"),
        ("Nodules", "nodule"),
        ("Nodule/Mass", "nodule_or_mass"),
        ("Atelectases", "atelectasis"),
        ("Fractures", "fracture"),
        ("Pleural_Thickening", "pleural_thickening"),
        ("Enlarged Cardiomediastinum", "enlarged_cardiomediastinum"),
        ("Pulmonary Fibrosis", "fibrosis"),
        ("Infiltrate", "infiltration"),
        ("Support Devices", "support_devices"),
        ("COVID19", "covid_19"),
        ("covid-19", "covid_19"),
        ("Tuberculosis", "tuberculosis"),
        ("viral pneumonia", "pneumonia"),
        ("Cardiomegaly", "cardiomegaly"),
        ("Hernia", "hernia"),
        ("Emphysema", "emphysema"),
        ("No Finding", None),
        ("NORMAL", None),
        ("no pneumonia", None),
        ("not pneumonia", None),
        ("LABEL_0", None),
        ("mask", None),
        ("", None),
    ],
)
def test_a_label_means_a_finding_by_its_name(label, key):
    assert finding_of(label) == key


def test_labels_that_exclude_each_other_are_asked_against_all_others():
    names = ["normal", "bacterial pneumonia", "Viral Pneumonia", "COVID-19"]
    questions = label_questions(names, chooses_one=True, source="it")
    assert [(one.finding, one.yes, one.no) for one in questions] == [
        ("pneumonia", ("bacterial pneumonia", "Viral Pneumonia"), ("normal", "COVID-19")),
        ("covid_19", ("COVID-19",), ("normal", "bacterial pneumonia", "Viral Pneumonia")),
    ]
