//! The bytes of every message, held in `vectors/wire.txt`: what a second implementation must produce and accept.
//!
//! Each vector is built from fixed values, compared with the file, and the file's bytes are decoded back. The file is
//! written anew by `VINE_BLESS=1 cargo test -p vine-core --test golden_vectors`, which then fails, so that nobody
//! changes the wire by accident.
#![expect(clippy::unwrap_used, reason = "the whole file is a test")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use vine_core::wire::hello::{COOKIE_DATAGRAM_LEN, MAX_HANDSHAKE_LEN, Mac, NO_COOKIE_MAC, SUITE_IKPSK2};
use vine_core::wire::{
    Capabilities, Ciphers, CloseReason, CookieReply, FrameDecoder, FrameError, Header, HeaderError, Hello, HelloAck,
    HelloAckPayload, HelloError, HelloPayload, IpVersion, Lane, MAX_FRAME_LEN, Message, MessageError, MessageWriter,
    Messages, MsgId, Payload, ReadError, Reader, TlvError, Writer, frame, varint,
};

const FILE: &str = "tests/vectors/wire.txt";

const ABOUT: &str = "\
# Golden vectors of vine's wire, protocol version 1. docs/protocol.md is the specification.
#
# One vector a line: name = bytes in hexadecimal. Those named reject.* must be refused. Bytes that stand for
# ciphertext, keys, MACs and tags are placeholders: these vectors are about layout.
";

/// The initiator's and the responder's index in all vectors.
const INITIATOR: u32 = 0x1122_3344;
const RESPONDER: u32 = 0x5566_7788;

/// A vector: its bytes as built here, and what decoding the file's bytes must give.
struct Vector {
    name: &'static str,
    about: &'static str,
    bytes: Vec<u8>,
    check: Box<Check>,
}

type Check = dyn Fn(&[u8]);

fn vector(
    name: &'static str,
    about: &'static str,
    bytes: impl Into<Vec<u8>>,
    check: impl Fn(&[u8]) + 'static,
) -> Vector {
    Vector { name, about, bytes: bytes.into(), check: Box::new(check) }
}

#[test]
fn every_message_has_its_golden_bytes() {
    let vectors = all();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("VINE_BLESS").is_some() {
        std::fs::write(&path, file_text(&vectors)).unwrap();
        panic!("{FILE} was written anew: read the difference, then run the test without VINE_BLESS");
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let golden: Vec<(&str, Vec<u8>)> = text.lines().filter_map(parse_line).collect();
    let golden_names: Vec<&str> = golden.iter().map(|(name, _)| *name).collect();
    let names: Vec<&str> = vectors.iter().map(|vector| vector.name).collect();
    assert_eq!(golden_names, names, "the file and this test name the same vectors in the same order");
    for (vector, (name, bytes)) in vectors.iter().zip(&golden) {
        assert_eq!(hex(&vector.bytes), hex(bytes), "{name}");
        (vector.check)(bytes);
    }
    assert_eq!(text, file_text(&vectors), "the comments of the file");
}

fn all() -> Vec<Vector> {
    let accepted = [varints(), headers(), handshake_datagrams(), handshake_payloads(), messages(), frames()];
    let refused = [rejected_envelopes(), rejected_contents()];
    accepted.into_iter().chain(refused).flatten().collect()
}

fn varints() -> Vec<Vector> {
    let each = [
        ("varint.0", "", 0),
        ("varint.127", "", 127),
        ("varint.128", "", 128),
        ("varint.300", "", 300),
        ("varint.16384", "", 16_384),
        ("varint.counter_max", "2^56 - 1", MsgId::MAX_COUNTER),
        ("varint.max", "2^64 - 1", u64::MAX),
    ];
    let vectors = each.map(|(name, about, value)| {
        vector(name, about, varint::encode(value).to_vec(), move |bytes| {
            assert_eq!(varint::decode(bytes), Ok((value, &[][..])));
        })
    });
    vectors.into()
}

fn headers() -> Vec<Vector> {
    let id = MsgId::new(Lane(2), 0x0a_0b0c).unwrap();
    let header = |name, about, header: Header, tag: &[u8]| {
        vector(name, about, [&header.encode(), tag].concat(), move |bytes| {
            assert_eq!(Header::decode(bytes), Ok(header));
        })
    };
    let tag = [0xee; 16];
    vec![
        header("header.hello", "initiator's index 0x11223344", Header::hello(INITIATOR), &[]),
        header(
            "header.hello_ack",
            "to 0x11223344, responder's index 0x55667788",
            Header::hello_ack(INITIATOR, RESPONDER),
            &[],
        ),
        header(
            "hello_finish",
            "whole datagram: to 0x55667788, lane 0, counter 0, nothing sealed, tag",
            Header::hello_finish(RESPONDER, MsgId::new(Lane::CONTROL, 0).unwrap()),
            &tag,
        ),
        header("header.cookie", "to 0x11223344", Header::cookie(INITIATOR), &[]),
        header(
            "sealed.empty",
            "whole datagram: a keepalive to 0x55667788, lane 2, counter 0x0a0b0c, tag",
            Header::sealed(RESPONDER, id, false),
            &tag,
        ),
        header(
            "sealed.csum_partial",
            "the same with CSUM_PARTIAL, 20 bytes of ciphertext, tag",
            Header::sealed(RESPONDER, id, true),
            &[[0xcc; 20].as_slice(), &tag].concat(),
        ),
        vector("nonce", "the AEAD nonce of the two before", id.nonce(), |bytes| {
            let id = MsgId::from_raw(Reader::new(&bytes[4..]).u64().unwrap());
            assert_eq!((bytes[..4].iter().sum::<u8>(), id.lane(), id.counter()), (0, Lane(2), 0x0a_0b0c));
        }),
    ]
}

/// Stands for a Noise message: 0, 1, 2, ...
fn noise(len: u8) -> Vec<u8> {
    (0..len).collect()
}

fn handshake_datagrams() -> Vec<Vector> {
    const MAC: Mac = [0xaa; 16];
    const COOKIE_MAC: Mac = [0xbb; 16];
    let hello = |cookie_mac: Mac| {
        let mut buf = [0; MAX_HANDSHAKE_LEN];
        let len = Hello::encode(INITIATOR, &noise(120), |_| MAC, |_| cookie_mac, &mut buf).unwrap();
        buf[..len].to_vec()
    };
    let check_hello = |cookie_mac: Mac| {
        move |bytes: &[u8]| {
            let view = Hello::decode(bytes).unwrap();
            assert_eq!((view.header, view.suite), (Header::hello(INITIATOR), SUITE_IKPSK2));
            assert_eq!((view.noise, &view.ephemeral[..]), (&noise(120)[..], &noise(32)[..]));
            assert_eq!((view.mac_input, view.mac), (&bytes[..137], &MAC));
            assert_eq!((view.cookie_mac_input, view.cookie_mac), (&bytes[..153], &cookie_mac));
        }
    };
    let mut ack = [0; MAX_HANDSHAKE_LEN];
    let ack_len = HelloAck::encode(INITIATOR, RESPONDER, &noise(81), &mut ack).unwrap();
    vec![
        vector(
            "hello",
            "suite 1, Noise message of 32 + 48 + 40 bytes (00 01 02 ...), mac aa.., no cookie",
            hello(NO_COOKIE_MAC),
            check_hello(NO_COOKIE_MAC),
        ),
        vector("hello.with_cookie", "the same with cookie_mac bb..", hello(COOKIE_MAC), check_hello(COOKIE_MAC)),
        vector("hello_ack", "Noise message of 32 + 49 bytes (00 01 02 ...)", &ack[..ack_len], |bytes| {
            let view = HelloAck::decode(bytes).unwrap();
            assert_eq!(view.header, Header::hello_ack(INITIATOR, RESPONDER));
            assert_eq!((view.noise, &view.ephemeral[..]), (&noise(81)[..], &noise(32)[..]));
        }),
        vector("cookie", "cookie 10 11 12 ..., mac aa..", CookieReply::encode(INITIATOR, &COOKIE, |_| MAC), |bytes| {
            let view = CookieReply::decode(bytes).unwrap();
            assert_eq!((view.header, view.cookie, view.mac), (Header::cookie(INITIATOR), &COOKIE, &MAC));
            assert_eq!(&view.mac_input[..], &bytes[..32]);
        }),
    ]
}

const COOKIE: [u8; 16] =
    [0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f];

fn hello_payload(cookie: Option<[u8; 16]>) -> HelloPayload {
    HelloPayload {
        boot_id: [0xb0; 16],
        peer_id: [0xd1; 32],
        stamp: 1_767_225_600_000,
        ciphers: Ciphers::from_slice(&[2, 1]).unwrap(),
        capabilities: Capabilities::CSUM_PARTIAL,
        cookie,
    }
}

const ACK_PAYLOAD: HelloAckPayload =
    HelloAckPayload { boot_id: [0xb1; 16], cipher: 2, capabilities: Capabilities::CSUM_PARTIAL, index: RESPONDER };

/// The bytes that `write` writes.
fn written<E: std::fmt::Debug>(write: impl FnOnce(&mut Writer<'_>) -> Result<(), E>) -> Vec<u8> {
    let mut buf = [0; 512];
    let mut out = Writer::new(&mut buf);
    write(&mut out).unwrap();
    out.written().to_vec()
}

fn handshake_payloads() -> Vec<Vector> {
    let hello = |name, about, cookie: Option<[u8; 16]>| {
        vector(name, about, written(|out| hello_payload(cookie).encode(out)), move |bytes| {
            assert_eq!(HelloPayload::decode(bytes), Ok(hello_payload(cookie)));
        })
    };
    let unknown_first = [vec![0xc8, 3, 9, 9, 9], written(|out| hello_payload(None).encode(out))].concat();
    vec![
        hello(
            "hello_payload",
            "boot id b0.., PeerId d1.., stamp 1767225600000 (2026-01-01), ciphers 2 then 1, CSUM_PARTIAL",
            None,
        ),
        hello("hello_payload.with_cookie", "the same with cookie 10 11 12 ...", Some(COOKIE)),
        vector(
            "hello_payload.unknown_field",
            "the first behind a field of type 200: skipped",
            unknown_first,
            |bytes| {
                assert_eq!(HelloPayload::decode(bytes), Ok(hello_payload(None)));
            },
        ),
        vector(
            "hello_ack_payload",
            "boot id b1.., cipher 2, CSUM_PARTIAL, index 0x55667788",
            written(|out| ACK_PAYLOAD.encode(out)),
            |bytes| {
                let header = Header::hello_ack(INITIATOR, RESPONDER);
                assert_eq!(HelloAckPayload::decode(bytes, &header), Ok(ACK_PAYLOAD));
            },
        ),
    ]
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn payload_of(messages: &[Message<'_>], pad_to: usize) -> Vec<u8> {
    let mut buf = [0; 512];
    let mut writer = MessageWriter::new(&mut buf);
    for message in messages {
        writer.push(message).unwrap();
    }
    writer.pad_to(pad_to).unwrap();
    let len = writer.len();
    buf[..len].to_vec()
}

fn messages() -> Vec<Vector> {
    let ping = Message::Ping { token: 0x0102_0304_0506_0708, path: 3 };
    let pong = |observed| Message::Pong { token: 0x0102_0304_0506_0708, path: 3, delay_us: 300, observed };
    let v4 = pong(address("192.0.2.1:4100"));
    let v6 = pong(address("[2001:db8::1]:4100"));
    let receipt = Message::Receipt { lane: Lane(2), largest: 1_000_000, received: 999_000 };
    let last = Message::Receipt { lane: Lane(255), largest: MsgId::MAX_COUNTER, received: u64::MAX };
    let payload = |name, about, messages: &'static [Message<'static>], bytes: Vec<u8>| {
        vector(name, about, bytes, move |bytes| {
            assert_eq!(Payload::classify(bytes), Payload::Messages);
            assert_eq!(Messages::new(bytes).collect::<Result<Vec<_>, _>>().as_deref(), Ok(messages));
        })
    };
    let one =
        |name, about, message: Message<'static>| payload(name, about, vec![message].leak(), payload_of(&[message], 0));
    let longer = [&[0x01, 11, 8, 7, 6, 5, 4, 3, 2, 1, 3, 0xff, 0xff], &payload_of(&[receipt], 0)[..]].concat();
    let unknown = [&[0x3f, 2, 0xff, 0xff], &payload_of(&[ping], 0)[..]].concat();
    vec![
        one("message.ping", "token 0x0102030405060708, path 3", ping),
        one("message.pong_v4", "the same token and path, delay 300 us, observed 192.0.2.1:4100", v4),
        one("message.pong_v6", "observed [2001:db8::1]:4100", v6),
        one("message.receipt", "lane 2, largest 1000000, received 999000", receipt),
        one("message.receipt_largest", "lane 255, largest 2^56 - 1, received 2^64 - 1", last),
        one("message.close_shutdown", "reason 1", Message::Close { reason: CloseReason::SHUTDOWN }),
        one("message.close_removed", "reason 2", Message::Close { reason: CloseReason::REMOVED }),
        one("message.close_unknown", "reason 200: closes as well", Message::Close { reason: CloseReason(200) }),
        payload("message.padding", "18 bytes", &[], payload_of(&[], 20)),
        payload("message.padding_least", "no byte", &[], payload_of(&[], 2)),
        payload("payload.padded_ping", "padded to 40 bytes", vec![ping].leak(), payload_of(&[ping], 40)),
        payload(
            "payload.padding_to_130",
            "a length that one padding message cannot have, hence two",
            &[],
            payload_of(&[], 130),
        ),
        payload(
            "payload.three_messages",
            "ping, receipt, pong",
            vec![ping, receipt, v4].leak(),
            payload_of(&[ping, receipt, v4], 0),
        ),
        payload("payload.unknown_type", "type 0x3f is skipped; then a ping", vec![ping].leak(), unknown),
        payload(
            "payload.longer_body",
            "a ping with two bytes that this version ignores; then a receipt",
            vec![ping, receipt].leak(),
            longer,
        ),
        vector("payload.ipv4", "the first bytes of an IPv4 packet", [0x45, 0, 0, 0x54], |bytes| {
            assert_eq!(Payload::classify(bytes), Payload::Ip(IpVersion::V4));
        }),
        vector("payload.ipv6", "the first bytes of an IPv6 packet", [0x60, 0, 0, 0], |bytes| {
            assert_eq!(Payload::classify(bytes), Payload::Ip(IpVersion::V6));
        }),
    ]
}

/// The envelopes of a stream that begins with `bytes`.
fn cut(bytes: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
    let (mut decoder, mut input, mut envelopes) = (FrameDecoder::new(), bytes, Vec::new());
    while let Some(envelope) = decoder.next_frame(&mut input)? {
        envelopes.push(envelope.to_vec());
    }
    Ok(envelopes)
}

fn frames() -> Vec<Vector> {
    let cookie = CookieReply::encode(INITIATOR, &COOKIE, |_| [0xaa; 16]);
    let finish = [&Header::hello_finish(RESPONDER, MsgId::from_raw(0)).encode()[..], &[0xee; 16]].concat();
    let one = written(|out| frame::encode(&cookie, out));
    let two = [one.clone(), written(|out| frame::encode(&finish, out))].concat();
    let prefix = |name, about, len: usize| {
        vector(name, about, frame::prefix(len).unwrap().to_vec(), move |bytes| {
            let mut stream = bytes.to_vec();
            stream.resize(bytes.len() + len, 0x56);
            assert_eq!(cut(&stream).map(|envelopes| envelopes[0].len()), Ok(len));
            stream.pop();
            assert_eq!(cut(&stream), Ok(vec![]));
        })
    };
    vec![
        vector("frame.cookie", "the vector cookie as a frame", one, move |bytes| {
            assert_eq!(cut(bytes), Ok(vec![cookie.to_vec()]));
        }),
        vector("frame.two", "cookie, then hello_finish", two, move |bytes| {
            assert_eq!(cut(bytes), Ok(vec![cookie.to_vec(), finish.clone()]));
        }),
        prefix("frame.prefix_least", "the length of the shortest frame: 16", 16),
        prefix("frame.prefix_1432", "the length of an envelope of 1432 bytes", 1432),
        prefix("frame.prefix_most", "the length of the longest frame: 65567", MAX_FRAME_LEN),
    ]
}

fn rejected_envelopes() -> Vec<Vector> {
    let header = |name, about, bytes: &[u8], error: HeaderError| {
        vector(name, about, bytes, move |bytes| assert_eq!(Header::decode(bytes), Err(error)))
    };
    let changed = |header: Header, at: usize, byte: u8| {
        let mut bytes = [&header.encode()[..], &[0xee; 16]].concat();
        bytes[at] = byte;
        bytes
    };
    let sealed = Header::sealed(RESPONDER, MsgId::from_raw(7), false);
    let hello = Header::hello(INITIATOR);
    let cookie = CookieReply::encode(INITIATOR, &COOKIE, |_| [0xaa; 16]);
    vec![
        header("reject.header.magic", "", &changed(sealed, 0, 0x57), HeaderError::Magic(0x57)),
        header("reject.header.version", "", &changed(sealed, 1, 2), HeaderError::Version(2)),
        header("reject.header.reserved_type", "7, Announce", &changed(sealed, 2, 7), HeaderError::Type(7)),
        header("reject.header.unsealed", "Sealed without SEALED", &changed(sealed, 3, 0), HeaderError::Flags(0)),
        header("reject.header.sealed_hello", "Hello with SEALED", &changed(hello, 3, 1), HeaderError::Flags(1)),
        header("reject.header.unknown_flag", "bit 2", &changed(sealed, 3, 5), HeaderError::Flags(5)),
        header("reject.header.hello_session", "a Hello to session 1", &changed(hello, 4, 1), HeaderError::Session),
        header("reject.header.index", "an index of more than 32 bits", &changed(hello, 12, 1), HeaderError::MsgId),
        header(
            "reject.header.no_tag",
            "sealed, one byte short of a tag",
            &changed(sealed, 3, 1)[..31],
            HeaderError::TooShort,
        ),
        vector("reject.cookie.long", "one byte more", [&cookie[..], &[0]].concat(), |bytes| {
            assert_eq!(bytes.len(), COOKIE_DATAGRAM_LEN + 1);
            assert_eq!(CookieReply::decode(bytes), Err(HelloError::TooLong));
        }),
    ]
}

fn rejected_contents() -> Vec<Vector> {
    let stream = |name, about, bytes: &[u8], error: FrameError| {
        vector(name, about, bytes, move |bytes| assert_eq!(cut(bytes), Err(error)))
    };
    let message = |name, about, bytes: &[u8], error: MessageError| {
        vector(name, about, bytes, move |bytes| assert_eq!(Messages::new(bytes).next(), Some(Err(error))))
    };
    let payload = |name, about, bytes: Vec<u8>, error: TlvError| {
        vector(name, about, bytes, move |bytes| assert_eq!(HelloPayload::decode(bytes), Err(error)))
    };
    let tlv = written(|out| hello_payload(None).encode(out));
    vec![
        payload(
            "reject.hello_payload.duplicate",
            "the field stamp twice",
            [&tlv[..], &[3, 8, 0, 0, 0, 0, 0, 0, 0, 0]].concat(),
            TlvError::Duplicate(3),
        ),
        payload(
            "reject.hello_payload.length",
            "an index of three bytes",
            [&tlv[..], &[7, 3, 0, 0, 0]].concat(),
            TlvError::Length(7),
        ),
        payload("reject.hello_payload.missing", "no boot id", tlv[18..].to_vec(), TlvError::Missing(1)),
        payload("reject.hello_payload.truncated", "", [&tlv[..], &[9, 2, 0]].concat(), TlvError::Truncated),
        vector("reject.varint.overlong", "128 in three bytes", [0x80, 0x81, 0x00], |bytes| {
            assert_eq!(varint::decode(bytes), Err(varint::VarintError::Overlong));
        }),
        vector(
            "reject.varint.too_large",
            "2^64",
            [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02],
            |bytes| assert_eq!(varint::decode(bytes), Err(varint::VarintError::TooLarge)),
        ),
        message("reject.message.type", "0x50", &[0x50, 0], MessageError::Type(0x50)),
        message(
            "reject.message.length",
            "more than the payload holds",
            &[0x01, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            MessageError::Length(ReadError::Truncated),
        ),
        message(
            "reject.message.short_ping",
            "a body of eight bytes",
            &[0x01, 8, 0, 0, 0, 0, 0, 0, 0, 0],
            MessageError::Body { code: 1, error: ReadError::Truncated },
        ),
        message(
            "reject.message.receipt",
            "largest is 2^56",
            &[0x03, 11, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0],
            MessageError::Body { code: 3, error: ReadError::TooLarge },
        ),
        message(
            "reject.message.family",
            "a pong that observed an address of family 5",
            &[0x02, 17, 8, 7, 6, 5, 4, 3, 2, 1, 3, 0, 5, 192, 0, 2, 1, 4, 16],
            MessageError::Body { code: 2, error: ReadError::AddressFamily(5) },
        ),
        stream("reject.frame.overlong", "16 in two bytes", &[0x90, 0x00], FrameError::Overlong),
        stream("reject.frame.too_large", "65568", &[0xa0, 0x80, 0x04], FrameError::TooLarge),
        stream("reject.frame.endless", "at its third byte at the latest", &[0x80, 0x80, 0x80], FrameError::TooLarge),
        stream("reject.frame.too_short", "15", &[0x0f], FrameError::TooShort),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn parse_line(line: &str) -> Option<(&str, Vec<u8>)> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (name, digits) = line.split_once(" = ").unwrap_or_else(|| panic!("not `name = hex`: {line}"));
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    Some((name, digits.as_bytes().chunks(2).map(byte).collect()))
}

fn file_text(vectors: &[Vector]) -> String {
    let mut text = String::from(ABOUT);
    let mut group = "";
    for vector in vectors {
        let this = vector.name.split('.').next().unwrap_or_default();
        if this != group || !vector.about.is_empty() {
            text.push('\n');
        }
        group = this;
        if !vector.about.is_empty() {
            let _ = writeln!(text, "# {}", vector.about);
        }
        let _ = writeln!(text, "{} = {}", vector.name, hex(&vector.bytes));
    }
    text
}
