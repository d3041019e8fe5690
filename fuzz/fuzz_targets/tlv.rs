//! The payloads of Hello and HelloAck: compared with a second, plainer reading, and encoded and decoded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vine_core::wire::{Header, HelloAckPayload, HelloPayload, TlvError, Writer};

/// Every field of a payload in order, or `None` where the payload ends within one.
fn fields(mut payload: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut fields = Vec::new();
    while let Some((&kind, rest)) = payload.split_first() {
        let (&len, rest) = rest.split_first()?;
        let (value, rest) = rest.split_at_checked(usize::from(len))?;
        fields.push((kind, value));
        payload = rest;
    }
    Some(fields)
}

fn has_right_length(kind: u8, len: usize) -> bool {
    match kind {
        1 | 6 => len == 16,
        2 => len == 32,
        3 => len == 8,
        4 => (1..=16).contains(&len),
        5 | 7 => len == 4,
        _ => true,
    }
}

/// Whether known fields occur at most once and have a length that they may have, and those in `required` are there.
fn is_valid(fields: &[(u8, &[u8])], required: &[u8]) -> bool {
    let once = |kind| fields.iter().filter(|(other, _)| *other == kind).count() <= 1;
    let obeyed = fields
        .iter()
        .all(|(kind, value)| has_right_length(*kind, value.len()) && (*kind > 7 || *kind == 0 || once(*kind)));
    obeyed && required.iter().all(|kind| fields.iter().any(|(other, _)| other == kind))
}

fn value<'a>(fields: &[(u8, &'a [u8])], kind: u8) -> Option<&'a [u8]> {
    fields.iter().find(|(other, _)| *other == kind).map(|(_, value)| *value)
}

fn check_hello(payload: &[u8], fields: &[(u8, &[u8])]) {
    let decoded = HelloPayload::decode(payload);
    assert_eq!(decoded.is_ok(), is_valid(fields, &[1, 2, 3, 4]), "{decoded:?}");
    let Ok(hello) = decoded else { return };
    assert_eq!(value(fields, 1), Some(&hello.boot_id[..]));
    assert_eq!(value(fields, 2), Some(&hello.peer_id[..]));
    assert_eq!(value(fields, 3), Some(&hello.stamp.to_le_bytes()[..]));
    assert_eq!(value(fields, 4), Some(&hello.ciphers[..]));
    assert_eq!(value(fields, 5).unwrap_or(&[0; 4]), hello.capabilities.0.to_le_bytes());
    assert_eq!(value(fields, 6), hello.cookie.as_ref().map(|cookie| &cookie[..]));
    let mut room = [0; HelloPayload::MAX_LEN];
    let mut out = Writer::new(&mut room);
    hello.encode(&mut out).expect("MAX_LEN is the longest encoding");
    assert_eq!(HelloPayload::decode(out.written()), Ok(hello));
}

fn check_ack(payload: &[u8], fields: &[(u8, &[u8])]) {
    let index = value(fields, 7).and_then(|value| value.try_into().ok()).map_or(1, u32::from_le_bytes);
    let header = Header::hello_ack(9, index);
    let decoded = HelloAckPayload::decode(payload, &header);
    let one_cipher = value(fields, 4).is_some_and(|list| list.len() == 1);
    assert_eq!(decoded.is_ok(), is_valid(fields, &[1, 4, 7]) && one_cipher, "{decoded:?}");
    let Ok(ack) = decoded else { return };
    assert_eq!(HelloAckPayload::decode(payload, &Header::hello_ack(9, index ^ 1)), Err(TlvError::Index));
    assert_eq!(value(fields, 1), Some(&ack.boot_id[..]));
    assert_eq!(value(fields, 4), Some(&[ack.cipher][..]));
    let mut room = [0; HelloAckPayload::MAX_LEN];
    let mut out = Writer::new(&mut room);
    ack.encode(&mut out).expect("MAX_LEN is the longest encoding");
    assert_eq!(HelloAckPayload::decode(out.written(), &header), Ok(ack));
}

fuzz_target!(|payload: &[u8]| {
    match fields(payload) {
        Some(fields) => {
            check_hello(payload, &fields);
            check_ack(payload, &fields);
        }
        None => {
            // A field before the cut may be wrong already; it is refused in any case.
            assert!(HelloPayload::decode(payload).is_err());
            assert!(HelloAckPayload::decode(payload, &Header::hello_ack(9, 1)).is_err());
        }
    }
});
