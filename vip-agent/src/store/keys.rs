//! Where things lie in etcd.

use std::net::IpAddr;

/// The keys under a prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    members: String,
    owners: String,
    drained: String,
    all: String,
}

/// What a key is of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    Member(&'a str),
    Owner(IpAddr),
    Drained(&'a str),
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self {
            members: format!("{prefix}/members/"),
            owners: format!("{prefix}/owners/"),
            drained: format!("{prefix}/drained/"),
            all: format!("{prefix}/"),
        }
    }

    /// What all keys begin with.
    pub fn all(&self) -> &str {
        &self.all
    }

    pub fn member(&self, node: &str) -> String {
        format!("{}{node}", self.members)
    }

    pub fn owner(&self, vip: IpAddr) -> String {
        format!("{}{vip}", self.owners)
    }

    pub fn drained(&self, node: &str) -> String {
        format!("{}{node}", self.drained)
    }

    /// What `key` is of; `None` for one that is none of ours.
    pub fn place<'a>(&self, key: &'a [u8]) -> Option<Place<'a>> {
        let key = std::str::from_utf8(key).ok()?;
        if let Some(node) = key.strip_prefix(self.members.as_str()) {
            return Some(Place::Member(node));
        }
        if let Some(node) = key.strip_prefix(self.drained.as_str()) {
            return Some(Place::Drained(node));
        }
        let ip = key.strip_prefix(self.owners.as_str())?;
        // IPv6 has many spellings, and a shared IP one key.
        let is_as_written = |vip: &IpAddr| vip.to_string() == ip;
        ip.parse().ok().filter(is_as_written).map(Place::Owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_again_for_what_it_is() {
        let keys = Keys::new("/vip-agent");
        assert_eq!(
            keys.place(keys.member("cp-1").as_bytes()),
            Some(Place::Member("cp-1"))
        );
        assert_eq!(
            keys.place(keys.drained("cp-1").as_bytes()),
            Some(Place::Drained("cp-1"))
        );
        for vip in ["10.0.0.1", "fd00::64", "fe80::64"] {
            let vip = vip.parse().expect("an address");
            assert_eq!(
                keys.place(keys.owner(vip).as_bytes()),
                Some(Place::Owner(vip))
            );
        }
    }

    #[test]
    fn what_is_not_ours_is_nothing() {
        let keys = Keys::new("/vip-agent");
        let strangers = [
            "/vip-agent/owners/here",
            "/vip-agent/owners/fd00:0::64",
            "/vip-agent2/members/a",
            "/vip-agent/x",
            "",
        ];
        for key in strangers {
            assert_eq!(keys.place(key.as_bytes()), None, "{key}");
        }
        assert_eq!(keys.place(&[0xff, 0xfe]), None);
    }
}
