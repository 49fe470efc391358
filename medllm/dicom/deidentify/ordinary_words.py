"""Words that name no person and no place when they stand alone in a header."""

from __future__ import annotations

# Read from the defined terms of CR, DX and film modules, from makers' names and from what fills
# the place of a name. A patient called Black is still looked for by the other names, the id and
# the dates; a patient whose every name stands here is looked for by id and dates alone.
_WORDS = """
abdomen above acquired acromioclavicular active adjust adult advanced afga agfa air and ankle
annotated anonym anonymised anonymized anonymous anterior antero apical appendix area arm arms
automatic avenue axial back barium base basic beam bed bedside below bilateral bilinear bin black
blank bone bones both bottom brain breast bucky canon carestream cassette cavity center central
cervical chest child circle circular city clavicle clinic code collimator column combined common
company computed contrast copy corp corporation cross cut daylight decubitus default del den der
derived des detail detector device diagnostic digital direct display doctor dorsal dos dose double
down elbow empty erect exam examination expiration exposure extremity eye face facial feet female
femur field film filter fine finger first fixed flat focus foot for forearm four frau free front
frontal fuji fujifilm full general generic global gmbh gray green grey grid half hand hard head
heart here herr hertz high hip hitachi hologic horizontal hospital human humerus ibn identity
image images imaging implant inc inch indirect industries infant inspiration institute internal
inverse invert jaw joint jun junior key kidney knee kodak konica lab laboratory landscape large
las last lateral left leg legs level light limb limited line linear lock log long los low lower
ltd lumbar lung lungs main male mandible manual mark market max maximum mean med medical medicine
medium medllm metal mild min minimum minolta miss mobile modality model mono monochrome motion
mouth moving mrs multi name nasal national neck new none normal nose not null oblique office one
open oral orbit original over overlay page pan part patella patient pediatric pelvis penetrated
phantom phd philips photo physician plain plane plate plus point portable portrait position
positive posterior postero power presentation primary procedure processing prof projection
projections prone quality radiograph radiography radiology raw ray rays rectangle rectangular red
reference regular research reverse rib ribs right road room rose round routine sagittal samsung
san scan scapula scatter screen secondary see seed self sen senior series service sharp shimadzu
shoulder side siemens sigmoid single skull sky slow small smooth soft software special spine
square stand standard standing station sternum stone stored street strong study subject sun supine
surgery swissray syngo synthetic system systems table tall ter test text the thin thoracic thorax
three thumb tibia toe toes top toshiba trauma tube two ultra under unit university unknown
unspecified upper upright van varex varian version vertical very view views virtual volume von
wall ward warm west white whole wide window wing with without wrist xray yes young zero
"""
ORDINARY_WORDS = frozenset(_WORDS.split())
