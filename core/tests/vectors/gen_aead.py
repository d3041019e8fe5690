#!/usr/bin/env python3
"""Writes aead.txt: sealed envelopes, computed without a line of vine.

    pip install cryptography
    python3 gen_aead.py > aead.txt

The header is packed here by hand, the key derivation is hashlib's BLAKE2s, the ciphers are OpenSSL's.
"""

import hashlib
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

CIPHERS = {1: ChaCha20Poly1305, 2: AESGCM}
SEALED, CSUM_PARTIAL = 1, 2
HELLO_FINISH, DATA = 3, 5


def transport_key(split_key: bytes, cipher: int) -> bytes:
    return hashlib.blake2s(b"vine transport v1" + bytes([cipher]), key=split_key).digest()


def envelope(cipher: int, split_key: bytes, kind: int, flags: int, session: int, lane: int, counter: int, payload: bytes) -> bytes:
    msg_id = lane << 56 | counter
    header = struct.pack("<BBBBIQ", 0x56, 1, kind, flags, session, msg_id)
    nonce = bytes(4) + struct.pack("<Q", msg_id)
    return header + CIPHERS[cipher](transport_key(split_key, cipher)).encrypt(nonce, payload, header)


def main() -> None:
    print("# Sealed envelopes. Written by gen_aead.py, which describes how; do not edit.")
    print("# cipher id, split key, type, session index, lane, counter, checksum partial, payload, envelope")
    cases = [
        (HELLO_FINISH, 0x11223344, 0, 0, 0, 0),
        (DATA, 0x11223344, 0, 1, 0, 0),
        (DATA, 0x11223344, 1, 2, 0, 1),
        (DATA, 0xFFFFFFFF, 255, 300, 1, 1),
        (DATA, 1, 7, 70_000, 0, 16),
        (DATA, 1, 7, (1 << 28) - 1, 1, 1400),
    ]
    for cipher in CIPHERS:
        for number, (kind, session, lane, counter, partial, length) in enumerate(cases):
            split_key = hashlib.sha256(f"{cipher} {number}".encode()).digest()
            payload = bytes((at * 7 + number) % 251 for at in range(length))
            flags = SEALED | (CSUM_PARTIAL if partial else 0)
            sealed = envelope(cipher, split_key, kind, flags, session, lane, counter, payload)
            fields = (cipher, split_key.hex(), kind, session, lane, counter, partial, payload.hex() or "-", sealed.hex())
            print(*fields)


if __name__ == "__main__":
    main()
