//! Changes of owner keys. Those that one turn of the loop asks for go out together.
//!
//! A unit is what holds as a whole or not at all: one shared IP's key, or those of a group. Each is a
//! guarded transaction of its own, nested in one without conditions, so that what becomes of one says
//! nothing of the others; all that they have in common is the request.

use std::{collections::BTreeMap, mem, net::IpAddr, rc::Rc};

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};

use super::{
    Shared,
    keys::Keys,
    records,
    requests::{revision_of, unchanged},
    spawn,
};
use crate::election::{Event, LeaseId, Outcome, OwnerRecord, Version};

/// Units in one request: beyond this few round trips are saved, and all of a request fails as one.
const MOST_UNITS: usize = 64;
/// etcd's `--max-txn-ops` as it is by default, from 3.4 to 3.6. Of a transaction counts the longest of its
/// three lists: conditions, operations if they hold, operations if not. What is nested has what is left
/// by the one around it, so the longest lists of both levels add up.
const MOST_OPERATIONS: usize = 128;
/// etcd refuses requests above 1.5 MiB (`--max-request-bytes` by default); ours are reckoned generously.
const MOST_BYTES: usize = 1024 * 1024;
/// For the version, the lease and the framing of one key's conditions and operations.
const BYTES_PER_STEP: usize = 128;
/// Two conditions for each key, and one for all; around it a transaction of one operation.
const _: () = assert!(1 + 1 + 2 * crate::config::LARGEST_GROUP <= MOST_OPERATIONS);

/// What holds as a whole or not at all.
pub(super) struct Unit {
    answer: fn(IpAddr, Outcome<OwnerRecord>) -> Event,
    /// On which the keys are put. If that has gone, the request fails with all that is in it.
    lease: Option<LeaseId>,
    conditions: Vec<Compare>,
    looks: Vec<TxnOp>,
    changes: Vec<TxnOp>,
    vips: Vec<IpAddr>,
    bytes: usize,
}

impl Unit {
    /// As [`Action::Claim`](crate::election::Action::Claim).
    pub fn claim(keys: &Keys, lease: LeaseId, records: BTreeMap<IpAddr, OwnerRecord>) -> Self {
        let mut unit = Self::new(Event::Claimed, Some(lease));
        for (vip, record) in records {
            unit.put(keys, vip, None, lease, record);
        }
        unit
    }

    /// As [`Action::Transfer`](crate::election::Action::Transfer).
    pub fn transfer(
        keys: &Keys,
        to: &str,
        lease: LeaseId,
        records: BTreeMap<IpAddr, (Version, OwnerRecord)>,
    ) -> Self {
        let mut unit = Self::new(Event::Transferred, Some(lease));
        let is_there = Compare::lease(keys.member(to), CompareOp::Equal, lease.0);
        unit.conditions.push(is_there);
        for (vip, (version, record)) in records {
            unit.put(keys, vip, Some(version), lease, record);
        }
        unit
    }

    /// As [`Action::Reassert`](crate::election::Action::Reassert).
    pub fn reassert(keys: &Keys, vip: IpAddr, version: Version, record: OwnerRecord) -> Self {
        let mut unit = Self::new(Event::Reasserted, Some(version.lease));
        unit.put(keys, vip, Some(version), version.lease, record);
        unit
    }

    /// As [`Action::Release`](crate::election::Action::Release).
    pub fn release(keys: &Keys, vip: IpAddr, version: Version) -> Self {
        let mut unit = Self::new(Event::Released, None);
        let delete = TxnOp::delete(keys.owner(vip), None);
        unit.push(keys.owner(vip), vip, Some(version), delete, 0);
        unit
    }

    fn new(answer: fn(IpAddr, Outcome<OwnerRecord>) -> Event, lease: Option<LeaseId>) -> Self {
        Self {
            answer,
            lease,
            conditions: Vec::new(),
            looks: Vec::new(),
            changes: Vec::new(),
            vips: Vec::new(),
            bytes: 0,
        }
    }

    fn put(
        &mut self,
        keys: &Keys,
        vip: IpAddr,
        expected: Option<Version>,
        lease: LeaseId,
        record: OwnerRecord,
    ) {
        let key = keys.owner(vip);
        let value = records::owner_value(vip, record);
        let bytes = value.len();
        let on_lease = PutOptions::new().with_lease(lease.0);
        let put = TxnOp::put(key.clone(), value, Some(on_lease));
        self.push(key, vip, expected, put, bytes);
    }

    fn push(
        &mut self,
        key: String,
        vip: IpAddr,
        expected: Option<Version>,
        change: TxnOp,
        bytes: usize,
    ) {
        self.conditions.extend(unchanged(&key, expected));
        self.bytes += 4 * key.len() + bytes + BYTES_PER_STEP;
        self.looks.push(TxnOp::get(key, None));
        self.changes.push(change);
        self.vips.push(vip);
    }

    /// As etcd counts them.
    fn operations(&self) -> usize {
        self.conditions.len().max(self.changes.len())
    }

    fn txn(&self) -> Txn {
        Txn::new()
            .when(self.conditions.clone())
            .and_then(self.changes.clone())
            .or_else(self.looks.clone())
    }

    /// What its own answer says of each of its keys.
    fn outcomes(
        &self,
        answer: &TxnResponse,
        revision: i64,
    ) -> impl Iterator<Item = Outcome<OwnerRecord>> {
        let succeeded = answer.succeeded();
        answer.op_responses().into_iter().map(move |response| {
            let current = match &response {
                _ if succeeded => return Outcome::Committed { revision },
                TxnOpResponse::Get(found) => found.kvs().first().map(records::owner),
                _ => None,
            };
            Outcome::Refused { current, revision }
        })
    }
}

/// Units that share a request.
///
/// They put on one lease, if on any, for one that has gone is told of as a failure of the whole request,
/// and is not to be told to who has another; what puts nothing keeps to itself for the same reason.
/// And none has a key of another's, which etcd refuses.
#[derive(Default)]
struct Batch {
    units: Vec<Unit>,
    operations: usize,
    bytes: usize,
}

impl Batch {
    fn has_room_for(&self, unit: &Unit) -> bool {
        let count = self.units.len() + 1;
        let operations = self.operations.max(unit.operations());
        count <= MOST_UNITS
            && count + operations <= MOST_OPERATIONS
            && self.bytes + unit.bytes <= MOST_BYTES
            && !self.changes_any_of(&unit.vips)
    }

    fn changes_any_of(&self, vips: &[IpAddr]) -> bool {
        let mut changed = self.units.iter().flat_map(|unit| &unit.vips);
        changed.any(|vip| vips.contains(vip))
    }

    fn push(&mut self, unit: Unit) {
        self.operations = self.operations.max(unit.operations());
        self.bytes += unit.bytes;
        self.units.push(unit);
    }
}

/// In as few requests as may be; what shares a request keeps its order.
fn pack(units: Vec<Unit>) -> Vec<Batch> {
    let mut full = Vec::new();
    let mut open: BTreeMap<Option<i64>, Batch> = BTreeMap::new();
    for unit in units {
        let batch = open.entry(unit.lease.map(|lease| lease.0)).or_default();
        if !batch.units.is_empty() && !batch.has_room_for(&unit) {
            full.push(mem::take(batch));
        }
        batch.push(unit);
    }
    full.extend(open.into_values());
    full
}

/// Sends them off; each is told of by itself.
pub(super) fn send(shared: &Rc<Shared>, units: Vec<Unit>) {
    for batch in pack(units) {
        let shared = Rc::clone(shared);
        spawn(async move { shared.change_owners(batch).await });
    }
}

impl Shared {
    /// Sent once: if no answer comes, each may have been made or not.
    async fn change_owners(&self, batch: Batch) {
        let nested = batch.units.iter().map(|unit| TxnOp::txn(unit.txn()));
        let txn = Txn::new().and_then(nested.collect::<Vec<_>>());
        let response = match self.commit(txn).await {
            Ok(response) => response,
            Err(error) => {
                let outcome = self.doubt(error);
                for unit in &batch.units {
                    for vip in &unit.vips {
                        self.tell((unit.answer)(*vip, outcome.clone()));
                    }
                }
                return;
            }
        };
        // Of all that was changed in it, and of what was looked at: none of it is changed by another.
        let revision = revision_of(response.header());
        for (unit, response) in batch.units.iter().zip(response.op_responses()) {
            let TxnOpResponse::Txn(answer) = response else {
                continue;
            };
            for (vip, outcome) in unit.vips.iter().zip(unit.outcomes(&answer, revision)) {
                self.tell((unit.answer)(*vip, outcome));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::Mac;

    fn vip(number: u32) -> IpAddr {
        IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number))
    }

    fn record() -> OwnerRecord {
        OwnerRecord {
            node: "a".to_owned(),
            instance: "1".to_owned(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            ttl_ms: 3000,
            since: String::new(),
            successor: None,
        }
    }

    fn claim(lease: i64, vips: impl IntoIterator<Item = u32>) -> Unit {
        let records = vips.into_iter().map(|number| (vip(number), record()));
        Unit::claim(&keys(), LeaseId(lease), records.collect())
    }

    fn transfer(lease: i64, vips: impl IntoIterator<Item = u32>) -> Unit {
        let records = vips
            .into_iter()
            .map(|number| (vip(number), (version(1), record())));
        Unit::transfer(&keys(), "b", LeaseId(lease), records.collect())
    }

    fn release(number: u32) -> Unit {
        Unit::release(&keys(), vip(number), version(1))
    }

    fn version(lease: i64) -> Version {
        Version {
            lease: LeaseId(lease),
            mod_revision: 5,
        }
    }

    fn keys() -> Keys {
        Keys::new("/vip-agent")
    }

    fn sizes(units: Vec<Unit>) -> Vec<usize> {
        let batches = pack(units);
        batches.iter().map(|batch| batch.units.len()).collect()
    }

    #[test]
    fn a_few_hundred_go_in_a_few_requests() {
        let units: Vec<Unit> = (0..300).map(|number| claim(1, [number])).collect();
        assert_eq!(sizes(units), [64, 64, 64, 64, 44]);
    }

    #[test]
    fn who_puts_on_another_lease_or_on_none_has_another_request() {
        let units = vec![
            claim(1, [1]),
            transfer(2, [2]),
            release(3),
            claim(1, [4]),
            release(5),
        ];
        let batches = pack(units);
        let alike = batches.iter().all(|batch| {
            let mut leases = batch.units.iter().map(|unit| unit.lease);
            let first = leases.next();
            leases.all(|lease| Some(lease) == first)
        });
        assert!(alike && batches.len() == 3, "{}", batches.len());
    }

    #[test]
    fn one_request_changes_a_key_once() {
        assert_eq!(
            sizes(vec![claim(1, [1, 2]), claim(1, [2]), claim(1, [3])]),
            [1, 2]
        );
    }

    #[test]
    fn what_etcd_counts_stays_within_its_limit() {
        let largest = u32::try_from(crate::config::LARGEST_GROUP).expect("it is small");
        let units: Vec<Unit> = (0..20)
            .map(|number| transfer(1, number * 100..number * 100 + largest.min(number * 7 + 1)))
            .collect();
        for batch in pack(units) {
            let nested = batch.units.iter().map(Unit::operations).max();
            let counted = batch.units.len() + nested.expect("it is not empty");
            assert!(counted <= MOST_OPERATIONS, "{counted}");
        }
    }

    #[test]
    fn what_is_long_is_sent_in_more_requests() {
        let record = OwnerRecord {
            node: "n".repeat(100_000),
            ..record()
        };
        let units =
            (0..30).map(|number| Unit::reassert(&keys(), vip(number), version(1), record.clone()));
        assert_eq!(sizes(units.collect()), [10, 10, 10]);
    }
}
