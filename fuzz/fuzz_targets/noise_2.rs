//! The reader of Noise message 2: what the responder writes is read and gives both the same keys, anything else is
//! refused and leaves the initiator as it was.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vine_core::session::noise::{Claim, Established, Initiator, MESSAGE_2_OVERHEAD, Parameters, StaticKey};
use vine_core::wire::{Header, HelloAckPayload};
use vine_fuzz::Edit;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Raw(&'a [u8]),
    Ephemeral([u8; 32]),
    Edited(Edit, Edit),
    Payload { ephemeral: u8, payload: &'a [u8] },
}

struct Fixture {
    initiator: Initiator,
    message_1: Vec<u8>,
    valid: Vec<u8>,
}

const PSK: [u8; 32] = [9; 32];
const PROLOGUE: &[&[u8]] = &[b"vine/1", &[1], &[0x56; 16], b"home-net"];

fn respond(message_1: &[u8], ephemeral: u8, payload: &[u8]) -> (Vec<u8>, Established) {
    let bob = StaticKey::new([2; 32]);
    let claim = Claim::read_message_1(Parameters { local: &bob, psk: &PSK, prologue: PROLOGUE }, message_1);
    let claim = claim.expect("message 1 is valid");
    let shared = bob.agree(claim.remote_static()).expect("two honest keys agree");
    let (responder, _) = claim.prove(&shared).expect("message 1 is valid");
    let mut message = Vec::new();
    let keys = responder.write_message_2(&[ephemeral; 32], payload, &mut message).expect("the payload is short");
    (message, keys)
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let (alice, bob) = (StaticKey::new([1; 32]), StaticKey::new([2; 32]));
    let shared = alice.agree(bob.public()).expect("two honest keys agree");
    let parameters = Parameters { local: &alice, psk: &PSK, prologue: PROLOGUE };
    let mut message_1 = Vec::new();
    let initiator = Initiator::write_message_1(parameters, bob.public(), &shared, &[3; 32], b"payload", &mut message_1)
        .expect("the payload is short");
    let valid = respond(&message_1, 4, b"answer").0;
    Fixture { initiator, message_1, valid }
});

fn read(message: &[u8]) -> Option<(Established, Vec<u8>)> {
    let read = FIXTURE.initiator.read_message_2(message).ok()?;
    // What is inside goes to the next decoder.
    let _ = HelloAckPayload::decode(&read.1, &Header::hello_ack(1, 2));
    Some(read)
}

fuzz_target!(|input: Input<'_>| {
    let mut message = FIXTURE.valid.clone();
    match input {
        // libFuzzer sees the valid message where it is compared, and tries it.
        Input::Raw(bytes) => assert_eq!(read(bytes).is_some(), bytes == message),
        Input::Ephemeral(key) => {
            let same = message[..32] == key;
            message[..32].copy_from_slice(&key);
            assert_eq!(read(&message).is_some(), same);
        }
        Input::Edited(first, second) => {
            first.apply(&mut message);
            second.apply(&mut message);
            // The one initiator of this process has seen every forgery before this.
            let read = read(&message);
            assert_eq!(read.is_some(), message == FIXTURE.valid);
            assert!(read.is_none_or(|(_, payload)| payload == b"answer"));
        }
        Input::Payload { ephemeral, payload } => {
            let (message, theirs) = respond(&FIXTURE.message_1, ephemeral, payload);
            assert_eq!(message.len(), payload.len() + MESSAGE_2_OVERHEAD);
            let (ours, read) = read(&message).expect("it is the answer");
            assert_eq!(read, payload);
            assert_eq!((ours.hash, &ours.send), (theirs.hash, &theirs.receive));
            assert_eq!(ours.receive, theirs.send);
        }
    }
});
