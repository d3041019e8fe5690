#!/usr/bin/env python3
"""Writes log.txt: ops, geneses, commits, the state, an archive and parts of a segment, computed without a line of vine.

    pip install cryptography
    python3 gen_log.py > log.txt

Everything is packed here by hand; the hash is hashlib's BLAKE2b, the signatures are OpenSSL's, the CRC is computed bit by
bit.
"""

import hashlib
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NETWORK = b"example"
SEGMENT = bytes([3]) * 16
FRAMES_AT = 4096 + 512
NONE = (2**64 - 1, bytes(16), 0)
LIMIT = 2**62


def h(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def op(kind: int, data: bytes) -> bytes:
    return bytes([kind]) + varint(len(data)) + data


def put(stamp: int, key: bytes, value: bytes) -> bytes:
    return op(1, u64(stamp) + varint(len(key)) + key + value)


def delete(stamp: int, key: bytes) -> bytes:
    return op(2, u64(stamp) + key)


class Author:
    def __init__(self, seed: int):
        self.key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.peer_id = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def genesis(self, nonce: int, predecessor: bytes = b"") -> bytes:
        flag = b"\x01" if predecessor else b"\x00"
        return bytes([len(NETWORK)]) + NETWORK + self.peer_id + bytes([nonce]) * 16 + flag + predecessor

    def commit(self, log: bytes, first_seq: int, prev_hash: bytes, hlc: int, ops: list[bytes]) -> bytes:
        body = b"".join(ops)
        header = log + u64(first_seq) + u32(len(ops)) + u32(len(body)) + prev_hash + h(body) + u64(hlc)
        assert len(header) == 120
        return header + self.key.sign(b"vine log commit 1" + h(header)) + body


def log_id(genesis: bytes) -> bytes:
    return h(b"vine log genesis 1" + genesis)


def commit_hash(commit: bytes) -> bytes:
    return h(commit[:184])


def entry(key: bytes, stamp: int, commit: bytes, index: int, value: bytes | None) -> bytes:
    tail = b"\x00" if value is None else b"\x01" + u32(len(value)) + value
    return u32(len(key)) + key + u64(stamp) + commit_hash(commit) + u32(index) + tail


def archive(records: list[tuple[int, bytes]], counts: tuple[int, int, int]) -> bytes:
    out = b"vinelog1" + bytes([len(NETWORK)]) + NETWORK
    for kind, body in records:
        out += varint(len(body)) + bytes([kind]) + body
    out += varint(56) + b"\xff" + b"".join(u64(count) for count in counts)
    return out + h(out)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def header(owner: bytes, size: int, base: int, first_ordinal: int, previous: tuple[int, bytes, int], version=2) -> bytes:
    name, nonce, end = previous
    fields = u32(version) + u64(7) + u64(size) + u64(base) + u64(first_ordinal) + SEGMENT + owner + h(NETWORK)
    fields += u64(name) + nonce + u64(end)
    fields += bytes(500 - len(fields))
    return b"vineseg1" + u32(crc32c(fields)) + fields


def frame(offset: int, kind: int, count: int, first_ordinal: int, synced_upto: int, body: bytes, flags=0) -> bytes:
    behind = b"vf" + bytes([kind, flags]) + u32(len(body)) + u32(count) + u64(first_ordinal) + u64(synced_upto) + body
    behind += bytes(-(len(behind) + 4) % 64)
    return u32(crc32c(SEGMENT + u64(offset) + behind)) + behind


def change(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new):]


def main() -> None:
    print("# Golden vectors of the log, version 1. Written by gen_log.py, which describes how; do not edit.")
    print("#")
    print("# One vector a line: name = bytes in hexadecimal. Those named reject.* must be refused. The author's seed is 32 bytes")
    print("# of 7, a stranger's 32 bytes of 8; nonces are 16 bytes of 1 and of 2.")

    def vector(name: str, data: bytes, about: str = "") -> bytes:
        print(f"\n# {about}\n{name} = {data.hex()}" if about else f"{name} = {data.hex()}")
        return data

    plain = vector("op.plain", op(0, b"hello"), '"hello"')
    vector("op.empty", op(0, b""))
    first_put = vector("op.put", put(0x0102030405060708, b"key", b"value"), "stamp 0x0102030405060708")
    vector("op.put_empty_value", put(5, b"k", b""))
    first_delete = vector("op.delete", delete(6, b"gone"), "stamp 6")
    vector("op.long", op(0, bytes(300)), "300 zeros: a length of two bytes")
    void = vector("op.void_put", op(1, u64(5) + varint(0) + b"value"), "a put without a key: kept, without effect")
    vector("op.void_delete", op(2, b"short"), "a delete that is shorter than a stamp: kept, without effect")
    beyond = vector("op.put_beyond", put(4102444800000 << 16, b"key", b"void"), "a stamp at the horizon: without effect")
    vector("op.unknown", op(77, b"later"), "a kind of a later version: kept, without effect")

    author, stranger = Author(7), Author(8)
    genesis = vector("genesis.first", author.genesis(1), "without a predecessor")
    log = vector("log_id.first", log_id(genesis))
    first = vector("commit.first", author.commit(log, 0, log, 1 << 16, [plain, first_put]), "op.plain, op.put; hlc 1 << 16")
    vector("commit_hash.first", commit_hash(first))
    ops = [first_delete, put(5, b"key", b"older"), void, beyond]
    second = author.commit(log, 2, commit_hash(first), (1 << 16) + 1, ops)
    vector("commit.second", second, "op.delete, a put of an older stamp, op.void_put, op.put_beyond; hlc (1 << 16) + 1")
    vector("commit_hash.second", commit_hash(second))
    follows = author.genesis(2, log + u64(6) + commit_hash(second))
    vector("genesis.successor", follows, "the same author's next log: it follows position 6, behind commit.second")
    next_log = vector("log_id.successor", log_id(follows))
    third = author.commit(next_log, 0, next_log, 2 << 16, [put(7, b"other", b"")])
    vector("commit.successor", third, "a put; hlc 2 << 16")

    entries = [
        entry(b"gone", 6, second, 0, None),
        entry(b"key", 0x0102030405060708, first, 1, b"value"),
        entry(b"other", 7, third, 0, b""),
    ]
    view = h(b"vine log view 1" + b"".join(entries))
    vector("state.view", view, "the view of these three commits")
    tips = sorted([log + u64(6) + commit_hash(second), next_log + u64(1) + commit_hash(third)])
    vector("state.all", h(b"vine log state 1" + view + b"".join(tips)), "view and logs")

    records = [(1, genesis), (2, first), (2, second), (1, follows), (2, third)]
    whole = vector("archive.all", archive(records, (2, 3, 7)), "both logs")
    vector("archive.empty", archive([], (0, 0, 0)))

    previous = (6, bytes([4]) * 16, 70_016)
    seen = header(author.peer_id, 1 << 20, 70_016, 5, previous)
    vector("segment.header", seen, "file 7 of 1 MiB, behind file 6 that ends at 70,016; its own nonce is 16 bytes of 3")
    vector("segment.header_first", header(author.peer_id, 1 << 20, 0, 0, NONE), "the first one of its store")
    vector("segment.genesis", frame(FRAMES_AT, 1, 0, 5, 70_016 + FRAMES_AT, genesis), "the first frame of the segment")
    vector("segment.commit", frame(FRAMES_AT + 192, 2, 2, 5, 70_016 + FRAMES_AT, first), "behind it, at 4,800")
    vector("segment.closed", frame(5120, 4, 0, 7, 70_016 + 5120, b""), "at 5,120")

    vector("reject.header.bit", change(seen, 400, b"\x01"), "a bit of what its checksum covers")
    vector("reject.header.short", seen[:-1])
    vector("reject.header.size", header(author.peer_id, (4 << 30) + 1, 0, 0, NONE), "longer than a segment may be")
    vector("reject.header.base", header(author.peer_id, 1 << 20, LIMIT + 1, 0, NONE), "a place beyond 2^62")
    vector("reject.header.ordinal", header(author.peer_id, 1 << 20, 0, 2**64 - 1, NONE), "an ordinal beyond 2^62")
    vector("reject.header.end", header(author.peer_id, 1 << 20, 0, 0, (6, bytes(16), (4 << 30) + 1)))
    vector("reject.header.version", header(author.peer_id, 1 << 20, 0, 0, NONE, 1), "of version 1")
    vector("reject.frame.place", frame(FRAMES_AT, 4, 0, 7, 0, b""), "at 5,120, and its checksum is that of 4,608")
    vector("reject.frame.flags", frame(5120, 4, 0, 7, 0, b"", 1), "flags of a later version")
    vector("reject.frame.kind", frame(5120, 5, 0, 7, 0, b""), "of kind 5")
    vector("reject.frame.long", frame(5120, 1, 0, 7, 0, bytes((1 << 20) + 257))[:64], "a body of 1,048,833 bytes")
    vector("reject.frame.ordinal", frame(5120, 4, 0, LIMIT + 1, 0, b""), "an ordinal beyond 2^62")
    vector("reject.frame.synced", frame(5120, 4, 0, 7, 2**64 - 1, b""), "a place beyond 2^62")
    vector("reject.op.short", op(0, b"hello")[:-1], "a byte is missing")
    vector("reject.op.overlong", b"\x00\x81\x00x", "a length that is not in its shortest form")
    vector("reject.op.long", b"\x00" + varint(256 * 1024 + 1), "262,145 bytes")
    vector("reject.genesis.flag", genesis[:-1] + b"\x02", "neither a predecessor nor none")
    vector("reject.genesis.trailing", genesis + b"\x00")
    vector("reject.genesis.network", b"\x00" + genesis[8:], "a network without a name")
    vector("reject.genesis.author", change(genesis, 8, b"\x02" + bytes(31)), "not a point of the curve")
    vector("reject.genesis.empty_predecessor", author.genesis(2, log + u64(0) + log))
    vector("reject.commit.none", change(first, 40, u32(0)), "no op")
    vector("reject.commit.many", change(first, 40, u32(1025)), "1,025 ops")
    vector("reject.commit.large", change(first, 44, u32((1 << 20) + 1)), "more than 1 MiB of ops")
    vector("reject.commit.fewer", change(first, 40, u32(3)), "three ops, and there are two")
    vector("reject.commit.sequence", change(first, 32, u64((1 << 64) - 2)), "its ops pass the last number")
    vector("reject.commit.short", first[:-1])
    vector("reject.commit.trailing", first + b"\x00")
    vector("reject.commit.ops", change(first, 186, b"j"), "well formed, but other ops than were hashed")
    vector("reject.commit.signature", change(first, 120, bytes([first[120] ^ 1])), "a bit of the signature flipped")
    vector("reject.commit.stranger", stranger.commit(log, 0, log, 1 << 16, [plain, first_put]), "signed by somebody else")
    vector("reject.archive.cut", whole[:-1])
    vector("reject.archive.trailing", whole + b"\x00")
    vector("reject.archive.magic", change(whole, 7, b"2"))
    vector("reject.archive.hash", change(whole, 208, bytes([whole[208] ^ 1])), "a bit of a signature flipped")
    vector("reject.archive.counts", archive(records, (2, 3, 8)), "counts one op too many")
    vector("reject.archive.type", archive([(3, genesis)], (1, 0, 0)), "a record of type 3")


if __name__ == "__main__":
    main()
