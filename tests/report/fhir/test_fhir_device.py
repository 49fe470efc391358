"""What made the report."""

R4B, R5 = "report.fhir-r4b.json", "report.fhir-r5.json"


def test_the_device_is_the_model_with_its_version_and_hash(report, encoded):
    for name in (R4B, R5):
        found = encoded[name].one("Device")
        versions = {one["type"]["text"]: one["value"] for one in found["version"]}
        assert versions == {
            "medllm": report.software["medllm"],
            "model": "1.0",
            "SHA-256 of the model": "c0" * 32,
        }
        assert found["manufacturer"] == "medllm"
        assert found["note"] == [{"text": report.prediction.card.intended_use}]
    name = {"value": "hand-made", "type": "user-friendly-name"}
    assert encoded[R5].one("Device")["name"] == [name]
    name = {"name": "hand-made", "type": "model-name"}
    assert encoded[R4B].one("Device")["deviceName"] == [name]
