from pathlib import Path

import pytest
from fuzz import all_targets, fuzz


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the bound on memory is set with the help of /proc")
@pytest.mark.parametrize("target", all_targets(), ids=lambda target: target.name)
def test_changed_files_are_opened_or_refused(target, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    outcome = fuzz(target, target.quick, seed=1)
    assert outcome.failures == []
    assert outcome.refused.total() > target.quick / 3  # else the changes would be too tame to say anything
