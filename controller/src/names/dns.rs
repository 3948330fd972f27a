//! Queries the cluster's DNS for the addresses of a host.
//!
//! Names are queried as they are, without the search domains of the pod, and the answers are
//! kept nowhere: `schedule` decides when to query again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use tracing::debug;

use super::schedule::{Answer, SHORTEST};

/// The families of addresses that pods have, and so can call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Families {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

/// Looks hosts up.
pub(super) trait LookUp {
    /// The addresses of a host. Ends within a bounded time.
    fn look_up(
        &self,
        host: Arc<str>,
        families: Families,
    ) -> impl Future<Output = (Arc<str>, Answer)> + Send;
}

/// The servers of `/etc/resolv.conf`.
pub(crate) struct Dns(TokioResolver);

opaque_debug!(Dns);

impl Dns {
    /// # Errors
    /// When the file cannot be read, or names no server.
    pub(crate) fn of_system() -> Result<Self, NetError> {
        let mut builder = TokioResolver::builder_tokio()?;
        let options = builder.options_mut();
        options.cache_size = 0;
        // The file of this pod has nothing of the world.
        options.use_hosts_file = ResolveHosts::Never;
        Ok(Self(builder.build()?))
    }

    async fn of_type(
        &self,
        wanted: bool,
        host: &str,
        record: RecordType,
    ) -> Option<Result<Lookup, NetError>> {
        match wanted {
            true => Some(self.0.lookup(format!("{host}."), record).await),
            false => None,
        }
    }
}

impl LookUp for Dns {
    async fn look_up(&self, host: Arc<str>, families: Families) -> (Arc<str>, Answer) {
        let (v4, v6) = futures::join!(
            self.of_type(families.v4, &host, RecordType::A),
            self.of_type(families.v6, &host, RecordType::AAAA)
        );
        let answer = merged(&host, v4.into_iter().chain(v6));
        (host, answer)
    }
}

/// One answer of those for the families. One that failed takes nothing from the other, since
/// there are servers that answer for one family alone. But only a name that does not exist has no
/// address in the family that failed.
fn merged(host: &str, lookups: impl Iterator<Item = Result<Lookup, NetError>>) -> Answer {
    let (mut addresses, mut valid, mut answered) = (BTreeSet::new(), None::<Duration>, false);
    let (mut failed, mut exists) = (false, true);
    for lookup in lookups {
        match lookup {
            Ok(lookup) => {
                answered = true;
                let left = lookup
                    .valid_until()
                    .saturating_duration_since(Instant::now());
                valid = Some(valid.map_or(left, |valid| valid.min(left)));
                let records = lookup.answers().iter();
                addresses.extend(records.filter_map(|record| record.data.ip_addr()));
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                answered = true;
                exists &= none.response_code != ResponseCode::NXDomain;
            }
            Err(error) => {
                failed = true;
                debug!(host, %error, "lookup failed");
            }
        }
    }
    let is_empty_for_sure = !failed || !exists;
    match answered && (is_empty_for_sure || !addresses.is_empty()) {
        true => Answer::Addresses(addresses, valid.unwrap_or(SHORTEST)),
        false => Answer::Failed,
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::{Name, RData, Record};

    use super::*;

    fn query(record: RecordType) -> Query {
        Query::query(Name::from_ascii("api.pay.example.").unwrap(), record)
    }

    fn found(record: RecordType, ip: &str, valid: u64) -> Result<Lookup, NetError> {
        let ip: std::net::IpAddr = ip.parse().unwrap();
        let query = query(record);
        let record = Record::from_rdata(query.name().clone(), 60, RData::from(ip));
        let until = Instant::now() + Duration::from_secs(valid);
        Ok(Lookup::new_with_deadline(query, [record], until))
    }

    fn nothing(record: RecordType) -> Result<Lookup, NetError> {
        negative(record, ResponseCode::NoError)
    }

    fn negative(record: RecordType, code: ResponseCode) -> Result<Lookup, NetError> {
        let none = NoRecords::new(query(record), code);
        Err(NetError::Dns(DnsError::NoRecordsFound(none)))
    }

    fn answer(lookups: impl IntoIterator<Item = Result<Lookup, NetError>>) -> Answer {
        merged("api.pay.example", lookups.into_iter())
    }

    #[test]
    fn families_make_one_answer_with_the_shorter_life() {
        let both = [
            found(RecordType::A, "203.0.113.7", 300),
            found(RecordType::AAAA, "2001:db8::7", 60),
        ];
        let Answer::Addresses(addresses, valid) = answer(both) else {
            panic!("both were found");
        };
        assert_eq!(addresses.len(), 2);
        assert!(valid <= Duration::from_secs(60), "{valid:?}");
    }

    #[test]
    fn failure_of_one_family_leaves_the_other() {
        let one = [
            found(RecordType::A, "203.0.113.7", 60),
            Err(NetError::Timeout),
        ];
        assert!(matches!(answer(one), Answer::Addresses(found, _) if found.len() == 1));
        assert_eq!(answer([Err(NetError::Timeout)]), Answer::Failed);
    }

    /// Else the addresses of the family that failed would be taken away.
    #[test]
    fn failure_beside_no_records_is_no_answer() {
        let failed = || Err(NetError::Timeout);
        assert_eq!(
            answer([failed(), nothing(RecordType::AAAA)]),
            Answer::Failed
        );
        let gone = negative(RecordType::AAAA, ResponseCode::NXDomain);
        let none = Answer::Addresses(BTreeSet::new(), SHORTEST);
        assert_eq!(answer([failed(), gone]), none, "the name does not exist");
    }

    #[test]
    fn name_without_records_is_answered_with_none() {
        let none = answer([nothing(RecordType::A), nothing(RecordType::AAAA)]);
        assert_eq!(none, Answer::Addresses(BTreeSet::new(), SHORTEST));
    }
}
