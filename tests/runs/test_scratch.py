"""Where compiled parts are kept: on the node's disk, in a folder that is the user's alone."""

from __future__ import annotations

from pathlib import Path

from hpcft.runs.scratch import keep_compiled_parts


def test_caches_of_compiled_parts_are_on_the_node_s_disk(tmp_path: Path) -> None:
    environ = {"HPCFT_NODE_SCRATCH": str(tmp_path)}
    folder = keep_compiled_parts(environ)
    assert folder is not None
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert environ["TORCH_EXTENSIONS_DIR"] == str(folder / "torch_extensions")
    assert environ["TRITON_CACHE_DIR"] == str(folder / "triton")


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    environ = {"TORCH_EXTENSIONS_DIR": "/a", "TRITON_CACHE_DIR": "/b", "TMPDIR": str(tmp_path)}
    assert keep_compiled_parts(environ) is None
    assert list(tmp_path.iterdir()) == []


def test_s4_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    first = keep_compiled_parts({"TMPDIR": str(tmp_path)})
    assert first is not None
    first.chmod(0o777)
    assert keep_compiled_parts({"TMPDIR": str(tmp_path)}) != first


def test_s4_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    first = keep_compiled_parts({"TMPDIR": str(tmp_path)})
    assert first is not None
    first.rmdir()
    first.symlink_to(tmp_path)
    assert keep_compiled_parts({"TMPDIR": str(tmp_path)}) != first
