//! The nodes that we know, kept for the next start: one small bencoded file.
//!
//! Limits: [`NODES_MAX`] nodes of each family; a longer file, or one that is not as it should be,
//! is as good as none. It is written beside and renamed, so that it is whole whenever we end;
//! several processes may write it, and the last one wins.

use proto::bencode::{Document, Encoder, Limits};
use proto::dht::{Contact, NodeId, compact_nodes, push_contact};
use std::io;
use std::path::Path;

/// Nodes of a family that are kept.
pub(super) const NODES_MAX: usize = 200;
/// The longest file that is read.
const BYTES_MAX: u32 = 32 << 10;
/// What the file may cost to read.
const LIMITS: Limits = Limits {
    bytes_max: BYTES_MAX,
    tokens_max: 64,
    depth_max: 4,
};

/// What is kept of one node of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    /// Its id.
    pub(super) id: Option<NodeId>,
    /// Those that it knows.
    pub(super) nodes: Vec<Contact>,
}

/// Keys of id and nodes, of IPv4 and of IPv6.
const KEYS: [(&[u8], &[u8]); 2] = [(b"id", b"nodes"), (b"id6", b"nodes6")];

/// Reads what was kept of the nodes of IPv4 and of IPv6.
pub(super) fn read(path: &Path) -> [Saved; 2] {
    let known = match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() <= u64::from(BYTES_MAX) => std::fs::read(path),
        Ok(_) => Err(io::Error::other("it is too long")),
        Err(error) => Err(error),
    };
    match known {
        Ok(bytes) => parse(&bytes),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(?path, %error, "cannot read the DHT nodes of the last run");
            }
            Default::default()
        }
    }
}

fn parse(bytes: &[u8]) -> [Saved; 2] {
    let Ok(document) = Document::parse(bytes, &LIMITS) else {
        tracing::warn!("the file of DHT nodes is damaged, and not used");
        return Default::default();
    };
    let root = document.root();
    KEYS.map(|(id, nodes)| {
        let bytes = |key: &[u8]| root.get(key).and_then(|value| value.as_bytes());
        let compact = bytes(nodes).unwrap_or(b"");
        let is_v6 = nodes == KEYS[1].1;
        let length = if is_v6 {
            proto::dht::CONTACT_BYTES_V6
        } else {
            proto::dht::CONTACT_BYTES_V4
        };
        let chunks = compact.chunks_exact(length).take(NODES_MAX);
        Saved {
            id: bytes(id).and_then(|id| id.try_into().ok()).map(NodeId),
            nodes: chunks.flat_map(|one| compact_nodes(one, is_v6)).collect(),
        }
    })
}

/// Writes what is to be kept.
pub(super) fn write(path: &Path, saved: &[Saved; 2]) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&beside, encode(saved))?;
    std::fs::rename(&beside, path).inspect_err(|_| {
        let _ = std::fs::remove_file(&beside);
    })
}

fn encode(saved: &[Saved; 2]) -> Vec<u8> {
    let mut out = Encoder::new();
    out.begin_dict();
    for (key, saved) in [KEYS[0].0, KEYS[1].0].iter().zip(saved) {
        if let Some(id) = saved.id {
            out.key(key).bytes(&id.0);
        }
    }
    for (key, saved) in [KEYS[0].1, KEYS[1].1].iter().zip(saved) {
        let mut compact = Vec::new();
        for contact in saved.nodes.iter().take(NODES_MAX) {
            push_contact(&mut compact, contact);
        }
        out.key(key).bytes(&compact);
    }
    out.end();
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(number: u8, address: &str) -> Contact {
        Contact {
            id: NodeId([number; 20]),
            address: address.parse().unwrap(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dht.nodes");
        assert_eq!(read(&path), <[Saved; 2]>::default());
        let saved = [
            Saved {
                id: Some(NodeId([7; 20])),
                nodes: vec![contact(1, "9.9.9.9:1"), contact(2, "127.0.0.1:2")],
            },
            Saved {
                id: None,
                nodes: vec![contact(3, "[2600::1]:3")],
            },
        ];
        write(&path, &saved).unwrap();
        write(&path, &saved).unwrap();
        assert_eq!(read(&path), saved);
        let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn a_file_of_many_nodes_keeps_its_limit() {
        let many = (0..NODES_MAX + 50).map(|number| contact(number as u8, "9.9.9.9:1"));
        let many = Saved {
            id: Some(NodeId([7; 20])),
            nodes: many.collect(),
        };
        let bytes = encode(&[many, Saved::default()]);
        assert!(bytes.len() < BYTES_MAX as usize);
        assert_eq!(parse(&bytes)[0].nodes.len(), NODES_MAX);
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dht.nodes");
        let whole = encode(&[
            Saved {
                id: Some(NodeId([7; 20])),
                nodes: vec![contact(1, "9.9.9.9:1")],
            },
            Saved::default(),
        ]);
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read(&path), <[Saved; 2]>::default());
        }
        for odd in [&b"le"[..], b"i1e", b"d2:id3:abc5:nodesi7ee", b"\0\0\0"] {
            std::fs::write(&path, odd).unwrap();
            assert_eq!(read(&path), <[Saved; 2]>::default());
        }
        std::fs::write(&path, vec![b'x'; BYTES_MAX as usize + 1]).unwrap();
        assert_eq!(read(&path), <[Saved; 2]>::default());
    }
}
