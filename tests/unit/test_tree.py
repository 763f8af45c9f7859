"""The tree of files that is served: nothing outside of it can be reached."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunstack.daemon.tree import UPLOAD_PREFIX, OutsideError, Tree, Upload, list_directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a tree with links in it that lead inside and outside."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "rootless").mkdir()
    (tmp_path / "rootless" / "x").write_text("secret")
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "file").write_text("top")
    (root / "a" / "b" / "deep").write_text("deep")
    links = {
        "inside": "a/b/deep",
        "a/up": "../file",
        "a/b/updown": "../../a/./b/deep",
        "adir": "a",
        "self": ".",
        "a/parent": "..",
        "chain": "adir/b/updown",
        "outside": "../secret",
        "outdir": "..",
        "roundabout": "../root/file",
        "absolute": str(tmp_path / "secret"),
        "absolute-inside": str(root / "file"),
        "sneaky": "a/../../secret",
        "loop": "loop",
        "dangling": "nothing",
        "sibling": "../rootless/x",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture
def tree(root: Path) -> Iterator[Tree]:
    before = len(os.listdir("/proc/self/fd"))
    tree = Tree(root)
    yield tree
    tree.close()
    assert len(os.listdir("/proc/self/fd")) == before  # nothing is left open, whatever was tried


def read(tree: Tree, path: str) -> str:
    descriptor, _status = tree.open(path.split("/") if path else [])
    with open(descriptor) as file:
        return file.read()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("file", "top"),
        ("a/b/deep", "deep"),
        ("inside", "deep"),
        ("a/up", "top"),
        ("a/b/updown", "deep"),
        ("adir/b/deep", "deep"),
        ("adir/up", "top"),
        ("self/self/file", "top"),
        ("a/parent/file", "top"),
        ("chain", "deep"),
    ],
)
def test_what_is_inside_is_read_links_too(tree: Tree, path: str, text: str) -> None:
    assert read(tree, path) == text


@pytest.mark.parametrize(
    "path",
    [
        "outside",
        "outdir/secret",
        "outdir",
        "roundabout",
        "absolute",
        "absolute-inside",
        "sneaky",
        "sibling",
        "self/outside",
        "a/parent/outside",
    ],
)
def test_link_that_leads_outside_is_refused(tree: Tree, path: str) -> None:
    with pytest.raises(OutsideError):
        tree.open(path.split("/"))


@pytest.mark.parametrize("names", [[".."], ["a", "..", "file"], ["."], ["a/b"], ["/etc/passwd"], ["../secret"], ["x\0"], [""]])
def test_name_that_is_none_is_refused(tree: Tree, names: list[str]) -> None:
    with pytest.raises(OutsideError):
        tree.open(names)


def test_fifo_is_refused_without_being_opened(tree: Tree) -> None:
    with pytest.raises(OutsideError):
        tree.open(["fifo"])


def test_errors_are_those_of_open(tree: Tree) -> None:
    with pytest.raises(FileNotFoundError):
        tree.open(["nothing"])
    with pytest.raises(FileNotFoundError):
        tree.open(["dangling"])
    with pytest.raises(NotADirectoryError):
        tree.open(["file", "x"])
    with pytest.raises(OSError, match="symbolic links"):
        tree.open(["loop"])


def test_tree_stays_the_directory_it_was_when_its_name_is_taken_by_another(tree: Tree, root: Path) -> None:
    root.rename(root.parent / "moved")
    (root.parent / "root").symlink_to("rootless")
    assert read(tree, "file") == "top"


def test_component_that_becomes_a_link_in_between_is_not_followed(tree: Tree, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race: `a` is a directory when it is looked at, and a link to the outside when it is opened."""
    readlink = os.readlink

    def swap(path: str, *, dir_fd: int | None = None) -> str:
        try:
            return readlink(path, dir_fd=dir_fd)
        finally:
            if path == "a":
                (root / "a").rename(root / "was-a")
                (root / "a").symlink_to(root.parent / "rootless")

    monkeypatch.setattr(os, "readlink", swap)
    with pytest.raises(NotADirectoryError):
        tree.open(["a", "x"])


def test_file_that_becomes_a_link_in_between_is_not_followed(tree: Tree, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_stat = os.stat

    def swap(path: str, **options: object) -> os.stat_result:
        status = real_stat(path, **options)  # type: ignore[arg-type]
        if path == "file":
            (root / "file").unlink()
            (root / "file").symlink_to(root.parent / "secret")
        return status

    monkeypatch.setattr(os, "stat", swap)
    with pytest.raises(OSError, match="symbolic links"):
        tree.open(["file"])


def test_listing_has_files_and_directories_only(tree: Tree, root: Path) -> None:
    (root / (UPLOAD_PREFIX + "1")).write_text("half")
    descriptor, _status = tree.open([])
    assert [(entry.name, entry.is_directory, entry.size if not entry.is_directory else 0) for entry in list_directory(descriptor)] == [
        ("a", True, 0),
        ("file", False, 3),
    ]
    os.close(descriptor)


def put(tree: Tree, path: str, data: bytes) -> bool:
    upload = Upload(tree, path.split("/"))
    try:
        upload.write([data[:2], data[2:]])
        return upload.commit()
    finally:
        upload.close()


def test_upload_makes_or_replaces_a_file(tree: Tree, root: Path) -> None:
    assert put(tree, "a/new", b"12345")
    assert (root / "a" / "new").read_bytes() == b"12345"
    assert not put(tree, "a/new", b"67")
    assert (root / "a" / "new").read_bytes() == b"67"
    assert put(tree, "adir/b/by-link", b"xyz")
    assert (root / "a" / "b" / "by-link").read_bytes() == b"xyz"


def test_upload_in_the_place_of_a_link_leaves_its_target_alone(tree: Tree, root: Path) -> None:
    assert not put(tree, "outside", b"mine")
    assert (root.parent / "secret").read_text() == "secret"
    assert (root / "outside").read_bytes() == b"mine" and not (root / "outside").is_symlink()


@pytest.mark.parametrize("path", ["outdir/new", "..", "a/..", "a/../../new", "sibling/x", ".", UPLOAD_PREFIX + "1"])
def test_upload_to_the_outside_is_refused(tree: Tree, root: Path, path: str) -> None:
    with pytest.raises((OutsideError, IsADirectoryError)):
        Upload(tree, path.split("/"))
    assert sorted(os.listdir(root.parent)) == ["root", "rootless", "secret"]


def test_upload_that_is_not_committed_leaves_nothing(tree: Tree, root: Path) -> None:
    before = sorted(os.listdir(root))
    upload = Upload(tree, ["file"])
    upload.write([b"half"])
    assert read(tree, "file") == "top"
    upload.close()
    assert sorted(os.listdir(root)) == before and read(tree, "file") == "top"


def test_upload_over_a_directory_is_refused(tree: Tree) -> None:
    with pytest.raises(IsADirectoryError):
        Upload(tree, ["a"])
    with pytest.raises(IsADirectoryError):
        Upload(tree, [])


def test_partial_upload_is_not_served(tree: Tree, root: Path) -> None:
    (root / (UPLOAD_PREFIX + "1")).write_text("half")
    with pytest.raises(OutsideError):
        tree.open([UPLOAD_PREFIX + "1"])
