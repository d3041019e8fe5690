//! PeerIds and secrets as text and as bytes: one key has one text, and up to four wrong characters are always noticed,
//! which is what bech32m promises for texts of this length (BIP 350).
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vine_core::identity::{Identity, PeerId};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Text(&'a str),
    Bytes([u8; 32]),
    /// Characters of the text of a valid key are replaced.
    Typos {
        secret: bool,
        key: u8,
        upper: bool,
        typos: [(u8, char); 4],
    },
    Seed([u8; 32]),
}

/// What both readers make of a text: its canonical form.
fn read(text: &str) -> (Option<String>, Option<String>) {
    let id = text.parse::<PeerId>().ok().map(|id| id.to_string());
    let secret = Identity::from_secret_text(text).ok().map(|identity| identity.to_secret_text().to_string());
    (id, secret)
}

fn check_text(text: &str) {
    let (id, secret) = read(text);
    assert!(id.is_none() || secret.is_none(), "no text is both");
    if let Some(id) = id {
        assert_eq!(id, text.to_ascii_lowercase());
    }
    if let Some(secret) = secret {
        assert_eq!(secret, text.trim_ascii().to_ascii_lowercase());
    }
}

fn check_id(id: PeerId) {
    assert_eq!(PeerId::from_bytes(*id.as_bytes()), Ok(id));
    let text = id.to_string();
    assert_eq!(text.len(), 63);
    assert_eq!(text.parse(), Ok(id));
    assert_eq!(text.to_ascii_uppercase().parse(), Ok(id));
    assert_ne!(id.x25519(), [0; 32]);
    assert_eq!(id.fingerprint().to_string().len(), 19);
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Text(text) => {
            check_text(text);
            check_text(&format!("vine1{text}"));
            check_text(&format!("vinesecret1{text}\n"));
        }
        Input::Bytes(bytes) => {
            if let Ok(id) = PeerId::from_bytes(bytes) {
                assert_eq!(*id.as_bytes(), bytes);
                check_id(id);
            }
        }
        Input::Typos { secret, key, upper, typos } => {
            let identity = Identity::from_seed([key % 4; 32]);
            let right = if secret { identity.to_secret_text().to_string() } else { identity.peer_id().to_string() };
            let mut characters: Vec<char> = right.chars().collect();
            for (at, to) in typos {
                let at = usize::from(at) % characters.len();
                characters[at] = to;
            }
            let mut text: String = characters.into_iter().collect();
            if upper {
                text.make_ascii_uppercase();
            }
            // White space around a secret is no part of it; an upper-case text is the same text.
            let same = text.eq_ignore_ascii_case(&right);
            if !same {
                assert_eq!(read(&text), (None, None), "{right} became {text}");
            }
            check_text(&text);
        }
        Input::Seed(seed) => {
            let identity = Identity::from_seed(seed);
            let text = identity.to_secret_text();
            check_text(&text);
            let again = Identity::from_secret_text(&text).expect("it was just written");
            assert_eq!(again.peer_id(), identity.peer_id());
            check_id(identity.peer_id());
        }
    }
});
