//! Where shared IPs should be, and when they move there.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{ConfigError, VipConfig, WhenAllUnfit, Written, validate::choice};

/// Shorter times would only say "at once", which a member that has just come up cannot mean.
const SHORTEST_DELAY: Duration = Duration::from_secs(1);

/// Shared IPs in one group: their keys change in one transaction, whose size etcd limits.
pub const LARGEST_GROUP: usize = 60;

pub(super) fn priority(written: Option<Written>) -> Result<u8, ConfigError> {
    let Some(Written { value, place }) = written else {
        return Ok(VipConfig::DEFAULT_PRIORITY);
    };
    // `parse` alone would take a sign.
    let is_number = value.chars().all(|c| c.is_ascii_digit());
    let priority = value.parse().ok().filter(|_| is_number);
    priority
        .filter(|priority| (1..=254).contains(priority))
        .ok_or_else(|| {
            let why = format!("priority `{value}`: write 1 to 254; the highest goes first");
            ConfigError::at(&place, why)
        })
}

pub(super) fn group(written: Option<Written>) -> Result<Option<String>, ConfigError> {
    let Some(Written { value, place }) = written else {
        return Ok(None);
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let why = if value.parse::<IpAddr>().is_ok() {
        "an address is no name for a group; write such as web"
    } else if value.is_empty() || value.len() > 63 || !value.chars().all(fits) {
        "write 1 to 63 letters, digits, `.`, `_` or `-`"
    } else {
        return Ok(Some(value));
    };
    Err(ConfigError::at(&place, format!("group `{value}`: {why}")))
}

/// One priority for all of a group, and not too many: they move as one.
pub(super) fn agree_in_groups<'a>(
    vips: impl Iterator<Item = &'a Written<VipConfig>>,
) -> Result<(), ConfigError> {
    let mut groups: BTreeMap<&str, Vec<&Written<VipConfig>>> = BTreeMap::new();
    for vip in vips {
        let Some(group) = vip.value.group.as_deref() else {
            continue;
        };
        let members = groups.entry(group).or_default();
        members.push(vip);
        let first = members[0];
        if first.value.priority != vip.value.priority {
            return Err(ConfigError::at(
                &vip.place,
                format!(
                    "vip {} has priority {}, and {} at {}, of the same group `{group}`, has {}; they move as \
                     one, so give both the same",
                    vip.value.ip,
                    vip.value.priority,
                    first.value.ip,
                    first.place,
                    first.value.priority,
                ),
            ));
        }
    }
    for (group, members) in groups {
        if let Some(excess) = members.get(LARGEST_GROUP) {
            return Err(ConfigError::at(
                &excess.place,
                format!(
                    "group `{group}` has {} shared IPs; {LARGEST_GROUP} is the most that etcd can move as one, so \
                     make it several groups",
                    members.len(),
                ),
            ));
        }
    }
    Ok(())
}

/// A time after which shared IPs are handed on, or none: they stay.
pub(super) fn delay(
    written: Option<Written>,
    key: &'static str,
) -> Result<Option<Duration>, ConfigError> {
    let Some(Written { value, place }) = written else {
        return Ok(None);
    };
    let wrong = |why: &str| ConfigError::at(&place, format!("{key} `{value}`: {why}"));
    if value == "never" {
        return Ok(None);
    }
    let delay = humantime::parse_duration(&value)
        .map_err(|_| wrong("write never, or a time with its unit, such as 30s"))?;
    if delay < SHORTEST_DELAY {
        return Err(wrong("write never, or 1s or more"));
    }
    Ok(Some(delay))
}

pub(super) fn when_all_unfit(written: Option<Written>) -> Result<WhenAllUnfit, ConfigError> {
    choice(written, "when-all-unfit")
}
