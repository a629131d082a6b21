"""`hotpatch verify --key`: signed bundles are sound as any, and by whom they are signed is checked."""
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import Made

from hotreload_tool import bundle, cli, signature


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        signature.generate(folder / name)
    return folder


@pytest.fixture
def signed(made: Made, keys: Path, tmp_path: Path) -> Path:
    path = tmp_path / "signed.hotpatch"
    bundle.write(path, signature.sign(bundle.read(made.bundles[0]), signature.read_private(keys / "mine")))
    return path


def verify(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str], str]:
    code = cli.main(["verify", *map(str, words), "--json"])
    document = json.loads(capsys.readouterr().out)
    said = [o["status"] for o in document["outcomes"] if o["check"] == "signature"]
    return code, document["failed"], said[0] if said else "nothing"


def test_a_signed_bundle_is_sound(made: Made, signed: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(capsys, signed, "--image", made.image, "--strict", "--key", keys / "mine.pub") == (0, [], "passed")
    assert verify(capsys, signed, "--image", made.image, "--key", keys / "other.pub", "--key", keys / "mine.pub")[0] == 0


def test_without_a_key_a_signature_is_unchecked(made: Made, signed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(capsys, signed, "--image", made.image) == (0, [], "unchecked")
    assert verify(capsys, signed, "--image", made.image, "--strict")[0] == 1
    assert verify(capsys, made.bundles[0], "--image", made.image, "--strict") == (0, [], "nothing")


def test_unsigned_and_signed_by_another(made: Made, signed: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(capsys, made.bundles[0], "--image", made.image, "--key", keys / "mine.pub") == (5, ["signature"], "failed")
    assert verify(capsys, signed, "--image", made.image, "--key", keys / "other.pub") == (5, ["signature"], "failed")


def test_a_changed_manifest_is_not_what_was_signed(made: Made, signed: Path, keys: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    before = bundle.read(signed)
    bundle.write(signed, replace(before, manifest={**before.manifest, "program": "build/another"}))
    assert verify(capsys, signed, "--image", made.image, "--key", keys / "mine.pub") == (5, ["signature"], "failed")


def test_a_payload_of_another_signed_bundle(made: Made, signed: Path, keys: Path) -> None:
    """Each part is signed, but they do not belong together."""
    key = signature.read_private(keys / "mine")
    first, second = (signature.sign(bundle.read(path), key) for path in made.bundles)
    mixed = replace(first, payloads=second.payloads)
    trusted = signature.read_keys([keys / "mine.pub"])
    assert signature.problems(first, trusted) == [] and signature.problems(mixed, trusted) == []
    with pytest.raises(bundle.Damaged):
        bundle.decode(_encoded(mixed, signed))


def _encoded(mixed: bundle.Bundle, signed: Path) -> bytes:
    """The container of `mixed`, with its hashes as they are: those of the other payload."""
    import io
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(signed) as before, zipfile.ZipFile(out, "w") as archive:
        for info in before.infolist():
            data = mixed.payloads[0] if info.filename == "payload-0.so" else before.read(info)
            archive.writestr(info, data)
    return out.getvalue()
