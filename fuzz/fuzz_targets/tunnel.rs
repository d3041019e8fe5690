//! The tunnel: every envelope opens once and as it was sealed, in any order and on any lane, as long as the window
//! reaches; nothing else opens, and what is counted is what opened.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vine_core::session::noise::Established;
use vine_core::session::tunnel::MAX_MESSAGES;
use vine_core::session::{Cipher, CryptoBackend, OpenError, ReplayWindow, RustCrypto, Tunnel};
use vine_core::wire::{EnvelopeType, Flags, Lane, OVERHEAD};
use vine_fuzz::crypto::GlassCrypto;
use vine_fuzz::{Edit, Salted, pattern};
use zeroize::Zeroizing;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    aes: bool,
    real: bool,
    ops: Vec<Op<'a>>,
}

#[derive(Arbitrary, Debug)]
enum Op<'a> {
    Seal {
        lane: u8,
        len: u8,
        csum_partial: bool,
    },
    Finish,
    /// Takes numbers that are never used.
    Skip {
        lane: u8,
        count: u16,
        many: bool,
    },
    Deliver {
        pick: u8,
    },
    Edited {
        pick: u8,
        edit: Edit,
    },
    Reflected {
        pick: u8,
    },
    Raw(&'a [u8]),
}

struct Sealed {
    bytes: Vec<u8>,
    lane: Lane,
    counter: u64,
    payload: Vec<u8>,
    csum_partial: bool,
    finish: bool,
}

/// What has opened on a lane.
#[derive(Default)]
struct Opened {
    counters: Vec<u64>,
    largest: u64,
}

struct Model {
    alice: Tunnel,
    bob: Tunnel,
    sealed: Vec<Sealed>,
    opened: BTreeMap<Lane, Opened>,
    next: BTreeMap<Lane, u64>,
    failures: u64,
}

impl Model {
    fn new(backend: &dyn CryptoBackend, cipher: Cipher, salt: &[u8; 32]) -> Model {
        let key = |direction: u8| Zeroizing::new(salt.map(|byte| byte ^ direction));
        let keys = |send, receive| Established { send: key(send), receive: key(receive), hash: [0; 32] };
        Model {
            alice: Tunnel::new(&keys(1, 2), cipher, backend, 7, 8),
            bob: Tunnel::new(&keys(2, 1), cipher, backend, 8, 7),
            sealed: Vec::new(),
            opened: BTreeMap::new(),
            next: BTreeMap::new(),
            failures: 0,
        }
    }

    /// Notes that `count` numbers of a lane were taken; returns the first.
    fn take(&mut self, lane: Lane, count: u64) -> u64 {
        let next = self.next.entry(lane).or_default();
        *next += count;
        *next - count
    }

    fn seal(&mut self, lane: Lane, len: u8, csum_partial: bool) {
        let payload = pattern(self.sealed.len() as u64, usize::from(len));
        let mut bytes = vec![0; payload.len() + OVERHEAD];
        bytes[16..16 + payload.len()].copy_from_slice(&payload);
        let Ok(counter) = self.alice.seal(lane, csum_partial, &mut bytes) else {
            assert_eq!(self.alice.sent(), MAX_MESSAGES);
            return;
        };
        assert_eq!(counter, self.take(lane, 1));
        self.sealed.push(Sealed { bytes, lane, counter, payload, csum_partial, finish: false });
    }

    fn finish(&mut self) {
        let Ok(bytes) = self.alice.seal_hello_finish() else { return };
        let (lane, counter) = (Lane::CONTROL, self.take(Lane::CONTROL, 1));
        let bytes = bytes.to_vec();
        self.sealed.push(Sealed { bytes, lane, counter, payload: Vec::new(), csum_partial: false, finish: true });
    }

    fn skip(&mut self, lane: Lane, count: u64) {
        let left = MAX_MESSAGES - self.alice.sent();
        match self.alice.reserve(lane, count) {
            Ok(numbers) => {
                let counters = numbers.counters();
                assert_eq!(counters.end - counters.start, count);
                assert_eq!(counters.start, self.take(lane, count));
            }
            Err(_) => assert!(count > left),
        }
    }

    fn deliver(&mut self, pick: u8) {
        let Some(sealed) = self.sealed.get(usize::from(pick) % self.sealed.len().max(1)) else { return };
        let lane = self.opened.entry(sealed.lane).or_default();
        let in_time = sealed.counter + ReplayWindow::WIDTH > lane.largest;
        let fresh = in_time && !lane.counters.contains(&sealed.counter);
        let mut bytes = sealed.bytes.clone();
        match self.bob.open(&mut bytes) {
            Err(error) => assert!(!fresh && error == OpenError::Replay, "{error:?}"),
            Ok(opened) => {
                assert!(fresh, "{} again or too late", sealed.counter);
                assert_eq!((opened.lane, opened.counter), (sealed.lane, sealed.counter));
                assert_eq!(opened.payload, sealed.payload);
                assert_eq!(opened.flags.contains(Flags::CSUM_PARTIAL), sealed.csum_partial);
                assert_eq!(opened.kind == EnvelopeType::HelloFinish, sealed.finish);
                lane.counters.push(sealed.counter);
                lane.largest = lane.largest.max(sealed.counter);
            }
        }
        if !lane.counters.is_empty() {
            let told = self.bob.received(sealed.lane).expect("something arrived");
            assert_eq!((told.largest, told.count), (lane.largest, lane.counters.len() as u64));
        }
    }

    /// Nothing of this may open.
    fn refuse(&mut self, bytes: &mut [u8]) {
        match self.bob.open(bytes) {
            Ok(opened) => panic!("{opened:?} was never sealed for here"),
            Err(OpenError::Authentication) => self.failures += 1,
            Err(_) => {}
        }
        assert_eq!(self.bob.failed_opens(), self.failures);
    }
}

fuzz_target!(|input: Salted<Input<'_>>| {
    let Salted { salt, value: input } = input;
    let cipher = if input.aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
    let glass = GlassCrypto::default();
    let backend: &dyn CryptoBackend = if input.real { &RustCrypto } else { &glass };
    let mut model = Model::new(backend, cipher, &salt);
    for op in input.ops.into_iter().take(64) {
        match op {
            Op::Seal { lane, len, csum_partial } => model.seal(Lane(lane), len, csum_partial),
            Op::Finish => model.finish(),
            Op::Skip { lane, count, many } => model.skip(Lane(lane), u64::from(count) << if many { 13 } else { 0 }),
            Op::Deliver { pick } => model.deliver(pick),
            Op::Edited { pick, edit } => {
                let Some(sealed) = model.sealed.get(usize::from(pick) % model.sealed.len().max(1)) else { continue };
                let mut bytes = sealed.bytes.clone();
                edit.apply(&mut bytes);
                if bytes != sealed.bytes {
                    model.refuse(&mut bytes);
                }
            }
            Op::Reflected { pick } => {
                let Some(sealed) = model.sealed.get(usize::from(pick) % model.sealed.len().max(1)) else { continue };
                assert!(model.alice.open(&mut sealed.bytes.clone()).is_err(), "a reflected envelope is nobody's");
            }
            Op::Raw(bytes) => model.refuse(&mut bytes.to_vec()),
        }
    }
});
