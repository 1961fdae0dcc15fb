//! The columns of a list of torrents.

use super::table::Column;
use super::text::{bytes, duration, moment, name, percent, rate, ratio, short_hash};
use control::api::types::{Status, Torrent};

/// A column of a list.
#[derive(Clone, Copy, Debug)]
pub struct ListColumn {
    /// By which the command line knows it.
    pub key: &'static str,
    /// How it looks.
    pub column: Column,
    cell: fn(&Torrent) -> String,
}

/// All of them.
pub const COLUMNS: [ListColumn; 20] = [
    of("hash", Column::word("hash", 6), |t| {
        short_hash(&t.info_hash).to_owned()
    }),
    of("name", Column::text("name", 0), |t| name(&t.name)),
    of("size", Column::figure("size", 3), |t| match t.total_bytes {
        0 => "?".to_owned(),
        size => bytes(size),
    }),
    of("done", Column::figure("done", 1), |t| {
        percent(t.verified_bytes, t.total_bytes)
    }),
    of("status", Column::word("status", 0), status),
    of("down", Column::figure("down", 2), |t| rate(t.download_rate)),
    of("up", Column::figure("up", 2), |t| rate(t.upload_rate)),
    of("ratio", Column::figure("ratio", 4), |t| {
        ratio(t.ratio_permille)
    }),
    of("eta", Column::figure("eta", 5), |t| {
        eta(t).map_or_else(String::new, duration)
    }),
    of("peers", Column::figure("peers", 7), |t| t.peers.to_string()),
    of("seeds", Column::figure("seeds", 8), |t| t.seeds.to_string()),
    of("labels", Column::text("labels", 9), |t| {
        name(&t.labels.join(","))
    }),
    of("category", Column::text("category", 9), |t| {
        name(t.category.as_deref().unwrap_or_default())
    }),
    of("uploaded", Column::figure("uploaded", 10), |t| {
        bytes(t.uploaded_bytes)
    }),
    of("downloaded", Column::figure("downloaded", 10), |t| {
        bytes(t.downloaded_bytes)
    }),
    of("added", Column::word("added", 11), |t| moment(t.added_at_s)),
    of("completed", Column::word("completed", 11), |t| {
        t.completed_at_s.map_or_else(String::new, moment)
    }),
    of("active", Column::word("active", 11), |t| {
        t.last_active_at_s.map_or_else(String::new, moment)
    }),
    of("path", Column::text("path", 12), |t| name(&t.save_path)),
    of("error", Column::text("error", 13), |t| {
        let error = t.last_error.as_ref();
        error.map_or_else(String::new, |error| name(&error.text))
    }),
];

/// Those that a list has unless others are asked for.
pub const DEFAULT: &str = "hash,name,size,done,status,down,up,ratio";

const fn of(key: &'static str, column: Column, cell: fn(&Torrent) -> String) -> ListColumn {
    ListColumn { key, column, cell }
}

/// The columns that a list of their names means.
///
/// # Errors
///
/// A name that none has.
pub fn parse(text: &str) -> Result<Vec<ListColumn>, String> {
    let one = |key: &str| {
        let found = COLUMNS.iter().find(|one| one.key == key.trim()).copied();
        found.ok_or_else(|| {
            let known: Vec<&str> = COLUMNS.iter().map(|one| one.key).collect();
            format!("{key:?} is no column; there are {}", known.join(", "))
        })
    };
    text.split(',').map(one).collect()
}

impl ListColumn {
    /// What it has of a torrent.
    pub fn cell(&self, torrent: &Torrent) -> String {
        (self.cell)(torrent)
    }
}

/// The word for what a torrent is doing.
pub fn status_word(status: Status) -> &'static str {
    match status {
        Status::Paused => "paused",
        Status::Queued => "queued",
        Status::Metadata => "metadata",
        Status::Checking => "checking",
        Status::Moving => "moving",
        Status::Downloading => "downloading",
        Status::Seeding => "seeding",
        Status::Offline => "offline",
        Status::Failed => "failed",
    }
}

fn status(torrent: &Torrent) -> String {
    let word = status_word(torrent.status);
    match torrent.done_permille {
        Some(permille) => format!("{word} {}%", permille / 10),
        None => word.to_owned(),
    }
}

/// Seconds until a download is there, if it goes on as now.
pub fn eta(torrent: &Torrent) -> Option<u64> {
    let missing = torrent.total_bytes.saturating_sub(torrent.verified_bytes);
    (torrent.status == Status::Downloading && torrent.download_rate > 0)
        .then(|| missing.div_ceil(torrent.download_rate))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use control::api::types::TorrentLimits;

    /// A torrent that is half there.
    pub fn torrent(hash: &str, name: &str) -> Torrent {
        Torrent {
            info_hash: hash.to_owned(),
            info_hash_v2: None,
            name: name.to_owned(),
            status: Status::Downloading,
            done_permille: None,
            last_error: None,
            private: false,
            total_bytes: 10 << 30,
            verified_bytes: 5 << 30,
            piece_bytes: 1 << 20,
            pieces: 10 << 10,
            pieces_verified: 5 << 10,
            files: 3,
            save_path: "/data".to_owned(),
            category: Some("linux".to_owned()),
            labels: vec!["iso".to_owned(), "old".to_owned()],
            added_at_s: 1_700_000_000,
            completed_at_s: None,
            last_active_at_s: None,
            paused: false,
            seed_mode: false,
            sequential: false,
            super_seeding: false,
            limits: TorrentLimits::default(),
            uploaded_bytes: 1 << 30,
            downloaded_bytes: 5 << 30,
            uploaded_session_bytes: 1 << 20,
            downloaded_session_bytes: 0,
            wasted_bytes: 0,
            ratio_permille: 100,
            active_s: 60,
            seeding_s: 0,
            upload_rate: 0,
            download_rate: 10 << 20,
            peers: 7,
            seeds: 2,
        }
    }

    #[test]
    fn every_column_has_a_name_of_its_own() {
        let mut keys: Vec<&str> = COLUMNS.iter().map(|one| one.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), COLUMNS.len());
        assert_eq!(parse(DEFAULT).unwrap().len(), 8);
        assert!(parse("name,size,nose").unwrap_err().contains("\"nose\""));
        assert!(parse("").is_err());
    }

    #[test]
    fn cells_say_what_is_there() {
        let mut torrent = torrent("0123456789abcdef0123456789abcdef01234567", "a\tb");
        let all: Vec<String> = COLUMNS.iter().map(|one| one.cell(&torrent)).collect();
        assert_eq!(
            all[..13],
            [
                "01234567",
                "a\\tb",
                "10.0 GiB",
                "50.0%",
                "downloading",
                "10.0 MiB/s",
                "",
                "0.10",
                "8m32s",
                "7",
                "2",
                "iso,old",
                "linux"
            ]
        );
        torrent.status = Status::Checking;
        torrent.done_permille = Some(347);
        assert_eq!(status(&torrent), "checking 34%");
        assert_eq!(eta(&torrent), None);
    }
}
