from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medllm.datasets import ImageRecord, split_by_patient, with_split, write_split
from medllm.errors import LabelError

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def _records(folder, patients, content=lambda index: str(index)):
    records = []
    for index, patient in enumerate(patients):
        path = folder / f"{index}.jpg"
        path.write_text(content(index))
        records.append(ImageRecord("set", path, patient, {}))
    return records


@settings(max_examples=25, deadline=None)
@given(
    patients=st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=40), seed=st.integers()
)
def test_no_patient_is_in_two_parts_and_no_image_is_lost(tmp_path_factory, patients, seed):
    records = _records(tmp_path_factory.mktemp("split"), patients)
    parts = split_by_patient(records, SHARES, seed)
    assert sum(len(part) for part in parts.values()) == len(records)
    owners = [{record.patient_id for record in part} for part in parts.values()]
    assert len(set.union(*owners)) == sum(map(len, owners))


def test_patients_who_share_a_file_are_kept_together(tmp_path):
    # a and b share one file, b and c another: all three belong together, whatever the seed.
    contents = ["1", "1", "2", "2", "3"]
    records = _records(tmp_path, ["a", "b", "b", "c", "d"], lambda index: contents[index])
    for seed in range(20):
        parts = split_by_patient(records, SHARES, seed)
        homes = {
            name for name, part in parts.items() for r in part if r.patient_id in ("a", "b", "c")
        }
        assert len(homes) == 1


def test_shares_are_met_within_chance_and_the_seed_decides(tmp_path):
    records = _records(tmp_path, [f"p{index}" for index in range(1000)])
    parts = split_by_patient(records, SHARES, 0)
    # 600 expected; four binomial standard deviations are 62.
    assert abs(len(parts["train"]) - 600) < 62
    again = split_by_patient(list(reversed(records)), SHARES, 0)
    assert {r.patient_id for r in again["test"]} == {r.patient_id for r in parts["test"]}
    other = split_by_patient(records, SHARES, 1)
    assert {r.patient_id for r in other["test"]} != {r.patient_id for r in parts["test"]}


def test_a_patient_with_a_part_keeps_it_with_all_who_share_a_file(tmp_path):
    contents = ["1", "1", "2", "2", *"abcdefgh"]
    names = ["a", "b", "b", "c", *"defghijk"]
    records = _records(tmp_path, names, lambda index: contents[index])
    for seed in range(5):
        drawn = split_by_patient(records, SHARES, seed)
        parts = split_by_patient(records, SHARES, seed, known={"set/b": "test", "set/z": "train"})
        homes = {r.patient_id: name for name, part in parts.items() for r in part}
        assert {homes[name] for name in "abc"} == {"test"}
        assert {name: homes[name] for name in "defghijk"} == {
            r.patient_id: name for name, part in drawn.items() for r in part if r.patient_id > "c"
        }


def test_shares_that_do_not_add_up_are_refused(tmp_path):
    with pytest.raises(ValueError, match="add up to 0.9"):
        split_by_patient(_records(tmp_path, ["a"]), {"train": 0.9}, 0)


def test_a_file_that_is_not_there_leaves_its_patient_in_place(tmp_path):
    records = _records(tmp_path, [f"p{index}" for index in range(50)])
    whole = split_by_patient(records, SHARES, 0)
    for record in records[::2]:
        record.path.unlink()
    assert split_by_patient(records, SHARES, 0) == whole


@pytest.mark.parametrize(("first", "second"), [("nih", "rsna"), ("chexpert", "chexlocalize")])
def test_patients_of_two_sets_with_the_same_pseudonyms_are_in_one_part(tmp_path, first, second):
    records = [
        ImageRecord(dataset, tmp_path / f"{dataset}-{patient}.png", str(patient), {})
        for dataset in (first, second, "kermany")
        for patient in range(50)
    ]
    parts = split_by_patient(records, SHARES, 0)
    homes = {(r.dataset, r.patient_id): name for name, part in parts.items() for r in part}
    apart = {
        dataset: sum(homes[first, str(n)] != homes[dataset, str(n)] for n in range(50))
        for dataset in (second, "kermany")
    }
    assert apart[second] == 0
    assert apart["kermany"] > 0  # patient 17 of another hospital is another
    # Each set by itself is divided likewise.
    alone = split_by_patient([r for r in records if r.dataset == second], SHARES, 0)
    assert {(second, r.patient_id): name for name, part in alone.items() for r in part} == {
        key: name for key, name in homes.items() if key[0] == second
    }


def test_a_split_of_one_data_set_divides_another_of_the_same_patients(tmp_path):
    nih, rsna = (
        [ImageRecord(name, tmp_path / f"{name}-{n}.png", str(n), {}) for n in range(20)]
        for name in ("nih", "rsna")
    )
    write_split(tmp_path / "split.csv", split_by_patient(nih, SHARES, 0).items())
    parts = {record.patient_id: record.split for record in with_split(nih, tmp_path / "split.csv")}
    assert set(parts.values()) == set(SHARES)
    taken = with_split(rsna, tmp_path / "split.csv")
    assert {record.patient_id: record.split for record in taken} == parts
    other = [ImageRecord("kermany", tmp_path / "a.png", "1", {})]
    with pytest.raises(LabelError, match="names no patient"):
        with_split(other, tmp_path / "split.csv")


def test_spaces_in_a_split_count_for_nothing_and_a_larger_sets_serves_a_part_of_it(tmp_path):
    records = [ImageRecord("kermany", tmp_path / f"{n}.png", str(n), {}) for n in range(4)]
    table = tmp_path / "split.csv"
    table.write_text(
        "dataset,patient_id,split\nkermany,0 ,train\n kermany,1,test\nkermany,2,train \n"
        "kermany,99,train\n"
    )
    assert [record.split for record in with_split(records, table)] == ["train", "test", "train", ""]
