"""What a newcomer types wrongly in Python is told with what to type."""

from __future__ import annotations

from medllm.phantom import make_phantom, write_dicom

# In a process of its own: here each argument's type is checked before a function is entered.
PROGRAM = """
import sys
from pathlib import Path
import medllm
model, scan = medllm.load_model(), medllm.read_radiograph(sys.argv[1])
slips = [
    lambda: model.predict(scan),
    lambda: model.predict(Path("study.dcm")),
    lambda: model.predict("study.dcm"),
    lambda: model.predict(["study.dcm"]),
    lambda: medllm.explain(model, "study.dcm", "pneumonia"),
    lambda: medllm.explain(model, scan, "pneumonia", method="occlussion"),
    lambda: medllm.explain(model, scan, "Lung opacity"),
]
for slip in slips:
    try:
        slip()
    except Exception as error:
        print(type(error).__name__, error)
print(*(answer.finding for answer in model.predict([scan], "pneumonia")[0].findings))
"""
LIST = "TypeError predict wants a list of radiographs: model.predict([scan])."
READ = (
    "TypeError a str was given in the place of a radiograph; read a file with "
    "medllm.read_radiograph('study.dcm')."
)


def test_each_slip_is_told_with_its_remedy(programs, tmp_path):
    file = write_dicom(make_phantom(3, size=256), tmp_path / "chest.dcm")
    done = programs.run(file, code=PROGRAM)
    assert done.wait() == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[:5] == [LIST, LIST, READ, READ, READ]
    method, finding, one = told[5:]
    assert method.startswith("ValueError 'occlussion' is not a method; use one of: integrated-")
    assert method.endswith("Did you mean 'occlusion'?")
    assert finding.startswith("LabelError model 'medllm-reference' does not answer for 'Lung opac")
    assert finding.endswith("Did you mean 'lung_opacity'?")
    assert one == "pneumonia"
