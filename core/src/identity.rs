//! Who a machine is.
//!
//! One 32-byte seed on disk is all there is ([`Identity`]); its Ed25519 public key is the machine's name ([`PeerId`]).
//! Noise needs an X25519 key: it is the same key on the Montgomery form of the curve (RFC 7748, section 4.1), so there
//! is nothing else to store, to back up or to exchange.
//!
//! ```
//! use vine_core::identity::{Identity, PeerId};
//!
//! let identity = Identity::from_seed([7; 32]);
//! let text = identity.peer_id().to_string();
//! assert!(text.starts_with("vine1"));
//! assert_eq!(text.parse::<PeerId>(), Ok(identity.peer_id()));
//! ```

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use bech32::primitives::decode::{CharError, UncheckedHrpstring, UncheckedHrpstringError};
use bech32::{Bech32m, ByteIterExt, Fe32IterExt, Hrp};
use blake2::digest::consts::U8;
use blake2::{Blake2s, Digest};
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::traits::IsIdentity;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

/// Human-readable part of a [`PeerId`] in text.
pub const PEER_ID_PREFIX: &str = "vine";
/// Human-readable part of an [`Identity`]'s secret in text: not that of a [`PeerId`], so that one never passes for the
/// other.
pub const SECRET_PREFIX: &str = "vinesecret";

static PEER_ID_HRP: Hrp = Hrp::parse_unchecked(PEER_ID_PREFIX);
static SECRET_HRP: Hrp = Hrp::parse_unchecked(SECRET_PREFIX);

/// Bech32 characters that carry 32 bytes (5 bits each, the last 4 bits zero).
const DATA_CHARS: usize = 52;
/// Bech32 characters of the checksum.
const CHECKSUM_CHARS: usize = 6;

/// The secret of one machine, wiped from memory when dropped.
///
/// Everything else is derived from its 32-byte seed: the [`PeerId`], the Noise static key and signatures.
pub struct Identity {
    signing: SigningKey,
    peer_id: PeerId,
}

impl Identity {
    /// The identity of `seed`: 32 bytes of the operating system's best randomness.
    ///
    /// Any seed is valid: clamping (RFC 8032, section 5.1.5) keeps the secret scalar away from zero.
    pub fn from_seed(seed: [u8; 32]) -> Identity {
        let seed = Zeroizing::new(seed);
        let signing = SigningKey::from_bytes(&seed);
        let peer_id = PeerId(signing.verifying_key().to_bytes());
        Identity { signing, peer_id }
    }

    /// The public name of this identity.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Signs `message` (Ed25519, RFC 8032, section 5.1.6). The same message has the same signature every time.
    ///
    /// What is signed begins with a text of its own for each use, so that a signature never serves for something else.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// The secret Noise static key; its public half is [`PeerId::x25519`] of [`Identity::peer_id`].
    pub fn x25519_secret(&self) -> StaticSecret {
        let scalar = Zeroizing::new(self.signing.to_scalar_bytes());
        StaticSecret::from(*scalar)
    }

    /// The public Noise static key.
    pub fn x25519_public(&self) -> [u8; 32] {
        self.peer_id.x25519()
    }

    /// The seed in bech32m with the prefix [`SECRET_PREFIX`]: 69 ASCII characters, without a line end.
    ///
    /// The checksum makes a flipped or missing character an error, and not the identity of nobody.
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(text_len(SECRET_PREFIX)));
        text.extend(encode(&SECRET_HRP, self.signing.as_bytes()));
        text
    }

    /// Reads [`Identity::to_secret_text`] back; white space around it (a line end) is ignored.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, never any part of it that could be secret.
    pub fn from_secret_text(text: &str) -> Result<Identity, TextError> {
        decode(SECRET_PREFIX, text.trim_ascii()).map(|seed| Identity::from_seed(*seed))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("peer_id", &self.peer_id).finish_non_exhaustive()
    }
}

/// The public name of a machine: an Ed25519 public key that is canonical, torsion-free and not the identity point.
///
/// In text it is bech32m with the prefix [`PEER_ID_PREFIX`], 63 characters, so that a typo is an error and not another
/// peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// Takes the 32 bytes of a public key.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if the bytes are not the one valid encoding of a point of the prime-order group other than the
    /// identity point: a key outside of it would give several names to one machine, or a shared secret that strangers
    /// know.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<PeerId, KeyError> {
        let compressed = CompressedEdwardsY(bytes);
        let point = compressed.decompress().ok_or(KeyError::NotOnCurve)?;
        if point.compress() != compressed {
            return Err(KeyError::NonCanonical);
        }
        if point.is_identity() {
            return Err(KeyError::IdentityPoint);
        }
        if !point.is_torsion_free() {
            return Err(KeyError::Torsion);
        }
        Ok(PeerId(bytes))
    }

    /// The 32 bytes of the Ed25519 public key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether the holder of this key signed `message`.
    ///
    /// Strict: of all that RFC 8032, section 5.1.7, lets an implementation accept, only what every one accepts, so that all
    /// nodes agree on what is signed.
    ///
    /// # Errors
    ///
    /// [`BadSignature`].
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        key.verify_strict(message, &Signature::from_bytes(signature)).map_err(|_| BadSignature)
    }

    /// The same key in X25519 form: the Noise static public key of this peer (RFC 7748, section 4.1).
    ///
    /// The map forgets the sign, so two PeerIds can share one u-coordinate; a configuration that names both is refused.
    pub fn x25519(&self) -> [u8; 32] {
        let point = CompressedEdwardsY(self.0).decompress();
        point.expect("a PeerId is a valid point since it was constructed").to_montgomery().to_bytes()
    }

    /// A short form for human eyes. It is for comparing by voice or at a glance, not for authentication.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Blake2s::<U8>::digest(self.0).into())
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(text_len(PEER_ID_PREFIX));
        text.extend(encode(&PEER_ID_HRP, &self.0));
        f.pad(&text)
    }
}

/// Long enough to tell the peers of one mesh apart in a log line, and searchable as the start of the whole text.
impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        text.extend(encode(&PEER_ID_HRP, &self.0).take(PEER_ID_PREFIX.len() + 1 + 8));
        f.pad(&text)
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<PeerId, PeerIdError> {
        Ok(PeerId::from_bytes(*decode(PEER_ID_PREFIX, text)?)?)
    }
}

/// 64 bits of BLAKE2s over a [`PeerId`], shown as 16 hexadecimal digits in groups of 4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 8]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i] = self.0;
        write!(f, "{a:02x}{b:02x}-{c:02x}{d:02x}-{e:02x}{g:02x}-{h:02x}{i:02x}")
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A signature is not that of this key over this message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the signature is not valid")]
pub struct BadSignature;

/// Why 32 bytes are not a [`PeerId`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// No point of the curve has this encoding.
    #[error("not a valid Ed25519 public key: no such point on the curve")]
    NotOnCurve,
    /// A second spelling of a point; each has only one valid one.
    #[error("not a valid Ed25519 public key: the encoding is not canonical")]
    NonCanonical,
    /// The neutral element, whose secret key is zero.
    #[error("not a valid Ed25519 public key: the identity point")]
    IdentityPoint,
    /// The point has a component of small order.
    #[error("not a valid Ed25519 public key: the point is not torsion-free")]
    Torsion,
}

/// Why a text is not the bech32m form that was expected. Nothing in it repeats what could be secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TextError {
    /// A PeerId where a secret belongs.
    #[error("this is a peer id (`vine1...`), and not an identity's secret (`vinesecret1...`)")]
    PeerIdForSecret,
    /// A secret where a PeerId belongs.
    #[error("this is an identity's secret (`vinesecret1...`), which belongs into no other file; expected `vine1...`")]
    SecretForPeerId,
    /// Anything else before the data.
    #[error("it does not start with `{expected}1`")]
    Prefix {
        /// The human-readable part that was expected.
        expected: &'static str,
    },
    /// A character that bech32 does not use (`b`, `i`, `o` and `1` are left out, because they look like others).
    #[error("the character {0:?} cannot occur here")]
    Character(char),
    /// Upper and lower case mixed.
    #[error("upper and lower case are mixed")]
    MixedCase,
    /// Characters are missing or too many.
    #[error("{found} characters instead of {expected}: it was cut short, or something was added")]
    Length {
        /// Characters of a valid text.
        expected: usize,
        /// Characters of this one.
        found: usize,
    },
    /// At least one character is not what was written.
    #[error("the checksum does not match: at least one character is wrong")]
    Checksum,
    /// The checksum is right, but the 4 spare bits are not zero: nothing that vine wrote.
    #[error("not a 32-byte key: the unused bits at its end are set")]
    Padding,
}

/// Why a text is not a [`PeerId`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PeerIdError {
    /// The text itself is wrong.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The text is fine, the key in it is not.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Characters of a 32-byte value in text with this prefix.
const fn text_len(prefix: &str) -> usize {
    prefix.len() + 1 + DATA_CHARS + CHECKSUM_CHARS
}

/// The characters of the bech32m form; the caller picks the buffer, because that of a secret has to be wiped.
fn encode(hrp: &'static Hrp, bytes: &[u8; 32]) -> impl Iterator<Item = char> {
    bytes.iter().copied().bytes_to_fes().with_checksum::<Bech32m>(hrp).chars()
}

/// Reads 32 bytes, and says as exactly as it can what is wrong: a person has to find the typo.
fn decode(prefix: &'static str, text: &str) -> Result<Zeroizing<[u8; 32]>, TextError> {
    let starts_with = |prefix: &str| {
        let head = text.get(..prefix.len()).unwrap_or_default();
        head.eq_ignore_ascii_case(prefix) && text.as_bytes().get(prefix.len()) == Some(&b'1')
    };
    if !starts_with(prefix) {
        return Err(match prefix {
            SECRET_PREFIX if starts_with(PEER_ID_PREFIX) => TextError::PeerIdForSecret,
            PEER_ID_PREFIX if starts_with(SECRET_PREFIX) => TextError::SecretForPeerId,
            _ => TextError::Prefix { expected: prefix },
        });
    }
    let parsed = UncheckedHrpstring::new(text).map_err(|error| match error {
        UncheckedHrpstringError::Char(CharError::InvalidChar(found)) => TextError::Character(found),
        UncheckedHrpstringError::Char(CharError::MixedCase) => TextError::MixedCase,
        // Nothing behind the separator, or a second separator so far behind that it looks like a long prefix.
        _ => TextError::Length { expected: text_len(prefix), found: text.chars().count() },
    })?;
    if parsed.hrp().len() != prefix.len() {
        return Err(TextError::Character('1'));
    }
    // Before the checksum, so that a missing character is told apart from a flipped one.
    if text.len() != text_len(prefix) {
        return Err(TextError::Length { expected: text_len(prefix), found: text.len() });
    }
    if !parsed.has_valid_checksum::<Bech32m>() {
        return Err(TextError::Checksum);
    }
    let checked = parsed.remove_checksum::<Bech32m>();
    let mut bytes = Zeroizing::new([0; 32]);
    for (place, byte) in bytes.iter_mut().zip(checked.byte_iter()) {
        *place = byte;
    }
    // Each key has exactly one text: the spare bits of the last character are zero.
    let spare_bits = checked.fe32_iter().last().map_or(0, |last| last.to_u8() & 0x0f);
    if spare_bits != 0 {
        return Err(TextError::Padding);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use bech32::Fe32;
    use curve25519_dalek::EdwardsPoint;
    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
    use proptest::prelude::*;

    /// RFC 8032, section 7.1, test 1.
    const SEED: [u8; 32] = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
        0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
    ];
    const PUBLIC: [u8; 32] = [
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1,
        0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ];

    fn with_data(prefix: &str, data: impl Iterator<Item = Fe32>) -> String {
        data.with_checksum::<Bech32m>(&Hrp::parse(prefix).unwrap()).chars().collect()
    }

    /// Another character of the alphabet for the one at `at`.
    fn flip(text: &str, at: usize) -> String {
        let other = if text.as_bytes()[at] == b'q' { 'p' } else { 'q' };
        text.chars().enumerate().map(|(i, c)| if i == at { other } else { c }).collect()
    }

    #[test]
    fn peer_id_is_the_ed25519_public_key() {
        assert_eq!(Identity::from_seed(SEED).peer_id().as_bytes(), &PUBLIC);
        assert_eq!(PeerId::from_bytes(PUBLIC), Ok(Identity::from_seed(SEED).peer_id()));
    }

    #[test]
    fn text_forms_are_fixed() {
        let identity = Identity::from_seed(SEED);
        let id = identity.peer_id();
        assert_eq!(id.to_string(), "vine16adfsqvzky9t042tlmfujeq88g8wzuhnm2nzxfd0qgdx3ac82ydqhas2rz");
        assert_eq!(format!("{id:?}"), "vine16adfsqvz");
        assert_eq!(id.fingerprint().to_string(), "6731-f688-39b6-44b2");
        assert_eq!(
            identity.to_secret_text().as_str(),
            "vinesecret1n4smr800l4dxpw5yft6f9mpvc3zyn3tf0vexjxts8wkqx89w0asqdk372l"
        );
    }

    #[test]
    fn signatures_are_those_of_rfc_8032() {
        // Section 7.1, test 1: the empty message.
        const SIGNATURE: [u8; 64] = [
            0xe5, 0x56, 0x43, 0x00, 0xc3, 0x60, 0xac, 0x72, 0x90, 0x86, 0xe2, 0xcc, 0x80, 0x6e, 0x82, 0x8a, 0x84, 0x87,
            0x7f, 0x1e, 0xb8, 0xe5, 0xd9, 0x74, 0xd8, 0x73, 0xe0, 0x65, 0x22, 0x49, 0x01, 0x55, 0x5f, 0xb8, 0x82, 0x15,
            0x90, 0xa3, 0x3b, 0xac, 0xc6, 0x1e, 0x39, 0x70, 0x1c, 0xf9, 0xb4, 0x6b, 0xd2, 0x5b, 0xf5, 0xf0, 0x59, 0x5b,
            0xbe, 0x24, 0x65, 0x51, 0x41, 0x43, 0x8e, 0x7a, 0x10, 0x0b,
        ];
        let identity = Identity::from_seed(SEED);
        assert_eq!(identity.sign(b""), SIGNATURE);
        assert_eq!(identity.peer_id().verify(b"", &SIGNATURE), Ok(()));
        assert_eq!(identity.peer_id().verify(b"x", &SIGNATURE), Err(BadSignature));
        assert_eq!(Identity::from_seed([1; 32]).peer_id().verify(b"", &SIGNATURE), Err(BadSignature));
    }

    #[test]
    fn a_signature_has_one_form() {
        let identity = Identity::from_seed(SEED);
        let signature = identity.sign(b"message");
        for bit in 0..signature.len() * 8 {
            let mut other = signature;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(identity.peer_id().verify(b"message", &other), Err(BadSignature), "bit {bit}");
        }
        // The same scalar, larger by the order of the group.
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut unreduced = signature;
        let mut carry = 0;
        for (byte, add) in unreduced[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        assert_eq!(identity.peer_id().verify(b"message", &unreduced), Err(BadSignature));
    }

    #[test]
    fn debug_does_not_print_the_secret() {
        let identity = Identity::from_seed(SEED);
        let shown = format!("{identity:?}");
        assert_eq!(shown, format!("Identity {{ peer_id: {:?}, .. }}", identity.peer_id()));
    }

    #[test]
    fn x25519_halves_belong_together() {
        let identity = Identity::from_seed(SEED);
        let public = x25519_dalek::PublicKey::from(&identity.x25519_secret());
        assert_eq!(public.to_bytes(), identity.x25519_public());
    }

    #[test]
    fn invalid_points_are_refused() {
        let bytes = |point: EdwardsPoint| point.compress().0;
        assert_eq!(PeerId::from_bytes(bytes(EIGHT_TORSION[0])), Err(KeyError::IdentityPoint));
        for torsion in &EIGHT_TORSION[1..] {
            assert_eq!(PeerId::from_bytes(bytes(*torsion)), Err(KeyError::Torsion));
            assert_eq!(PeerId::from_bytes(bytes(ED25519_BASEPOINT_POINT + torsion)), Err(KeyError::Torsion));
        }
        // y = 2 is not on the curve.
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        assert_eq!(PeerId::from_bytes(off_curve), Err(KeyError::NotOnCurve));
        // y = p + 1, a second spelling of the identity point; and the identity point with a sign.
        let mut unreduced = [0xff; 32];
        (unreduced[0], unreduced[31]) = (0xee, 0x7f);
        assert_eq!(PeerId::from_bytes(unreduced), Err(KeyError::NonCanonical));
        let mut negative_zero = [0; 32];
        (negative_zero[0], negative_zero[31]) = (1, 0x80);
        assert!(matches!(PeerId::from_bytes(negative_zero), Err(KeyError::NonCanonical | KeyError::NotOnCurve)));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let identity = Identity::from_seed(SEED);
        let id = identity.peer_id().to_string();
        let secret = identity.to_secret_text();
        let error = |text: &str| match text.parse::<PeerId>() {
            Err(PeerIdError::Text(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(error(""), TextError::Prefix { expected: "vine" });
        assert_eq!(error("nonsense"), TextError::Prefix { expected: "vine" });
        assert_eq!(error(&id.replacen("vine", "vime", 1)), TextError::Prefix { expected: "vine" });
        assert_eq!(error(&secret), TextError::SecretForPeerId);
        assert_eq!(error("vine1"), TextError::Length { expected: 63, found: 5 });
        assert_eq!(error(&id.replacen('q', "1", 1)), TextError::Character('1'));
        assert_eq!(error(&id.replacen('q', "b", 1)), TextError::Character('b'));
        assert_eq!(error(&format!("{id}\u{e9}")), TextError::Character('\u{e9}'));
        assert_eq!(error(&id.replacen('q', "Q", 1)), TextError::MixedCase);
        assert_eq!(error(&id[..62]), TextError::Length { expected: 63, found: 62 });
        assert_eq!(error(&flip(&id, 30)), TextError::Checksum);
        assert_eq!(id.to_uppercase().parse(), Ok(identity.peer_id()));

        let set_spare_bit = |fes: &mut Vec<Fe32>| fes[51] = Fe32::try_from(fes[51].to_u8() | 1).unwrap();
        let mut fes: Vec<Fe32> = PUBLIC.into_iter().bytes_to_fes().collect();
        set_spare_bit(&mut fes);
        assert_eq!(error(&with_data("vine", fes.into_iter())), TextError::Padding);

        let torsion = with_data("vine", EIGHT_TORSION[1].compress().0.into_iter().bytes_to_fes());
        assert_eq!(torsion.parse::<PeerId>(), Err(PeerIdError::Key(KeyError::Torsion)));

        assert_eq!(Identity::from_secret_text(&id).unwrap_err(), TextError::PeerIdForSecret);
        assert_eq!(
            Identity::from_secret_text(&secret[..50]).unwrap_err(),
            TextError::Length { expected: 69, found: 50 }
        );
        assert_eq!(Identity::from_secret_text(&flip(&secret, 20)).unwrap_err(), TextError::Checksum);
    }

    proptest! {
        #[test]
        fn every_seed_round_trips(seed in any::<[u8; 32]>()) {
            let identity = Identity::from_seed(seed);
            let id = identity.peer_id();
            prop_assert_eq!(PeerId::from_bytes(*id.as_bytes()), Ok(id));
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            let text = identity.to_secret_text();
            prop_assert_eq!(text.len(), 69);
            let again = Identity::from_secret_text(&format!("{}\n", text.as_str())).unwrap();
            prop_assert_eq!(again.peer_id(), id);
        }

        #[test]
        fn every_flipped_or_missing_character_is_noticed(seed in any::<[u8; 32]>(), at in 0usize..63) {
            let text = Identity::from_seed(seed).peer_id().to_string();
            prop_assert!(flip(&text, at).parse::<PeerId>().is_err());
            let shorter: String = text.chars().enumerate().filter(|(i, _)| *i != at).map(|(_, c)| c).collect();
            prop_assert!(shorter.parse::<PeerId>().is_err());
        }

        #[test]
        fn any_bytes_and_any_text_are_survived(bytes in any::<[u8; 32]>(), text in "\\PC{0,80}") {
            let _ = PeerId::from_bytes(bytes);
            let _ = text.parse::<PeerId>();
            let _ = Identity::from_secret_text(&text);
        }
    }
}
