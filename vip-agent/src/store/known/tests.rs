use super::*;
use crate::election::LeaseId;

const OWN: &str = "/p/members/a";
const HEAD: Head = Head {
    cluster_id: 7,
    member_id: 8,
    raft_term: 3,
    revision: 10,
};

/// A key, the revision of its last change, and its lease.
type Key = (&'static str, i64, i64);

const THEN: [Key; 4] = [
    (OWN, 4, 0xa),
    ("/p/owners/10.0.0.1", 5, 0xa),
    ("/p/owners/10.0.0.2", 9, 0xb),
    ("/p/none-of-ours", 2, 0),
];

fn keys() -> Keys {
    Keys::new("/p")
}

fn entry((key, mod_revision, lease): Key) -> Entry<'static> {
    Entry {
        key: key.as_bytes(),
        value: match key {
            OWN => br#"{"node":"a","instance":"1","ttl_ms":3000}"#,
            _ => b"{}",
        },
        version: Version {
            lease: LeaseId(lease),
            mod_revision,
        },
    }
}

fn read(revision: i64, there: &[Key]) -> Known {
    let head = Head { revision, ..HEAD };
    Known::read(&keys(), head, there.iter().copied().map(entry))
}

/// What etcd would answer that has these keys at that revision.
fn news(revision: i64, there: &[Key]) -> News<'static> {
    let own = there.iter().find(|(key, ..)| *key == OWN);
    let is_new = |(_, mod_revision, _): &&Key| *mod_revision > HEAD.revision;
    News {
        head: Head { revision, ..HEAD },
        member: own.map(|own| entry(*own).version),
        changed: there.iter().filter(is_new).copied().map(entry).collect(),
        count: i64::try_from(there.len()).expect("a few"),
    }
}

fn after(revision: i64, there: &[Key]) -> Option<Known> {
    read(HEAD.revision, &THEN).after(&keys(), OWN, news(revision, there))
}

fn without(key: &str) -> Vec<Key> {
    THEN.into_iter().filter(|(one, ..)| *one != key).collect()
}

#[test]
fn at_rest_it_is_what_it_was() {
    assert_eq!(after(10, &THEN), Some(read(10, &THEN)));
    // Others write under other prefixes.
    assert_eq!(after(99, &THEN), Some(read(99, &THEN)));
    let snapshot = read(99, &THEN).snapshot();
    assert_eq!(snapshot.revision, 99);
    assert_eq!((snapshot.members.len(), snapshot.owners.len()), (1, 2));
}

#[test]
fn what_was_changed_and_made_is_put_in() {
    let now = [
        (OWN, 11, 0xa),
        ("/p/owners/10.0.0.1", 14, 0xb),
        THEN[2],
        THEN[3],
        ("/p/owners/10.0.0.3", 12, 0xb),
        ("/p/drained/b", 13, 0),
    ];
    let known = after(14, &now).expect("it can be told");
    assert_eq!(known, read(14, &now));
    let snapshot = known.snapshot();
    assert_eq!(snapshot.owners.len(), 3);
    assert_eq!(
        snapshot.owners[&"10.0.0.1".parse().expect("an address")].lease,
        LeaseId(0xb)
    );
    assert!(snapshot.drained.contains_key("b"));
    let later = known.after(&keys(), OWN, news_since(14, 14, &now));
    assert_eq!(later, Some(read(14, &now)));
}

/// As [`news`], for one who knows another revision.
fn news_since(known: i64, revision: i64, there: &[Key]) -> News<'static> {
    let mut news = news(revision, there);
    news.changed
        .retain(|entry| entry.version.mod_revision > known);
    news
}

#[test]
fn a_key_that_went_has_all_read_whatever_came_in_its_place() {
    for (key, ..) in THEN {
        let mut there = without(key);
        assert_eq!(after(11, &there), None, "{key} went");
        there.push(("/p/owners/10.0.0.9", 12, 0xb));
        assert_eq!(after(12, &there), None, "{key} went, and another came");
    }
}

#[test]
fn a_key_that_went_and_came_again_is_put_in() {
    let mut there = without("/p/owners/10.0.0.1");
    there.push(("/p/owners/10.0.0.1", 13, 0xb));
    assert_eq!(after(13, &there), Some(read(13, &there)));
}

#[test]
fn a_member_whose_record_can_be_read_no_longer_is_none() {
    let mut changed = news(11, &THEN);
    let mut unreadable = entry((OWN, 11, 0xa));
    unreadable.value = b"?";
    changed.member = Some(unreadable.version);
    changed.changed.push(unreadable);
    let known = read(10, &THEN).after(&keys(), OWN, changed);
    let known = known.expect("the key is there");
    assert!(known.snapshot().members.is_empty());
}

#[test]
fn another_history_has_all_read() {
    type Change = fn(&mut News<'_>);
    let changes: [(&str, Change); 7] = [
        ("another cluster", |news| news.head.cluster_id += 1),
        ("another member", |news| news.head.member_id += 1),
        ("a newer term", |news| news.head.raft_term += 1),
        ("an older term", |news| news.head.raft_term -= 1),
        ("an older revision", |news| news.head.revision -= 1),
        ("our key on another lease", |news| {
            news.member = Some(entry((OWN, 4, 0xc)).version);
        }),
        ("no key of ours", |news| news.member = None),
    ];
    for (what, change) in changes {
        let mut news = news(10, &THEN);
        change(&mut news);
        let known = read(10, &THEN).after(&keys(), OWN, news);
        assert_eq!(known, None, "{what}");
    }
}

#[test]
fn a_change_that_is_not_new_or_not_yet_made_has_all_read() {
    for mod_revision in [10, 13] {
        let mut news = news(12, &THEN);
        news.changed
            .push(entry(("/p/owners/10.0.0.1", mod_revision, 0xb)));
        assert_eq!(read(10, &THEN).after(&keys(), OWN, news), None);
    }
}

mod basis {
    use super::*;

    const ONE: Connection = Connection::of_test(0, 1);
    const OTHER: Connection = Connection::of_test(0, 2);

    fn first_unknown(basis: &Basis, connection: Connection) -> Option<i64> {
        basis.over(connection).1
    }

    #[test]
    fn what_is_known_holds_for_its_connection_while_the_watch_runs() {
        let basis = Basis::default();
        let watching = basis.watch(ONE);
        let (watched, nothing) = basis.over(ONE);
        assert_eq!(nothing, None);
        basis.keep(watched, read(10, &THEN));
        assert_eq!(first_unknown(&basis, ONE), Some(11));
        assert_eq!(first_unknown(&basis, OTHER), None);
        drop(watching);
        assert_eq!(first_unknown(&basis, ONE), None);
        assert_eq!(basis.take(watched, 11), None);
    }

    #[test]
    fn what_was_read_before_the_watch_was_opened_anew_is_not_kept() {
        let basis = Basis::default();
        let first = basis.watch(ONE);
        let (watched, _) = basis.over(ONE);
        let second = basis.watch(ONE);
        // The first ends late.
        drop(first);
        basis.keep(watched, read(10, &THEN));
        assert_eq!(first_unknown(&basis, ONE), None);
        let (watched, _) = basis.over(ONE);
        basis.keep(watched, read(10, &THEN));
        assert_eq!(first_unknown(&basis, ONE), Some(11));
        drop(second);
    }

    #[test]
    fn without_a_watch_nothing_is_kept() {
        let basis = Basis::default();
        let (watched, _) = basis.over(ONE);
        basis.keep(watched, read(10, &THEN));
        let _watching = basis.watch(ONE);
        assert_eq!(first_unknown(&basis, ONE), None);
    }
}
