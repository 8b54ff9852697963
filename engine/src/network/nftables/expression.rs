//! The words of a rule: each looks at the packet or at a register, and the first that does not hold
//! ends the rule.

use super::super::netlink::Attributes;
use super::Field;

/// An expression of nf_tables, ready to be sent.
#[derive(Clone, Debug)]
pub(in crate::network) struct Expression(Attributes);

/// Where in a packet to begin counting: `enum nft_payload_bases`.
#[derive(Clone, Copy, Debug)]
pub(in crate::network) enum Header {
    Network = 1,
    Transport = 2,
}

/// A part of a key and its place in the packet.
#[derive(Clone, Copy, Debug)]
pub(in crate::network) struct Part {
    pub(in crate::network) field: Field,
    pub(in crate::network) header: Header,
    /// In bytes.
    pub(in crate::network) offset: u32,
}

/// NFT_REG32_00: where keys begin, and everything else that is compared.
const FIRST_REGISTER: u32 = 8;

impl Expression {
    fn named(name: &str, attributes: &Attributes) -> Self {
        Self(Attributes::new().text(1, name).nest(2, attributes))
    }

    pub(super) fn attributes(&self) -> &Attributes {
        &self.0
    }

    fn meta(key: i32) -> Self {
        let attributes =
            Attributes::new().big_endian(1, FIRST_REGISTER).big_endian(2, key.cast_unsigned());
        Self::named("meta", &attributes)
    }

    fn is(value: u8) -> Self {
        let equal = 0;
        let attributes = Attributes::new()
            .big_endian(1, FIRST_REGISTER)
            .big_endian(2, equal)
            .nest(3, &value_of(&[value]));
        Self::named("cmp", &attributes)
    }

    fn load(header: Header, offset: u32, bytes: u32, register: u32) -> Self {
        let attributes = Attributes::new()
            .big_endian(1, register)
            .big_endian(2, header as u32)
            .big_endian(3, offset)
            .big_endian(4, bytes);
        Self::named("payload", &attributes)
    }

    fn masked(mask: u8) -> Self {
        let attributes = Attributes::new()
            .big_endian(1, FIRST_REGISTER)
            .big_endian(2, FIRST_REGISTER)
            .big_endian(3, 1)
            .nest(4, &value_of(&[mask]))
            .nest(5, &value_of(&[0]));
        Self::named("bitwise", &attributes)
    }

    fn member_of(set: &str) -> Self {
        let attributes = Attributes::new().text(1, set).big_endian(2, FIRST_REGISTER);
        Self::named("lookup", &attributes)
    }

    fn drop() -> Self {
        let verdict = Attributes::new().big_endian(1, libc::NF_DROP.cast_unsigned());
        let attributes = Attributes::new()
            .big_endian(1, libc::NFT_REG_VERDICT.cast_unsigned())
            .nest(2, &Attributes::new().nest(2, &verdict));
        Self::named("immediate", &attributes)
    }
}

/// NFTA_DATA_VALUE.
fn value_of(bytes: &[u8]) -> Attributes {
    Attributes::new().bytes(1, bytes)
}

/// What is TCP in this version of IP (NFPROTO_*). Where a set has only ports, either version will do.
pub(in crate::network) fn tcp(family: Option<i32>) -> Vec<Expression> {
    let byte = |number: i32| u8::try_from(number).expect("the kernel compares one byte");
    let family = family
        .map(|family| [Expression::meta(libc::NFT_META_NFPROTO), Expression::is(byte(family))]);
    let tcp = [Expression::meta(libc::NFT_META_L4PROTO), Expression::is(byte(libc::IPPROTO_TCP))];
    family.into_iter().flatten().chain(tcp).collect()
}

/// What asks for a new connection: SYN without ACK.
pub(in crate::network) fn asks() -> Vec<Expression> {
    const FLAGS_AT: u32 = 13;
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    vec![
        Expression::load(Header::Transport, FLAGS_AT, 1, FIRST_REGISTER),
        Expression::masked(SYN | ACK),
        Expression::is(SYN),
    ]
}

/// Drops what has a key, made of these parts in their order, that is in the set.
pub(in crate::network) fn drop_members(set: &str, key: &[Part]) -> Vec<Expression> {
    let mut register = FIRST_REGISTER;
    let mut words = Vec::new();
    for part in key {
        let bytes = part.field.bytes();
        words.push(Expression::load(part.header, part.offset, bytes, register));
        register += part.field.registers();
    }
    words.extend([Expression::member_of(set), Expression::drop()]);
    words
}
