//! The handshake against others: the published test vector, `snow` in both roles, and hostile messages.
// Clippy takes helpers of an integration test for library code.
#![allow(clippy::unwrap_used)]

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use proptest::prelude::*;
use vine_core::session::noise::{
    Claim, Established, Initiator, MESSAGE_1_OVERHEAD, MESSAGE_2_OVERHEAD, NoiseError, Parameters, Responder, StaticKey,
};

const VECTOR: &str = include_str!("vectors/noise_ikpsk2_25519_chachapoly_blake2s.json");
const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";

/// X25519 points of small order, and their unreduced spellings (Cremers and Jackson, "Prime, Order Please!").
const SMALL_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn key(text: &str) -> [u8; 32] {
    unhex(text).try_into().unwrap()
}

/// Every string that follows `name` in the vector file, decoded: the file is flat enough not to need a JSON parser.
fn fields(name: &str) -> Vec<Vec<u8>> {
    let name = format!("\"{name}\"");
    VECTOR.match_indices(&name).map(|(at, _)| unhex(VECTOR[at + name.len()..].split('"').nth(1).unwrap())).collect()
}

fn field<const N: usize>(name: &str) -> [u8; N] {
    fields(name)[0].clone().try_into().unwrap()
}

/// One pair with everything fixed.
struct Pair {
    alice: StaticKey,
    bob: StaticKey,
    psk: [u8; 32],
    prologue: Vec<u8>,
}

impl Pair {
    fn new() -> Pair {
        Pair {
            alice: StaticKey::new([1; 32]),
            bob: StaticKey::new([2; 32]),
            psk: [3; 32],
            prologue: b"prologue".to_vec(),
        }
    }

    fn initiate(&self, ephemeral: [u8; 32], payload: &[u8]) -> (Initiator, Vec<u8>) {
        let mut message = vec![];
        let parameters = Parameters { local: &self.alice, psk: &self.psk, prologue: &[&self.prologue] };
        let shared = self.alice.agree(self.bob.public()).unwrap();
        let remote = self.bob.public();
        let initiator =
            Initiator::write_message_1(parameters, remote, &shared, &ephemeral, payload, &mut message).unwrap();
        (initiator, message)
    }

    fn respond(&self, message: &[u8]) -> Result<(Responder, Vec<u8>), NoiseError> {
        let parameters = Parameters { local: &self.bob, psk: &self.psk, prologue: &[&self.prologue] };
        Responder::read_message_1(parameters, message)
    }
}

fn snow_builder<'a>(local: &'a [u8; 32], psk: &'a [u8; 32], prologue: &'a [u8]) -> snow::Builder<'a> {
    let builder = snow::Builder::new(PATTERN.parse().unwrap());
    builder.psk(2, psk).unwrap().local_private_key(local).unwrap().prologue(prologue).unwrap()
}

#[test]
fn published_vector() {
    let payloads = fields("payload");
    let ciphertexts = fields("ciphertext");
    let (alice, bob) = (StaticKey::new(field("init_static")), StaticKey::new(field("resp_static")));
    let psk: [u8; 32] = field("init_psks");
    let prologue = &fields("init_prologue")[0];
    assert_eq!(bob.public(), &field("init_remote_static"));

    let mut message = vec![];
    // In two parts, which must hash as one.
    let parameters = Parameters { local: &alice, psk: &psk, prologue: &[&prologue[..3], &prologue[3..]] };
    let shared = alice.agree(bob.public()).unwrap();
    let ephemeral = field("init_ephemeral");
    let initiator =
        Initiator::write_message_1(parameters, bob.public(), &shared, &ephemeral, &payloads[0], &mut message).unwrap();
    assert_eq!(message, ciphertexts[0]);
    assert_eq!(message.len(), payloads[0].len() + MESSAGE_1_OVERHEAD);

    let parameters = Parameters { local: &bob, psk: &psk, prologue: &[prologue] };
    let claim = Claim::read_message_1(parameters, &message).unwrap();
    assert_eq!(claim.remote_static(), alice.public());
    let (responder, payload) = claim.prove(&bob.agree(alice.public()).unwrap()).unwrap();
    assert_eq!((payload, responder.remote_static()), (payloads[0].clone(), alice.public()));

    message.clear();
    let bobs = responder.write_message_2(&field("resp_ephemeral"), &payloads[1], &mut message).unwrap();
    assert_eq!(message, ciphertexts[1]);
    assert_eq!(message.len(), payloads[1].len() + MESSAGE_2_OVERHEAD);

    let (alices, payload) = initiator.read_message_2(&message).unwrap();
    assert_eq!(payload, payloads[1]);
    assert_eq!((alices.hash, bobs.hash), (field("handshake_hash"), field("handshake_hash")));
    assert_eq!((&alices.send, &alices.receive), (&bobs.receive, &bobs.send));

    // The vector goes on with transport messages, alternating; they prove which split key is whose.
    assert_eq!(payloads.len(), 6);
    for (index, (payload, ciphertext)) in payloads.iter().zip(&ciphertexts).enumerate().skip(2) {
        let mut nonce = [0; 12];
        nonce[4] = (index / 2 - 1) as u8;
        let key = if index % 2 == 0 { &alices.send } else { &bobs.send };
        let mut buffer = payload.clone();
        let cipher = ChaCha20Poly1305::new((&**key).into());
        let tag = cipher.encrypt_inout_detached(&Nonce::from(nonce), &[], buffer.as_mut_slice().into()).unwrap();
        buffer.extend_from_slice(&tag);
        assert_eq!(&buffer, ciphertext);
    }
}

/// What `snow` calls the split keys: the initiator's direction first.
fn same_outcome(mut snow: snow::HandshakeState, vine: &Established, vine_initiates: bool) {
    assert_eq!(snow.get_handshake_hash(), vine.hash);
    let (initiator, responder) = snow.dangerously_get_raw_split();
    let (send, receive) = if vine_initiates { (initiator, responder) } else { (responder, initiator) };
    assert_eq!((*vine.send, *vine.receive), (send, receive));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn snow_answers(
        secrets in any::<[[u8; 32]; 3]>(),
        psk in any::<[u8; 32]>(),
        prologue in prop::collection::vec(any::<u8>(), 0..80),
        payloads in prop::array::uniform2(prop::collection::vec(any::<u8>(), 0..300)),
    ) {
        let [alice, bob, ephemeral] = secrets;
        let pair = Pair { alice: StaticKey::new(alice), bob: StaticKey::new(bob), psk, prologue };
        let (initiator, message) = pair.initiate(ephemeral, &payloads[0]);

        let mut snow = snow_builder(&bob, &psk, &pair.prologue).build_responder().unwrap();
        let mut buffer = [0; 1024];
        let len = snow.read_message(&message, &mut buffer).unwrap();
        prop_assert_eq!(&buffer[..len], &payloads[0][..]);
        prop_assert_eq!(snow.get_remote_static(), Some(&pair.alice.public()[..]));
        let len = snow.write_message(&payloads[1], &mut buffer).unwrap();

        let (established, payload) = initiator.read_message_2(&buffer[..len]).unwrap();
        prop_assert_eq!(&payload, &payloads[1]);
        same_outcome(snow, &established, true);
    }

    #[test]
    fn snow_asks(
        secrets in any::<[[u8; 32]; 3]>(),
        psk in any::<[u8; 32]>(),
        prologue in prop::collection::vec(any::<u8>(), 0..80),
        payloads in prop::array::uniform2(prop::collection::vec(any::<u8>(), 0..300)),
    ) {
        let [alice, bob, ephemeral] = secrets;
        let pair = Pair { alice: StaticKey::new(alice), bob: StaticKey::new(bob), psk, prologue };
        let builder = snow_builder(&alice, &psk, &pair.prologue).remote_public_key(pair.bob.public()).unwrap();
        let mut snow = builder.build_initiator().unwrap();
        let mut buffer = [0; 1024];
        let len = snow.write_message(&payloads[0], &mut buffer).unwrap();

        let (responder, payload) = pair.respond(&buffer[..len]).unwrap();
        prop_assert_eq!(&payload, &payloads[0]);
        prop_assert_eq!(responder.remote_static(), pair.alice.public());
        let mut message = vec![];
        let established = responder.write_message_2(&ephemeral, &payloads[1], &mut message).unwrap();

        let len = snow.read_message(&message, &mut buffer).unwrap();
        prop_assert_eq!(&buffer[..len], &payloads[1][..]);
        same_outcome(snow, &established, false);
    }

    #[test]
    fn a_forged_message_2_spends_nothing(forged in prop::collection::vec(any::<u8>(), 0..100), at in 0usize..55, bit in 0u8..8) {
        let pair = Pair::new();
        let (initiator, message_1) = pair.initiate([4; 32], b"hello");
        let (responder, _) = pair.respond(&message_1).unwrap();
        let mut message_2 = vec![];
        let bobs = responder.write_message_2(&[5; 32], b"welcome", &mut message_2).unwrap();

        prop_assert!(initiator.read_message_2(&forged).is_err());
        let mut tampered = message_2.clone();
        tampered[at] ^= 1 << bit;
        prop_assert!(initiator.read_message_2(&tampered).is_err());
        prop_assert!(initiator.read_message_2(&message_2[..at]).is_err());

        let (alices, payload) = initiator.read_message_2(&message_2).unwrap();
        prop_assert_eq!((alices.hash, payload), (bobs.hash, b"welcome".to_vec()));
    }

    #[test]
    fn a_tampered_message_1_is_refused(at in 0usize..101, bit in 0u8..8) {
        let pair = Pair::new();
        let (_, mut message) = pair.initiate([4; 32], b"hello");
        prop_assert_eq!(message.len(), 101);
        prop_assert!(pair.respond(&message[..at]).is_err());
        message[at] ^= 1 << bit;
        prop_assert!(pair.respond(&message).is_err());
    }

    #[test]
    fn any_bytes_are_survived(message in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Pair::new().respond(&message).is_err());
    }
}

#[test]
fn both_sides_need_the_same_network_and_prologue() {
    let pair = Pair::new();
    let (initiator, message) = pair.initiate([4; 32], b"");
    let elsewhere = Pair { prologue: b"another".to_vec(), ..Pair::new() };
    assert_eq!(elsewhere.respond(&message).unwrap_err(), NoiseError::Authentication);

    // The psk comes in with message 2, so message 1 passes and the answer does not.
    let elsewhere = Pair { psk: [9; 32], ..Pair::new() };
    let (responder, _) = elsewhere.respond(&message).unwrap();
    let mut answer = vec![];
    responder.write_message_2(&[5; 32], b"", &mut answer).unwrap();
    assert_eq!(initiator.read_message_2(&answer).unwrap_err(), NoiseError::Authentication);
}

#[test]
fn a_claim_without_the_secret_key_is_refused() {
    // Mallory seals alice's public key to bob, but cannot compute their shared secret.
    let pair = Pair::new();
    let mallory = StaticKey::new([7; 32]);
    let (_, message) = Pair { alice: mallory.clone(), ..Pair::new() }.initiate([4; 32], b"");
    let parameters = Parameters { local: &pair.bob, psk: &pair.psk, prologue: &[&pair.prologue] };
    let claim = Claim::read_message_1(parameters, &message).unwrap();
    assert_eq!(claim.remote_static(), mallory.public());
    let with_alice = pair.bob.agree(pair.alice.public()).unwrap();
    assert_eq!(claim.prove(&with_alice).unwrap_err(), NoiseError::Authentication);
}

#[test]
fn points_of_small_order_are_refused_everywhere() {
    let pair = Pair::new();
    let (initiator, message_1) = pair.initiate([4; 32], b"");
    let shared = pair.alice.agree(pair.bob.public()).unwrap();
    let mut out = vec![];
    for point in SMALL_ORDER.map(key) {
        assert_eq!(pair.alice.agree(&point).unwrap_err(), NoiseError::ZeroSharedSecret);
        let parameters = Parameters { local: &pair.alice, psk: &pair.psk, prologue: &[] };
        let refused = Initiator::write_message_1(parameters, &point, &shared, &[4; 32], b"", &mut out);
        assert_eq!(refused.unwrap_err(), NoiseError::ZeroSharedSecret);
        assert!(out.is_empty());

        let mut message = message_1.clone();
        message[..32].copy_from_slice(&point);
        assert_eq!(pair.respond(&message).unwrap_err(), NoiseError::ZeroSharedSecret);
        let mut message = [0; 48];
        message[..32].copy_from_slice(&point);
        assert_eq!(initiator.read_message_2(&message).unwrap_err(), NoiseError::ZeroSharedSecret);
    }
}

#[test]
fn lengths_have_limits() {
    let pair = Pair::new();
    let longest = vec![0; 65_535 - MESSAGE_1_OVERHEAD];
    let (_, message) = pair.initiate([4; 32], &longest);
    assert_eq!(pair.respond(&message).unwrap().1, longest);
    assert_eq!(pair.respond(&[&message[..], &[0]].concat()).unwrap_err(), NoiseError::Length);

    let shared = pair.alice.agree(pair.bob.public()).unwrap();
    let parameters = Parameters { local: &pair.alice, psk: &pair.psk, prologue: &[] };
    let too_long = vec![0; longest.len() + 1];
    let mut out = vec![];
    let refused = Initiator::write_message_1(parameters, pair.bob.public(), &shared, &[4; 32], &too_long, &mut out);
    assert_eq!(refused.unwrap_err(), NoiseError::Length);
}

#[test]
fn nothing_prints_a_secret() {
    let pair = Pair::new();
    let (initiator, message) = pair.initiate([4; 32], b"");
    let (responder, _) = pair.respond(&message).unwrap();
    let shown = format!("{:?} {initiator:?} {:?}", pair.alice, pair.alice.agree(pair.bob.public()).unwrap());
    assert!(!shown.contains("1, 1, 1"), "{shown}");
    let shown = format!("{:?}", responder.write_message_2(&[5; 32], b"", &mut vec![]).unwrap());
    assert!(shown.starts_with("Established { hash: [") && shown.ends_with("], .. }"), "{shown}");
}
