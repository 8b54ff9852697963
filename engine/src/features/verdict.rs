//! What a host can do, by the features that were found on it.

use super::{Feature, Need, Presence, Role};

/// A feature that was looked for.
#[derive(Clone, Debug)]
pub struct Found {
    pub feature: Feature,
    pub presence: Presence,
}

impl Found {
    pub fn look(feature: &Feature) -> Self {
        Self { feature: *feature, presence: feature.look() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    Can,
    Cannot,
    /// What it takes could not be tried out.
    Unknown,
}

/// Of everything that was looked for.
#[derive(Clone, Copy, Debug)]
pub struct Verdict<'a>(pub &'a [Found]);

impl<'a> Verdict<'a> {
    pub fn on(self, role: Role) -> Ability {
        let needed = self.0.iter().filter(|found| found.feature.need.roles().contains(&role));
        needed
            .map(|found| self.allows(found))
            .max_by_key(|ability| match ability {
                Ability::Can => 0,
                Ability::Unknown => 1,
                Ability::Cannot => 2,
            })
            .unwrap_or(Ability::Can)
    }

    /// What is needed, and missing.
    pub fn lacking(self) -> impl Iterator<Item = &'a Found> {
        let is_needed = |found: &&Found| found.feature.need != Need::Useful;
        let lacking = move |found: &&Found| self.allows(found) == Ability::Cannot;
        self.0.iter().filter(is_needed).filter(lacking)
    }

    fn allows(self, found: &Found) -> Ability {
        let own = ability(&found.presence);
        let Need::NeededUnless(name, _) = found.feature.need else { return own };
        let other = self.0.iter().find(|other| other.feature.name == name);
        match (own, other.map_or(Ability::Cannot, |other| ability(&other.presence))) {
            (Ability::Can, _) | (_, Ability::Can) => Ability::Can,
            (Ability::Cannot, Ability::Cannot) => Ability::Cannot,
            _ => Ability::Unknown,
        }
    }
}

fn ability(presence: &Presence) -> Ability {
    match presence {
        Presence::Present => Ability::Can,
        Presence::Missing(_) => Ability::Cannot,
        Presence::Unknown(_) => Ability::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Absence, Permission};
    use super::*;

    fn found(name: &'static str, need: Need, is: Ability) -> Found {
        let (loss, advice, permission) = ("", "", Permission::FREE);
        let feature =
            Feature { name, since: "1.0", need, loss, advice, permission, probe: || Ok(()) };
        let absence = Absence { why: String::new(), advice: String::new() };
        let presence = match is {
            Ability::Can => Presence::Present,
            Ability::Cannot => Presence::Missing(absence),
            Ability::Unknown => Presence::Unknown(absence),
        };
        Found { feature, presence }
    }

    fn names(found: &[Found]) -> Vec<&str> {
        Verdict(found).lacking().map(|found| found.feature.name).collect()
    }

    #[test]
    fn only_what_needs_a_missing_feature_cannot_be_done() {
        let all = [
            found("a", Need::Needed(&[Role::Send]), Ability::Cannot),
            found("b", Need::Needed(&[Role::Send, Role::Store]), Ability::Unknown),
            found("c", Need::Useful, Ability::Cannot),
        ];
        let on = |role| Verdict(&all).on(role);
        assert_eq!(on(Role::Send), Ability::Cannot);
        assert_eq!(on(Role::Store), Ability::Unknown);
        assert_eq!(on(Role::Receive), Ability::Can);
        assert_eq!(names(&all), ["a"]);
    }

    #[test]
    fn one_of_two_is_enough() {
        use Ability::{Can, Cannot, Unknown};
        let cases = [
            (Can, Cannot, Can),
            (Cannot, Can, Can),
            (Unknown, Cannot, Unknown),
            (Can, Unknown, Can),
        ];
        let pair = |one, other| {
            let need = |name| Need::NeededUnless(name, &[Role::Send]);
            [found("a", need("b"), one), found("b", need("a"), other)]
        };
        for (one, other, both) in cases {
            assert_eq!(Verdict(&pair(one, other)).on(Role::Send), both, "{one:?} {other:?}");
            assert_eq!(names(&pair(one, other)), [""; 0]);
        }
        assert_eq!(Verdict(&pair(Cannot, Cannot)).on(Role::Send), Cannot);
        assert_eq!(names(&pair(Cannot, Cannot)), ["a", "b"]);
    }
}
