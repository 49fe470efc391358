"""From FHIR R5 to R4B, for the resources of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from medllm.report.fhir.datatypes import Resource


def to_r4b(resources: Mapping[str, Resource]) -> dict[str, Resource]:
    """Say in R4B what can be said in it: it knows no ImagingSelection.

    Args:
        resources: Resources of R5, by their names.

    Returns:
        Those of R4B, by the same names.
    """
    return {
        name: _TO_R4B.get(resource["resourceType"], dict)(resource)
        for name, resource in resources.items()
        if resource["resourceType"] != "ImagingSelection"
    }


def _report_to_r4b(report: Resource) -> Resource:
    report = {**report, "imagingStudy": report["study"]}
    del report["study"]
    forms = [{**form, "size": int(form["size"])} for form in report["presentedForm"]]
    return {**report, "presentedForm": forms}


def _observation_to_r4b(observation: Resource) -> Resource:
    return {**observation, "derivedFrom": observation["derivedFrom"][:1]}  # without its region


def _study_to_r4b(study: Resource) -> Resource:
    def only(modality: Resource | None) -> Resource | None:
        return modality["coding"][0] if modality else None

    series = [{**one, "modality": only(one["modality"])} for one in study["series"]]
    return {**study, "modality": [only(one) for one in study["modality"]], "series": series}


def _device_to_r4b(device: Resource) -> Resource:
    device = {**device, "type": device["type"][0]}
    names = device.pop("name")
    return {**device, "deviceName": [{"name": n["value"], "type": "model-name"} for n in names]}


_TO_R4B: dict[str, Callable[[Resource], Resource]] = {
    "DiagnosticReport": _report_to_r4b,
    "Observation": _observation_to_r4b,
    "ImagingStudy": _study_to_r4b,
    "Device": _device_to_r4b,
}
