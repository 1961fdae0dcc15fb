//! Names to addresses: one shared cache for all announces, and the choice of family and scope.
//!
//! The resolver below is what the HTTP connector itself asks, so the addresses that are checked
//! are the ones that are connected to: a name that changes in between (DNS rebinding) gains
//! nothing.
//!
//! Limits: [`NAMES_MAX`] names, kept [`KEPT`] (failures [`FAILURE_KEPT`]); when full, all expired
//! and then all are dropped. Does not: speak DNS; the system's resolver does.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::OnceCell;

/// Names in the cache.
const NAMES_MAX: usize = 4096;
/// How long an answer is used. The system's resolver does not tell the record's own time.
const KEPT: Duration = Duration::from_secs(5 * 60);
/// How long a failure is.
const FAILURE_KEPT: Duration = Duration::from_secs(30);
/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 16;

/// What a name stands for, or why that is not known.
pub(super) type Resolved = Result<Arc<[IpAddr]>, Arc<str>>;

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }
}

/// The cache.
pub(super) struct Names {
    entries: Mutex<HashMap<String, Entry>>,
    /// What counts as global; tests put loopback addresses in that place.
    pub is_global: fn(IpAddr) -> bool,
}

struct Entry {
    /// Shared by those who ask while the first is still asking.
    cell: Arc<OnceCell<Resolved>>,
    asked: Instant,
}

impl Entry {
    fn is_fresh(&self, now: Instant) -> bool {
        let kept = match self.cell.get() {
            Some(Err(_)) => FAILURE_KEPT,
            _ => KEPT,
        };
        now.duration_since(self.asked) < kept
    }
}

impl Names {
    pub fn new(is_global: fn(IpAddr) -> bool) -> Names {
        Names {
            entries: Mutex::new(HashMap::new()),
            is_global,
        }
    }

    /// The addresses of a host, a name or a literal address, in the system's order of preference.
    pub async fn lookup(&self, host: &str) -> Resolved {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Arc::from([address]));
        }
        self.cell(host)
            .get_or_init(|| ask(host.to_owned()))
            .await
            .clone()
    }

    /// Makes a name stand for these addresses.
    #[cfg(test)]
    pub fn know(&self, host: &str, addresses: Arc<[IpAddr]>) {
        self.cell(host).set(Ok(addresses)).unwrap();
    }

    fn cell(&self, host: &str) -> Arc<OnceCell<Resolved>> {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(host).filter(|entry| entry.is_fresh(now)) {
            return entry.cell.clone();
        }
        if entries.len() >= NAMES_MAX {
            entries.retain(|_, entry| entry.is_fresh(now));
            if entries.len() >= NAMES_MAX {
                entries.clear();
            }
        }
        let cell = Arc::new(OnceCell::new());
        entries.insert(
            host.to_owned(),
            Entry {
                cell: cell.clone(),
                asked: now,
            },
        );
        cell
    }
}

async fn ask(host: String) -> Resolved {
    match tokio::net::lookup_host((host.as_str(), 0)).await {
        Ok(addresses) => {
            let mut found: Vec<IpAddr> = Vec::new();
            for address in addresses.map(|address| address.ip().to_canonical()) {
                if found.len() < ADDRESSES_MAX && !found.contains(&address) {
                    found.push(address);
                }
            }
            if found.is_empty() {
                return Err("the name has no address".into());
            }
            Ok(found.into())
        }
        Err(error) => Err(format!("cannot resolve the name: {error}").into()),
    }
}

/// The resolver of one HTTP client: addresses of one family, and only global ones if so asked.
pub(super) struct FamilyResolver {
    pub names: Arc<Names>,
    pub family: Family,
    pub global_only: bool,
}

impl Resolve for FamilyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.names.clone();
        let (family, global_only) = (self.family, self.global_only);
        Box::pin(async move {
            let all = names
                .lookup(name.as_str())
                .await
                .map_err(|error| error.to_string())?;
            let right = |address: &IpAddr| {
                Family::of(*address) == family && (!global_only || (names.is_global)(*address))
            };
            let chosen: Vec<SocketAddr> = all
                .iter()
                .copied()
                .filter(right)
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            if chosen.is_empty() {
                let scope = if global_only { "global " } else { "" };
                return Err(format!("the name has no {scope}address of family {family:?}").into());
            }
            Ok(Box::new(chosen.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(_: IpAddr) -> bool {
        true
    }

    #[tokio::test]
    async fn a_literal_address_needs_no_resolver() {
        let names = Names::new(global);
        let found = names.lookup("2001:db8::1").await.unwrap();
        assert_eq!(*found, ["2001:db8::1".parse::<IpAddr>().unwrap()]);
        assert!(names.entries.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_cache_is_bounded() {
        let names = Names::new(global);
        for number in 0..=NAMES_MAX {
            names.cell(&format!("name{number}"));
        }
        assert!(names.entries.lock().unwrap().len() <= NAMES_MAX);
    }

    #[tokio::test]
    async fn only_addresses_of_the_right_family_and_scope_are_handed_out() {
        let names = Arc::new(Names::new(super::super::url::is_global));
        let known: Arc<[IpAddr]> = Arc::from(
            ["10.0.0.1", "1.1.1.1", "::1", "2606:4700::1"].map(|text| text.parse().unwrap()),
        );
        names.cell("t.example").set(Ok(known)).unwrap();
        let ask = async |family, global_only| {
            let resolver = FamilyResolver {
                names: names.clone(),
                family,
                global_only,
            };
            let found = resolver
                .resolve("t.example".parse().unwrap())
                .await
                .unwrap();
            found
                .map(|address| address.ip().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(ask(Family::V4, false).await, ["10.0.0.1", "1.1.1.1"]);
        assert_eq!(ask(Family::V4, true).await, ["1.1.1.1"]);
        assert_eq!(ask(Family::V6, false).await, ["::1", "2606:4700::1"]);
        assert_eq!(ask(Family::V6, true).await, ["2606:4700::1"]);
    }
}
