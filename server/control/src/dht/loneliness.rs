//! Whether there is anybody in the DHT for us; if not, why: said once, and when that has changed.
//! Pure, in virtual time, but for the log.
//!
//! Limits: none. Does not: look for nodes.

use engine::time::Time;
use std::net::SocketAddr;
use std::time::Duration;

/// How long nodes may take to answer before that is told: a node that is asked has 5 s, and is
/// asked again 5 s after the first time.
pub(super) const TOLD_AFTER: Duration = Duration::from_secs(15);

/// The same where no name stands for anybody: the nodes of an earlier run alone may answer.
const NAMELESS_AFTER: Duration = Duration::from_secs(5);

/// What the names of the configuration stand for.
#[derive(Clone, Default, Debug)]
pub(super) struct Resolved {
    pub addresses: Vec<SocketAddr>,
    /// One that cannot be resolved, and why.
    pub failed: Option<(String, String)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Loneliness {
    /// When that we are alone is told.
    due: Option<Time>,
    /// It has been told.
    told: bool,
    /// The configuration names nobody.
    nobody_is_named: bool,
    resolved: Option<Resolved>,
}

/// What there is to tell.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum News {
    Alone(String),
    Company,
}

impl Loneliness {
    pub fn new(now: Time) -> Loneliness {
        Loneliness {
            due: Some(now + TOLD_AFTER),
            told: false,
            nobody_is_named: false,
            resolved: None,
        }
    }

    pub fn nobody_is_named(&mut self) {
        self.nobody_is_named = true;
    }

    pub fn resolved(&mut self, resolved: Resolved) {
        self.resolved = Some(resolved);
    }

    /// So many nodes are known now.
    pub fn look(&mut self, known: usize, now: Time) {
        match self.news(known, now) {
            Some(News::Alone(why)) => tracing::warn!("nobody is found by the DHT yet: {why}"),
            Some(News::Company) => tracing::warn!(nodes = known, "the DHT works now"),
            None => {}
        }
    }

    fn news(&mut self, known: usize, now: Time) -> Option<News> {
        if known > 0 {
            self.due = None;
            return std::mem::take(&mut self.told).then_some(News::Company);
        }
        // Those who have gone may come back: that takes as long as the first ones may.
        let due = *self.due.get_or_insert(now + TOLD_AFTER);
        let nobody_is_asked = |resolved: &Resolved| resolved.addresses.is_empty();
        let now = match self.resolved.as_ref().is_some_and(nobody_is_asked) {
            true => now + (TOLD_AFTER - NAMELESS_AFTER),
            false => now,
        };
        // The first node of a network of one's own waits to be named, and is no fault.
        if self.told || now < due || self.nobody_is_named {
            return None;
        }
        self.told = true;
        Some(News::Alone(self.why()))
    }

    fn why(&self) -> String {
        let Some(resolved) = &self.resolved else {
            return "the names in dht.bootstrap have not been resolved yet; does DNS work here?"
                .to_owned();
        };
        match (&resolved.failed, resolved.addresses.len()) {
            (Some((name, error)), 0) => format!(
                "no name in dht.bootstrap can be resolved ({name}: {error}); does DNS work here?"
            ),
            (_, count) => format!(
                "none of the nodes in dht.bootstrap answers ({count} addresses are asked); is UDP \
                 let out to them, and their answers in?"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time(0) + Duration::from_secs(seconds)
    }

    fn resolved(addresses: usize) -> Resolved {
        Resolved {
            addresses: vec![([192, 0, 2, 1], 5).into(); addresses],
            failed: Some(("nope.invalid:5".to_owned(), "unknown".to_owned())),
        }
    }

    #[test]
    fn it_is_told_once_with_the_reason_and_so_is_the_end() {
        let mut alone = Loneliness::new(at(0));
        alone.resolved(resolved(0));
        assert_eq!(alone.news(0, at(4)), None);
        let Some(News::Alone(why)) = alone.news(0, at(5)) else {
            panic!("nothing is told");
        };
        assert!(why.contains("dht.bootstrap") && why.contains("nope.invalid:5"));
        assert_eq!(alone.news(0, at(100)), None, "once");
        assert_eq!(alone.news(1, at(101)), Some(News::Company));
        assert_eq!(alone.news(2, at(102)), None);
        assert_eq!(alone.news(0, at(200)), None, "they may come back");
        alone.resolved(resolved(3));
        assert_eq!(alone.news(0, at(214)), None, "they may answer");
        let Some(News::Alone(why)) = alone.news(0, at(215)) else {
            panic!("nothing is told");
        };
        assert!(why.contains("3 addresses"), "{why}");
    }

    #[test]
    fn who_has_company_in_time_or_names_nobody_is_not_told_of() {
        let mut alone = Loneliness::new(at(0));
        assert_eq!(alone.news(1, at(3)), None);
        let mut first = Loneliness::new(at(0));
        first.nobody_is_named();
        assert_eq!(first.news(0, at(60)), None);
    }
}
