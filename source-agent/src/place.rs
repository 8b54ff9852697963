//! Where a destination is, as the operator writes it.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

pub(crate) const PORT: u16 = 7747;

/// Names a destination as on the command line: `HOST[:PORT]`, with `[...]` around an IPv6 address
/// that a port follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a destination is HOST, HOST:PORT or [IPV6]:PORT")]
pub(crate) struct NotAPlace;

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or(NotAPlace)?;
            (
                host,
                if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(NotAPlace)?) },
            )
        } else {
            match text.split_once(':') {
                // More than one colon: an IPv6 address by itself.
                Some((_, rest)) if rest.contains(':') => (text, None),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| NotAPlace))?;
        let is_place = is_host(host) && port != 0;
        is_place.then(|| Self { host: host.to_owned(), port }).ok_or(NotAPlace)
    }
}

/// A name, or an address; that of IPv6 with a zone if there is one (RFC 4007, section 11).
fn is_host(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unwrap_or((text, "-"));
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '[' | ']');
    let is_v6 = address.parse::<Ipv6Addr>().is_ok() && !zone.is_empty();
    !text.is_empty() && !text.contains(is_odd) && (is_v6 || !text.contains([':', '%']))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Option<(String, u16)> {
        text.parse().ok().map(|place: Place| (place.host, place.port))
    }

    #[test]
    fn a_destination_is_a_host_and_perhaps_a_port() {
        let is = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(place("hostb"), is("hostb", PORT));
        assert_eq!(place("hostb:99"), is("hostb", 99));
        assert_eq!(place("192.0.2.1:99"), is("192.0.2.1", 99));
        assert_eq!(place("fe80::1"), is("fe80::1", PORT));
        assert_eq!(place("[fe80::1]"), is("fe80::1", PORT));
        assert_eq!(place("[fe80::1]:99"), is("fe80::1", 99));
        assert_eq!(place("fe80::1%eth0"), is("fe80::1%eth0", PORT));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["", ":1", "b:", "b:x", "b:0", "b:70000", "[::1", "[::1]x", "a b", "a\0"] {
            assert_eq!(place(text), None, "{text}");
        }
        for text in ["SHA256:a:b", "1:2:3", "::1%", "a]", "[[::1]]", "a%eth0"] {
            assert_eq!(place(text), None, "{text}");
        }
    }

    #[test]
    fn a_place_is_written_as_it_is_read() {
        for text in ["hostb:7747", "[fe80::1]:99", "[fe80::1%eth0]:99"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
    }
}
