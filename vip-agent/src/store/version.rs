//! What is to be said of etcd's version.

/// The first versions of their lines whose leaders no longer acknowledge renewals after they were
/// deposed; all later lines have it.
const MENDED: [(u32, u32, u32); 2] = [(3, 4, 31), (3, 5, 13)];
const OLDEST: (u32, u32, u32) = (3, 4, 0);

/// What a user should know of `version`, if anything.
pub(super) fn advice(version: &str) -> Option<&'static str> {
    let (major, minor, patch) = parse(version)?;
    if (major, minor, patch) < OLDEST {
        return Some("this is too old: vip-agent needs 3.4 or newer, and may not work with it");
    }
    let mended = MENDED
        .iter()
        .find(|mended| (mended.0, mended.1) == (major, minor))?;
    ((major, minor, patch) < *mended).then_some(
        "after a stalled disk it may acknowledge renewals that it has no right to; the agent \
         guards against that, but an update is wise: to 3.4.31, 3.5.13 or newer",
    )
}

fn parse(version: &str) -> Option<(u32, u32, u32)> {
    // A pre-release, as 3.6.0-rc.1, is not worth telling apart.
    let plain = version.split(['-', '+']).next()?;
    let mut numbers = plain.split('.').map(|part| part.parse().ok());
    let mut next = || numbers.next().flatten();
    Some((next()?, next()?, next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_that_have_the_fault_are_spoken_of() {
        for faulty in ["3.4.0", "3.4.23", "3.4.30", "3.5.0", "3.5.12", "3.5.0-rc.1"] {
            assert!(
                advice(faulty).is_some_and(|text| text.contains("update")),
                "{faulty}"
            );
        }
        for good in [
            "3.4.31", "3.4.42", "3.5.13", "3.6.0", "4.0.0", "unknown", "",
        ] {
            assert_eq!(advice(good), None, "{good}");
        }
        assert!(advice("3.3.27").is_some_and(|text| text.contains("too old")));
    }
}
