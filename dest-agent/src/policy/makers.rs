//! Whom other programs of this host will take a tree for: a listening socket, and a connection to
//! a service of this host, carry the user and the groups that the source has named.

use super::rules::{Rules, beyond, refusal};
use engine::descriptors::{self, DescriptorsImage};
use engine::kinds::Maker;
use protocol::Refusal;

impl Rules {
    /// Sockets that would speak for users or groups that nobody of the tree may be.
    pub(super) fn against_makers(
        &self,
        image: &DescriptorsImage,
    ) -> Result<Vec<Refusal>, engine::Error> {
        let mut refusals = Vec::new();
        if self.users.is_none() && self.groups.is_none() {
            return Ok(refusals);
        }
        for object in &image.objects {
            let makers = descriptors::identities(object)?;
            let reasons = makers.iter().filter_map(|maker| self.against_maker(maker));
            refusals.extend(reasons.map(|reason| refusal(format!("a {}", object.kind), reason)));
        }
        Ok(refusals)
    }

    fn against_maker(&self, maker: &Maker) -> Option<String> {
        let user = beyond(&[maker.uid], self.users.as_ref()).map(|user| format!("user {user}"));
        let groups: Vec<u32> = maker.groups.iter().copied().chain([maker.gid]).collect();
        let group = || beyond(&groups, self.groups.as_ref()).map(|group| format!("group {group}"));
        let who = user.or_else(group)?;
        Some(format!("was made as {who}, and the destination's policy does not allow that"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_socket_that_speaks_for_another_user_or_group_is_refused() {
        let rules = Rules {
            users: Some(BTreeSet::from([1000])),
            groups: Some(BTreeSet::from([1000, 4])),
            ..Rules::default()
        };
        let maker = |uid, groups| Maker { pid: 7, uid, gid: 1000, groups };
        assert_eq!(rules.against_maker(&maker(1000, vec![4])), None);
        for (maker, told) in [(maker(0, vec![]), "user 0"), (maker(1000, vec![4, 6]), "group 6")] {
            let reason = rules.against_maker(&maker).unwrap();
            assert!(reason.contains(told), "{reason}");
        }
        assert_eq!(Rules::default().against_maker(&maker(0, vec![0])), None);
    }
}
