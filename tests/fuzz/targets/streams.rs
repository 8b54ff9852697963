//! The first frame of a stream, and the frames of the fault connection and about copies.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::copies;
use protocol::framing::Decoder;
use protocol::limits::FAULT_FRAME_BYTES_MAX;
use protocol::stream::{FaultEnvelope, StreamHead};

fuzz_target!(|pieces: Vec<&[u8]>| {
    let mut heads = Decoder::new();
    let mut faults = Decoder::limited(FAULT_FRAME_BYTES_MAX);
    let mut about_copies = Decoder::new();
    for piece in pieces {
        heads.push(piece);
        faults.push(piece);
        about_copies.push(piece);
        while let Ok(Some(head)) = heads.next_frame::<StreamHead>() {
            let _ = head.check();
        }
        while let Ok(Some(fault)) = faults.next_frame::<FaultEnvelope>() {
            let _ = fault.check();
        }
        while let Ok(Some(message)) = copies::next_message(&mut about_copies) {
            let mut wire = Vec::new();
            copies::encode(message, &mut wire).expect("what was read can be written");
        }
    }
});
