//! The control stream of a peer that says anything.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::control::{Decoder, encode};

fuzz_target!(|pieces: Vec<&[u8]>| {
    let mut decoder = Decoder::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => {
                    let mut wire = Vec::new();
                    encode(message.clone(), &mut wire).expect("what was read can be written");
                    let mut again = Decoder::new();
                    again.push(&wire);
                    let read = again.next_message().expect("what was written can be read");
                    assert_eq!(read, Some(message));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
