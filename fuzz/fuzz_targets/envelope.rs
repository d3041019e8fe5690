//! The envelope's header: what decodes obeys the rules of its type and encodes to the same bytes.
#![no_main]

use std::num::NonZeroU32;

use libfuzzer_sys::fuzz_target;
use vine_core::wire::envelope::{EnvelopeType, Flags, HEADER_LEN, Header, HeaderError, MsgId, OVERHEAD};

fuzz_target!(|bytes: &[u8]| {
    let header = match Header::decode(bytes) {
        Ok(header) => header,
        Err(error) => {
            let too_short = bytes.len() < HEADER_LEN;
            assert!(!too_short || error == HeaderError::TooShort);
            return;
        }
    };
    assert_eq!(header.encode(), bytes[..HEADER_LEN]);
    let id = header.msg_id();
    assert_eq!(MsgId::new(id.lane(), id.counter()), Some(id));
    assert_eq!(id.nonce()[4..], bytes[8..HEADER_LEN]);
    let again = match header.kind() {
        EnvelopeType::Hello => {
            assert_eq!(header.session(), 0);
            Header::hello(header.sender_index().expect("a Hello tells its sender's index"))
        }
        EnvelopeType::HelloAck => {
            Header::hello_ack(header.session(), header.sender_index().expect("a HelloAck tells its sender's index"))
        }
        EnvelopeType::HelloFinish => {
            assert_eq!(bytes.len(), OVERHEAD);
            Header::hello_finish(header.session(), id)
        }
        EnvelopeType::Cookie => Header::cookie(header.session()),
        EnvelopeType::Sealed => {
            assert!(bytes.len() >= OVERHEAD);
            Header::sealed(header.session(), id, header.flags().contains(Flags::CSUM_PARTIAL))
        }
        EnvelopeType::Relayed => {
            assert!(bytes.len() >= 2 * HEADER_LEN);
            let handle = NonZeroU32::new(header.session()).expect("a Relayed names a channel");
            Header::relayed(handle, header.token().expect("a Relayed shows the channel's token"))
        }
    };
    assert_eq!(again, header, "every header could have been made by a constructor");
    assert_eq!(header.kind().is_sealed(), header.flags().contains(Flags::SEALED));
    assert_eq!(EnvelopeType::from_code(header.kind().code()), Some(header.kind()));
});
