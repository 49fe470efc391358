"""What a file says of the view and of the patient's sides, in the report's words."""

from __future__ import annotations

from medllm.data.anatomy import rows_run_to
from medllm.dicom.radiograph import Radiograph


def view(scan: Radiograph) -> str | None:
    """Name the view.

    Args:
        scan: The radiograph.

    Returns:
        View Position (0018,5101) as it stands; where it is empty, what the rest of the header says
        of the view; None where nothing does.
    """
    if scan.view_position:
        return scan.view_position
    if scan.is_lateral:
        return "lateral"
    known = any(gate.code == "view-unknown" and gate.passed for gate in scan.gates)
    return "frontal" if known else None


def sides(scan: Radiograph) -> tuple[str, str] | None:
    """Name the patient's sides, to be written into the picture.

    Args:
        scan: The radiograph.

    Returns:
        What stands at the picture's left and right; None where the file does not say, or says that
        the view is lateral, in which the two sides lie over one another.
    """
    towards = None if scan.is_lateral else rows_run_to(scan)
    if towards is None:
        return None
    return ("patient's R", "L") if towards == "left" else ("patient's L", "R")


def supposed(scan: Radiograph) -> str:
    """Say what has to be so for a named side to be the patient's.

    Args:
        scan: The radiograph.

    Returns:
        The end of a sentence; empty where the file says which side is which.
    """
    if scan.is_lateral:
        return ", if the view were frontal"
    return "" if rows_run_to(scan) else ", if the image's left is the patient's right"
