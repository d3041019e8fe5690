//! The layouts of Hello, HelloAck and Cookie: each input goes to all three, at most one takes it, and it encodes to the
//! same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vine_core::wire::hello::{
    COOKIE_DATAGRAM_LEN, CookieReply, Hello, HelloAck, HelloError, MAC_LEN, MAX_HANDSHAKE_LEN, SUITE_IKPSK2,
};
use vine_core::wire::{EnvelopeType, Header};

fn check_hello(datagram: &[u8], hello: &Hello<'_>) {
    assert!((Hello::MIN_LEN..=MAX_HANDSHAKE_LEN).contains(&datagram.len()));
    assert_eq!(hello.suite, SUITE_IKPSK2);
    assert_eq!(hello.noise[..32], hello.ephemeral[..]);
    assert_eq!(hello.header.encode(), *hello.header_bytes);
    let mut out = vec![0xee; datagram.len()];
    let mac = |covered: &[u8]| {
        assert_eq!(covered, hello.mac_input);
        *hello.mac
    };
    let cookie_mac = |covered: &[u8]| {
        assert_eq!(covered, hello.cookie_mac_input);
        *hello.cookie_mac
    };
    let index = hello.header.sender_index().expect("a Hello tells its sender's index");
    assert_eq!(Hello::encode(index, hello.noise, mac, cookie_mac, &mut out), Ok(datagram.len()));
    assert_eq!(out, datagram);
    out.truncate(datagram.len() - 1);
    assert!(Hello::encode(index, hello.noise, |_| *hello.mac, |_| *hello.cookie_mac, &mut out).is_err());

    let mut with_cookie = datagram.to_vec();
    assert_eq!(Hello::set_cookie_mac(&mut with_cookie, |_| [7; MAC_LEN]), Ok(()));
    assert_eq!(with_cookie, [hello.cookie_mac_input, &[7; MAC_LEN]].concat());
}

fn check_ack(datagram: &[u8], ack: &HelloAck<'_>) {
    assert!((HelloAck::MIN_LEN..=MAX_HANDSHAKE_LEN).contains(&datagram.len()));
    assert_eq!(ack.noise[..32], ack.ephemeral[..]);
    let mut out = vec![0xee; datagram.len()];
    let index = ack.header.sender_index().expect("a HelloAck tells its sender's index");
    assert_eq!(HelloAck::encode(ack.header.session(), index, ack.noise, &mut out), Ok(datagram.len()));
    assert_eq!(out, datagram);
}

fn check_cookie(datagram: &[u8], cookie: &CookieReply<'_>) {
    let mac = |covered: &[u8; 32]| {
        assert_eq!(covered, cookie.mac_input);
        *cookie.mac
    };
    assert_eq!(CookieReply::encode(cookie.header.session(), cookie.cookie, mac)[..], *datagram);
    assert_eq!(datagram.len(), COOKIE_DATAGRAM_LEN);
}

fuzz_target!(|datagram: &[u8]| {
    let kind = Header::decode(datagram).map(|header| header.kind());
    let (hello, ack, cookie) = (Hello::decode(datagram), HelloAck::decode(datagram), CookieReply::decode(datagram));
    for (error, of) in
        [(hello.err(), EnvelopeType::Hello), (ack.err(), EnvelopeType::HelloAck), (cookie.err(), EnvelopeType::Cookie)]
    {
        match kind {
            Err(header) => assert_eq!(error, Some(HelloError::Header(header))),
            Ok(kind) if kind != of => assert_eq!(error, Some(HelloError::Kind(kind))),
            Ok(_) => {}
        }
    }
    hello.iter().for_each(|hello| check_hello(datagram, hello));
    ack.iter().for_each(|ack| check_ack(datagram, ack));
    cookie.iter().for_each(|cookie| check_cookie(datagram, cookie));
});
