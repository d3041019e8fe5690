//! Sealed envelopes against a second implementation, and a tunnel that many threads use at once.
// Clippy takes helpers of an integration test for library code.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use vine_core::session::noise::Established;
use vine_core::session::{Cipher, OpenError, RustCrypto, Tunnel};
use vine_core::wire::{EnvelopeType, Flags, HEADER_LEN, Lane, OVERHEAD};
use zeroize::Zeroizing;

/// Written by `gen_aead.py` next to it.
const VECTORS: &str = include_str!("vectors/aead.txt");

/// One line of the file.
struct Vector {
    cipher: Cipher,
    split_key: [u8; 32],
    kind: u8,
    session: u32,
    lane: u8,
    counter: u64,
    csum_partial: bool,
    payload: Vec<u8>,
    envelope: Vec<u8>,
}

fn unhex(text: &str) -> Vec<u8> {
    let text = text.trim_start_matches('-');
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

impl Vector {
    fn parse(line: &str) -> Vector {
        let fields: Vec<&str> = line.split(' ').collect();
        let [cipher, split_key, kind, session, lane, counter, partial, payload, envelope] = fields[..] else {
            panic!("nine fields: {line}");
        };
        Vector {
            cipher: Cipher::from_id(cipher.parse().unwrap()).unwrap(),
            split_key: unhex(split_key).try_into().unwrap(),
            kind: kind.parse().unwrap(),
            session: session.parse().unwrap(),
            lane: lane.parse().unwrap(),
            counter: counter.parse().unwrap(),
            csum_partial: partial == "1",
            payload: unhex(payload),
            envelope: unhex(envelope),
        }
    }

    /// A sender and a receiver with the vector's key in that direction.
    fn tunnels(&self) -> (Tunnel, Tunnel) {
        let other = [0xee; 32];
        tunnels(self.cipher, self.split_key, other, self.session)
    }
}

fn tunnels(cipher: Cipher, forth: [u8; 32], back: [u8; 32], receiver_index: u32) -> (Tunnel, Tunnel) {
    let (forth, back) = (Zeroizing::new(forth), Zeroizing::new(back));
    let sender = Established { send: forth.clone(), receive: back.clone(), hash: [0; 32] };
    let receiver = Established { send: back, receive: forth, hash: [0; 32] };
    let sender = Tunnel::new(&sender, cipher, &RustCrypto, 99, receiver_index);
    (sender, Tunnel::new(&receiver, cipher, &RustCrypto, receiver_index, 99))
}

#[test]
fn sealed_as_the_second_implementation_does() {
    let vectors: Vec<Vector> = VECTORS.lines().filter(|line| !line.starts_with('#')).map(Vector::parse).collect();
    assert_eq!(vectors.len(), 12);
    for vector in vectors {
        let (sender, receiver) = vector.tunnels();
        if vector.counter > 0 {
            assert_eq!(sender.reserve(Lane(vector.lane), vector.counter).unwrap().counters().start, 0);
        }
        let mut envelope = vec![0; vector.payload.len() + OVERHEAD];
        if vector.kind == EnvelopeType::HelloFinish.code() {
            envelope.copy_from_slice(&sender.seal_hello_finish().unwrap());
        } else {
            envelope[HEADER_LEN..][..vector.payload.len()].copy_from_slice(&vector.payload);
            let counter = sender.seal(Lane(vector.lane), vector.csum_partial, &mut envelope);
            assert_eq!(counter, Ok(vector.counter));
        }
        assert_eq!(envelope, vector.envelope, "{} counter {}", vector.cipher, vector.counter);

        let opened = receiver.open(&mut envelope).unwrap();
        assert_eq!((opened.kind.code(), opened.lane, opened.counter), (vector.kind, Lane(vector.lane), vector.counter));
        assert_eq!(opened.flags.contains(Flags::CSUM_PARTIAL), vector.csum_partial);
        assert_eq!(opened.payload, vector.payload);
        assert_eq!(receiver.open(&mut vector.envelope.clone()), Err(OpenError::Replay));
    }
}

#[test]
fn threads_share_a_tunnel() {
    const THREADS: usize = 4;
    const EACH: usize = 500;
    let (sender, receiver) = tunnels(Cipher::ChaCha20Poly1305, [1; 32], [2; 32], 5);

    // All on one lane, the worst case: single envelopes and batches, mixed.
    let mut sent: Vec<Vec<u8>> = thread::scope(|scope| {
        let seal = || {
            let mut envelopes = vec![vec![0; OVERHEAD + 8]; EACH];
            for pair in envelopes.chunks_mut(5) {
                let (first, rest) = pair.split_first_mut().unwrap();
                sender.seal(Lane(1), false, first).unwrap();
                for (permit, envelope) in sender.reserve(Lane(1), 4).unwrap().zip(rest) {
                    permit.seal(false, envelope);
                }
            }
            envelopes
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(seal)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let numbers: BTreeSet<&[u8]> = sent.iter().map(|envelope| &envelope[8..16]).collect();
    assert_eq!(numbers.len(), THREADS * EACH, "each number once");
    sent.sort_by(|a, b| a[8..16].cmp(&b[8..16]));

    // Every thread opens every envelope: together they succeed once each.
    let opened = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for envelope in &sent {
                    match receiver.open(&mut envelope.clone()) {
                        Ok(_) => opened.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            assert_eq!(error, OpenError::Replay);
                            0
                        }
                    };
                }
            });
        }
    });
    assert_eq!(opened.into_inner() as usize, THREADS * EACH);
    let received = receiver.received(Lane(1)).unwrap();
    assert_eq!((received.count, received.largest), ((THREADS * EACH) as u64, (THREADS * EACH) as u64 - 1));
}
