//! What each source of peers has said, told while there is nobody to fetch from.
//!
//! Limits: [`TRACKERS_SHOWN_MAX`] trackers are named. Does not: ask anybody.

use crate::progress::counted;
use control::announce::{TrackerState, TrackerStatus};

/// See the module.
const TRACKERS_SHOWN_MAX: usize = 3;

/// What there is to say of.
#[derive(Default)]
pub struct Sources {
    pub trackers: Vec<TrackerStatus>,
    /// Of the DHT the nodes that are known, and the peers that its last search has found, if one
    /// has ended; none if it is off.
    pub dht: Option<(usize, Option<usize>)>,
    /// Whether this network is asked.
    pub lsd: bool,
    /// Peers that the user and the link name.
    pub named: usize,
}

impl Sources {
    /// A few words for each.
    pub fn texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        if self.named > 0 {
            let named = counted(self.named as u64, "named peer");
            texts.push(format!("{named}: no connection"));
        }
        let shown = self.trackers.iter().take(TRACKERS_SHOWN_MAX);
        texts.extend(shown.map(of_tracker));
        if self.trackers.len() > TRACKERS_SHOWN_MAX {
            let more = self.trackers.len() - TRACKERS_SHOWN_MAX;
            texts.push(format!("{more} more trackers"));
        }
        texts.extend(self.dht.map(|(nodes, found)| match (nodes, found) {
            (0, _) => "DHT: no node known yet".to_owned(),
            (_, Some(peers)) => format!(
                "DHT: {} found by way of {}",
                counted(peers as u64, "peer"),
                counted(nodes as u64, "node")
            ),
            (_, None) => format!("DHT: {} known, being asked", counted(nodes as u64, "node")),
        }));
        if self.lsd {
            texts.push("this network: being asked".to_owned());
        }
        texts
    }
}

fn of_tracker(status: &TrackerStatus) -> String {
    let said = match status.state {
        TrackerState::Waiting => "not asked yet".to_owned(),
        TrackerState::Announcing => "no answer yet".to_owned(),
        TrackerState::Working => counted(status.peers as u64, "peer"),
        TrackerState::Failing => "fails".to_owned(),
        TrackerState::Disabled => "not asked any more".to_owned(),
    };
    format!("tracker {}: {said}", status.tracker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(state: TrackerState, peers: usize) -> TrackerStatus {
        TrackerStatus {
            tracker: "http://a/…".to_owned(),
            tier: 0,
            state,
            since_last: None,
            asking_for: None,
            until_next: None,
            seeders: None,
            leechers: None,
            downloaded: None,
            peers,
            message: None,
        }
    }

    #[test]
    fn each_source_says_what_it_has_come_to() {
        let sources = Sources {
            trackers: vec![
                tracker(TrackerState::Working, 0),
                tracker(TrackerState::Failing, 0),
            ],
            dht: Some((0, None)),
            lsd: true,
            named: 1,
        };
        let expected = [
            "1 named peer: no connection",
            "tracker http://a/…: 0 peers",
            "tracker http://a/…: fails",
            "DHT: no node known yet",
            "this network: being asked",
        ];
        assert_eq!(sources.texts(), expected);
        let of_dht = |dht| {
            let mut texts = Sources {
                dht: Some(dht),
                ..Sources::default()
            }
            .texts();
            texts.pop().unwrap()
        };
        assert_eq!(of_dht((1, None)), "DHT: 1 node known, being asked");
        assert_eq!(of_dht((9, Some(0))), "DHT: 0 peers found by way of 9 nodes");
        let many = Sources {
            trackers: vec![tracker(TrackerState::Waiting, 0); 5],
            ..Sources::default()
        };
        assert_eq!(many.texts().len(), 4);
        assert_eq!(many.texts()[3], "2 more trackers");
        assert!(Sources::default().texts().is_empty());
    }
}
