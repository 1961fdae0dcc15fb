//! The keys beside `info`: trackers, web seeds and what is for people. All but `info` are optional,
//! and a strange value reads as absent: nothing of it is covered by the hash, so anyone may have
//! garbled it.

use std::collections::HashSet;

use super::error::Reason;
use super::field::{self, Result, refuse, required};
use crate::bencode::{Kind, Value};
use crate::limits::{NODES_MAX, TRACKERS_MAX, URL_BYTES_MAX, WEB_SEEDS_MAX};

pub(super) struct Outer<'doc, 'input> {
    pub info: Value<'doc, 'input>,
    pub piece_layers: Option<Value<'doc, 'input>>,
    pub trackers: Vec<Vec<String>>,
    pub web_seeds: Vec<String>,
    pub http_seeds: Vec<String>,
    pub nodes: Vec<(String, u16)>,
    pub comment: Option<String>,
    pub created_by: Option<String>,
    pub creation_date: Option<i64>,
    pub encoding: Option<String>,
}

#[derive(Default)]
struct Keys<'doc, 'input> {
    info: Option<Value<'doc, 'input>>,
    piece_layers: Option<Value<'doc, 'input>>,
    announce: Option<Value<'doc, 'input>>,
    announce_list: Option<Value<'doc, 'input>>,
    url_list: Option<Value<'doc, 'input>>,
    httpseeds: Option<Value<'doc, 'input>>,
    nodes: Option<Value<'doc, 'input>>,
    comment: Option<Value<'doc, 'input>>,
    comment_utf8: Option<Value<'doc, 'input>>,
    created_by: Option<Value<'doc, 'input>>,
    creation_date: Option<Value<'doc, 'input>>,
    encoding: Option<Value<'doc, 'input>>,
}

pub(super) fn read<'doc, 'input>(root: Value<'doc, 'input>) -> Result<Outer<'doc, 'input>> {
    let mut keys = Keys::default();
    for entry in field::dict("torrent", root)?.entries() {
        let slot = match entry.key {
            b"info" => {
                if keys.info.is_some() {
                    return refuse("info", entry.key_value, Reason::DuplicateKey);
                }
                &mut keys.info
            }
            b"piece layers" => &mut keys.piece_layers,
            b"announce" => &mut keys.announce,
            b"announce-list" => &mut keys.announce_list,
            b"url-list" => &mut keys.url_list,
            b"httpseeds" => &mut keys.httpseeds,
            b"nodes" => &mut keys.nodes,
            b"comment" => &mut keys.comment,
            b"comment.utf-8" => &mut keys.comment_utf8,
            b"created by" => &mut keys.created_by,
            b"creation date" => &mut keys.creation_date,
            b"encoding" => &mut keys.encoding,
            _ => continue,
        };
        slot.get_or_insert(entry.value);
    }
    Ok(Outer {
        info: required("info", keys.info, root)?,
        piece_layers: keys.piece_layers,
        trackers: trackers(keys.announce, keys.announce_list),
        web_seeds: urls(keys.url_list),
        http_seeds: urls(keys.httpseeds),
        nodes: nodes(keys.nodes),
        comment: field::text(keys.comment_utf8).or_else(|| field::text(keys.comment)),
        created_by: field::text(keys.created_by),
        creation_date: keys.creation_date.and_then(Value::as_integer),
        encoding: field::text(keys.encoding),
    })
}

/// The tiers of `announce-list`; where it holds nothing usable, `announce` as the only one (BEP
/// 12).
fn trackers(announce: Option<Value<'_, '_>>, tiers: Option<Value<'_, '_>>) -> Vec<Vec<String>> {
    let mut seen = HashSet::new();
    let mut trackers: Vec<Vec<String>> = Vec::new();
    for tier in tiers.and_then(Value::list).into_iter().flatten() {
        let tier: Vec<String> = strings(tier)
            .filter(|url| seen.len() < TRACKERS_MAX && seen.insert(*url))
            .map(str::to_owned)
            .collect();
        if !tier.is_empty() {
            trackers.push(tier);
        }
    }
    if trackers.is_empty() {
        let first = announce.and_then(|announce| strings(announce).next());
        trackers.extend(first.map(|url| vec![url.to_owned()]));
    }
    trackers
}

/// A list of URLs, or the one URL that some write instead, without duplicates.
fn urls(value: Option<Value<'_, '_>>) -> Vec<String> {
    let mut seen = HashSet::new();
    value
        .into_iter()
        .flat_map(strings)
        .filter(|url| seen.insert(*url))
        .take(WEB_SEEDS_MAX)
        .map(str::to_owned)
        .collect()
}

/// The usable URLs of a list, or of a string that stands for a list of one.
fn strings<'doc, 'input: 'doc>(
    value: Value<'doc, 'input>,
) -> impl Iterator<Item = &'input str> + use<'doc, 'input> {
    let single = (value.kind() == Kind::Bytes).then_some(value);
    single
        .into_iter()
        .chain(value.list().into_iter().flatten())
        .filter_map(Value::as_str)
        .filter_map(usable_url)
}

/// The URL without surrounding blanks, unless it cannot be one: empty, too long, or with blanks or
/// control characters inside, which could forge lines of a request.
#[must_use]
pub fn usable_url(text: &str) -> Option<&str> {
    let text = text.trim();
    let strange = |character: char| character.is_control() || character.is_whitespace();
    (!text.is_empty() && text.len() <= URL_BYTES_MAX && !text.contains(strange)).then_some(text)
}

fn nodes(value: Option<Value<'_, '_>>) -> Vec<(String, u16)> {
    let node = |value: Value<'_, '_>| {
        let mut pair = value.list()?;
        let host = usable_url(pair.next()?.as_str()?)?.to_owned();
        let port = u16::try_from(pair.next()?.as_unsigned()?)
            .ok()
            .filter(|&port| port != 0)?;
        Some((host, port))
    };
    value
        .and_then(Value::list)
        .into_iter()
        .flatten()
        .filter_map(node)
        .take(NODES_MAX)
        .collect()
}
