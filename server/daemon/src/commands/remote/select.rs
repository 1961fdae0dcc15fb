//! Which torrents a command is for: by info-hash, by the beginning of one, by name, by filter.

use super::Remote;
use super::columns::status_word;
use super::text::name as shown_name;
use crate::client::{Error, query};
use crate::failure::Failure;
use anyhow::anyhow;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use control::api::types::{Filter, ListQuery, Status};
use serde::Deserialize;

/// The least of an info-hash that names a torrent.
const PREFIX_DIGITS_MIN: usize = 4;
/// Torrents that are asked for at a time; the API gives no more.
const PAGE: usize = 10_000;
/// Candidates of an ambiguous name that are shown.
const CANDIDATES_MAX: usize = 10;

const STATUSES: [Status; 9] = [
    Status::Paused,
    Status::Queued,
    Status::Metadata,
    Status::Checking,
    Status::Moving,
    Status::Downloading,
    Status::Seeding,
    Status::Offline,
    Status::Failed,
];

/// Which torrents pass.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filter")]
pub struct FilterArgs {
    /// Those that are doing this; several with commas between
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = status_parser())]
    pub status: Vec<Status>,
    /// Those with this label
    #[arg(long, value_name = "LABEL")]
    pub label: Option<String>,
    /// Those in this category; '' for those in none
    #[arg(long, value_name = "NAME")]
    pub category: Option<String>,
    /// Those with this in their name, in capitals or not
    #[arg(long = "match", value_name = "TEXT")]
    pub text: Option<String>,
}

/// The status that comes behind another one, where they are gone through; none is all of them.
pub fn status_after(status: Option<Status>) -> Option<Status> {
    const ORDER: [Status; 9] = [
        Status::Downloading,
        Status::Seeding,
        Status::Paused,
        Status::Queued,
        Status::Checking,
        Status::Moving,
        Status::Metadata,
        Status::Offline,
        Status::Failed,
    ];
    let place = status.and_then(|status| ORDER.iter().position(|one| *one == status));
    ORDER.get(place.map_or(0, |place| place + 1)).copied()
}

/// Reads a status as the command line has it.
pub fn status_parser() -> impl TypedValueParser<Value = Status> {
    PossibleValuesParser::new(STATUSES.map(status_word)).map(|word| {
        let found = STATUSES.into_iter().find(|one| status_word(*one) == word);
        found.unwrap_or(Status::Failed)
    })
}

impl FilterArgs {
    /// As the API has it.
    pub fn filter(&self) -> Filter {
        Filter {
            status: self.status.clone(),
            label: self.label.clone(),
            category: self.category.clone(),
            q: self.text.clone(),
        }
    }

    /// Whether any is given.
    pub fn is_given(&self) -> bool {
        self.filter() != Filter::default()
    }
}

/// A filter as the query of a list has it.
pub fn list_query(filter: &Filter) -> ListQuery {
    let words: Vec<&str> = filter.status.iter().copied().map(status_word).collect();
    ListQuery {
        status: (!words.is_empty()).then(|| words.join(",")),
        label: filter.label.clone(),
        category: filter.category.clone(),
        q: filter.q.clone(),
        ..ListQuery::default()
    }
}

/// The torrents that a command is for.
#[derive(Debug, Args)]
pub struct Which {
    /// Info-hashes, the first 4 digits or more of one that no other has, or names
    #[arg(value_name = "TORRENT")]
    pub torrents: Vec<String>,
    /// All torrents
    #[arg(long, conflicts_with = "torrents")]
    pub all: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// What the user means.
#[derive(Debug)]
pub enum Targets {
    /// Those that pass, whichever they are.
    Filter(Filter),
    /// These, and what was named and is not there.
    Named(Vec<Named>, Vec<String>),
}

/// A torrent and its name.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Named {
    /// Its info-hash.
    pub info_hash: String,
    /// That of its version 2, if it is a hybrid.
    #[serde(default)]
    pub info_hash_v2: Option<String>,
    /// Its name.
    pub name: String,
}

#[derive(Deserialize)]
struct NamedPage {
    total: usize,
    torrents: Vec<Named>,
}

impl Which {
    /// Whether any torrent is named, in whatever way.
    pub fn is_given(&self) -> bool {
        self.all || !self.torrents.is_empty() || self.filter.is_given()
    }

    /// Finds out which torrents are meant.
    ///
    /// # Errors
    ///
    /// None is named, or a name fits several.
    pub fn targets(&self, remote: &Remote) -> Result<Targets, Failure> {
        let filter = self.filter.is_given();
        match (self.torrents.as_slice(), self.all, filter) {
            ([], false, false) => Err(Failure::Usage(anyhow!(
                "which torrents? Name them by info-hash, the beginning of one or name, or give \
                 --status, --label, --category, --match, or --all"
            ))),
            ([], true, true) => Err(Failure::Usage(anyhow!(
                "--all and a filter contradict each other: give one of them"
            ))),
            ([], _, _) => Ok(Targets::Filter(self.filter.filter())),
            (_, _, true) => Err(Failure::Usage(anyhow!(
                "torrents that are named and a filter contradict each other: give one of them"
            ))),
            (names, _, _) => {
                let (mut found, mut missing) = (Vec::new(), Vec::new());
                for (wanted, one) in names.iter().zip(find(remote, names)?) {
                    match one {
                        Some(one) if found.contains(&one) => {}
                        Some(one) => found.push(one),
                        None => missing.push(wanted.clone()),
                    }
                }
                Ok(Targets::Named(found, missing))
            }
        }
    }
}

/// The one torrent that is meant.
///
/// # Errors
///
/// There is none, or there are several.
pub fn one(remote: &Remote, wanted: &str) -> Result<Named, Failure> {
    let found = find(remote, &[wanted.to_owned()])?.pop().flatten();
    found.ok_or_else(|| Failure::Failed(anyhow!("{}: {MISSING}", shown_name(wanted))))
}

/// Why nothing is done to something that is not there.
pub const MISSING: &str = "the server has no such torrent; `seedring list` shows those it has";

/// Finds each of these.
pub fn find(remote: &Remote, wanted: &[String]) -> Result<Vec<Option<Named>>, Failure> {
    // The beginning of a hash may be that of any torrent; a name can be asked for.
    let all = match wanted.iter().any(|one| is_prefix(one) && !is_hash(one)) {
        true => Some(named(remote, None)?),
        false => None,
    };
    let mut found = Vec::new();
    for wanted in wanted {
        if is_hash(wanted) && all.is_none() {
            found.push(by_hash(remote, wanted)?);
            continue;
        }
        let asked;
        let candidates = match &all {
            Some(all) => all,
            None => {
                asked = named(remote, Some(wanted))?;
                &asked
            }
        };
        found.push(choose(wanted, candidates)?);
    }
    Ok(found)
}

/// The torrents with this in their names, or all.
fn named(remote: &Remote, text: Option<&str>) -> Result<Vec<Named>, Error> {
    passing(
        remote,
        &Filter {
            q: text.map(str::to_owned),
            ..Filter::default()
        },
    )
}

/// The torrents that pass a filter.
pub fn passing(remote: &Remote, filter: &Filter) -> Result<Vec<Named>, Error> {
    let mut all = Vec::new();
    loop {
        let asked = query(&ListQuery {
            limit: PAGE,
            offset: all.len(),
            fields: Some("info_hash,info_hash_v2,name".to_owned()),
            ..list_query(filter)
        });
        let page: NamedPage = remote.get(&format!("/torrents{asked}"))?;
        let is_last = page.torrents.is_empty() || all.len() + page.torrents.len() >= page.total;
        all.extend(page.torrents);
        if is_last {
            return Ok(all);
        }
    }
}

fn by_hash(remote: &Remote, hash: &str) -> Result<Option<Named>, Error> {
    match remote.get(&format!("/torrents/{}", hash.to_ascii_lowercase())) {
        Ok(named) => Ok(Some(named)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether it is a whole info-hash.
fn is_hash(text: &str) -> bool {
    text.len() == 40 && is_prefix(text)
}

/// Whether an info-hash may begin so.
fn is_prefix(text: &str) -> bool {
    (PREFIX_DIGITS_MIN..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The one of `candidates` that `wanted` names.
fn choose(wanted: &str, candidates: &[Named]) -> Result<Option<Named>, Failure> {
    let digits = wanted.to_ascii_lowercase();
    let begins = |hash: &str| is_prefix(wanted) && hash.starts_with(&digits);
    let fits = |one: &&Named| {
        let v2 = one.info_hash_v2.as_deref();
        one.name == wanted || begins(&one.info_hash) || v2.is_some_and(begins)
    };
    let mut fitting = candidates.iter().filter(fits);
    let (first, second) = (fitting.next(), fitting.next());
    let (Some(first), Some(second)) = (first, second) else {
        return Ok(first.cloned());
    };
    let all: Vec<&Named> = [first, second].into_iter().chain(fitting).collect();
    let mut text = format!(
        "{:?} fits {} torrents; name one by its info-hash, or by more of it:",
        shown_name(wanted),
        all.len()
    );
    for one in all.iter().take(CANDIDATES_MAX) {
        text += &format!("\n  {}  {}", one.info_hash, shown_name(&one.name));
    }
    if all.len() > CANDIDATES_MAX {
        text += &format!("\n  and {} more", all.len() - CANDIDATES_MAX);
    }
    Err(Failure::Usage(anyhow!(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> Vec<Named> {
        let named = |hash: &str, name: &str| Named {
            info_hash: hash.to_owned(),
            info_hash_v2: None,
            name: name.to_owned(),
        };
        vec![
            named("aaaa111111111111111111111111111111111111", "one"),
            named("aaaa222222222222222222222222222222222222", "two"),
            named("bbbb333333333333333333333333333333333333", "aaaa1"),
            named("cccc444444444444444444444444444444444444", "two"),
        ]
    }

    fn chosen(wanted: &str) -> Result<Option<String>, String> {
        match choose(wanted, &candidates()) {
            Ok(one) => Ok(one.map(|one| one.info_hash[..5].to_owned())),
            Err(Failure::Usage(error)) => Err(error.to_string()),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_hash_its_beginning_and_a_name_name_a_torrent() {
        assert_eq!(chosen("one"), Ok(Some("aaaa1".into())));
        assert_eq!(chosen("AAAA2"), Ok(Some("aaaa2".into())));
        assert_eq!(chosen("bbbb"), Ok(Some("bbbb3".into())));
        assert_eq!(chosen("bbb"), Ok(None), "too short");
        assert_eq!(chosen("ONE"), Ok(None), "names are exact");
        assert_eq!(chosen("dddd"), Ok(None));
    }

    #[test]
    fn what_fits_several_names_none_and_shows_them() {
        let text = chosen("aaaa").unwrap_err();
        assert!(text.contains("\"aaaa\" fits 2 torrents"), "{text}");
        assert!(text.contains("\n  aaaa111111111111111111111111111111111111  one\n"));
        assert!(chosen("two").is_err(), "two have this name");
        assert!(
            chosen("aaaa1").is_err(),
            "one has this hash, another this name"
        );
        let mut many = Vec::new();
        for number in 0..30 {
            many.push(Named {
                info_hash: format!("{number:040x}"),
                info_hash_v2: None,
                name: "x\x1b".to_owned(),
            });
        }
        let Err(Failure::Usage(error)) = choose("0000", &many) else {
            panic!("it is ambiguous");
        };
        let text = error.to_string();
        assert!(text.ends_with("\n  and 20 more"), "{text}");
        assert!(text.contains("x\\u{1b}") && !text.contains('\x1b'));
    }

    #[test]
    fn a_filter_becomes_a_query() {
        let filter = Filter {
            status: vec![Status::Seeding, Status::Paused],
            label: Some("a b&c".into()),
            category: Some(String::new()),
            q: None,
        };
        assert_eq!(
            query(&list_query(&filter)),
            "?limit=100&offset=0&sort=added&order=asc&status=seeding%2Cpaused\
             &label=a+b%26c&category="
        );
    }
}
