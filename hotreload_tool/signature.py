"""Who made a bundle: Ed25519 signatures (RFC 8032) of its payloads and of its manifest.

Each payload carries its own at its end (struct hr_signature of runtime/hotreload_abi.h), so that an agent can check it, which
sees nothing but payloads. The manifest, which people read, has one in its field `signature`. The library that makes and
checks them is imported where it is needed: builds and patches without signatures never do.
"""
from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import abi, bundle
from .errors import HotreloadError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_SUFFIX = ".pub"
_MANIFEST_PREFIX = b"hotreload manifest\0"
# DER of a SubjectPublicKeyInfo with an Ed25519 key, up to its 32 bytes: RFC 8410, sections 3 and 4.
_PUBLIC_KEY = bytes.fromhex("302a300506032b6570032100")
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----\s(.*?)-----END PUBLIC KEY-----", re.DOTALL)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_LARGEST_KEY_FILE = 1 << 16       # bytes


class KeyProblem(HotreloadError):
    """A key file that cannot be used; the message says why, and what to do."""
    exit_code = 2


@dataclass(frozen=True)
class Signature:
    key: bytes           # 32, the public one
    value: bytes         # 64


# ---- key files ---------------------------------------------------------------------------------------------------


def generate(path: Path) -> bytes:
    """Make a new key: the private one in `path` (mode 0600), the public one beside it; returns the latter's 32 bytes. Never
    overwrites a file. Raises KeyProblem, OSError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key, public = Ed25519PrivateKey.generate(), path.with_name(path.name + PUBLIC_SUFFIX)
    for target in (path, public):
        if target.exists() or target.is_symlink():
            raise KeyProblem(f"{target} is there already, and a lost key cannot be had again: choose another name")
    _create(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _create(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    return _raw(key)


def _create(path: Path, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)


def read_private(path: Path) -> Ed25519PrivateKey:
    """The key that `generate` wrote. Refused if others than its owner may read it. Raises KeyProblem, OSError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_mode & _OTHERS:
            raise KeyProblem(f"{path}: others than its owner may use this key; `chmod 600 {path}`, or make a new one")
        content = file.read(_LARGEST_KEY_FILE)
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise KeyProblem(f"{path}: not a private key in PEM without a password: {e}") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyProblem(f"{path}: a private key, but not an Ed25519 one; make one with `hotpatch keygen`")
    return key


def read_public(path: Path | str) -> bytes:
    """The 32 bytes of the public key in a file. Needs no library: builds read it. Raises KeyProblem, OSError."""
    with open(path, "rb") as file:
        found = _PEM.search(file.read(_LARGEST_KEY_FILE))
    try:
        der = base64.b64decode(b"".join(found[1].split()), validate=True) if found else b""
    except binascii.Error:
        der = b""
    if not der.startswith(_PUBLIC_KEY) or len(der) != len(_PUBLIC_KEY) + abi.KEY_SIZE:
        raise KeyProblem(f"{path}: not the public part of an Ed25519 key in PEM; `hotpatch keygen FILE` makes one, "
                         f"FILE{PUBLIC_SUFFIX}")
    return der[len(_PUBLIC_KEY):]


def _raw(key: Ed25519PrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


# ---- payloads ----------------------------------------------------------------------------------------------------


def split(payload: bytes) -> tuple[bytes, Signature | None]:
    """A payload without its signature, and that."""
    body, tail = payload[:-abi.SIGNATURE.size], payload[-abi.SIGNATURE.size:]
    if len(tail) < abi.SIGNATURE.size:
        return payload, None
    magic, key, value = abi.SIGNATURE.unpack(tail)
    return (body, Signature(key, value)) if magic == abi.SIGNATURE_MAGIC else (payload, None)


def _message(body: bytes) -> bytes:
    return abi.SIGNED_PREFIX + hashlib.sha512(body).digest()


def _manifest_message(manifest: dict[str, Any]) -> bytes:
    unsigned = {key: value for key, value in manifest.items() if key != "signature"}
    return _MANIFEST_PREFIX + hashlib.sha512(bundle.canonical_json(unsigned)).digest()


def sign(made: bundle.Bundle, key: Ed25519PrivateKey) -> bundle.Bundle:
    """The bundle with signatures by `key`, in place of those it has."""
    public = _raw(key)
    payloads, images = [], []
    for entry, payload in zip(made.manifest["images"], made.payloads, strict=True):
        body, _ = split(payload)
        signed = body + abi.SIGNATURE.pack(abi.SIGNATURE_MAGIC, public, key.sign(_message(body)))
        payloads.append(signed)
        images.append({**entry, "payload": {**entry["payload"], **bundle.measured(signed)}})
    manifest = {**made.manifest, "images": images}
    value = key.sign(_manifest_message(manifest))
    manifest["signature"] = {"key": public.hex(), "value": value.hex()}
    return replace(made, manifest=manifest, payloads=payloads)


# ---- checking ----------------------------------------------------------------------------------------------------


def signers(made: bundle.Bundle) -> list[tuple[str, Signature | None]]:
    """(what, its signature) of the manifest and of each payload; nothing is checked."""
    stated = made.manifest.get("signature")
    manifest = Signature(bytes.fromhex(stated["key"]), bytes.fromhex(stated["value"])) if stated else None
    payloads = [(entry["payload"]["file"], split(payload)[1])
                for entry, payload in zip(made.manifest["images"], made.payloads, strict=True)]
    return [("manifest.json", manifest), *payloads]


def problems(made: bundle.Bundle, trusted: Collection[bytes]) -> list[str]:
    """Why the bundle is not to be trusted by who trusts these public keys; empty if it is."""
    messages = [_manifest_message(made.manifest), *(_message(split(p)[0]) for p in made.payloads)]
    found = []
    for (what, signature), message in zip(signers(made), messages, strict=True):
        if signature is None:
            found.append(f"{what} is not signed")
        elif signature.key not in trusted:
            found.append(f"{what} is signed by {identity(signature.key)}, which is not among the {len(trusted)} trusted keys")
        elif not _is_good(signature, message):
            found.append(f"{what}: the signature by {identity(signature.key)} is not of these bytes: it was changed after it "
                         "was signed")
    return found


def _is_good(signature: Signature, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    try:
        Ed25519PublicKey.from_public_bytes(signature.key).verify(signature.value, message)
    except InvalidSignature:
        return False
    return True


def identity(key: bytes) -> str:
    """A public key as people compare it: 16 hex digits of its SHA-256."""
    return hashlib.sha256(key).hexdigest()[:16]


def read_keys(paths: Sequence[Path | str]) -> list[bytes]:
    return [read_public(path) for path in paths]
