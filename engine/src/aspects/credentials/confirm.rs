//! Calls that agree with credentials that were read earlier, or not. Only cheap ones: ten, or
//! fifty in a thread that may drop capabilities, at 0.1-0.2 us each against 12 us for the file.

use super::{Capabilities, Ids, Image};
use crate::args;
use crate::batch::{Answers, Arg, Batch, Bytes, Call};

#[derive(Debug, Default)]
pub(super) struct Confirmation {
    results: Vec<(Call, i64)>,
    written: Vec<(Bytes, Vec<u8>)>,
}

/// struct __user_cap_header_struct: the version with two words a set, and the caller.
pub(super) fn cap_header() -> Vec<u8> {
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    [LINUX_CAPABILITY_VERSION_3, 0].map(u32::to_ne_bytes).concat()
}

/// struct __user_cap_data_struct, twice: the lower words, then the upper ones.
pub(super) fn cap_bytes(capabilities: &Capabilities) -> Vec<u8> {
    let Capabilities { effective, permitted, inheritable, .. } = *capabilities;
    let sets = [effective, permitted, inheritable];
    let half = |set: u64| u32::try_from(set & 0xffff_ffff).expect("masked to 32 bits");
    let words = |shift: u32| sets.map(|set| half(set >> shift).to_ne_bytes()).concat();
    [words(0), words(32)].concat()
}

pub(super) const CAP_SETPCAP: u32 = 8;

pub(super) fn bits(set: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bit| set & (1 << bit) != 0)
}

impl Confirmation {
    pub(super) fn ask(image: &Image, batch: &mut Batch) -> Self {
        let mut this = Self::default();
        this.ids(libc::SYS_getresuid, libc::SYS_setfsuid, &image.user, batch);
        this.ids(libc::SYS_getresgid, libc::SYS_setfsgid, &image.group, batch);
        this.groups(&image.groups, batch);
        this.capabilities(&image.capabilities, batch);
        let no_new_privs = i64::from(image.no_new_privs);
        this.returns(no_new_privs, libc::SYS_prctl, args![libc::PR_GET_NO_NEW_PRIVS], batch);
        this
    }

    pub(super) fn holds(&self, answers: &Answers) -> bool {
        self.results.iter().all(|(call, expected)| answers.raw(*call) == *expected)
            && self.written.iter().all(|(room, expected)| answers.bytes(*room) == expected)
    }

    fn ids(&mut self, get: i64, set_file_system: i64, ids: &Ids, batch: &mut Batch) {
        let rooms = [ids.real, ids.effective, ids.saved].map(|id| self.writes(&id.to_ne_bytes(), batch));
        let [real, effective, saved] = rooms;
        self.returns(0, get, args![real, effective, saved], batch);
        // No id is -1: nothing changes, and the answer is the one in force.
        self.returns(i64::from(ids.file_system), set_file_system, args![-1], batch);
    }

    /// More groups than there were do not fit and are EINVAL.
    fn groups(&mut self, groups: &[u32], batch: &mut Batch) {
        let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
        let room = self.writes(&bytes, batch);
        let count = i64::try_from(groups.len()).unwrap_or(i64::MAX);
        // Room for none would ask how many there are: the right answer for none, too.
        self.returns(count, libc::SYS_getgroups, args![groups.len(), room], batch);
    }

    fn capabilities(&mut self, capabilities: &Capabilities, batch: &mut Batch) {
        let header = batch.bytes(&cap_header());
        let room = self.writes(&cap_bytes(capabilities), batch);
        self.returns(0, libc::SYS_capget, args![header, room], batch);
        // A bounding set only shrinks, and who was without CAP_SETPCAP cannot have shrunk it: only
        // a new program could have that again, and then nothing seen before it counts.
        let can_shrink = capabilities.permitted & (1 << CAP_SETPCAP) != 0;
        for bit in bits(if can_shrink { capabilities.bounding } else { 0 }) {
            self.returns(1, libc::SYS_prctl, args![libc::PR_CAPBSET_READ, bit], batch);
        }
        // Only what is permitted and inheritable can be ambient.
        for bit in bits(capabilities.permitted & capabilities.inheritable) {
            let ambient = i64::from(capabilities.ambient & (1 << bit) != 0);
            let args = args![libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET, bit, 0, 0];
            self.returns(ambient, libc::SYS_prctl, args, batch);
        }
    }

    fn returns(&mut self, expected: i64, number: i64, args: &[Arg], batch: &mut Batch) {
        self.results.push((batch.try_call(number, args), expected));
    }

    /// Room in which a call is expected to write these bytes.
    fn writes(&mut self, expected: &[u8], batch: &mut Batch) -> Bytes {
        let room = batch.room(expected.len());
        self.written.push((room, expected.to_vec()));
        room
    }
}
