//! What the configuration or the command line names to be served, and what has become of each.
//!
//! Limits: as many as are named. Does not: load or serve anything.

use crate::loading::{Source, SourceId};
use proto::ids::InfoHashV1;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

/// What has become of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is being made ready, or waits for that.
    Loading,
    /// Its torrent is served.
    Served(InfoHashV1),
    /// Its torrent is served from another source.
    LeftOut(InfoHashV1),
    /// It cannot be served.
    Refused,
}

/// See the module.
pub struct Named(HashMap<SourceId, Fate>);

/// What is to be done where other sources are named than before.
#[derive(Default)]
pub struct Renewed {
    /// Torrents that nobody names any more.
    pub gone: Vec<InfoHashV1>,
    /// Sources to be made ready.
    pub load: Vec<Source>,
    /// Of those that could not be served, how many are tried again or named no more.
    pub refused: usize,
}

impl Named {
    /// These are being loaded.
    pub fn new(sources: &[Source]) -> Named {
        let loading = |source: &Source| (source.id(), Fate::Loading);
        Named(sources.iter().map(loading).collect())
    }

    /// Whether a source that has been made ready is waited for: it is named still, and its torrent is
    /// not served from it.
    pub fn awaits(&self, id: &SourceId) -> bool {
        self.0.get(id) == Some(&Fate::Loading)
    }

    /// Where that is which is named and not served from there: it could not be loaded, or is served
    /// from another source.
    pub fn unserved(&self) -> Vec<PathBuf> {
        let served = self.0.iter().filter_map(|(id, fate)| match fate {
            Fate::Served(info_hash) => Some((*info_hash, id.place())),
            _ => None,
        });
        let served: HashMap<_, _> = served.collect();
        let unserved = self.0.iter().filter(|(id, fate)| match fate {
            Fate::Refused => true,
            Fate::LeftOut(info_hash) => served.get(info_hash) != Some(&id.place()),
            Fate::Loading | Fate::Served(_) => false,
        });
        unserved.map(|(id, _)| id.place().to_owned()).collect()
    }

    /// Notes what has become of a source.
    pub fn settle(&mut self, id: SourceId, fate: Fate) {
        self.0.insert(id, fate);
    }

    /// From now on these are named, and no others. What is served and still named is left alone.
    pub fn renew(&mut self, sources: Vec<Source>) -> Renewed {
        let mut renewed = Renewed::default();
        let named: HashSet<SourceId> = sources.iter().map(Source::id).collect();
        self.0.retain(|id, fate| {
            let stays = named.contains(id);
            match fate {
                Fate::Served(info_hash) if !stays => renewed.gone.push(*info_hash),
                // Named still, it is tried again: what was wrong with it may have been mended.
                Fate::Refused => renewed.refused += 1,
                _ => {}
            }
            stays
        });
        for source in sources {
            let begin = match self.0.get(&source.id()) {
                None | Some(Fate::Refused) => true,
                Some(Fate::LeftOut(info_hash)) => renewed.gone.contains(info_hash),
                Some(Fate::Loading | Fate::Served(_)) => false,
            };
            if begin {
                self.0.insert(source.id(), Fate::Loading);
                renewed.load.push(source);
            }
        }
        renewed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::create::CreateOptions;

    fn sources(names: &[&str]) -> Vec<Source> {
        let source = |name: &&str| Source::Path(name.into(), CreateOptions::default());
        names.iter().map(source).collect()
    }

    fn id(name: &str) -> SourceId {
        sources(&[name])[0].id()
    }

    fn load(renewed: &Renewed) -> Vec<SourceId> {
        renewed.load.iter().map(Source::id).collect()
    }

    #[test]
    fn what_is_new_is_loaded_what_is_gone_is_withdrawn_and_the_rest_is_left_alone() {
        let [one, two] = [1, 2].map(|byte| InfoHashV1([byte; 20]));
        let mut named = Named::new(&sources(&["a", "b", "c", "d"]));
        named.settle(id("a"), Fate::Served(one));
        named.settle(id("b"), Fate::Served(two));
        named.settle(id("c"), Fate::Refused);
        assert!(named.awaits(&id("d")) && !named.awaits(&id("a")));
        let renewed = named.renew(sources(&["e", "a", "e", "c"]));
        assert_eq!(renewed.gone, [two]);
        assert_eq!(load(&renewed), [id("e"), id("c")]);
        assert_eq!(renewed.refused, 1);
        // What was still being made ready when it was taken out is not waited for.
        assert!(!named.awaits(&id("d")) && named.awaits(&id("e")));
        let renewed = named.renew(sources(&["e", "a", "c"]));
        assert_eq!((renewed.gone.len(), renewed.load.len()), (0, 0));
    }

    #[test]
    fn what_is_named_and_not_served_is_where_its_data_are() {
        let file = Source::Torrent("x.torrent".into(), "data".into(), Vec::new());
        let named = [sources(&["a", "b", "c"]), vec![file.clone()]].concat();
        let mut named = Named::new(&named);
        assert!(named.unserved().is_empty());
        named.settle(id("a"), Fate::Served(InfoHashV1([1; 20])));
        named.settle(id("b"), Fate::LeftOut(InfoHashV1([1; 20])));
        named.settle(id("c"), Fate::Refused);
        named.settle(file.id(), Fate::Refused);
        let same = Source::Torrent("y.torrent".into(), "a".into(), Vec::new());
        named.settle(same.id(), Fate::LeftOut(InfoHashV1([1; 20])));
        let mut unserved = named.unserved();
        unserved.sort();
        assert_eq!(unserved, ["b", "c", "data"].map(PathBuf::from));
    }

    #[test]
    fn another_source_of_the_same_torrent_takes_the_place_of_the_one_that_is_gone() {
        let torrent = InfoHashV1([1; 20]);
        let mut named = Named::new(&sources(&["a", "b"]));
        named.settle(id("a"), Fate::Served(torrent));
        named.settle(id("b"), Fate::LeftOut(torrent));
        assert!(named.renew(sources(&["a", "b"])).load.is_empty());
        let renewed = named.renew(sources(&["b"]));
        assert_eq!(renewed.gone, [torrent]);
        assert_eq!(load(&renewed), [id("b")]);
    }
}
