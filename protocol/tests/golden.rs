//! The bytes of every message. They can only ever be added to: hosts of two versions meet.
//!
//! When a test fails here, the wire has changed. Unless a field was added under a new tag, that is
//! a mistake.

use prost::Message as _;
use protocol::message::*;
use protocol::stream::{
    Bulk, Control, Copies, FaultEnvelope, FaultMessage, Faults, PageReply, PageRequest, Role,
    StreamHead,
};
use protocol::version::{Hello, HostFacts, Offered};
use protocol::{Failure, Phase, Side};

const ID: MigrationId = MigrationId { high: 0x0102_0304_0506_0708, low: 0x090a_0b0c_0d0e_0f10 };

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hello() -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 2,
        agent: "m".into(),
        kinds: vec![Offered { name: "pipe".into(), version: 1 }],
        aspects: vec![Offered { name: "rseq".into(), version: 2 }],
        host: HostFacts {
            hostname: "h".into(),
            boot_id: "b".into(),
            kernel_release: "6".into(),
            architecture: "x".into(),
            page_size: 4096,
            cpu_features: vec!["avx".into()],
            xsave_size: 832,
            xsave_features: 7,
            features: vec!["uffd".into()],
            free_memory_bytes: 1,
        },
    }
}

fn failure() -> Failure {
    Failure::new(Side::Destination, Phase::Stage, "a", "o").with_errno(12).because("c")
}

fn refusal() -> Refusal {
    Refusal::new("o", "r", "a")
}

fn messages() -> Vec<(Message, &'static str)> {
    let bytes = || vec![0xab].into();
    let timings_ns = [("map".to_owned(), 5)].into();
    let (migration, more) = (ID, true);
    vec![
        (
            Message::Hello(hello()),
            "0a3e080110021a016d22080a047069706510012a080a0472736571100232210a016812\
             01621a0136220178288020320361767838c00640074a04756666645001",
        ),
        (
            Message::Offer(Offer {
                migration,
                inventory: bytes(),
                more,
                memory_bytes: 1,
                process_count: 2,
                thread_count: 3,
                lazy: Lazy::Never.into(),
                compress: true,
            }),
            "12230a1209080706050403020111100f0e0d0c0b0a091201ab18012001280230033802\
             4001",
        ),
        (Message::Accept(Accept { monotonic_ns: 1, boottime_ns: 2 }), "1a0408011002"),
        (Message::Refuse(Refuse::new(vec![refusal()])), "220b0a090a016f1201721a0161"),
        (
            Message::Stage(Stage {
                layout: bytes(),
                more,
                monotonic_offset_ns: -1,
                boottime_offset_ns: 1,
            }),
            "2a090a01ab100118012002",
        ),
        (Message::Staged(Staged {}), "3200"),
        (Message::RoundBegin(RoundBegin { round: 1, layout: bytes(), more }), "3a0708011201ab1801"),
        (
            Message::RoundEnd(RoundEnd {
                round: 1,
                pages: 2,
                zero_pages: 3,
                dropped_pages: 4,
                stale_pages: 5,
                bytes_raw: 6,
                bytes_wire: 7,
            }),
            "420e0801100218032004280530063807",
        ),
        (Message::RoundStored(RoundStored { round: 1, pages: 2 }), "4a0408011002"),
        (Message::Image(Image { image: bytes(), more }), "52050a01ab1001"),
        (Message::Ready(Ready { timings_ns }), "5a090a070a036d61701005"),
        (Message::Handover(Handover { migration }), "62140a1209080706050403020111100f0e0d0c0b0a09"),
        (
            Message::Decided(Decided::new(migration, Outcome::Running, 3)),
            "6a180a1209080706050403020111100f0e0d0c0b0a0910011803",
        ),
        (
            Message::Decided(Decided::new(migration, Outcome::Discarded, 0)),
            "6a160a1209080706050403020111100f0e0d0c0b0a091002",
        ),
        (Message::Inquire(Inquire { migration }), "72140a1209080706050403020111100f0e0d0c0b0a09"),
        (Message::Missing(Missing { runs: bytes(), more }), "7a050a01ab1001"),
        (Message::PushDone(PushDone {}), "820100"),
        (
            Message::Complete(Complete { faults: 1, fault_pages: 2, pushed_pages: 3 }),
            "8a0106080110021803",
        ),
        (Message::Done(Done {}), "920100"),
        (
            Message::Abort(Abort { failure: failure(), is_lost: false }),
            "9a01110a0f080210031a016f220161280c320163",
        ),
        (
            Message::Abort(Abort { failure: failure(), is_lost: true }),
            "9a01130a0f080210031a016f220161280c3201631001",
        ),
        (Message::More(More { part: bytes(), more }), "a201050a01ab1001"),
    ]
}

#[test]
fn every_message_has_the_bytes_it_has_always_had() {
    for (message, golden) in messages() {
        let name = message.name();
        let envelope = Envelope { message: Some(message) };
        let bytes = envelope.encode_to_vec();
        assert_eq!(hex(&bytes), golden, "{name}");
        assert_eq!(Envelope::decode(&bytes[..]), Ok(envelope), "{name}");
    }
}

#[test]
fn every_message_is_in_the_list() {
    let mut tags: Vec<_> = messages()
        .into_iter()
        .map(|(message, _)| Envelope { message: Some(message) }.encode_to_vec()[0] >> 3)
        .collect();
    tags.dedup();
    assert_eq!(tags.len(), 20);
}

#[test]
fn every_first_word_and_fault_has_the_bytes_it_has_always_had() {
    let head = |role| hex(&StreamHead { migration: ID, role: Some(role) }.encode_to_vec());
    let fault = |message| hex(&FaultEnvelope { message: Some(message) }.encode_to_vec());
    let request = PageRequest { sequence: 1, space: 2, address: 0x3000, pages: 4 };
    let cases = [
        (head(Role::Control(Control {})), "0a1209080706050403020111100f0e0d0c0b0a091200"),
        (
            head(Role::Bulk(Bulk { index: 1, of: 4 })),
            "0a1209080706050403020111100f0e0d0c0b0a091a0408011004",
        ),
        (head(Role::Faults(Faults {})), "0a1209080706050403020111100f0e0d0c0b0a092200"),
        (head(Role::Copies(Copies {})), "0a1209080706050403020111100f0e0d0c0b0a092a00"),
        (fault(FaultMessage::PageRequest(request)), "0a09080110021880602004"),
        (
            fault(FaultMessage::PageReply(PageReply { sequence: 1, records_bytes: 32 })),
            "120408011020",
        ),
    ];
    for (number, (bytes, golden)) in cases.into_iter().enumerate() {
        assert_eq!(bytes, golden, "{number}");
    }
}

#[test]
fn every_message_about_copies_has_the_bytes_it_has_always_had() {
    use protocol::copies::{Accept, Envelope, Image, Message, Offer, Part, Ready, Runs, Start};
    let offer = Offer { count: 3, network_namespace: true, memory_bytes: 4, inventory_bytes: 5 };
    let image = Image { pages_bytes: 1, index_bytes: 2, tree_bytes: 3, manifest_bytes: 4 };
    let refusals = vec![Refusal::new("a", "b", "c")];
    let failure = Failure::new(Side::Destination, Phase::Stage, "map", "x");
    let cases = [
        (Message::Offer(offer), "0a080803100118042005"),
        (Message::Part(Part { bytes: vec![1, 2].into() }), "12040a020102"),
        (Message::Refuse(Refuse { refusals }), "1a0b0a090a01611201621a0163"),
        (Message::Accept(Accept {}), "2200"),
        (Message::Image(image), "2a080801100218032004"),
        (Message::Ready(Ready {}), "3200"),
        (Message::Start(Start {}), "3a00"),
        (Message::Runs(Runs { pid: 1, missing_pages: 2, started_after_ns: 3 }), "4206080110021803"),
        (Message::Failed(failure), "4a0c080210031a017822036d6170"),
    ];
    for (message, golden) in cases {
        let name = message.name();
        assert_eq!(hex(&Envelope { message: Some(message) }.encode_to_vec()), golden, "{name}");
    }
}

#[test]
fn a_field_of_a_later_version_is_passed_over() {
    // Inquire with an additional field 15.
    let mut bytes = Inquire { migration: ID }.encode_to_vec();
    bytes.extend([0x78, 1]);
    assert_eq!(Inquire::decode(&bytes[..]), Ok(Inquire { migration: ID }));
}

#[test]
fn a_message_that_is_empty_grants_nothing() {
    let decided = Decided::decode(&[][..]).map(|decided| decided.outcome());
    assert_eq!(decided, Ok(Outcome::Unknown));
}
