"""The figure of RISE with the curves of deletion and insertion: its numbers."""

import fig_rise_curves as figure
from figure_numbers import numbers


def test_the_reader_sees_curves_and_areas_of_all_methods_and_of_noise():
    found = numbers("fig_rise_curves")["found"]
    assert set(found) == {*figure.SHOWN, figure.NOISE}
    for by in found.values():
        assert by["deletion"]["mean"][0] > 0.4 > 0.1 > by["deletion"]["mean"][-1]
        assert by["insertion"]["mean"][-1] == by["deletion"]["mean"][0]
        for curve in figure.CURVES:
            assert 0 < by[curve]["area"]["low"] <= by[curve]["area"]["mean"] <= by[curve]["area"]["high"] < 1


def test_the_reader_sees_that_rise_beats_noise_as_smooth_as_itself():
    found = numbers("fig_rise_curves")["found"]
    assert found["rise"]["deletion"]["area"]["mean"] < found[figure.NOISE]["deletion"]["area"]["mean"]
    assert found["rise"]["insertion"]["area"]["mean"] > found[figure.NOISE]["insertion"]["area"]["mean"]
    assert figure.headline(found).endswith("RISE is one of them")


def test_the_title_counts_who_beats_noise_in_both():
    def area(deletion, insertion):
        return {"deletion": {"area": {"mean": deletion}}, "insertion": {"area": {"mean": insertion}}}

    found = dict.fromkeys(figure.SHOWN, area(0.1, 0.2)) | {"rise": area(0.2, 0.6), figure.NOISE: area(0.3, 0.5)}
    assert figure.headline(found) == "1 of 5 methods beat smooth noise in both curves; RISE is one of them"
    found["rise"] = area(0.2, 0.4)
    assert figure.headline(found) == "0 of 5 methods beat smooth noise in both curves; RISE is not one of them"
