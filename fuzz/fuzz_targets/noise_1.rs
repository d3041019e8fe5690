//! The reader of Noise message 1: what an initiator writes is read, anything else is refused.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vine_core::session::noise::{Claim, Initiator, MESSAGE_1_OVERHEAD, Parameters, Responder, StaticKey};
use vine_core::wire::HelloPayload;
use vine_fuzz::Edit;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Raw(&'a [u8]),
    /// Bytes of a valid message with a key of small order, or any other, in place of the ephemeral one.
    Ephemeral([u8; 32]),
    Edited(Edit, Edit),
    /// A valid message that another prologue or psk goes with.
    Foreign {
        prologue: &'a [u8],
        psk: u8,
    },
    Payload {
        ephemeral: u8,
        payload: &'a [u8],
    },
}

struct Fixture {
    alice: StaticKey,
    bob: StaticKey,
    valid: Vec<u8>,
}

const PSK: [u8; 32] = [9; 32];
const PROLOGUE: &[&[u8]] = &[b"vine/1", &[1], &[0x56; 16], b"home-net"];

fn write(alice: &StaticKey, bob: &StaticKey, ephemeral: u8, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    let shared = alice.agree(bob.public()).expect("two honest keys agree");
    let parameters = Parameters { local: alice, psk: &PSK, prologue: PROLOGUE };
    Initiator::write_message_1(parameters, bob.public(), &shared, &[ephemeral; 32], payload, &mut message)
        .expect("the payload is short");
    message
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let (alice, bob) = (StaticKey::new([1; 32]), StaticKey::new([2; 32]));
    let valid = write(&alice, &bob, 3, b"payload");
    Fixture { alice, bob, valid }
});

/// Reads a message as a node does: the claim first, the rest once its sender is known.
fn read(message: &[u8], psk: &[u8; 32], prologue: &[&[u8]]) -> Option<Vec<u8>> {
    let parameters = Parameters { local: &FIXTURE.bob, psk, prologue };
    let claim = Claim::read_message_1(parameters, message).ok()?;
    let shared = FIXTURE.bob.agree(claim.remote_static()).ok()?;
    let (responder, payload) = claim.prove(&shared).ok()?;
    assert_eq!(responder.remote_static(), FIXTURE.alice.public(), "only she could write it");
    // What is inside goes to the next decoder.
    let _ = HelloPayload::decode(&payload);
    Some(payload)
}

fuzz_target!(|input: Input<'_>| {
    let mut message = FIXTURE.valid.clone();
    match input {
        // libFuzzer sees the valid message where it is compared, and tries it.
        Input::Raw(bytes) => assert_eq!(read(bytes, &PSK, PROLOGUE).is_some(), bytes == message),
        Input::Ephemeral(key) => {
            let same = message[..32] == key;
            message[..32].copy_from_slice(&key);
            assert_eq!(read(&message, &PSK, PROLOGUE).is_some(), same);
        }
        Input::Edited(first, second) => {
            first.apply(&mut message);
            second.apply(&mut message);
            assert_eq!(read(&message, &PSK, PROLOGUE).is_some(), message == FIXTURE.valid);
        }
        Input::Foreign { prologue, psk } => {
            // The psk goes into message 2 only: message 1 is read with any.
            assert_eq!(read(&message, &[psk; 32], &[prologue]).is_some(), prologue == PROLOGUE.concat());
        }
        Input::Payload { ephemeral, payload } => {
            let message = write(&FIXTURE.alice, &FIXTURE.bob, ephemeral, payload);
            assert_eq!(message.len(), payload.len() + MESSAGE_1_OVERHEAD);
            assert_eq!(read(&message, &PSK, PROLOGUE).as_deref(), Some(payload));
            let parameters = Parameters { local: &FIXTURE.bob, psk: &PSK, prologue: PROLOGUE };
            assert!(Responder::read_message_1(parameters, &message).is_ok_and(|read| read.1 == payload));
        }
    }
});
