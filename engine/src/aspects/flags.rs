//! Settings of prctl(2) that are one number each, in a table: how each is read and set.
//!
//! A kernel that does not know a setting answers EINVAL; then it is not recorded.

use super::Subject;
use crate::args;
use crate::batch::{Answers, Arg, Batch, Bytes, Call};
use crate::error::Error;

#[derive(Debug)]
pub(super) struct Flag {
    /// Goes on the wire, so it never changes.
    pub(super) tag: u32,
    pub(super) name: &'static str,
    /// prctl(2), or arch_prctl(2).
    pub(super) number: i64,
    pub(super) query: &'static [i32],
    pub(super) answer: Answer,
    /// The arguments that set a value, if it can and need be set.
    pub(super) setting: fn(u64) -> Option<[u64; 3]>,
    /// Whether the new thread may do without this value: it is the default, or only a hint.
    pub(super) may_fail: fn(u64) -> bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The call returns the value.
    Returned,
    /// The call writes it, an int, where its last argument points.
    Written,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(message, repeated, tag = "1")]
    pub(super) settings: Vec<Setting>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Setting {
    #[prost(uint32, tag = "1")]
    pub(super) tag: u32,
    #[prost(uint64, tag = "2")]
    pub(super) value: u64,
}

pub(super) type Asked = Vec<(&'static Flag, Call, Bytes)>;

pub(super) fn ask(flags: &'static [Flag], batch: &mut Batch) -> Asked {
    let ask = |flag: &'static Flag| {
        let room = batch.room(4);
        let mut args: Vec<Arg> = flag.query.iter().copied().map(Arg::from).collect();
        if flag.answer == Answer::Written {
            args.push(Arg::from(room));
        }
        (flag, batch.try_call(flag.number, &args), room)
    };
    flags.iter().map(ask).collect()
}

pub(super) fn read(asked: Asked, answers: &Answers) -> Image {
    let setting = |(flag, call, room): (&Flag, Call, Bytes)| {
        let returned = answers.result(call).ok()?;
        let value = match flag.answer {
            Answer::Returned => returned,
            Answer::Written => u64::from(answers.u32_at(room, 0)),
        };
        Some(Setting { tag: flag.tag, value })
    };
    Image { settings: asked.into_iter().filter_map(setting).collect() }
}

pub(super) fn restore(
    flags: &'static [Flag],
    aspect: &'static str,
    image: &Image,
    subject: &Subject<'_>,
    batch: &mut Batch,
) -> Result<(), Error> {
    for Setting { tag, value } in &image.settings {
        let Some(flag) = flags.iter().find(|flag| flag.tag == *tag) else {
            let why = format!("setting {tag} is not known");
            return Err(Error::invalid("restore", subject.object(aspect), why));
        };
        let Some([a, b, c]) = (flag.setting)(*value) else { continue };
        if (flag.may_fail)(*value) {
            batch.try_call(flag.number, args![a, b, c]);
        } else {
            batch.call("restore", &subject.object(flag.name), flag.number, args![a, b, c]);
        }
    }
    Ok(())
}

/// The arguments of a plain prctl(2) that sets `option` to `value`.
pub(super) fn plain(option: i32, value: u64) -> Option<[u64; 3]> {
    Some([u64::from(option.cast_unsigned()), value, 0])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The image without any but one setting.
    pub(in super::super) fn only(tag: u32, value: u64) -> Image {
        Image { settings: vec![Setting { tag, value }] }
    }

    pub(in super::super) fn value(image: &Image, tag: u32) -> Option<u64> {
        image.settings.iter().find(|setting| setting.tag == tag).map(|setting| setting.value)
    }
}
