//! A torrent as the store has it, read when it is needed: on a thread for blocking work.
//!
//! Limits: those of the store and of the metainfo's decoder.

use proto::bencode::Limits;
use proto::ids::InfoHashV1;
use proto::magnet::Magnet;
use proto::metainfo::Metainfo;
use seedring_io::fetch::suffix_of;
use state::{Details, Handle, ReadError, Summary, Verified};
use std::sync::Arc;

/// What the store has of a torrent.
pub(crate) struct Kept {
    pub summary: Summary,
    pub details: Details,
    /// The bytes of its .torrent file, and what they say; none while only a link is known.
    pub metainfo: Option<(Vec<u8>, Arc<Metainfo>)>,
    pub verified: Verified,
    /// One for each file, if there are any.
    pub stamps: Vec<Option<engine::layout::FileStamp>>,
}

/// Why a torrent cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    #[error("it is not in the store")]
    Gone,
    #[error(transparent)]
    Store(#[from] ReadError),
    #[error("its metainfo: {0}")]
    Metainfo(#[from] proto::metainfo::MetainfoError),
    #[error("its metainfo are not known yet")]
    NoMetainfo,
}

impl KeptError {
    /// Whether it says nothing about the torrent: the store could not be read, and is opened again.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(
            self,
            KeptError::Store(ReadError::Failed(_) | ReadError::Closed)
        )
    }
}

impl Kept {
    /// Reads a torrent; blocks on the disk.
    pub(crate) fn read(store: &Handle, info_hash: InfoHashV1) -> Result<Kept, KeptError> {
        let read = store.read_blocking(|view| {
            let Some(summary) = view.summary(&info_hash)? else {
                return Ok(None);
            };
            let stamps = view.stamps(&info_hash)?;
            let metainfo = view.metainfo(&info_hash)?;
            let (details, verified) = (view.details(&info_hash)?, view.verified(&info_hash)?);
            Ok(Some((summary, details, metainfo, verified, stamps)))
        })?;
        let (summary, details, metainfo, verified, stamped) = read.ok_or(KeptError::Gone)?;
        let mut stamps = Vec::new();
        let metainfo = match metainfo {
            Some(bytes) => {
                let metainfo = Metainfo::parse_within(&bytes, &Limits::METAINFO_OWN)?;
                stamps = vec![None; metainfo.files.len()];
                Some((bytes, Arc::new(metainfo)))
            }
            None => None,
        };
        for (file, stamp) in stamped {
            if let Some(place) = stamps.get_mut(file as usize) {
                *place = Some(stamp);
            }
        }
        Ok(Kept {
            summary,
            details,
            metainfo,
            verified,
            stamps,
        })
    }

    /// What its metainfo say.
    pub(crate) fn described(&self) -> Result<&Arc<Metainfo>, KeptError> {
        let metainfo = self.metainfo.as_ref().map(|(_, metainfo)| metainfo);
        metainfo.ok_or(KeptError::NoMetainfo)
    }

    /// What the names of its files end with while they are not complete: `suffix`, or nothing where
    /// with it one of them would be another.
    pub(crate) fn suffix<'a>(&self, suffix: &'a str) -> &'a str {
        let metainfo = self.metainfo.as_ref().map(|(_, metainfo)| metainfo);
        metainfo.map_or(suffix, |metainfo| {
            suffix_of(metainfo, &self.details.renames, suffix)
        })
    }

    /// How many of its pieces are said to be there, hashed or not: where none of their files is,
    /// they are away, and not to be fetched again.
    pub(crate) fn pieces_said(&self) -> u32 {
        let Summary {
            pieces,
            seed_mode,
            completed_at_s,
            ..
        } = self.summary;
        match seed_mode || completed_at_s.is_some() {
            true => pieces,
            false => self.verified.count(pieces),
        }
    }

    /// Its trackers in their tiers: the user's, else the metainfo's, else the link's.
    pub(crate) fn trackers(&self) -> Vec<Vec<String>> {
        match (&self.details.trackers, &self.metainfo) {
            (Some(trackers), _) => trackers.clone(),
            (None, Some((_, metainfo))) => metainfo.trackers.clone(),
            (None, None) => self
                .summary
                .magnet
                .as_deref()
                .map_or_else(Vec::new, of_link),
        }
    }

    /// Whether each file that has data on disk has a stamp: without them nothing may be served
    /// unhashed.
    pub(crate) fn is_stamped(&self) -> bool {
        let Some((_, metainfo)) = &self.metainfo else {
            return false;
        };
        let mut files = metainfo.files.iter().zip(&self.stamps);
        files.all(|(file, stamp)| file.pad || file.symlink_target.is_some() || stamp.is_some())
    }
}

/// The trackers that a magnet link names, each in a tier of its own (BEP 9).
fn of_link(link: &str) -> Vec<Vec<String>> {
    let trackers = Magnet::parse(link).map(|magnet| magnet.trackers);
    let trackers = trackers.unwrap_or_default().into_iter();
    trackers.map(|url| vec![url]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn only_a_store_that_fails_says_nothing_about_a_torrent() {
        let failure = Arc::new(state::Failure {
            path: "state".into(),
            text: "no space".into(),
            disk_full: true,
        });
        assert!(KeptError::from(ReadError::Failed(failure)).is_passing());
        assert!(KeptError::from(ReadError::Closed).is_passing());
        let damaged = ReadError::DamagedStore { what: "totals" };
        for error in [damaged.into(), KeptError::Gone, KeptError::NoMetainfo] {
            assert!(!error.is_passing(), "{error}");
        }
    }

    #[test]
    fn each_tracker_of_a_link_is_a_tier() {
        let hash = "07".repeat(20);
        let link = format!("magnet:?xt=urn:btih:{hash}&tr=http://a/x&tr=http://b/x");
        assert_eq!(of_link(&link), [["http://a/x"], ["http://b/x"]]);
        assert!(of_link("junk").is_empty());
    }
}
