//! Messages of an opened payload: reading ends, an error is the last item, and what was read is written and read again,
//! with padding to any length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vine_core::wire::{Message, MessageError, MessageWriter, Messages, Payload};

/// The longest payload that is written here.
const ROOM: usize = 1024;

fn write(messages: &[Message], pad_to: u16) {
    let mut room = [0xee; ROOM];
    let mut writer = MessageWriter::new(&mut room);
    let mut written = Vec::new();
    for message in messages {
        let before = writer.len();
        match writer.push(message) {
            Ok(()) => {
                assert!(writer.len() - before <= Message::MAX_LEN);
                written.push(*message);
            }
            Err(_) => {
                assert_eq!(writer.len(), before, "whole or not at all");
                assert!(before + Message::MAX_LEN > ROOM);
            }
        }
    }
    let (before, target) = (writer.len(), usize::from(pad_to));
    let possible = target <= before || (target <= ROOM && target != before + 1);
    assert_eq!(writer.pad_to(target).is_ok(), possible);
    let len = writer.len();
    assert_eq!(len, if possible { before.max(target) } else { before });
    assert_eq!(Messages::new(&room[..len]).collect::<Result<Vec<_>, _>>(), Ok(written), "padding is passed over");
}

fuzz_target!(|input: (u16, &[u8])| {
    let (pad_to, payload) = input;
    let items: Vec<_> = Messages::new(payload).collect();
    assert!(items.len() <= payload.len() / 3 + 1, "the least message has 3 bytes");
    let errors = items.iter().filter(|item| item.is_err()).count();
    assert!(errors == 0 || (errors == 1 && items.last().is_some_and(Result::is_err)), "an error is the last item");

    let messages: Vec<Message> = items.iter().filter_map(|item| item.ok()).collect();
    write(&messages, pad_to);
    // Behind an unknown type and a longer body the same messages are read.
    let ahead = [&[0x3f, 2, 1, 2, 4, 3, 1, 9, 9], payload].concat();
    assert_eq!(Messages::new(&ahead).skip(1).collect::<Vec<_>>(), items);

    match Payload::classify(payload) {
        Payload::Empty => assert!(payload.is_empty()),
        Payload::Messages => {}
        Payload::Ip(_) => assert_eq!(items, [Err(MessageError::Type(payload[0]))]),
    }
});
